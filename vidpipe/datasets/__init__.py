"""Labels, groups, splits, leaks, and labelled feature sequences in padded batches."""
