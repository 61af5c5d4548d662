"""Video files in, sampled pictures out: finding files, reading packets, sampling, and decoding in worker processes."""
