"""Detection networks of vidpipe's own, for training and with published weights."""
