"""The rows of a store on a regular clock, as other programs place them in time: row k at `offset + k / rate`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.datasets.people import has_tracks
from vidpipe.errors import StoreError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence

__all__ = ["Clock", "ClockedVideo", "clock_of", "on_clock"]

_ROUNDING_SECONDS = 1e-6


@dataclass(frozen=True)
class Clock:
    """When the rows of a store's videos are: row k at `offset_seconds + k / rows_per_second` after the first frame."""

    rows_per_second: float
    offset_seconds: float
    """0 for single frames; half a window for windows at a stride."""

    def times(self, num_rows: int) -> NDArray[np.float64]:
        """(T,) seconds after the first frame."""
        return self.offset_seconds + np.arange(num_rows, dtype=np.float64) / self.rows_per_second


@dataclass(frozen=True)
class ClockedVideo:
    """The features of one video, a row for each tick of a clock."""

    video_id: str
    features: NDArray[np.floating[Any]]
    """(T, D)"""
    first_seconds: float
    """Presentation time of the first frame; ticks count from it."""
    duration_seconds: float


def clock_of(store: FeatureStore) -> Clock:
    """Return the clock of a store's rows.

    Args:
        store: extracted with `--sampling fps`, or with windows at a fixed stride.

    Returns:
        The clock.

    Raises:
        StoreError: no formula gives the time of a row.
    """
    key = store.key
    if key.num_cells > 1:
        raise StoreError(
            f"{store.path}: has {key.num_cells} rows a frame, other programs read one; extract without --grid"
        )
    if has_tracks(key):
        raise StoreError(
            f"{store.path}: has rows of several people at one time, other programs read one; extract with --regions "
            "people or whole"
        )
    if key.window is not None and key.window.get("stride_seconds") is not None:
        return Clock(1 / float(key.window["stride_seconds"]), _half_window(store))
    sampling = key.resolve_sampling()
    if sampling.method != "fps" or sampling.fps is None:
        raise StoreError(
            f"{store.path}: sampled {sampling}, so the time between rows differs from video to video, and no fps, "
            "stride and offset is right; extract again with --sampling fps"
        )
    return Clock(sampling.fps, 0.0)


def on_clock(sequence: FeatureSequence, clock: Clock, key: FeatureKey) -> ClockedVideo:
    """Return a video's features with a row for each tick.

    A frame that is on screen for several ticks has one row in the store; here it has one for each.

    Args:
        sequence: the stored rows.
        clock: that of their store.
        key: that of their store.

    Returns:
        The features at 0, 1, 2 … ticks until the video's end.
    """
    first = float(sequence.start_seconds[0]) if len(sequence) else 0.0
    is_dense = key.window is not None and key.window.get("stride_seconds") is not None
    num_ticks = _num_dense(sequence, clock, first) if is_dense else _num_frames(sequence, clock)
    ticks = first + clock.times(num_ticks)
    rows = np.searchsorted(sequence.pts_seconds, ticks + _ROUNDING_SECONDS, side="right") - 1
    return ClockedVideo(sequence.video_id, sequence.features[rows.clip(min=0)], first, sequence.info.duration_seconds)


def _half_window(store: FeatureStore) -> float:
    """Where the centre of a window lies after its start, in seconds; the same in all videos, or an error."""
    window = store.key.window or {}
    before = (int(window["num_frames"]) - 1) // 2
    if window.get("fps") is not None:
        return before / float(window["fps"])
    rates = sorted({round(store.info(video_id).fps, 3) for video_id in store.ids})
    if len(rates) > 1:
        raise StoreError(
            f"{store.path}: its windows are of consecutive frames, and the videos have {rates[0]:g} to {rates[-1]:g} "
            "frames a second, so no offset is right for all; export videos of one rate, or use another backbone"
        )
    return before / rates[0] if rates else 0.0


def _num_frames(sequence: FeatureSequence, clock: Clock) -> int:
    """The ticks until the last frame's end: those for which `--sampling fps` takes a frame."""
    duration = sequence.info.duration_seconds
    if duration <= 0:
        return len(sequence)
    return max(1, int(np.ceil((duration - _ROUNDING_SECONDS) * clock.rows_per_second)))


def _num_dense(sequence: FeatureSequence, clock: Clock, first: float) -> int:
    """The windows that are at their tick; the last one is moved inward, and left out unless it is the only one."""
    late = first + clock.times(len(sequence)) - sequence.pts_seconds
    frame_seconds = 1 / sequence.info.fps if sequence.info.fps > 0 else 0.0
    is_moved = len(sequence) > 1 and late[-1] > frame_seconds + _ROUNDING_SECONDS
    return len(sequence) - int(is_moved)
