"""Windows of a long video: consecutive rows of a feature sequence, as many as a clip of the window's length would give.

rows      ··0···1···2···3···4···5···6···7··     each an equal part of the video
window 0   [──────────────)
window 1           [──────────────)             the next one, a stride later
cut                  |                           where the picture changes at once: no window crosses it
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.errors import UsageError
from vidpipe.records import FeatureSequence
from vidpipe.video.sampling import frames_per_clip

__all__ = [
    "MAX_WINDOWS_OF_SHOT",
    "ROUNDING_SECONDS",
    "STRIDES_PER_WINDOW",
    "RowGrid",
    "Windows",
    "cut_windows",
    "find_cuts",
    "grid_of",
    "grid_of_part",
    "rows_between",
    "spans_of_shot",
]

ROUNDING_SECONDS = 1e-6
STRIDES_PER_WINDOW = 4
"""By default a window starts a quarter of its length after the one before it."""
MIN_CUT_DISTANCE, MIN_CUT_RATIO = 0.2, 2.5
"""Of neighbouring rows at a cut: their cosine distance, and its ratio to the mean of the four distances around it. In
12 videos joined from 120 clips (efficientnet_lite0, 8 rows a second) they find 0.98 of the cuts, and 0.99 of what they
find are cuts."""

MAX_WINDOWS_OF_SHOT = 1.5
"""A shot, or a video, that is no longer than this many windows is one window."""


@dataclass(frozen=True)
class RowGrid:
    """The time of each row of a video that is sampled at even distances."""

    edges_seconds: NDArray[np.float64]
    """(T + 1,) row i stands for `[edges_seconds[i], edges_seconds[i + 1])`; together they are the whole video."""
    rows_per_window: int
    """Of a window, at least 1."""

    @property
    def num_rows(self) -> int:
        """T"""
        return len(self.edges_seconds) - 1


@dataclass(frozen=True)
class Windows:
    """W windows of a video, in order of time."""

    first_row: NDArray[np.int64]
    """(W,)"""
    stop_row: NDArray[np.int64]
    """(W,) the row after the last one."""
    edges_seconds: NDArray[np.float64]
    """(T + 1,) of the rows."""

    def __len__(self) -> int:
        return len(self.first_row)

    @property
    def start_seconds(self) -> NDArray[np.float64]:
        """(W,)"""
        return self.edges_seconds[self.first_row]

    @property
    def stop_seconds(self) -> NDArray[np.float64]:
        """(W,)"""
        return self.edges_seconds[self.stop_row]


def grid_of(sequence: FeatureSequence, sampling: Sampling, window_seconds: float, *, num_cells: int = 1) -> RowGrid:
    """Find the time of each row of a sequence, and the number of rows of a window.

    Args:
        sequence: the features of a video.
        sampling: how its frames were sampled: at a rate, or uniformly in clips of the window's length. A video that
            was sampled as a whole is one window.
        window_seconds: the length of a window.
        num_cells: rows of each picture.

    Returns:
        The grid.

    Raises:
        UsageError: the sampling is by scene or of key frames.
    """
    if sampling.method in ("scene", "keyframe"):
        frames = "frames of each scene" if sampling.method == "scene" else "key frames"
        raise UsageError(
            f"{frames} are at uneven distances, so windows of a long video have no fixed length; extract and train "
            "with --sampling uniform or fps"
        )
    pts_seconds, frame_index = sequence.pts_seconds[::num_cells], sequence.rows.frame_index[::num_cells]
    fps, duration_seconds = sequence.info.fps, sequence.info.duration_seconds
    start_seconds = float(pts_seconds[0]) - (int(frame_index[0]) / fps if fps > 0 else 0.0)
    start_seconds = max(start_seconds, min(0.0, float(pts_seconds[0])))  # the mean rate may put it before the video
    stop_seconds = max(start_seconds + duration_seconds, float(pts_seconds[-1]) + ROUNDING_SECONDS)
    if sampling.method == "fps":
        assert sampling.fps is not None
        edges = np.append(pts_seconds, stop_seconds)
        return RowGrid(edges, max(1, round(window_seconds * sampling.fps)))
    assert sampling.num_frames is not None
    num_rows = len(pts_seconds)
    if sampling.clip_seconds is None or duration_seconds <= sampling.clip_seconds + ROUNDING_SECONDS:
        return RowGrid(np.linspace(start_seconds, stop_seconds, num_rows + 1), num_rows)
    per_clip = frames_per_clip(fps, sampling.clip_seconds)
    frames_of_row = max(1.0, per_clip / sampling.num_frames)
    inner = np.interp(np.arange(1, num_rows) * frames_of_row, frame_index, pts_seconds)
    edges = np.concatenate([[start_seconds], inner, [stop_seconds]])
    return RowGrid(edges, min(sampling.num_frames, per_clip, num_rows))


def grid_of_part(
    sequence: FeatureSequence, sampling: Sampling, window_seconds: float, *, num_cells: int = 1
) -> RowGrid:
    """Find the time of each row of a part of a video: a row lasts until the middle between it and the next.

    Args:
        sequence: some consecutive rows of a video, as those of one person.
        sampling: as for `grid_of`.
        window_seconds: the length of a window.
        num_cells: rows of each picture.

    Returns:
        The grid; it is of the time of these rows alone. A window has as many rows as one of the whole video.

    Raises:
        UsageError: the sampling is by scene or of key frames.
    """
    whole = grid_of(sequence, sampling, window_seconds, num_cells=num_cells)
    if sampling.method == "fps":
        stop_seconds = min(whole.edges_seconds[-1], whole.edges_seconds[-2] + 1 / (sampling.fps or 1))
        return RowGrid(np.append(whole.edges_seconds[:-1], stop_seconds), whole.rows_per_window)
    pts_seconds = sequence.pts_seconds[::num_cells]
    video_stop = float(whole.edges_seconds[-1])
    if len(pts_seconds) == 1:
        start, stop = float(pts_seconds[0]), max(float(sequence.stop_seconds[-1]), float(pts_seconds[0]) + 1e-6)
        return RowGrid(np.array([start, stop]), 1)
    middles = (pts_seconds[1:] + pts_seconds[:-1]) / 2
    first = max(float(whole.edges_seconds[0]), 2 * pts_seconds[0] - middles[0])
    last = min(video_stop, 2 * pts_seconds[-1] - middles[-1])
    return RowGrid(np.concatenate([[first], middles, [last]]), min(whole.rows_per_window, len(pts_seconds)))


def find_cuts(features: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Find the rows at which the picture changes at once, as between two shots of a film.

    Two neighbouring rows differ much, and much more than those around them, as in PySceneDetect's adaptive detector.

    Args:
        features: (T, D) of an image backbone, in order of time.

    Returns:
        The first row of each shot but the first one.
    """
    if len(features) < 2:
        return np.empty(0, np.int64)
    rows = features.astype(np.float32, copy=False)
    length = np.sqrt(np.einsum("td,td->t", rows, rows)).clip(min=1e-12)
    distance = 1 - np.einsum("td,td->t", rows[1:], rows[:-1]) / (length[1:] * length[:-1])  # (T - 1,)
    around = np.pad(distance, 2, mode="edge")
    mean = (around[:-4] + around[1:-3] + around[3:-1] + around[4:]) / 4
    return np.flatnonzero((distance >= MIN_CUT_DISTANCE) & (distance >= MIN_CUT_RATIO * mean)) + 1


