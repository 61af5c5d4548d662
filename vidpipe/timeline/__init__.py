"""Timelines of long videos: segments, their metrics, and the formats in which they are exchanged."""
