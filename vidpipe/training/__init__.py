"""What training a head consists of: fitting, calibration, selection, cross-validation, checkpoints, caveats."""
