"""What runs in a decoding process: decoding a piece of a video into pictures at the backbone's input size.

While a piece runs, the process counts the packets and frames that it has read, in memory that the main process sees.
"""

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError, VideoError
from vidpipe.records import FramePlan, VideoFile, VideoInfo, VideoPlan
from vidpipe.video.processes import end_with_main_process
from vidpipe.video.reader import VideoReader, methods_from, open_video
from vidpipe.video.steps import STEPS_PER_CHUNK
from vidpipe.video.view import Detect, Look, View, plan_views

if TYPE_CHECKING:
    from ctypes import Array, c_longlong

__all__ = [
    "PIECE_PICTURES",
    "Decoded",
    "Pictures",
    "Piece",
    "ReaderError",
    "decode_piece",
    "frames_per_piece",
    "start_worker",
]

PIECE_PICTURES = 128
"""About how many pictures one piece gives."""
VIDEOS_PER_TRIM = 16
"""Returning memory to the system takes milliseconds, about a twentieth of the time that a short clip takes."""


@dataclass(frozen=True)
class Piece:
    """A piece of a video to decode: the first one, which makes the plan, or one of the others."""

    video: VideoFile
    views: Mapping[str, View]
    """By stream, what it needs of the video."""
    methods: tuple[str, ...]
    """Which readers to try. After the first piece it is the one that read that piece: others may count other frames."""
    opened: tuple[VideoInfo, VideoPlan] | None = None
    """What the first piece found out; None in the first piece."""
    start: int = 0
    """The piece's first frame, as a position in the plan."""
    fast_decode: str = "off"
    """One of `vidpipe.video.container.FAST_DECODE`."""


@dataclass(frozen=True)
class Pictures:
    """Some pictures of one stream."""

    stream: str
    start: int
    """The first of them, among the pictures of the stream's plan."""
    pictures: NDArray[Any]
    """(P, 3, H, W), or (P, D) where `View.described` makes the features."""


@dataclass(frozen=True)
class Decoded:
    """The pictures of a piece."""

    info: VideoInfo
    plan: VideoPlan
    pictures: tuple[Pictures, ...]
    """Of each stream that has pictures in the piece."""
    method: str
    """The reader that gave them."""
    seconds: float
    """What decoding them took."""
    worker: int
    """The id of the process that decoded them."""


class ReaderError(DecodeError):
    """What one reader found wrong, and the readers that are left to try."""

    def __init__(self, message: str, methods_left: tuple[str, ...]) -> None:
        super().__init__(message, methods_left)
        self.message, self.methods_left = message, methods_left


def start_worker(counts: "Array[c_longlong]") -> None:
    """Load the libraries before the first piece, and limit torch to one thread: the workers share the cores.

    Args:
        counts: memory shared with the main process: a count of steps for each slot.
    """
    end_with_main_process()  # before the imports, which take seconds where there is no fork server
    import torch

    import vidpipe.video.resize  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    gc.freeze()  # later collections skip the libraries' objects: 0.3 ms, not 90
    _Worker.counts = counts


class _Worker:
    """What a worker process keeps between two pieces."""

    counts: "ClassVar[Array[c_longlong]]"
    slot: ClassVar[int]
    opened: "ClassVar[tuple[Path, tuple[str, ...], str] | None]" = None
    """The file that is open, and how it was opened."""
    reader: "ClassVar[VideoReader | None]" = None
    num_closed: ClassVar[int] = 0

    @classmethod
    def step(cls, num_steps: int) -> None:
        """Count packets or frames that have been read."""
        cls.counts[cls.slot] += num_steps

    @classmethod
    def open(cls, piece: Piece) -> VideoReader:
        """Return a reader of a piece's file; where the last piece was of the same video, the reader that is open."""
        how = (piece.video.path, piece.methods, piece.fast_decode)
        if cls.reader is None or cls.opened != how:
            cls.close()
            path, methods, fast_decode = how
            cls.reader = open_video(path, methods=methods, fast_decode=fast_decode, on_step=cls.step)
            cls.opened = how
        return cls.reader

    @classmethod
    def close(cls) -> None:
        """Free the memory of the video that is open.

        Readers and PyAV's containers are in reference cycles, so only the garbage collector frees them. Python does not
        see the native memory behind them and would collect too late.
        """
        cls.reader = cls.opened = None
        gc.collect()
        cls.num_closed += 1
        if cls.num_closed % VIDEOS_PER_TRIM == 0:
            _trim_native_memory()


