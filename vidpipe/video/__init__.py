"""Video files in, sampled frames out: found, their packets read, frames chosen and decoded in worker processes."""
