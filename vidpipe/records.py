"""The records that vidpipe's folders pass to each other: plain, frozen and checked. Arrays are NumPy, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NONE_OF_THESE",
    "POSE_NUMBERS",
    "POSE_PEOPLE",
    "POSE_POINTS",
    "UNKNOWN_SOURCE",
    "Curve",
    "DecodeProgress",
    "FeatureSequence",
    "FrameBatch",
    "FramePlan",
    "LabeledVideo",
    "PersonPath",
    "PersonPrediction",
    "Prediction",
    "Preprocessing",
    "RemoteFile",
    "Rows",
    "Segment",
    "Timeline",
    "VideoFailure",
    "VideoFeatures",
    "VideoFile",
    "VideoInfo",
    "VideoPlan",
    "VideoSource",
    "Window",
]

NONE_OF_THESE = "none of these"
"""The answer where no class reaches the probability that the user asked for."""
POSE_PEOPLE = 6
"""The people in a row of the stream `pose`, the surest first; zeros where there are fewer."""
POSE_POINTS = 17
"""The key points of each, in COCO's order."""
POSE_NUMBERS = 3 * POSE_POINTS + 5
"""Of each person: x, y and score of each key point, then left, top, right, bottom and score of the box. Lengths are
shares of the picture's longer side, so that they are the same along both axes; scores are 0 to 1."""
_WHOLE_PICTURE = (0.0, 0.0, 1.0, 1.0)
"""x, y, width and height of the widest region."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file in an object store or on a server."""

    url: str
    root: str
    """The URL that was given: of the folder that the file was found in, or that holds it."""
    size_bytes: int
    mtime_ns: int
    """The time of its last change; 0 where it is not known."""


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video to read, and its id."""

    id: str
    """Path relative to the folder given, with `/`."""
    path: Path
    root: Path | None = None
    """The folder that the id is relative to, absolute; None where the video was not found in one."""
    remote: RemoteFile | None = None
    """Where it is copied from, if it is not a file of this machine; `path` is then the place of the copy."""

    @property
    def place(self) -> str:
        """The path, or the URL of a remote file."""
        return str(self.path) if self.remote is None else self.remote.url


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file holds, according to its packets and its decoder, not its header."""

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
    """The decoder that gave the frames: `decord`, `pyav` or `nvdec`."""
    damaged: bool
    """Whether some of the file could not be decoded, or not correctly."""
    lost_packets: int
    """Packets that gave no frame. Packets that the header announces and the file does not hold are included."""
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
        """Return what a reader found out about a file, together with the file's size and modification time.

        Args:
            path: the file.
            pts_seconds: (F,) presentation times of all frames, increasing.
            end_seconds: when the last frame's presentation ends.
            width: pixels, after rotation.
            height: pixels, after rotation.
            codec: the codec's name.
            decoder: `decord`, `pyav` or `nvdec`.
            damaged: whether some of the file could not be decoded.
            lost_packets: packets that gave no frame.

        Returns:
            The record.

        Raises:
            OSError: the file is gone.
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


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Where a stored video's file was found, and a fingerprint of its content; empty texts where these are unknown."""

    root: str = ""
    """The folder that the id is relative to: absolute, links resolved."""
    path: str = ""
    """The file's path relative to `root`, or its absolute path where the file lies outside `root`."""
    fingerprint: str = ""
    """sha256 of the file's size and of parts of its content; see `vidpipe.features.sources.fingerprint_of`."""


UNKNOWN_SOURCE = VideoSource()


