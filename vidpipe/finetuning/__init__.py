"""Fine-tuning: frames in a cache, changes of clips, a backbone that learns, and the training loop."""
