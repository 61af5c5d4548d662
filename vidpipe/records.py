"""What flows between the rooms: plain, frozen, checked records. Arrays are NumPy; no torch is needed to hold one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NONE_OF_THESE",
    "UNKNOWN_SOURCE",
    "DecodeProgress",
    "FeatureSequence",
    "FrameBatch",
    "FramePlan",
    "LabeledVideo",
    "Prediction",
    "Preprocessing",
    "VideoFailure",
    "VideoFile",
    "VideoInfo",
    "VideoSource",
]

NONE_OF_THESE = "none of these"
"""The answer where no class is as probable as was asked for."""


@dataclass(frozen=True)
class VideoFile:
    """A video to read, and the name it goes by."""

    id: str
    """Path relative to the folder given, with `/`."""
    path: Path
    root: Path | None = None
    """The folder that the id is relative to, absolute; None where the video was not found in one."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, as its packets and its decoder say (not its header)."""

    num_frames: int
    duration_seconds: float
    """From the first frame's presentation to the last frame's end."""
    fps: float
    """Frames per second, on average."""
    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    codec: str
    decoder: str
    """Which decoder gave the frames: `decord` or `pyav`."""
    damaged: bool
    """Whether a part of it could not be decoded, or not rightly."""
    lost_packets: int
    """Packets that gave no frame, those included that the header tells of and the file does not hold."""
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of_file(
        cls,
        path: Path,
        pts_seconds: NDArray[np.float64],
        end_seconds: float,
        *,
        width: int,
        height: int,
        codec: str,
        decoder: str,
        damaged: bool = False,
        lost_packets: int = 0,
    ) -> Self:
        """What a reader found out about a file, with the file's own size and time.

        Args:
            path: the file.
            pts_seconds: (F,) presentation times of all frames, increasing.
            end_seconds: when the last frame's presentation ends.
        """
        duration_seconds = end_seconds - float(pts_seconds[0])
        stat = path.stat()
        return cls(
            num_frames=len(pts_seconds),
            duration_seconds=duration_seconds,
            fps=len(pts_seconds) / duration_seconds if duration_seconds > 0 else 0.0,
            width=width,
            height=height,
            codec=codec,
            decoder=decoder,
            damaged=damaged,
            lost_packets=lost_packets,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
        )


@dataclass(frozen=True)
class VideoSource:
    """Where a stored video's file was found, and what tells it from other files; empty texts where it is not known."""

    root: str = ""
    """The folder that the id is relative to: absolute, links resolved."""
    path: str = ""
    """The file's path relative to `root`, or its absolute path where it does not lie below."""
    fingerprint: str = ""
    """sha256 of the file's size and of parts of its content; see `vidpipe.features.sources.fingerprint_of`."""


UNKNOWN_SOURCE = VideoSource()


@dataclass(frozen=True)
class FramePlan:
    """Which frames of a video to decode, in presentation order."""

    frame_index: NDArray[np.int64]
    """(T,) strictly increasing, counted in presentation order from 0."""
    pts_seconds: NDArray[np.float64]
    """(T,) presentation times, as the container gives them."""
    scene_index: NDArray[np.int32]
    """(T,) the scene that each frame belongs to; 0 unless sampled by scene."""

    def __post_init__(self) -> None:
        if not len(self.frame_index) == len(self.pts_seconds) == len(self.scene_index):
            raise ValueError(f"a plan's columns differ in length: {self!r}")
        if np.any(np.diff(self.frame_index) <= 0):
            raise ValueError("a plan asks for each frame once, in order")

    def __len__(self) -> int:
        return len(self.frame_index)

    def __repr__(self) -> str:
        return f"FramePlan(T={len(self.frame_index)})"