@dataclass(frozen=True)
class Rows:
    """The rows of a feature sequence: each is an interval of the video, and optionally a region of the picture.

    The narrowest row is one whole frame. For such rows `start_seconds`, `stop_seconds` and `region` are None. They take
    no memory and no space on the disk.

        time      ··0··1··2··3··4··5··6··7··     frames
        row 0        [─────c─────)               a window of four frames with its centre c
        row 1              [─────c─────)

    Raises:
        ValueError: the arrays differ in length, the rows are not in order, a row's centre lies outside its interval,
            a region lies outside the picture, a number of frames is negative, or a person has two rows of one frame.
    """

    pts_seconds: NDArray[np.float64]
    """(T,) presentation time of the frame at each row's centre."""
    frame_index: NDArray[np.int64]
    """(T,) that frame, counted in presentation order from 0. Strictly increasing; where rows have regions, several may
    share a frame."""
    scene_index: NDArray[np.int32]
    """(T,) the scene of that frame; 0 unless sampled by scene."""
    start_seconds: NDArray[np.float64] | None = None
    """(T,) where each row's interval `[start_seconds, stop_seconds)` starts; None where each row is one frame."""
    stop_seconds: NDArray[np.float64] | None = None
    """(T,) where it stops; None where each row is one frame."""
    region: NDArray[np.float32] | None = None
    """(T, 4) x, y, width and height of each row's region, as fractions of the picture, 0 to 1; None where each row is
    of the whole picture."""
    num_repeated: NDArray[np.int32] | None = None
    """(T,) how many frames of each row's window repeat the last one, because the video is shorter than the shortest
    window that the backbone can see; None where none is repeated."""
    track: NDArray[np.int32] | None = None
    """(T,) the number of the person in each row's region, from 1 on; rows of one frame are in the order of their
    numbers. None where rows are not of single people, or nobody was found."""

    def __post_init__(self) -> None:
        optional = (self.start_seconds, self.stop_seconds, self.region, self.num_repeated, self.track)
        arrays = (self.frame_index, self.scene_index, *optional)
        if any(len(array) != len(self) for array in arrays if array is not None):
            raise ValueError(f"the arrays of {self!r} differ in length")
        steps = np.diff(self.frame_index)
        if np.any(steps < 0) or (self.region is None and np.any(steps == 0)):
            raise ValueError("the rows of a sequence are not in order, or one frame makes two of them")
        if (self.start_seconds is None) != (self.stop_seconds is None):
            raise ValueError("rows have start_seconds and stop_seconds, or neither")
        if self.start_seconds is not None and self.stop_seconds is not None:
            inside = (self.start_seconds <= self.pts_seconds) & (self.pts_seconds < self.stop_seconds)
            if not (inside.all() and np.isfinite([self.start_seconds, self.stop_seconds]).all()):
                raise ValueError("a row's centre lies outside its interval [start_seconds, stop_seconds)")
        if self.region is not None:
            _check_regions(self.region)
        if self.num_repeated is not None and np.any(self.num_repeated < 0):
            raise ValueError("a row's window repeats a negative number of frames")
        if self.track is not None:
            _check_tracks(self.track, steps, has_regions=self.region is not None)

    @property
    def track_numbers(self) -> tuple[int, ...]:
        """The numbers of the people, increasing; empty where rows are not of single people."""
        return () if self.track is None else tuple(np.unique(self.track).tolist())

    def select(self, index: NDArray[Any], **changes: NDArray[Any]) -> Self:
        """Return some of the rows.

        Args:
            index: which of the T rows to keep, as NumPy's indexing takes it.
            changes: arrays of the rows that are kept, by name, in place of their own.

        Returns:
            These rows.
        """
        arrays: dict[str, Any] = {name: None if its is None else its[index] for name, its in vars(self).items()}
        return type(self)(**(arrays | changes))

    def __len__(self) -> int:
        return len(self.pts_seconds)

    def __repr__(self) -> str:
        return f"Rows(T={len(self)})"


def _check_tracks(track: NDArray[np.int32], frame_steps: NDArray[np.int64], *, has_regions: bool) -> None:
    if not has_regions or np.any(track < 1):
        raise ValueError("rows of people have a region, and numbers of people from 1 on")
    if np.any((frame_steps == 0) & (np.diff(track) <= 0)):
        raise ValueError("the rows of one frame are not in the order of their people, or a person has two of them")


def _check_regions(region: NDArray[np.float32]) -> None:
    if region.shape[1:] != (4,):
        raise ValueError(f"region is (T, 4), got {region.shape}")
    corner, size = region[:, :2], region[:, 2:]
    if not ((corner >= 0) & (size > 0) & (corner + size <= 1)).all():  # also where one is not a number
        raise ValueError("a row's region lies outside the picture: 0 <= x, 0 < width, x + width <= 1 is needed")


