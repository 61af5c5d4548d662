"""Windows of frames for clip backbones: index arithmetic over presentation times. No file is opened here.

W = 4     ··[─··c··─)··     four frames at the window's own rate around a sampled frame c
          [─··c··─)····     moved inward at the video's start
"""

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import FramePlan, Rows, Window
from vidpipe.video.sampling import ROUNDING_SECONDS

__all__ = ["plan_windows"]


def plan_windows(centres: Rows, window: Window, pts_seconds: NDArray[np.float64], end_seconds: float) -> FramePlan:
    """Plan a window of frames around each sampled frame.

    A window's frames are those on screen at its own rate. At the ends of the video it is moved inward; windows that
    then have the same frame at their centre are one row. A video shorter than the window gives one row of the frames
    that there are. Where even the backbone's minimum is longer, its last frame is repeated, and the row says how often.

    Args:
        centres: the sampled frames.
        window: the number of frames and their rate.
        pts_seconds: (F,) presentation times of all frames, increasing.
        end_seconds: when the last frame's presentation ends.

    Returns:
        The plan, with a row for each distinct window.
    """
    times, end = pts_seconds, max(end_seconds, float(pts_seconds[-1]))
    fps = window.fps
    if fps is None:  # one frame each unit of time
        times, end, fps = np.arange(len(pts_seconds), dtype=np.float64), float(len(pts_seconds)), 1.0
    num_ticks = max(1, int(np.ceil((end - times[0] - ROUNDING_SECONDS) * fps)))
    num_shown = min(window.num_frames, num_ticks)
    num_frames = max(num_shown, window.min_frames)
    before = (num_shown - 1) // 2  # frames of a window before its centre
    latest = max(times[0], end - num_shown / fps)
    first = np.clip(times[centres.frame_index] - before / fps, times[0], latest)  # (T,)
    ticks = first[:, None] + np.minimum(np.arange(num_frames), num_shown - 1) / fps  # (T, W)
    frames = np.searchsorted(times, ticks + ROUNDING_SECONDS, side="right") - 1
    centre, kept = np.unique(frames[:, before], return_index=True)
    frames = frames[kept]
    frame_index, row_frames = np.unique(frames, return_inverse=True)
    num_repeated = num_frames - num_shown
    rows = Rows(
        pts_seconds=pts_seconds[centre],
        frame_index=centre,
        scene_index=centres.scene_index[kept],
        start_seconds=pts_seconds[frames[:, 0]],
        stop_seconds=_ends(pts_seconds, end_seconds)[frames[:, -1]],
        num_repeated=np.full(len(kept), num_repeated, np.int32) if num_repeated else None,
    )
    return FramePlan(frame_index, rows, row_frames.reshape(frames.shape))


def _ends(pts_seconds: NDArray[np.float64], end_seconds: float) -> NDArray[np.float64]:
    """(F,) when each frame's presentation ends."""
    last = float(pts_seconds[-1])
    return np.append(pts_seconds[1:], end_seconds if end_seconds > last else np.nextafter(last, np.inf))
