"""Decoding in worker processes: videos in, batches of frames at the model's size out, whatever the files do.

A decoder is native code that may hang with the interpreter's lock held, crash or leak. So it runs in processes of its
own, started afresh (never forked: a fork copies locks and threads in mid-air), killed when they show no sign of life
for too long, renewed after a number of pieces. What goes wrong costs one video.

A video is decoded in pieces of `PIECE_FRAMES` frames: a long one is bounded in memory and shared by the workers. While
a piece runs it counts what it has read, packets and frames, in memory that the main process sees: it may take as long
as it needs, but for `STEPS_PER_CHUNK` of them no longer than `timeout_seconds`.
"""

import ctypes
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from vidpipe.config import Sampling
from vidpipe.errors import DecodeError, DecoderCrashError, DecodeTimeoutError, DecodingStoppedError, VideoError
from vidpipe.records import FrameBatch, FramePlan, Preprocessing, Reading, VideoFailure, VideoFile, VideoInfo
from vidpipe.video.reader import METHODS, VideoReader, import_decord, open_video
from vidpipe.video.sampling import plan_frames
from vidpipe.video.steps import STEPS_PER_CHUNK

if TYPE_CHECKING:
    from ctypes import Array, c_longlong

__all__ = ["decode_videos", "default_workers"]

logger = logging.getLogger(__name__)

PIECE_FRAMES = 128
PIECES_PER_WORKER = 1000
"""A worker is renewed after so many, so that a leak in native code cannot grow without bound."""
TICK_SECONDS = 1.0
MOST_IDLE_SECONDS = 60.0
"""For starting a worker: longer than that, and the time that a chunk may take, and none will ever start."""
MOST_BREAKS = 3
NO_WORKERS = (
    "the decoding processes do not start, or end at once: is there memory left? A script that calls vidpipe does its "
    "work under `if __name__ == '__main__':`"
)
PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>: the signal to get when the parent dies."""


def default_workers() -> int:
    """Decoding processes to run beside the image model: one for every two cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores // 2)


def decode_videos(
    videos: Iterable[VideoFile],
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    workers: int,
    timeout_seconds: float,
) -> Generator[FrameBatch | VideoFailure | Reading]:
    """Decode the sampled frames of many videos, in the order in which they get done.

    The batches of one video may come in any order; `FrameBatch.start` says where each belongs. A video that turns out
    to be damaged half-way starts anew with another plan. At least once in `TICK_SECONDS` something is given: a
    `Reading` where there is nothing else.

    Args:
        videos: what to read.
        sampling: which frames to take.
        preprocessing: how the backbone's weights want them resized and cropped.
        workers: number of processes.
        timeout_seconds: how long one chunk of work may take.

    Raises:
        DecodingStoppedError: no process can be got to work.
    """
    pool = _Workers(workers)
    try:
        yield from _Schedule(pool, sampling, preprocessing, timeout_seconds).run(videos)
    finally:
        pool.stop()


@dataclass(frozen=True)
class _Piece:
    """A piece of work: open a video, plan it and decode its first frames, or decode more of a plan."""

    video: VideoFile
    methods: tuple[str, ...] | None = None
    """Which readers to try; None leaves it to `open_video`."""
    opened: "tuple[VideoInfo, FramePlan] | None" = None
    start: int = 0


@dataclass(frozen=True)
class _Decoded:
    """What became of a piece."""

    info: VideoInfo
    plan: FramePlan
    frames: NDArray[np.uint8]
    """(T, 3, H, W)"""
    method: str
    """The reader that gave them."""
    seconds: float


class _ReaderError(DecodeError):
    """What one reader found wrong; others are left to try."""

    def __init__(self, message: str, methods_left: tuple[str, ...]) -> None:
        super().__init__(message, methods_left)
        self.message, self.methods_left = message, methods_left


@dataclass
class _Running:
    """A piece in a worker's hands, or waiting at its door."""

    piece: _Piece
    slot: int
    """Where in the shared counts it counts its steps."""
    num_steps: int = 0
    num_chunks: int = -1
    moved_at: float = 0.0
    """When `num_chunks` was last seen to grow, on the monotonic clock."""