@dataclass(frozen=True)
class FramePlan:
    """The frames of a video to decode, and the rows that they make.

    Each frame is decoded once, whatever number of rows use it. What a backbone sees is a picture: a whole frame, or a
    row's region of one, at the backbone's input size. Pictures are numbered in the order of their frames.

        frame_index   3   8   13
        row_frames    None           rows 0, 1, 2 are frames 3, 8, 13
                      [0, 0, 2]      rows 0 and 1 are two regions of frame 3, row 2 is a region of frame 13
                      [[0, 1],       row 0 is a window of frames 3 and 8,
                       [1, 2]]       row 1 a window of frames 8 and 13

    Raises:
        ValueError: the frames are not strictly increasing, no row uses one of them, or a row uses a frame that is not
            among them.
    """

    frame_index: NDArray[np.int64]
    """(F,) the frames to decode, strictly increasing, counted in presentation order from 0."""
    rows: Rows
    """The T rows."""
    row_frames: NDArray[np.int64] | None = None
    """The frames of each row, as positions in `frame_index`: (T,) for a backbone that sees one frame, (T, W) for one
    that sees windows of W frames. None where row `i` is frame `i`, whole."""

    def __post_init__(self) -> None:
        if np.any(np.diff(self.frame_index) <= 0):
            raise ValueError("a plan asks for each frame once, in order")
        num_frames = len(self.frame_index)
        if self.row_frames is None:
            if len(self.rows) != num_frames or self.rows.region is not None:
                raise ValueError(f"{self!r} does not say which frames make its rows")
        elif len(self.row_frames) != len(self.rows) or self.row_frames.ndim not in (1, 2):
            raise ValueError(f"row_frames is (T,) or (T, W) with T = {len(self.rows)}, got {self.row_frames.shape}")
        elif not np.array_equal(np.unique(self.row_frames), np.arange(num_frames)):
            raise ValueError(f"the rows of {self!r} use other frames than it decodes")

    @property
    def num_pictures(self) -> int:
        """P, the pictures that the frames give."""
        return len(self.frame_index) if self._by_region is None else len(self._by_region[0])

    @property
    def picture_frames(self) -> NDArray[np.int64]:
        """(P,) the frame of each picture, as a position in `frame_index`; never decreasing."""
        return np.arange(len(self.frame_index)) if self._by_region is None else self._by_region[0]

    @property
    def picture_regions(self) -> NDArray[np.float32] | None:
        """(P, 4) the region of each picture; None where pictures are whole frames."""
        return None if self._by_region is None else self._by_region[1]

    @property
    def row_pictures(self) -> NDArray[np.int64] | None:
        """(T,) or (T, W) the pictures of each row; None where row `i` is picture `i`."""
        return self.row_frames if self._by_region is None else self._by_region[2]

    @cached_property
    def _by_region(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]] | None:
        """Each frame and region that some row uses, once: their frames (P,), regions (P, 4) and places in the rows."""
        if self.row_frames is None or self.rows.region is None:
            return None
        window = 1 if self.row_frames.ndim == 1 else self.row_frames.shape[1]
        used = np.column_stack([self.row_frames.ravel(), self.rows.region.repeat(window, axis=0)])  # (T·W, 5)
        pictures, row_pictures = np.unique(used, axis=0, return_inverse=True)
        frames, regions = pictures[:, 0].astype(np.int64), pictures[:, 1:].astype(np.float32)
        return frames, regions, row_pictures.reshape(self.row_frames.shape)

    def __repr__(self) -> str:
        return f"FramePlan(F={len(self.frame_index)}, T={len(self.rows)})"


@dataclass(frozen=True)
class VideoPlan:
    """The plans of several streams for one video. Each frame is decoded once, whatever number of streams use it."""

    streams: Mapping[str, FramePlan]
    """By stream, at least one."""

    @cached_property
    def frame_index(self) -> NDArray[np.int64]:
        """(F,) the frames to decode, strictly increasing."""
        return np.unique(np.concatenate([plan.frame_index for plan in self.streams.values()]))

    @property
    def num_pictures(self) -> int:
        """The pictures of all streams together."""
        return sum(plan.num_pictures for plan in self.streams.values())

    def __repr__(self) -> str:
        return f"VideoPlan({dict(self.streams)})"