def cut_windows(grid: RowGrid, stride_seconds: float, cuts: NDArray[np.int64] | None = None) -> Windows:
    """Cut each shot of a video into windows that overlap; the last one is moved inward, so that its end is seen.

    Args:
        grid: of the video's rows.
        stride_seconds: from the start of a window to the start of the next; at least one row.
        cuts: from `find_cuts`; None for a video of one shot.

    Returns:
        The windows; one for a shot that is no longer than one and a half.
    """
    row_seconds = float(grid.edges_seconds[-1] - grid.edges_seconds[0]) / grid.num_rows
    step = max(1, round(stride_seconds / row_seconds))
    edges = [0, *([] if cuts is None else cuts.tolist()), grid.num_rows]
    spans = np.concatenate([spans_of_shot(*shot, grid.rows_per_window, step) for shot in pairwise(edges)])
    return Windows(spans[:, 0], spans[:, 1], grid.edges_seconds)


def spans_of_shot(start: int, stop: int, length: int, step: int) -> NDArray[np.int64]:
    """Cut one shot into windows.

    Args:
        start: its first row.
        stop: the row after its last one.
        length: rows of a window.
        step: rows from the start of a window to the start of the next.

    Returns:
        (W, 2) the first row of each window, and the row after its last one.
    """
    if stop - start <= MAX_WINDOWS_OF_SHOT * length:
        return np.array([[start, stop]])
    first = np.unique(np.append(np.arange(start, stop - length, step), stop - length))
    return np.stack([first, first + length], axis=1)


def rows_between(pts_seconds: NDArray[np.float64], windows: Windows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the rows of another stream that lie in the windows.

    Args:
        pts_seconds: (T',) centres of the stream's rows, increasing.
        windows: of the video.

    Returns:
        (W,) the first row of each window, and (W,) the row after its last one; each window has at least one row.
    """
    num_rows = len(pts_seconds)
    first = np.searchsorted(pts_seconds, windows.start_seconds - ROUNDING_SECONDS).clip(max=num_rows - 1)
    stop = np.searchsorted(pts_seconds, windows.stop_seconds - ROUNDING_SECONDS)
    return first, np.maximum(stop, first + 1)
