"""`vidpipe report`: what a run folder tells, as one HTML page."""