@dataclass(frozen=True)
class FrameBatch:
    """Some pictures of one video for one stream, decoded together: `pictures[i]` is picture `start + i` of the plan."""

    video: VideoFile
    info: VideoInfo
    video_plan: VideoPlan
    """The plans of the whole video."""
    stream: str
    start: int
    pictures: NDArray[np.uint8] | NDArray[np.float32]
    """(P, 3, H, W) uint8, RGB, at the backbone's input size; (P, D) float32 of a stream whose features are made where
    frames are decoded."""
    seconds: float = 0.0
    """What decoding them took."""
    worker: int = 0
    """The id of the process that decoded them."""

    @property
    def plan(self) -> FramePlan:
        """The stream's plan of the whole video."""
        return self.video_plan.streams[self.stream]

    def __post_init__(self) -> None:
        is_picture = self.pictures.ndim == 4 and self.pictures.shape[1] == 3 and self.pictures.dtype == np.uint8
        if not is_picture and (self.pictures.ndim != 2 or self.pictures.dtype != np.float32):
            raise ValueError(
                f"pictures are (P, 3, H, W) uint8 or (P, D) float32, got {self.pictures.shape} {self.pictures.dtype}"
            )
        if self.start + len(self.pictures) > self.plan.num_pictures:
            raise ValueError(f"{len(self.pictures)} pictures from {self.start} on do not fit {self.plan!r}")

    def __repr__(self) -> str:
        return f"FrameBatch({self.video.id!r}, {self.stream!r}, start={self.start}, pictures={self.pictures.shape})"


@dataclass(frozen=True)
class DecodeProgress:
    """How far the decoding of a video is."""

    video_id: str
    num_done: int
    """Packets and frames read so far; where `num_planned` is known, rows that are done."""
    num_planned: int | None = None
    """The rows of all streams together, once they are known."""


@dataclass(frozen=True)
class FeatureSequence:
    """The features of one video, one for each row."""

    video_id: str
    features: NDArray[np.floating[Any]]
    """(T, D)"""
    rows: Rows
    info: VideoInfo
    source: VideoSource = UNKNOWN_SOURCE

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.rows):
            raise ValueError(f"features are (T, D) with T = {len(self.rows)}, got {self.features.shape}")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(T,) presentation time of the frame at each row's centre."""
        return self.rows.pts_seconds

    @property
    def start_seconds(self) -> NDArray[np.float64]:
        """(T,) where each row's interval starts. A row of one frame starts when its frame is shown."""
        return self.rows.pts_seconds if self.rows.start_seconds is None else self.rows.start_seconds

    @property
    def stop_seconds(self) -> NDArray[np.float64]:
        """(T,) where each row's interval stops. A row of one frame lasts 1 / fps, the mean time that the video shows a
        frame; in a video whose duration is unknown it lasts no time."""
        if self.rows.stop_seconds is not None:
            return self.rows.stop_seconds
        return self.rows.pts_seconds + (1 / self.info.fps if self.info.fps > 0 else 0.0)

    @property
    def region(self) -> NDArray[np.float32]:
        """(T, 4) x, y, width and height of each row's region, 0 to 1; (0, 0, 1, 1) where it is the whole picture."""
        if self.rows.region is not None:
            return self.rows.region
        return np.tile(np.array(_WHOLE_PICTURE, np.float32), (len(self), 1))

    def person(self, track: int) -> Self:
        """Return the rows of one person; all rows where none is of a single person.

        Args:
            track: the person's number.

        Returns:
            The sequence; it has no rows where the video has no such person.
        """
        if self.rows.track is None:
            return self
        index = np.flatnonzero(self.rows.track == track)
        return replace(self, features=self.features[index], rows=self.rows.select(index))

    def __repr__(self) -> str:
        return f"FeatureSequence({self.video_id!r}, features={self.features.shape})"


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video in each stream that it was decoded for."""

    video_id: str
    streams: Mapping[str, FeatureSequence]
    """By stream."""

    def __len__(self) -> int:
        """The rows of all streams together."""
        return sum(map(len, self.streams.values()))


@dataclass(frozen=True)
class VideoFailure:
    """A video that could not be read, and why."""

    video_id: str
    error: str
    """The error's kind: a class name of `vidpipe.errors`."""
    message: str


