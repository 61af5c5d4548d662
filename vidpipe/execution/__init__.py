"""Where the extraction of features runs: on this machine."""
