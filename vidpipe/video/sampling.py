"""Which frames to take: index arithmetic over presentation times. No file is opened here.

uniform, N = 3      ..x....x....x..      the middle of each of N equal parts
fps, 2 a second     x.....x.....x..      the frame on screen at 0, 0.5, 1 s …
scene, N = 1        ..x..|...x...|x.      the uniform rule, scene by scene
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FramePlan

__all__ = ["fps_indices", "plan_frames", "uniform_indices"]

ROUNDING_SECONDS = 1e-6
"""Less than any container's tick that matters; keeps k / fps from falling a rounding error before its frame."""


def uniform_indices(num_frames_in_video: int, num_frames: int) -> NDArray[np.int64]:
    """The middle frame of each of `num_frames` equal parts: floor((i + 0.5) · F / N).

    A video with fewer frames than asked for gives each once.
    """
    if num_frames >= num_frames_in_video:
        return np.arange(num_frames_in_video, dtype=np.int64)
    part = np.arange(num_frames, dtype=np.int64)
    return (2 * part + 1) * num_frames_in_video // (2 * num_frames)


def fps_indices(pts_seconds: NDArray[np.float64], end_seconds: float, fps: float) -> NDArray[np.int64]:
    """The frame on screen at k / fps seconds after the first frame, for k = 0, 1, … until the last frame's end.

    Args:
        pts_seconds: (F,) presentation times, increasing.
        end_seconds: when the last frame's presentation ends.
        fps: frames per second to take, above 0. Where it exceeds the video's own rate, each frame comes once.
    """
    duration_seconds = max(end_seconds, float(pts_seconds[-1])) - float(pts_seconds[0])
    num_ticks = max(1, int(np.ceil((duration_seconds - ROUNDING_SECONDS) * fps)))
    ticks_seconds = float(pts_seconds[0]) + np.arange(num_ticks) / fps
    on_screen = np.searchsorted(pts_seconds, ticks_seconds + ROUNDING_SECONDS, side="right") - 1
    return np.unique(on_screen).astype(np.int64)


def plan_frames(
    sampling: Sampling,
    pts_seconds: NDArray[np.float64],
    end_seconds: float,
    scenes: Sequence[tuple[int, int]] = (),
) -> FramePlan:
    """The frames that a sampling takes of a video.

    Args:
        sampling: the method and its parameter.
        pts_seconds: (F,) presentation times of all frames, increasing.
        end_seconds: when the last frame's presentation ends.
        scenes: [start, stop) frame indices of each scene; used by `scene` alone.
    """
    if sampling.method == "fps":
        assert sampling.fps is not None
        index = fps_indices(pts_seconds, end_seconds, sampling.fps)
        return _plan(pts_seconds, index, np.zeros(len(index), np.int32))
    assert sampling.num_frames is not None
    if sampling.method == "uniform":
        scenes = [(0, len(pts_seconds))]
    parts = [start + uniform_indices(stop - start, sampling.num_frames) for start, stop in scenes]
    scene_index = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    return _plan(pts_seconds, np.concatenate(parts), scene_index)


def _plan(pts_seconds: NDArray[np.float64], index: NDArray[np.int64], scene_index: NDArray[np.int32]) -> FramePlan:
    return FramePlan(frame_index=index, pts_seconds=pts_seconds[index], scene_index=scene_index)
