"""Measure speed, accuracy and reliability. `python -m benchmarks` writes RESULTS.md beside this file."""

import vidpipe.cli  # noqa: F401  for the thread policy that the command line sets