def frames_per_piece(plan: VideoPlan) -> int:
    """Return how many frames one piece of a plan decodes: fewer where a frame gives several pictures."""
    return max(1, PIECE_PICTURES * len(plan.frame_index) // plan.num_pictures)


def decode_piece(piece: Piece, slot: int) -> Decoded:
    """Decode a piece of a video; runs in a worker. Any error that a file causes is a failure of that video alone.

    Args:
        piece: what to decode.
        slot: where in the shared memory to count what has been read.

    Returns:
        The piece's pictures.

    Raises:
        ReaderError: this reader could not decode the piece; others may be left to try.
        VideoError: no reader can open the file.
    """
    started = time.monotonic()
    _Worker.slot = slot
    _Worker.step(1)
    try:
        reader = _Worker.open(piece)
    except DecodeError as error:
        if piece.opened is None:
            raise
        raise ReaderError(str(error), methods_from(piece.methods[0])[1:]) from error
    except VideoError:
        raise
    except Exception as error:
        raise DecodeError(f"{type(error).__name__}: {error}") from error
    try:
        plan = plan_views(reader, piece.views) if piece.opened is None else piece.opened[1]
        pictures = tuple(_decode_pictures(reader, piece, plan))
        return Decoded(reader.info, plan, pictures, reader.method, time.monotonic() - started, os.getpid())
    except Exception as error:
        message = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
        raise ReaderError(message, methods_from(reader.method)[1:]) from error


def _decode_pictures(reader: VideoReader, piece: Piece, plan: VideoPlan) -> Iterator[Pictures]:
    """Decode a piece's frames once, and yield the pictures of each stream."""
    index = plan.frame_index[piece.start : piece.start + frames_per_piece(plan)]
    makers = [_PictureMaker(name, one, piece.views[name]) for name, one in plan.streams.items()]
    first = 0
    for block in reader.blocks(index):
        used = [_frames_used(index[first : first + len(block)], one.plan) for one in makers]
        looks = [(look, its) for one, its in zip(makers, used, strict=True) for look in one.looks if its.any()]
        seen = _look_at(block, looks)
        for maker, its in zip(makers, used, strict=True):
            if its.any():
                maker.add(index[first : first + len(block)][its], block if its.all() else block[its], its, seen)
        first += len(block)
    yield from (pictures for maker in makers if (pictures := maker.result()) is not None)


def _frames_used(frame_index: NDArray[np.int64], plan: FramePlan) -> NDArray[np.bool_]:
    """(n,) which of the frames a stream uses."""
    return np.isin(frame_index, plan.frame_index, assume_unique=True)


def _look_at(frames: NDArray[np.uint8], looks: Sequence[tuple[Look, NDArray[np.bool_]]]) -> dict[Look, NDArray[Any]]:
    """What each look gives of the frames (n, H, W, 3) that some stream uses: (n, …), zeros of the others.

    Each frame may take as long as a chunk of decoding. It goes once through each detector.
    """
    wanted: dict[Look, NDArray[np.bool_]] = {}
    for look, used in looks:
        wanted[look] = wanted.get(look, np.zeros_like(used)) | used
    seen: dict[Look, NDArray[Any]] = {}
    for number in range(len(frames)):
        found: dict[Detect, Any] = {}
        for look in [look for look, used in wanted.items() if used[number]]:
            if look.detect not in found:
                found[look.detect] = look.detect(frames[number : number + 1])[0]
                _Worker.step(STEPS_PER_CHUNK)
            one = look.read(found[look.detect], frames[number])
            seen.setdefault(look, np.zeros((len(frames), *one.shape), one.dtype))[number] = one
    return seen


class _PictureMaker:
    """Makes one stream's pictures of decoded frames."""

    def __init__(self, stream: str, plan: FramePlan, view: View) -> None:
        self._stream, self.plan, self._view = stream, plan, view
        self._preprocessing = view.preprocessing
        self._start: int | None = None
        self._made: list[NDArray[Any]] = []

    @property
    def looks(self) -> list[Look]:
        """What it needs to know of each frame that it uses."""
        return [look for look in (self._view.hidden, self._view.described) if look is not None]

    def add(
        self,
        frame_index: NDArray[np.int64],
        frames: NDArray[np.uint8],
        used: NDArray[np.bool_],
        seen: Mapping[Look, NDArray[Any]],
    ) -> None:
        """Take frames (n, H, W, 3) that the stream uses and that follow those taken before.

        Args:
            frame_index: (n,) of the frames.
            frames: the frames.
            used: which of a block of frames they are.
            seen: by look, what it gives of the frames of the block.
        """
        from vidpipe.video.resize import paint_over, resize_and_crop

        first, last = np.searchsorted(self.plan.frame_index, frame_index[[0, -1]]).tolist()
        if self._view.described is not None:
            self._keep(first, seen[self._view.described][used])
            return
        if self._view.hidden is not None:
            frames = paint_over(frames, seen[self._view.hidden][used], self._preprocessing)
        if self.plan.picture_regions is None:
            self._keep(first, resize_and_crop(frames, self._preprocessing))
            return
        bounds = np.searchsorted(self.plan.picture_frames, np.arange(first, last + 2)).tolist()  # of each frame
        self._keep(bounds[0], np.concatenate(list(self._regions(frames, bounds))))

    def _regions(self, frames: NDArray[np.uint8], bounds: list[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pictures of each frame's regions, (1, 3, H, W)."""
        from vidpipe.video.resize import crop_to_region, resize_and_crop

        assert self.plan.picture_regions is not None
        for frame, (start, stop) in zip(frames, pairwise(bounds), strict=True):
            for region in self.plan.picture_regions[start:stop]:
                yield resize_and_crop(crop_to_region(frame, region)[None], self._preprocessing)

    def _keep(self, start: int, pictures: NDArray[Any]) -> None:
        self._start = start if self._start is None else self._start
        self._made.append(pictures)

    def result(self) -> Pictures | None:
        """The pictures; None where the stream uses none of the frames."""
        return None if self._start is None else Pictures(self._stream, self._start, np.concatenate(self._made))


def _trim_native_memory() -> None:
    """Have the C library return unused memory to the system; only glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
