"""Formats of timelines: each module reads and writes one, or two that are alike."""
