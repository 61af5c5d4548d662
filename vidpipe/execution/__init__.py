"""Where the extraction of features runs: on this machine, or on the nodes of a Ray cluster."""
