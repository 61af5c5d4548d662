"""Decoding in worker processes: videos in, batches of frames at the model's size out, whatever the files do.

A decoder is native code that may hang with the interpreter's lock held, crash or leak. So it runs in processes of its
own, started afresh (never forked: a fork copies locks and threads in mid-air), killed when they show no sign of life
for too long, renewed after a number of pieces. What goes wrong costs one video.

A video is decoded in pieces of `PIECE_FRAMES` frames: a long one is bounded in memory and shared by the workers. While
a piece runs it counts what it has read, packets and frames, in memory that the main process sees: it may take as long
as it needs, but for `STEPS_PER_CHUNK` of them no longer than `timeout_seconds`.
"""

import logging
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired, ProcessPool

from vidpipe.config import DEFAULT_DECODER, Sampling
from vidpipe.errors import DecodeError, DecoderCrashError, DecodeTimeoutError, DecodingStoppedError, VideoError
from vidpipe.records import DecodeProgress, FrameBatch, Preprocessing, VideoFailure, VideoFile
from vidpipe.video.reader import methods_from
from vidpipe.video.steps import STEPS_PER_CHUNK
from vidpipe.video.worker import PIECE_FRAMES, Decoded, Piece, ReaderError, decode_piece, start_worker

if TYPE_CHECKING:
    from ctypes import Array, c_longlong

__all__ = ["decode_videos", "default_workers"]

logger = logging.getLogger(__name__)

PIECES_PER_WORKER = 1000
"""A worker is renewed after so many, so that a leak in native code cannot grow without bound."""
TICK_SECONDS = 1.0
MAX_IDLE_SECONDS = 60.0
"""For starting a worker: longer than that, and the time that a chunk may take, and none will ever start."""
MAX_BREAKS = 3
WORKER_START_SECONDS = 3.0
"""About what starting a worker takes: it pays where a video's other pieces take longer."""
NO_WORKERS = "the decoding processes do not start, or end at once"


