"""Labels, splits that do not leak, and sequences padded into batches."""
