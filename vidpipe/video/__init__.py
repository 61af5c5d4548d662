"""Video files in, sampled frames out: finding files, reading packets, choosing frames, decoding them in worker processes."""