def default_workers(device: str = "cpu") -> int:
    """Decoding processes to run beside an image model on a device.

    On the CPU one for every two cores, and one more: small backbones take about as long as decoding, and who has
    nothing to do costs only memory. Beside a GPU one for each core but the one that feeds it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores - 1) if device == "cuda" else min(cores, cores // 2 + 1)


def decode_videos(
    videos: Iterable[VideoFile],
    *,
    sampling: Sampling,
    preprocessing: Preprocessing,
    decoder: str = DEFAULT_DECODER,
    workers: int,
    timeout_seconds: float,
) -> Generator[FrameBatch | VideoFailure | DecodeProgress]:
    """Decode the sampled frames of many videos, in the order in which they get done.

    The batches of one video may come in any order; `FrameBatch.start` says where each belongs. A video that turns out
    to be damaged half-way starts again with another plan. At least once in `TICK_SECONDS` something is given: a
    `DecodeProgress` where there is nothing else. Where there are fewer videos than workers, the others start once a
    video turns out to be long: its pieces are then shared.

    Args:
        videos: what to read.
        sampling: which frames to take.
        preprocessing: how the backbone's weights want them resized and cropped.
        decoder: the reader to try first, one of `vidpipe.video.reader.METHODS`.
        workers: most processes to run.
        timeout_seconds: how long one chunk of work may take.

    Raises:
        DecodingStoppedError: no process can be got to work.
    """
    fresh = iter(videos)
    first = list(islice(fresh, workers))
    pool = _Workers(workers, num_videos=len(first))
    try:
        schedule = _Schedule(pool, methods_from(decoder), sampling, preprocessing, timeout_seconds)
        yield from schedule.run(chain(first, fresh))
    finally:
        pool.stop()


@dataclass
class _Running:
    """A piece that runs in a worker, or is queued for it."""

    piece: Piece
    slot: int
    """Where in the shared counts it counts its steps."""
    num_steps: int = 0
    num_chunks: int = -1
    moved_at: float = 0.0
    """When `num_chunks` was last seen to grow, on the monotonic clock."""


class _Workers:
    """The processes that decode, and the memory in which they count.

    A pool starts its processes when it gets its first piece. There are two: one with a worker for each video at hand,
    and one with the rest, for videos in many pieces.

    Args:
        count: number of processes, both pools together.
        num_videos: how many videos are at hand.
    """

    def __init__(self, count: int, *, num_videos: int) -> None:
        self._count = count
        self._num_first = min(count, max(1, num_videos))
        self._context = get_context("spawn")
        slots = range(2 * count + 1)  # a piece that runs and one that is queued for each worker, and one more
        self.counts: Array[c_longlong] = self._context.RawArray("q", len(slots))
        self.first_slots = [slot for slot in slots if self._is_first(slot)]
        self.other_slots = [slot for slot in slots if not self._is_first(slot)]
        self._pools = self._new_pools()

    def _is_first(self, slot: int) -> bool:
        """Whether a slot belongs to the first pool. Of 3 workers, 2 at first: `110110` and a last 1."""
        return slot % self._count < self._num_first

    def _new_pools(self) -> tuple[ProcessPool, ProcessPool]:
        return self._new_pool(self._num_first), self._new_pool(self._count - self._num_first)

    def _new_pool(self, num_workers: int) -> ProcessPool:
        return ProcessPool(
            max_workers=num_workers,
            max_tasks=PIECES_PER_WORKER,
            context=self._context,
            initializer=start_worker,
            initargs=(self.counts, os.getpid()),
        )

    def submit(self, slot: int, function: Callable[..., "Decoded"], *args: Any) -> "Future[Decoded]":
        """Have a worker call a function.

        Raises:
            BrokenProcessPool: a worker died that had nothing to do, and with it the pool.
        """
        first, others = self._pools
        try:
            return (first if self._is_first(slot) else others).schedule(function, args=args)
        except RuntimeError as error:
            raise BrokenProcessPool(str(error)) from error

    def restart(self) -> None:
        """Start all processes anew; what they had in hand is lost."""
        self.stop()
        self._pools = self._new_pools()

    def stop(self) -> None:
        for pool in self._pools:
            pool.stop()  # type: ignore[no-untyped-call]
        for pool in self._pools:
            pool.join()


class _Schedule:
    """What runs, what waits, and what to do when a piece fails."""

    def __init__(
        self,
        workers: _Workers,
        methods: tuple[str, ...],
        sampling: Sampling,
        preprocessing: Preprocessing,
        timeout_seconds: float,
    ) -> None:
        self._workers, self._methods = workers, methods
        self._settings = (sampling, preprocessing)
        self._timeout_seconds = timeout_seconds
        self._free_slots = sorted(workers.first_slots, reverse=True)
        self._held_slots = workers.other_slots
        """Those of workers that need not start as long as no video is long."""
        self._waiting: deque[Piece] = deque()
        self._running: dict[Future[Decoded], _Running] = {}
        self._is_broken = False
        """Whether a worker died that had nothing to do: pebble then gives up all of them."""
        self._num_breaks = 0
        """How often that happened since a piece came back."""

    def run(self, videos: Iterable[VideoFile]) -> Iterator[FrameBatch | VideoFailure | DecodeProgress]:
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
            if idle_seconds > MAX_IDLE_SECONDS + self._timeout_seconds:
                raise DecodingStoppedError(_why_no_workers())
            yield from signs

    def _fill(self, fresh: Iterator[VideoFile]) -> None:
        while self._free_slots:
            if not self._waiting:
                if (video := next(fresh, None)) is None:
                    return
                self._waiting.append(Piece(video, self._methods))
            slot = self._free_slots[-1]
            self._workers.counts[slot] = 0
            try:
                future = self._workers.submit(slot, decode_piece, self._waiting[0], slot, *self._settings)
            except BrokenProcessPool:
                self._is_broken = True
                return
            self._running[future] = _Running(self._waiting.popleft(), self._free_slots.pop())

    def _mend(self) -> None:
        """Start the workers anew, and give them the same work again."""
        self._is_broken = False
        self._num_breaks += 1
        if self._num_breaks > MAX_BREAKS:
            raise DecodingStoppedError(_why_no_workers())
        self._waiting.extendleft(self._take(future) for future in list(self._running))
        self._workers.restart()

    def _collect(self, done: "Iterable[Future[Decoded]]") -> Iterator[FrameBatch | VideoFailure]:
        for future in done:
            if future in self._running:
                yield from self._finish(self._take(future), future)

    def _take(self, future: "Future[Decoded]") -> Piece:
        running = self._running.pop(future)
        self._free_slots.append(running.slot)
        return running.piece

    def _look_after_the_others(self) -> Iterator[VideoFailure | DecodeProgress]:
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
                yield DecodeProgress(running.piece.video.id, num_steps)

    def _finish(self, piece: Piece, future: "Future[Decoded]") -> Iterator[FrameBatch | VideoFailure]:
        try:
            decoded = future.result()
        except ReaderError as error:
            if error.methods_left:
                logger.debug("%s: next by %s: %s", piece.video.id, error.methods_left[0], error.message)
                self._forget(piece.video)
                self._waiting.appendleft(Piece(piece.video, methods=error.methods_left))
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
                piece = replace(piece, opened=(decoded.info, decoded.plan), methods=(decoded.method,))
                starts = range(PIECE_FRAMES, len(decoded.plan), PIECE_FRAMES)
                self._waiting.extend(replace(piece, start=start) for start in starts)
                if len(starts) > 1 and len(starts) * decoded.seconds >= WORKER_START_SECONDS:
                    self._share()
            assert piece.opened is not None
            info, plan = piece.opened
            yield FrameBatch(piece.video, info, plan, piece.start, decoded.frames, decoded.seconds, decoded.worker)

    def _share(self) -> None:
        """Let all workers take pieces, each one before any takes a second."""
        self._free_slots = sorted([*self._free_slots, *self._held_slots], reverse=True)
        self._held_slots = []

    def _fail(self, piece: Piece, error: VideoError) -> VideoFailure:
        self._forget(piece.video)
        return VideoFailure(piece.video.id, type(error).__name__, str(error))

    def _forget(self, video: VideoFile) -> None:
        """Give up all pieces of a video; a worker that has one in hand is killed and replaced."""
        self._waiting = deque(piece for piece in self._waiting if piece.video != video)
        for future in [future for future, running in self._running.items() if running.piece.video == video]:
            future.cancel()
            self._take(future)


def _why_no_workers() -> str:
    """That no worker can be started, and the likeliest reason."""
    if _lacks_main_guard():
        return (
            f"{NO_WORKERS}: each one imports the script that calls vidpipe; put what the script does under "
            "`if __name__ == '__main__':`"
        )
    return f"{NO_WORKERS}; is there memory left? Fewer --workers need less"


def _lacks_main_guard() -> bool:
    """Whether the program is a script that does its work also when a new process imports it."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or Path(path).name == "__main__.py":  # these are not imported
        return False
    try:
        return re.search("__name__.*__main__", Path(path).read_text(encoding="utf-8", errors="replace")) is None
    except OSError:
        return False


def _exit_reason(exitcode: int | None) -> str:
    """`SIGSEGV`, or the exit code."""
    try:
        return signal.Signals(-(exitcode or 0)).name
    except ValueError:
        return f"exit code {exitcode}"
