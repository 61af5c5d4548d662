"""Search in feature stores: similar videos, duplicates, clusters, and embeddings learned for it."""
