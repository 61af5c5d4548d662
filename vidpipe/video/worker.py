"""What a decoding process does: it takes a piece of a video, and gives its frames at the model's size.

While a piece runs, it counts what it has read in memory that the main process sees.
"""

import ctypes
import gc
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.errors import DecodeError, VideoError
from vidpipe.records import FramePlan, Preprocessing, VideoFile, VideoInfo
from vidpipe.video.reader import VideoReader, methods_from, open_video
from vidpipe.video.sampling import plan_frames

if TYPE_CHECKING:
    from ctypes import Array, c_longlong

__all__ = ["PIECE_FRAMES", "Decoded", "Piece", "ReaderError", "decode_piece", "start_worker"]

PIECE_FRAMES = 128
VIDEOS_PER_TRIM = 16
"""Giving memory back takes milliseconds, about a twentieth of what a short clip takes."""
PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>: the signal to get when the parent dies."""


@dataclass(frozen=True)
class Piece:
    """A piece of work: open a video, plan it and decode its first frames, or decode more of a plan."""

    video: VideoFile
    methods: tuple[str, ...]
    """Which readers to try; for more of a plan, the one that made it, for another might count other frames."""
    opened: tuple[VideoInfo, FramePlan] | None = None
    start: int = 0


@dataclass(frozen=True)
class Decoded:
    """What became of a piece."""

    info: VideoInfo
    plan: FramePlan
    frames: NDArray[np.uint8]
    """(T, 3, H, W)"""
    method: str
    """The reader that gave them."""
    seconds: float
    worker: int
    """The id of the process that decoded them."""


class ReaderError(DecodeError):
    """What one reader found wrong; others are left to try."""

    def __init__(self, message: str, methods_left: tuple[str, ...]) -> None:
        super().__init__(message, methods_left)
        self.message, self.methods_left = message, methods_left


def start_worker(counts: "Array[c_longlong]", parent: int) -> None:
    """Load the libraries, so that a piece's time is all decoding; one thread each, for the workers share the cores."""
    _die_with(parent)  # before what takes seconds
    import torch

    import vidpipe.video.resize  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    gc.freeze()  # a collection then looks only at what the videos left: 0.3 ms, not 90
    _Worker.counts = counts


def _die_with(parent: int) -> None:
    """Have the system end this process when the main one is gone: killed, it can tell nobody, and a worker that hangs
    in native code would never look."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class _Worker:
    """What a worker process keeps from piece to piece."""

    counts: "ClassVar[Array[c_longlong]]"
    slot: ClassVar[int]
    opened: "ClassVar[tuple[Path, tuple[str, ...]] | None]" = None
    """Which file is open, and by which methods."""
    reader: "ClassVar[VideoReader | None]" = None
    num_closed: ClassVar[int] = 0

    @classmethod
    def step(cls, num_steps: int) -> None:
        """Show a sign of life."""
        cls.counts[cls.slot] += num_steps

    @classmethod
    def open(cls, path: Path, methods: tuple[str, ...]) -> VideoReader:
        """A reader of a file; the pieces of one video mostly come one after another, and it is opened once."""
        if cls.reader is None or cls.opened != (path, methods):
            cls.close()
            cls.reader, cls.opened = open_video(path, methods=methods, on_step=cls.step), (path, methods)
        return cls.reader

    @classmethod
    def close(cls) -> None:
        """Give back the memory of the video that was open.

        Readers and PyAV's containers refer to themselves, so only a collection frees them; Python, which does not see
        the native memory behind them, would collect too late.
        """
        cls.reader = cls.opened = None
        gc.collect()
        cls.num_closed += 1
        if cls.num_closed % VIDEOS_PER_TRIM == 0:
            _trim_native_memory()


def decode_piece(piece: Piece, slot: int, sampling: Sampling, preprocessing: Preprocessing) -> Decoded:
    """Runs in a worker. Whatever surprise a file holds is that file's failure, not the job's."""
    started = time.monotonic()
    _Worker.slot = slot
    _Worker.step(1)
    try:
        reader = _Worker.open(piece.video.path, piece.methods)
    except DecodeError as error:
        if piece.opened is None:
            raise
        raise ReaderError(str(error), methods_from(piece.methods[0])[1:]) from error
    except VideoError:
        raise
    except Exception as error:
        raise DecodeError(f"{type(error).__name__}: {error}") from error
    try:
        plan, frames = _plan_and_decode(reader, piece, sampling, preprocessing)
        return Decoded(reader.info, plan, frames, reader.method, time.monotonic() - started, os.getpid())
    except Exception as error:
        message = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
        raise ReaderError(message, methods_from(reader.method)[1:]) from error


def _plan_and_decode(
    reader: VideoReader, piece: Piece, sampling: Sampling, preprocessing: Preprocessing
) -> tuple[FramePlan, NDArray[np.uint8]]:
    from vidpipe.video.resize import resize_and_crop

    if piece.opened is None:
        scenes = _find_scenes(reader) if sampling.method == "scene" else ()
        plan = plan_frames(sampling, reader.pts_seconds, reader.end_seconds, scenes)
    else:
        _, plan = piece.opened
    index = plan.frame_index[piece.start : piece.start + PIECE_FRAMES]
    frames = np.concatenate([resize_and_crop(block, preprocessing) for block in reader.blocks(index)])
    return plan, frames


def _find_scenes(reader: VideoReader) -> list[tuple[int, int]]:
    from vidpipe.video.scenes import find_scenes

    return find_scenes(reader)


def _trim_native_memory() -> None:
    """Have the C library give back to the system what it holds and nobody uses; only glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
