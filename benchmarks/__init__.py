"""What measures speed and accuracy. `python -m benchmarks` runs all and writes RESULTS.md beside this file."""