@dataclass(frozen=True)
class LabeledVideo:
    """The label of one video, and what else a labels file or a folder's name states about it."""

    video_id: str
    label: str
    split: str | None = None
    """`train`, `val` or `test`; None where the labels do not state it."""
    group: str | None = None
    """Clips of one group are never divided between two subsets."""
    split_source: str = field(default="the labels", compare=False)
    """Where the split comes from, for messages."""

    @property
    def unit(self) -> str:
        """What a split never divides, for messages: the video's group, or the video itself where it has none."""
        return f"group {self.group}" if self.group else f"video {self.video_id}"


@dataclass(frozen=True)
class PersonPath:
    """Where a person is in the picture over time."""

    track: int
    """The person's number."""
    pts_seconds: NDArray[np.float64]
    """(T,) increasing."""
    region: NDArray[np.float32]
    """(T, 4) x, y, width and height at these times, as fractions of the picture."""

    @classmethod
    def of(cls, sequence: FeatureSequence, track: int) -> Self:
        """Return the path that the rows of a person show."""
        rows = sequence.person(track)
        return cls(track, rows.pts_seconds, rows.region)

    def at(self, seconds: float) -> tuple[float, float, float, float] | None:
        """Return the region at a time, between those of the rows; None where the person is not there."""
        reach = float(np.diff(self.pts_seconds).max(initial=0)) / 2
        if not self.pts_seconds[0] - reach <= seconds <= self.pts_seconds[-1] + reach:
            return None
        x, y, width, height = (float(np.interp(seconds, self.pts_seconds, its)) for its in self.region.T)
        return x, y, width, height


@dataclass(frozen=True)
class PersonPrediction:
    """The classes that a model finds most probable for one person of a video."""

    labels: tuple[str, ...]
    """Most probable first."""
    probabilities: tuple[float, ...]
    path: PersonPath
    start_seconds: float
    """Of the person's first row."""
    stop_seconds: float
    """Of the last one."""


@dataclass(frozen=True)
class Prediction:
    """The classes that a model finds most probable for one video, or why there are none."""

    video_id: str
    labels: tuple[str, ...] = ()
    """Most probable first."""
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    is_unknown: bool = False
    """Whether no class reaches the probability that the user asked for. The classes are given all the same."""
    is_learned: bool = False
    """Whether the model was trained on a video of the same file name and size."""
    num_frames: int = 0
    """T, the rows of the video's feature sequence; 0 where the video failed."""
    duration_seconds: float = 0.0
    """Of the video; 0 where it failed."""
    start_seconds: float = 0.0
    """When the video's first frame is shown, to within the distance of its rows."""
    people: tuple[PersonPrediction, ...] = ()
    """The people of the video, by number; empty where rows are not of single people, or nobody was found."""

    @property
    def status(self) -> str:
        """`ok`, `unknown` or `failed`."""
        return "failed" if self.error is not None else "unknown" if self.is_unknown else "ok"

    @property
    def label(self) -> str | None:
        """The most probable class, or `NONE_OF_THESE`; None where the video failed."""
        return None if self.error is not None else NONE_OF_THESE if self.is_unknown else self.labels[0]

    @property
    def probability(self) -> float | None:
        """The probability of the most probable class, also where `is_unknown`; None where the video failed."""
        return self.probabilities[0] if self.probabilities else None

    @property
    def seconds_between_frames(self) -> float | None:
        """The video's duration divided by `num_frames`; None where the video failed."""
        return self.duration_seconds / self.num_frames if self.num_frames else None


@dataclass(frozen=True)
class Segment:
    """An interval `[start_seconds, stop_seconds)` of a video, with a label.

    Raises:
        ValueError: a time or the probability is not a finite number.
    """

    start_seconds: float
    stop_seconds: float
    """An interval that does not stop after its start is empty: files may hold such ones."""
    label: str
    probability: float | None = None
    """None where a person set the label."""
    person: int | None = None
    """The number of the person in the video; None where it is of the whole picture."""

    def __post_init__(self) -> None:
        if not np.isfinite([self.start_seconds, self.stop_seconds, self.probability or 0.0]).all():
            raise ValueError(f"a segment needs finite numbers: {self}")

    @property
    def duration_seconds(self) -> float:
        """From start to stop."""
        return self.stop_seconds - self.start_seconds


