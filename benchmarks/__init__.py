"""What measures speed and accuracy. `python -m benchmarks` runs all and writes RESULTS.md beside this file."""

import vidpipe.cli  # noqa: F401  for the thread policy that the command line sets
