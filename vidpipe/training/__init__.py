"""Train a head: fit, calibrate, select, cross-validate, checkpoint, and warn about the metrics."""
