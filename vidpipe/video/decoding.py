"""Decoding in worker processes: videos in, batches of frames at the model's size out, whatever the files do.

A decoder is native code that may hang with the interpreter's lock held, crash or leak. So it runs in processes of its
own, started afresh (never forked: a fork copies locks and threads in mid-air), killed when one piece of work takes too
long, renewed after a number of pieces. What goes wrong costs one video.

A video is decoded in pieces of `PIECE_FRAMES` frames: a long one is bounded in memory and shared by the workers.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from vidpipe.config import Sampling
from vidpipe.errors import DecodeError, DecoderCrashError, DecodeTimeoutError, VideoError
from vidpipe.records import FrameBatch, FramePlan, Preprocessing, VideoFailure, VideoFile, VideoInfo
from vidpipe.video.reader import VideoReader, import_decord, open_video
from vidpipe.video.sampling import plan_frames

__all__ = ["decode_videos", "default_workers"]

logger = logging.getLogger(__name__)

PIECE_FRAMES = 128
PIECES_PER_WORKER = 1000
"""A worker is renewed after so many, so that a leak in native code cannot grow without bound."""


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
) -> Generator[FrameBatch | VideoFailure]:
    """Decode the sampled frames of many videos, in the order in which they get done.

    The batches of one video may come in any order; `FrameBatch.start` says where each belongs. A video that turns out
    to be damaged half-way starts anew with another plan.

    Args:
        videos: what to read.
        sampling: which frames to take.
        preprocessing: how the backbone's weights want them resized and cropped.
        workers: number of processes.
        timeout_seconds: how long one piece of work may take.
    """
    pool = ProcessPool(
        max_workers=workers, max_tasks=PIECES_PER_WORKER, context=get_context("spawn"), initializer=_start_worker
    )
    try:
        yield from _Schedule(pool, sampling, preprocessing, timeout_seconds, most_running=2 * workers + 1).run(videos)
        pool.close()  # type: ignore[no-untyped-call]
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


@dataclass(frozen=True)
class _Piece:
    """A piece of work: open a video, plan it and decode its first frames, or decode more of a plan."""

    video: VideoFile
    decoder: str | None = None
    opened: "tuple[VideoInfo, FramePlan] | None" = None
    start: int = 0


_Decoded = tuple[VideoInfo, FramePlan, NDArray[np.uint8]]


class _Schedule:
    """What runs, what waits, and what to do when a piece fails."""

    def __init__(
        self,
        pool: ProcessPool,
        sampling: Sampling,
        preprocessing: Preprocessing,
        timeout_seconds: float,
        most_running: int,
    ) -> None:
        self._submit: Callable[[_Piece], Future[_Decoded]] = lambda piece: pool.schedule(
            _decode_piece, args=(piece, sampling, preprocessing), timeout=timeout_seconds
        )
        self._timeout_seconds = timeout_seconds
        self._most_running = most_running
        self._waiting: deque[_Piece] = deque()
        self._running: dict[Future[_Decoded], _Piece] = {}

    def run(self, videos: Iterable[VideoFile]) -> Iterator[FrameBatch | VideoFailure]:
        fresh = iter(videos)
        while True:
            self._fill(fresh)
            if not self._running:
                return
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                if future in self._running:
                    yield from self._finish(self._running.pop(future), future)

    def _fill(self, fresh: Iterator[VideoFile]) -> None:
        while len(self._running) < self._most_running:
            if self._waiting:
                piece = self._waiting.popleft()
            elif (video := next(fresh, None)) is not None:
                piece = _Piece(video)
            else:
                return
            self._running[self._submit(piece)] = piece

    def _finish(self, piece: _Piece, future: "Future[_Decoded]") -> Iterator[FrameBatch | VideoFailure]:
        try:
            info, plan, frames = future.result()
        except DecodeError as error:
            if piece.decoder == "pyav":
                yield self._fail(piece, error)
            else:
                logger.debug("%s: decoded again with PyAV: %s", piece.video.id, error)
                self._forget(piece.video)
                self._waiting.appendleft(_Piece(piece.video, decoder="pyav"))
        except VideoError as error:
            yield self._fail(piece, error)
        except TimeoutError:
            yield self._fail(piece, DecodeTimeoutError(f"decoding took over {self._timeout_seconds:g} s (--timeout)"))
        except ProcessExpired as error:
            yield self._fail(piece, DecoderCrashError(f"the decoder crashed ({_exit_reason(error.exitcode)})"))
        else:
            if piece.opened is None:
                piece = replace(piece, opened=(info, plan), decoder=info.decoder)
                starts = range(PIECE_FRAMES, len(plan), PIECE_FRAMES)
                self._waiting.extend(replace(piece, start=start) for start in starts)
            assert piece.opened is not None
            info, plan = piece.opened
            yield FrameBatch(video=piece.video, info=info, plan=plan, start=piece.start, frames=frames)

    def _fail(self, piece: _Piece, error: VideoError) -> VideoFailure:
        self._forget(piece.video)
        return VideoFailure(piece.video.id, type(error).__name__, str(error))

    def _forget(self, video: VideoFile) -> None:
        """Give up all other pieces of a video."""
        self._waiting = deque(piece for piece in self._waiting if piece.video != video)
        for future in [future for future, piece in self._running.items() if piece.video == video]:
            future.cancel()
            del self._running[future]


def _exit_reason(exitcode: int | None) -> str:
    """`SIGSEGV`, or the exit code."""
    try:
        return signal.Signals(-(exitcode or 0)).name
    except ValueError:
        return f"exit code {exitcode}"


def _start_worker() -> None:
    """Load the libraries, so that a piece's time is all decoding; one thread each, for the workers share the cores."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    import_decord()


def _decode_piece(piece: _Piece, sampling: Sampling, preprocessing: Preprocessing) -> _Decoded:
    """Runs in a worker. Whatever surprise a file holds is that file's failure, not the job's."""
    try:
        return _open_and_decode(piece, sampling, preprocessing)
    except VideoError:
        raise
    except Exception as error:
        raise DecodeError(f"{type(error).__name__}: {error}") from error


def _open_and_decode(piece: _Piece, sampling: Sampling, preprocessing: Preprocessing) -> _Decoded:
    from vidpipe.video.resize import resize_and_crop

    reader = _open_cached(piece.video.path, piece.decoder)
    if piece.opened is None:
        scenes = _find_scenes(reader) if sampling.method == "scene" else ()
        plan = plan_frames(sampling, reader.pts_seconds, reader.end_seconds, scenes)
    else:
        _, plan = piece.opened
    index = plan.frame_index[piece.start : piece.start + PIECE_FRAMES]
    frames = np.concatenate([resize_and_crop(block, preprocessing) for block in reader.blocks(index)])
    return reader.info, plan, frames


def _find_scenes(reader: VideoReader) -> list[tuple[int, int]]:
    from vidpipe.video.scenes import find_scenes

    return find_scenes(reader)


@lru_cache(maxsize=1)
def _open_cached(path: Path, decoder: str | None) -> VideoReader:
    """The pieces of one video mostly come one after another: open it once."""
    return open_video(path, decoder=decoder)