class _Workers:
    """The processes that decode, and the memory in which they count."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._context = get_context("spawn")
        self.counts: Array[c_longlong] = self._context.RawArray("q", 2 * count + 1)
        """A slot for each piece that runs or waits at a worker's door."""
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._count,
            max_tasks=PIECES_PER_WORKER,
            context=self._context,
            initializer=_start_worker,
            initargs=(self.counts, os.getpid()),
        )

    def submit(self, function: Callable[..., "_Decoded"], *args: Any) -> "Future[_Decoded]":
        """Have a worker call a function.

        Raises:
            BrokenProcessPool: a worker died that had nothing to do, and with it the pool.
        """
        try:
            return self._pool.schedule(function, args=args)
        except RuntimeError as error:
            raise BrokenProcessPool(str(error)) from error

    def restart(self) -> None:
        """Start all processes anew; what they had in hand is lost."""
        self.stop()
        self._pool = self._new_pool()

    def stop(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


class _Schedule:
    """What runs, what waits, and what to do when a piece fails."""

    def __init__(
        self, workers: _Workers, sampling: Sampling, preprocessing: Preprocessing, timeout_seconds: float
    ) -> None:
        self._workers = workers
        self._settings = (sampling, preprocessing)
        self._timeout_seconds = timeout_seconds
        self._free_slots = list(range(len(workers.counts)))
        self._waiting: deque[_Piece] = deque()
        self._running: dict[Future[_Decoded], _Running] = {}
        self._is_broken = False
        """Whether a worker died that had nothing to do: pebble then gives up all of them."""
        self._num_breaks = 0
        """How often that happened since a piece came back."""

    def run(self, videos: Iterable[VideoFile]) -> Iterator[FrameBatch | VideoFailure | Reading]:
        fresh = iter(videos)
        tick_seconds = min(TICK_SECONDS, self._timeout_seconds / 4)
        idle_seconds = 0.0
        while True:
            self._fill(fresh)
            if self._is_broken:
                self._mend()
                continue
            if not self._running:
                return
            done, _ = wait(self._running, timeout=tick_seconds, return_when=FIRST_COMPLETED)
            signs = [*self._collect(done), *self._look_after_the_others()]
            idle_seconds = 0.0 if signs else idle_seconds + tick_seconds
            if idle_seconds > MOST_IDLE_SECONDS + self._timeout_seconds:
                raise DecodingStoppedError(NO_WORKERS)
            yield from signs

    def _fill(self, fresh: Iterator[VideoFile]) -> None:
        while self._free_slots:
            if not self._waiting:
                if (video := next(fresh, None)) is None:
                    return
                self._waiting.append(_Piece(video))
            slot = self._free_slots[-1]
            self._workers.counts[slot] = 0
            try:
                future = self._workers.submit(_decode_piece, self._waiting[0], slot, *self._settings)
            except BrokenProcessPool:
                self._is_broken = True
                return
            self._running[future] = _Running(self._waiting.popleft(), self._free_slots.pop())

    def _mend(self) -> None:
        """Start the workers anew, and give them the same work again."""
        self._is_broken = False
        self._num_breaks += 1
        if self._num_breaks > MOST_BREAKS:
            raise DecodingStoppedError(NO_WORKERS)
        self._waiting.extendleft(self._take(future) for future in list(self._running))
        self._workers.restart()

    def _collect(self, done: "Iterable[Future[_Decoded]]") -> Iterator[FrameBatch | VideoFailure]:
        for future in done:
            if future in self._running:
                yield from self._finish(self._take(future), future)

    def _take(self, future: "Future[_Decoded]") -> _Piece:
        running = self._running.pop(future)
        self._free_slots.append(running.slot)
        return running.piece

    def _look_after_the_others(self) -> Iterator[VideoFailure | Reading]:
        """Note who moves, and stop who stands still."""
        now = time.monotonic()
        for future, running in list(self._running.items()):
            num_steps = self._workers.counts[running.slot]
            if num_steps and num_steps // STEPS_PER_CHUNK != running.num_chunks:
                running.num_chunks, running.moved_at = num_steps // STEPS_PER_CHUNK, now
            elif num_steps and now - running.moved_at > self._timeout_seconds and future in self._running:
                told = f"decoding one chunk took over {self._timeout_seconds:g} s (--timeout)"
                yield self._fail(running.piece, DecodeTimeoutError(told))
                continue
            if num_steps != running.num_steps:
                running.num_steps = num_steps
                yield Reading(running.piece.video.id, num_steps)

    def _finish(self, piece: _Piece, future: "Future[_Decoded]") -> Iterator[FrameBatch | VideoFailure]:
        try:
            decoded = future.result()
        except _ReaderError as error:
            if error.methods_left:
                logger.debug("%s: next by %s: %s", piece.video.id, error.methods_left[0], error.message)
                self._forget(piece.video)
                self._waiting.appendleft(_Piece(piece.video, methods=error.methods_left))
            else:
                yield self._fail(piece, DecodeError(error.message))
        except VideoError as error:
            yield self._fail(piece, error)
        except BrokenProcessPool:
            self._is_broken = True
            self._waiting.appendleft(piece)
        except ProcessExpired as error:
            yield self._fail(piece, DecoderCrashError(f"the decoder crashed ({_exit_reason(error.exitcode)})"))
        else:
            self._num_breaks = 0
            if piece.opened is None:
                piece = replace(piece, opened=(decoded.info, decoded.plan), methods=_from(decoded.method))
                starts = range(PIECE_FRAMES, len(decoded.plan), PIECE_FRAMES)
                self._waiting.extend(replace(piece, start=start) for start in starts)
            assert piece.opened is not None
            info, plan = piece.opened
            yield FrameBatch(piece.video, info, plan, piece.start, decoded.frames, decoded.seconds)

    def _fail(self, piece: _Piece, error: VideoError) -> VideoFailure:
        self._forget(piece.video)
        return VideoFailure(piece.video.id, type(error).__name__, str(error))

    def _forget(self, video: VideoFile) -> None:
        """Give up all pieces of a video; a worker that has one in hand is killed and replaced."""
        self._waiting = deque(piece for piece in self._waiting if piece.video != video)
        for future in [future for future, running in self._running.items() if running.piece.video == video]:
            future.cancel()
            self._take(future)


def _from(method: str) -> tuple[str, ...]:
    """A reader and those that come after it."""
    return METHODS[METHODS.index(method) :]


def _exit_reason(exitcode: int | None) -> str:
    """`SIGSEGV`, or the exit code."""
    try:
        return signal.Signals(-(exitcode or 0)).name
    except ValueError:
        return f"exit code {exitcode}"


def _start_worker(counts: "Array[c_longlong]", parent: int) -> None:
    """Load the libraries, so that a piece's time is all decoding; one thread each, for the workers share the cores."""
    import torch

    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    import_decord()
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


def _decode_piece(piece: _Piece, slot: int, sampling: Sampling, preprocessing: Preprocessing) -> _Decoded:
    """Runs in a worker. Whatever surprise a file holds is that file's failure, not the job's."""
    started = time.monotonic()
    _Worker.slot = slot
    _Worker.step(1)
    try:
        reader = _open_cached(piece.video.path, piece.methods)
    except VideoError:
        raise
    except Exception as error:
        raise DecodeError(f"{type(error).__name__}: {error}") from error
    try:
        plan, frames = _plan_and_decode(reader, piece, sampling, preprocessing)
        return _Decoded(reader.info, plan, frames, reader.method, time.monotonic() - started)
    except Exception as error:
        message = str(error) if isinstance(error, DecodeError) else f"{type(error).__name__}: {error}"
        raise _ReaderError(message, _from(reader.method)[1:]) from error


def _plan_and_decode(
    reader: VideoReader, piece: _Piece, sampling: Sampling, preprocessing: Preprocessing
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
def _open_cached(path: Path, methods: tuple[str, ...] | None) -> VideoReader:
    """The pieces of one video mostly come one after another: open it once."""
    return open_video(path, methods=methods, on_step=_Worker.step)
