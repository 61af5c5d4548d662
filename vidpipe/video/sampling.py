"""Which frames to sample: index arithmetic over presentation times. No file is opened here.

uniform, N = 3      ..x....x....x..      the middle of each of N equal intervals
of clips, N = 2     .x..x..|.x..x..|.x   the uniform rule for clips of a given length, one after the other
fps, 2 a second     x.....x.....x..      the frame on screen at 0, 0.5, 1 s …
scene, N = 1        ..x..|...x...|x.      the uniform rule, scene by scene
keyframe, N = 2     K..K...X..K..X..      the uniform rule over the key frames K
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FramePlan, Rows

__all__ = [
    "ROUNDING_SECONDS",
    "clip_indices",
    "fps_indices",
    "frames_per_clip",
    "key_frame_indices",
    "plan_frames",
    "plan_of_frames",
    "uniform_indices",
]

ROUNDING_SECONDS = 1e-6
"""Shorter than a tick of any common container. Added to k / fps, so that a rounding error does not put it before its
frame."""

_TIE_FRAMES = 0.02
"""Rounds up a clip of 14 frames, which lies between 12 and 16, whatever the rounding error of its mean frame rate."""


def uniform_indices(num_frames_in_video: int, num_frames: int) -> NDArray[np.int64]:
    """Return the middle frame of each of `num_frames` equal intervals of a video: floor((i + 0.5) · F / N).

    A video with fewer frames than that gives each frame once.
    """
    if num_frames >= num_frames_in_video:
        return np.arange(num_frames_in_video, dtype=np.int64)
    interval = np.arange(num_frames, dtype=np.int64)
    return (2 * interval + 1) * num_frames_in_video // (2 * num_frames)


def key_frame_indices(key_index: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
    """Return key frames by the uniform rule.

    Args:
        key_index: (K,) the numbers of a video's key frames, increasing. A video without any gives its first frame.
        num_frames: the most to return.

    Returns:
        (T,) frame indices, strictly increasing.
    """
    if not len(key_index):
        return np.zeros(1, np.int64)
    return key_index[uniform_indices(len(key_index), num_frames)]


def clip_indices(num_frames_in_video: int, num_frames: int, frames_per_clip: int) -> NDArray[np.int64]:
    """Return the frames that `uniform_indices` takes of each clip, where a video is cut into clips of equal length.

    The intervals continue past the last whole clip: floor((j + 0.5) · C / N) for j = 0, 1, … A video no longer than a
    clip is one clip.

    Args:
        num_frames_in_video: F.
        num_frames: N, the frames of each clip.
        frames_per_clip: C, from `frames_per_clip`.

    Returns:
        (T,) frame indices, strictly increasing.
    """
    if num_frames_in_video <= frames_per_clip:
        return uniform_indices(num_frames_in_video, num_frames)
    if num_frames >= frames_per_clip:
        return np.arange(num_frames_in_video, dtype=np.int64)
    num_intervals = -(-num_frames_in_video * num_frames // frames_per_clip)
    index = (2 * np.arange(num_intervals, dtype=np.int64) + 1) * frames_per_clip // (2 * num_frames)
    return index[index < num_frames_in_video]


def frames_per_clip(fps: float, clip_seconds: float) -> int:
    """Return the number of frames of a clip: a multiple of 4, so that clips that begin a quarter later share frames.

    Args:
        fps: frames per second of the video, on average.
        clip_seconds: the clip's length.

    Returns:
        C, at least 4.
    """
    return 4 * max(1, round((fps * clip_seconds + _TIE_FRAMES) / 4))


def fps_indices(pts_seconds: NDArray[np.float64], end_seconds: float, fps: float) -> NDArray[np.int64]:
    """Return the frames on screen at k / fps seconds after the first frame, for k = 0, 1, … until the last frame's end.

    Args:
        pts_seconds: (F,) presentation times, increasing.
        end_seconds: when the last frame's presentation ends.
        fps: frames per second to take, above 0. Where it exceeds the video's own rate, each frame comes once.

    Returns:
        (T,) frame indices, strictly increasing.
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
    """Plan the frames that a sampling takes of a video, other than `keyframe`: each frame makes one row.

    Args:
        sampling: the method and its parameter.
        pts_seconds: (F,) presentation times of all frames, increasing.
        end_seconds: when the last frame's presentation ends.
        scenes: [start, stop) frame indices of each scene; used by `scene` alone.

    Returns:
        The plan.
    """
    if sampling.method == "fps":
        assert sampling.fps is not None
        index = fps_indices(pts_seconds, end_seconds, sampling.fps)
        return plan_of_frames(pts_seconds, index)
    assert sampling.num_frames is not None
    if sampling.clip_seconds is not None:
        index = _indices_of_clips(sampling.num_frames, sampling.clip_seconds, pts_seconds, end_seconds)
        return plan_of_frames(pts_seconds, index)
    if sampling.method == "uniform":
        scenes = [(0, len(pts_seconds))]
    by_scene = [start + uniform_indices(stop - start, sampling.num_frames) for start, stop in scenes]
    scene_index = np.repeat(np.arange(len(by_scene), dtype=np.int32), [len(index) for index in by_scene])
    return _plan(pts_seconds, np.concatenate(by_scene), scene_index)


def _indices_of_clips(
    num_frames: int, clip_seconds: float, pts_seconds: NDArray[np.float64], end_seconds: float
) -> NDArray[np.int64]:
    """The frames of clips; a video that is no longer than a clip in seconds is one clip."""
    duration_seconds = end_seconds - float(pts_seconds[0])
    if duration_seconds <= clip_seconds + ROUNDING_SECONDS:
        return uniform_indices(len(pts_seconds), num_frames)
    return clip_indices(
        len(pts_seconds), num_frames, frames_per_clip(len(pts_seconds) / duration_seconds, clip_seconds)
    )


def plan_of_frames(pts_seconds: NDArray[np.float64], index: NDArray[np.int64]) -> FramePlan:
    """Plan a row for each of some frames.

    Args:
        pts_seconds: (F,) presentation times of all frames, increasing.
        index: (T,) the frames, strictly increasing.

    Returns:
        The plan.
    """
    return _plan(pts_seconds, index, np.zeros(len(index), np.int32))


def _plan(pts_seconds: NDArray[np.float64], index: NDArray[np.int64], scene_index: NDArray[np.int32]) -> FramePlan:
    return FramePlan(index, Rows(pts_seconds=pts_seconds[index], frame_index=index, scene_index=scene_index))