@dataclass(frozen=True)
class Curve:
    """The probability of each class over the time of a video.

    Raises:
        ValueError: the shapes do not fit, or the times are not in order.
    """

    class_names: tuple[str, ...]
    """K names."""
    pts_seconds: NDArray[np.float64]
    """(T,) increasing."""
    probabilities: NDArray[np.float32]
    """(T, K)"""

    def __post_init__(self) -> None:
        if self.probabilities.shape != (len(self.pts_seconds), len(self.class_names)):
            raise ValueError(f"a curve's probabilities are (T, K), got {self.probabilities.shape}")
        if np.any(np.diff(self.pts_seconds) <= 0):
            raise ValueError("a curve's times are not increasing")


@dataclass(frozen=True)
class Timeline:
    """The segments of one video."""

    video_id: str
    segments: tuple[Segment, ...] = ()
    """In order of start."""
    duration_seconds: float | None = None
    """Of the video; None where it is not known."""
    curve: Curve | None = None
    """What the segments were read off; None for segments that a person set."""
    error: str | None = None
    """Why there are no segments, where the video could not be read."""
    path: str | None = None
    """Of the video's file, where it is known."""
    split: str | None = None
    """`train`, `val` or `test`; None where it is not known."""
    group: str | None = None
    """Clips of one group are never divided between two subsets."""
    people: tuple[PersonPath, ...] = ()
    """Where the people of the segments are; empty where it is not known."""


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a backbone's weights were trained with.

    Resize the shorter side to `resize`, crop the centre, scale to [0, 1], normalise.
    """

    resize: int | tuple[int, int]
    """Pixels of the shorter side after resizing; or height and width, whatever the picture's proportions."""
    crop: int | tuple[int, int]
    """Pixels of each side of the centre crop, or its height and width: the backbone's input size."""
    interpolation: str
    """`bilinear` or `bicubic`."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    antialias: bool = True
    """Whether a smaller picture is made of all pixels of the larger one."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture in pixels."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @property
    def whole(self) -> Self:
        """The same, but of the whole picture: resized to the input size, without a crop."""
        return replace(self, resize=self.size)

    def at_size(self, pixels: int) -> Self:
        """Return the same for another input size: what is seen of a picture stays the same, to a pixel.

        Args:
            pixels: of the shorter side of the input.

        Returns:
            The preprocessing.
        """
        scale = pixels / min(self.size)

        def scaled(sides: int | tuple[int, int]) -> int | tuple[int, int]:
            return (
                round(sides * scale) if isinstance(sides, int) else (round(sides[0] * scale), round(sides[1] * scale))
            )

        return replace(self, resize=scaled(self.resize), crop=scaled(self.crop))

    def as_dict(self) -> Mapping[str, Any]:
        """The settings as they stand in a feature store's key."""
        return {
            "resize": self.resize if isinstance(self.resize, int) else list(self.resize),
            "crop": self.crop if isinstance(self.crop, int) else list(self.crop),
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "mean": list(self.mean),
            "std": list(self.std),
        }


@dataclass(frozen=True)
class Window:
    """The frames that a clip backbone sees together.

    Raises:
        ValueError: a number is not positive, the minimum exceeds the window, or one of the two is not a multiple.
    """

    num_frames: int
    """W"""
    fps: float | None
    """Frames per second of video time; None for consecutive frames, whatever the video's rate."""
    min_frames: int
    """The fewest frames that the network can see. A video shorter than the window gives this many or more."""
    stride_seconds: float | None = None
    """Seconds of video from the start of a window to the start of the next; None for a window around each sampled
    frame."""
    multiple: int = 1
    """The network sees a multiple of this number of frames: it embeds them together."""

    def __post_init__(self) -> None:
        rates = [rate for rate in (self.fps, self.stride_seconds) if rate is not None]
        counts = (self.num_frames, self.min_frames)
        if not 1 <= self.min_frames <= self.num_frames or any(rate <= 0 for rate in rates):
            raise ValueError(f"not a window of frames: {self}")
        if self.multiple < 1 or any(count % self.multiple for count in counts):
            raise ValueError(f"not a window of frames: {self}")

    def as_dict(self) -> Mapping[str, Any]:
        """The window as it stands in a feature store's key."""
        stride = {} if self.stride_seconds is None else {"stride_seconds": self.stride_seconds}
        multiple = {} if self.multiple == 1 else {"multiple": self.multiple}
        return {"num_frames": self.num_frames, "fps": self.fps, "min_frames": self.min_frames, **stride, **multiple}
