"""`vidpipe report`: a run, or a comparison of runs, as one HTML page."""
