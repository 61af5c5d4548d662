"""Windows of frames for clip backbones: index arithmetic over presentation times. No file is opened here.

W = 4     ··[─··c··─)··     four frames at the window's own rate around a sampled frame c
          [─··c··─)····     moved inward at the video's start
stride    [──c──)··         a window every S seconds, from the start of the video on
             [──c──)        the last one moved inward, so that the end is seen
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import FramePlan, Rows, Window
from vidpipe.video.sampling import ROUNDING_SECONDS

__all__ = ["plan_dense_windows", "plan_windows"]


def plan_windows(centres: Rows, window: Window, pts_seconds: NDArray[np.float64], end_seconds: float) -> FramePlan:
    """Plan a window of frames around each sampled frame.

    A window's frames are those on screen at its own rate. At the ends of the video it is moved inward; windows that
    then have the same frame at their centre are one row. A video shorter than the window gives one row of the frames
    that there are. Where even the backbone's minimum is longer, or the backbone sees only multiples of a number of
    frames, its last frame is repeated, and the row says how often.

    Args:
        centres: the sampled frames.
        window: the number of frames and their rate.
        pts_seconds: (F,) presentation times of all frames, increasing.
        end_seconds: when the last frame's presentation ends.

    Returns:
        The plan, with a row for each distinct window.
    """
    clock = _Clock.of(window, pts_seconds, end_seconds)
    first = np.clip(clock.times[centres.frame_index] - clock.before / clock.fps, clock.times[0], clock.latest)  # (T,)
    kept = clock.distinct(first)
    return _plan(clock, first[kept], centres.scene_index[kept], pts_seconds, end_seconds)


def plan_dense_windows(window: Window, pts_seconds: NDArray[np.float64], end_seconds: float) -> FramePlan:
    """Plan a window every `window.stride_seconds`: at 0, S, 2S … seconds after the first frame.

    The last one is moved inward, so that the end of the video is seen. A video that is short is handled as in
    `plan_windows`.

    Args:
        window: the number of frames, their rate and the stride.
        pts_seconds: (F,) presentation times of all frames, increasing.
        end_seconds: when the last frame's presentation ends.

    Returns:
        The plan, with a row for each distinct window.
    """
    clock = _Clock.of(window, pts_seconds, end_seconds)
    assert window.stride_seconds is not None
    duration_seconds = max(end_seconds, float(pts_seconds[-1])) - float(pts_seconds[0])
    starts = float(pts_seconds[0]) + np.arange(0.0, duration_seconds, window.stride_seconds)  # (T',)
    if window.fps is None:
        starts = (np.searchsorted(pts_seconds, starts + ROUNDING_SECONDS, side="right") - 1).astype(np.float64)
    first = np.append(starts[starts < clock.latest - ROUNDING_SECONDS], clock.latest)  # (T,)
    first = first[clock.distinct(first)]
    return _plan(clock, first, np.zeros(len(first), np.int32), pts_seconds, end_seconds)


@dataclass(frozen=True)
class _Clock:
    """A video's frames in the time in which its windows are measured: seconds, or frames where the rate is None."""

    times: NDArray[np.float64]
    """(F,)"""
    fps: float
    """Frames of a window in a unit of time."""
    num_shown: int
    """Frames of a window that are on screen at times of their own: W, or fewer in a short video."""
    num_repeated: int
    latest: float
    """Where the last window starts."""

    @classmethod
    def of(cls, window: Window, pts_seconds: NDArray[np.float64], end_seconds: float) -> Self:
        times, end, fps = pts_seconds, max(end_seconds, float(pts_seconds[-1])), window.fps
        if fps is None:
            times, end, fps = np.arange(len(pts_seconds), dtype=np.float64), float(len(pts_seconds)), 1.0
        num_ticks = max(1, int(np.ceil((end - times[0] - ROUNDING_SECONDS) * fps)))
        num_shown = min(window.num_frames, num_ticks)
        num_seen = max(window.min_frames, -(-num_shown // window.multiple) * window.multiple)
        latest = max(float(times[0]), end - num_shown / fps)
        return cls(times, fps, num_shown, max(0, num_seen - num_shown), latest)

    @property
    def before(self) -> int:
        """Frames of a window before its centre."""
        return (self.num_shown - 1) // 2

    def frames(self, first: NDArray[np.float64]) -> NDArray[np.int64]:
        """(T,) starts of windows -> (T, W) their frames."""
        places = np.minimum(np.arange(self.num_shown + self.num_repeated), self.num_shown - 1)
        return self._on_screen(first[:, None] + places / self.fps)

    def distinct(self, first: NDArray[np.float64]) -> NDArray[np.int64]:
        """(T',) starts of windows, increasing -> (T,) the positions of those whose centres are different frames."""
        return np.unique(self._on_screen(first + self.before / self.fps), return_index=True)[1]

    def _on_screen(self, ticks: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.searchsorted(self.times, ticks + ROUNDING_SECONDS, side="right").astype(np.int64) - 1


def _plan(
    clock: _Clock,
    first: NDArray[np.float64],
    scene_index: NDArray[np.int32],
    pts_seconds: NDArray[np.float64],
    end_seconds: float,
) -> FramePlan:
    """(T,) starts of windows -> their plan"""
    frames = clock.frames(first)  # (T, W)
    frame_index, row_frames = np.unique(frames, return_inverse=True)
    centre = frames[:, clock.before]
    rows = Rows(
        pts_seconds=pts_seconds[centre],
        frame_index=centre,
        scene_index=scene_index,
        start_seconds=pts_seconds[frames[:, 0]],
        stop_seconds=_ends(pts_seconds, end_seconds)[frames[:, -1]],
        num_repeated=np.full(len(frames), clock.num_repeated, np.int32) if clock.num_repeated else None,
    )
    return FramePlan(frame_index, rows, row_frames.reshape(frames.shape))


def _ends(pts_seconds: NDArray[np.float64], end_seconds: float) -> NDArray[np.float64]:
    """(F,) when each frame's presentation ends."""
    last = float(pts_seconds[-1])
    return np.append(pts_seconds[1:], end_seconds if end_seconds > last else np.nextafter(last, np.inf))