@dataclass(frozen=True)
class FrameBatch:
    """Decoded frames of one video: `frames[i]` is frame `plan.frame_index[start + i]`."""

    video: VideoFile
    info: VideoInfo
    plan: FramePlan
    """The whole video's plan, of which these frames are a part."""
    start: int
    frames: NDArray[np.uint8]
    """(T, 3, H, W) RGB."""
    seconds: float = 0.0
    """What decoding them took."""
    worker: int = 0
    """The id of the process that decoded them."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(f"frames are (T, 3, H, W) uint8, got {self.frames.shape} {self.frames.dtype}")
        if self.start + len(self.frames) > len(self.plan):
            raise ValueError(f"{len(self.frames)} frames from {self.start} on do not fit a plan of {len(self.plan)}")

    def __repr__(self) -> str:
        return f"FrameBatch({self.video.id!r}, start={self.start}, frames={self.frames.shape})"


@dataclass(frozen=True)
class DecodeProgress:
    """A sign of life from a video in hand."""

    video_id: str
    num_done: int
    """Packets and frames read so far; where `num_planned` is known, frames of the plan that are done."""
    num_planned: int | None = None
    """T, once it is known."""


@dataclass(frozen=True)
class FeatureSequence:
    """The features of one video, a row for each sampled frame."""

    video_id: str
    features: NDArray[np.floating[Any]]
    """(T, D)"""
    plan: FramePlan
    info: VideoInfo
    source: VideoSource = UNKNOWN_SOURCE

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.plan):
            raise ValueError(f"features are (T, D) with T = {len(self.plan)}, got {self.features.shape}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(T,) presentation times in seconds."""
        return self.plan.pts_seconds

    def __repr__(self) -> str:
        return f"FeatureSequence({self.video_id!r}, features={self.features.shape})"


@dataclass(frozen=True)
class VideoFailure:
    """A video that could not be read, and why."""

    video_id: str
    error: str
    """The error's kind: a class name of `vidpipe.errors`."""
    message: str


@dataclass(frozen=True)
class LabeledVideo:
    """What a labels file, or a folder's name, says of one video."""

    video_id: str
    label: str
    split: str | None = None
    """`train`, `val` or `test`; None where nothing says."""
    group: str | None = None
    """Clips of one group never stand on both sides of a split."""
    split_source: str = field(default="the labels", compare=False)
    """What gives the split, in words."""

    @property
    def unit(self) -> str:
        """What is never divided: the video's group, or the video where it has none."""
        return f"group {self.group}" if self.group else f"video {self.video_id}"


@dataclass(frozen=True)
class Prediction:
    """The classes that a model finds most probable for one video, or why there are none."""

    video_id: str
    labels: tuple[str, ...] = ()
    """Most probable first."""
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    is_unknown: bool = False
    """Whether no class is as probable as was asked for: none of these. The classes are given all the same."""
    is_learned: bool = False
    """Whether the run learned from a video of the same file name and size."""
    num_frames: int = 0
    """T, the sampled frames; 0 where the video failed."""
    duration_seconds: float = 0.0
    """Of the video; 0 where it failed."""

    @property
    def status(self) -> str:
        """`ok`, `unknown` or `failed`."""
        return "failed" if self.error is not None else "unknown" if self.is_unknown else "ok"

    @property
    def label(self) -> str | None:
        """The answer: the most probable class, or `NONE_OF_THESE`; None where the video failed."""
        return None if self.error is not None else NONE_OF_THESE if self.is_unknown else self.labels[0]

    @property
    def probability(self) -> float | None:
        """Of the most probable class, whether it is the answer or not; None where the video failed."""
        return self.probabilities[0] if self.probabilities else None

    @property
    def seconds_between_frames(self) -> float | None:
        """The video's duration divided by its sampled frames; None where it failed."""
        return self.duration_seconds / self.num_frames if self.num_frames else None


@dataclass(frozen=True)
class Preprocessing:
    """How a backbone's weights want a frame: shorter side to `resize`, centre crop, scale to [0, 1], normalise."""

    resize: int
    """Pixels of the shorter side after resizing."""
    crop: int
    """Pixels of each side of the centre crop: the model's input size."""
    interpolation: str
    """`bilinear` or `bicubic`, both with antialiasing."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def as_dict(self) -> Mapping[str, Any]:
        """As it stands in a feature store's key."""
        return {
            "resize": self.resize,
            "crop": self.crop,
            "interpolation": self.interpolation,
            "antialias": True,
            "mean": list(self.mean),
            "std": list(self.std),
        }
