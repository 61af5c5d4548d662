"""Segments as a label for each frame of a regular grid, and back."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Segment, Timeline

__all__ = ["BACKGROUND", "frame_labels", "grid_frames", "labels_at", "segments_of_frames"]

BACKGROUND = "background"
"""The label of frames that no segment covers, unless another is chosen."""


def labels_at(
    segments: Sequence[Segment], seconds: NDArray[np.floating[Any]], *, background: str = BACKGROUND
) -> list[str]:
    """Return the label at each time: of the segment that covers it, or `background`.

    Where segments overlap, the most probable one counts; without probabilities, the one that starts last.

    Args:
        segments: the segments of one video.
        seconds: (T,) the times.
        background: the label of times that no segment covers.

    Returns:
        T labels.
    """
    labels = np.full(len(seconds), background, dtype=object)
    for segment in sorted(segments, key=lambda one: (one.probability or 0.0, one.start_seconds)):
        labels[(segment.start_seconds <= seconds) & (seconds < segment.stop_seconds)] = segment.label
    return labels.tolist()


def grid_frames(timeline: Timeline, fps: float) -> int:
    """Return how many frames of `1 / fps` seconds a video has; where its duration is unknown, up to its last stop."""
    last = max((one.stop_seconds for one in timeline.segments), default=0.0)
    seconds = last if timeline.duration_seconds is None else timeline.duration_seconds
    return round(seconds * fps)


def frame_labels(
    timeline: Timeline, *, fps: float, num_frames: int | None = None, background: str = BACKGROUND
) -> list[str]:
    """Return the label at the centre of each frame of a grid: frame k is `[k / fps, (k + 1) / fps)`.

    Args:
        timeline: the segments of one video.
        fps: frames per second of the grid.
        num_frames: the length of the grid; None for that of the video.
        background: the label of frames that no segment covers.

    Returns:
        A label for each frame.
    """
    length = grid_frames(timeline, fps) if num_frames is None else num_frames
    return labels_at(timeline.segments, (np.arange(length, dtype=np.float64) + 0.5) / fps, background=background)


def _runs_of(labels: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield each run of equal labels with its first index and the index after its last: `aab` -> a 0 2, b 2 3."""
    start = 0
    for stop in range(1, len(labels) + 1):
        if stop == len(labels) or labels[stop] != labels[start]:
            yield labels[start], start, stop
            start = stop


def segments_of_frames(labels: Sequence[str], *, fps: float, background: str = BACKGROUND) -> tuple[Segment, ...]:
    """Return the runs of equal labels as segments, without background.

    Args:
        labels: a label for each frame.
        fps: frames per second; frame k is `[k / fps, (k + 1) / fps)`.
        background: the label that is no segment.

    Returns:
        The segments in order of time.
    """
    return tuple(
        Segment(start / fps, stop / fps, label) for label, start, stop in _runs_of(labels) if label != background
    )
