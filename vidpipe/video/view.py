"""What a stream needs of each video: which rows, and pictures of which size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FramePlan, Preprocessing, VideoPlan, Window
from vidpipe.video.reader import VideoReader
from vidpipe.video.sampling import plan_frames, plan_of_frames
from vidpipe.video.windows import plan_dense_windows, plan_windows

__all__ = ["Detect", "FindScenes", "Look", "Planner", "View", "plan_video", "plan_views"]

FindScenes = Callable[[], Sequence[tuple[int, int]]]
"""Returns the [start, stop) frame indices of each scene of a video; they are detected at the first call."""


def plan_video(reader: VideoReader, view: "View", find_scenes: FindScenes) -> FramePlan:
    """Plan the rows of an open video: a sampled frame each, a window of frames around it, or windows at a fixed stride.

    It is a `Planner`.

    Args:
        reader: the video.
        view: gives the sampling and the window.
        find_scenes: detects the scenes.

    Returns:
        The plan.

    Raises:
        DecodeError: a frame cannot be decoded while scenes or key frames are found.
    """
    if view.window is not None and view.window.stride_seconds is not None:
        return plan_dense_windows(view.window, reader.pts_seconds, reader.end_seconds)
    if view.sampling.method == "keyframe":
        assert view.sampling.num_frames is not None
        index = reader.find_key_frames(view.sampling.num_frames)
        return plan_of_frames(reader.pts_seconds, index)
    scenes = find_scenes() if view.sampling.method == "scene" else ()
    frames = plan_frames(view.sampling, reader.pts_seconds, reader.end_seconds, scenes)
    if view.window is None:
        return frames
    return plan_windows(frames.rows, view.window, reader.pts_seconds, reader.end_seconds)


Planner = Callable[[VideoReader, "View", FindScenes], FramePlan]
"""Plans the frames and rows of an open video. It is sent to the decoding processes, so it is a function of a module."""

Detect = Callable[[NDArray[np.uint8]], Sequence[Any]]
"""Finds objects in frames (N, H, W, 3): N records. It can be sent and compared."""


class Look(Protocol):
    """What is computed from the objects that are found in a frame. It can be sent and compared.

    Looks with equal detectors share what is found: each frame is searched once.
    """

    @property
    def detect(self) -> Detect:
        """Finds the objects."""
        ...

    def read(self, found: Any, frame: NDArray[np.uint8]) -> NDArray[Any]:
        """Compute an array from what is found in one frame.

        Args:
            found: a record of `detect`.
            frame: (H, W, 3) in which it is found.

        Returns:
            An array of the same shape for frames of the same size.
        """
        ...


@dataclass(frozen=True)
class View:
    """What a stream needs of each video."""

    sampling: Sampling
    preprocessing: Preprocessing
    """How pictures are resized and cropped."""
    window: Window | None = None
    """The frames of a row; None where a row is one frame."""
    planner: Planner = plan_video
    hidden: Look | None = None
    """Gives the pixels of a frame to paint over with the mean colour of the preprocessing, (H, W) bool; None where all
    are seen."""
    described: Look | None = None
    """Gives the feature of a frame, (D,) float32, in place of a picture for a backbone; None where there is one."""


def plan_views(reader: VideoReader, views: Mapping[str, View]) -> VideoPlan:
    """Plan an open video for several streams; its scenes are detected once at most.

    Args:
        reader: the video.
        views: by stream.

    Returns:
        The plans.

    Raises:
        DecodeError: a frame cannot be decoded while scenes are detected.
    """

    @cache
    def find() -> Sequence[tuple[int, int]]:
        from vidpipe.video.scenes import find_scenes

        return find_scenes(reader)

    return VideoPlan({name: view.planner(reader, view, find) for name, view in views.items()})
