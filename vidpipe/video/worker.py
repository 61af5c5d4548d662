"""What a decoding process does: it takes a piece of a video, and gives its frames at the model's size.

While a piece runs, it counts what it has read in memory that the main process sees.
"""

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
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

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
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

    @classmethod
    def step(cls, num_steps: int) -> None:
        """Show a sign of life."""
        cls.counts[cls.slot] += num_steps


def decode_piece(piece: Piece, slot: int, sampling: Sampling, preprocessing: Preprocessing) -> Decoded:
    """Runs in a worker. Whatever surprise a file holds is that file's failure, not the job's."""
    started = time.monotonic()
    _Worker.slot = slot
    _Worker.step(1)
    try:
        reader = _open_cached(piece.video.path, piece.methods)
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


@lru_cache(maxsize=1)
def _open_cached(path: Path, methods: tuple[str, ...]) -> VideoReader:
    """The pieces of one video mostly come one after another: open it once."""
    return open_video(path, methods=methods, on_step=_Worker.step)
