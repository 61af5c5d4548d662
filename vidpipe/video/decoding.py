"""Decoding in worker processes: videos in, batches of pictures at the backbone's input size out.

A decoder is native code that may hang with the interpreter's lock held, crash or leak memory. So it runs in processes
of its own (`vidpipe.video.processes`). A process without progress for too long is killed, and each is replaced after a
number of pieces. An error costs one video.

A video is decoded in pieces of about `PIECE_PICTURES` pictures. So the memory for a long video is bounded, and the
workers share its pieces. While a piece runs, the worker counts the packets and frames that it has read, in memory that
the main process sees. A piece may take as long as it needs, but each `STEPS_PER_CHUNK` of these steps may take no
longer than `timeout_seconds`.
"""

import logging
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pebble import ProcessExpired, ProcessPool

from vidpipe.config import DEFAULT_DECODER, Decoding
from vidpipe.errors import (
    DecodeError,
    DecoderCrashError,
    DecodeTimeoutError,
    DecodingStoppedError,
    UsageError,
    VideoError,
)
from vidpipe.records import DecodeProgress, FrameBatch, VideoFailure, VideoFile
from vidpipe.video.processes import decoding_context, fork_server, has_ended
from vidpipe.video.reader import methods_from
from vidpipe.video.steps import STEPS_PER_CHUNK
from vidpipe.video.view import View
from vidpipe.video.worker import Decoded, Piece, ReaderError, decode_piece, frames_per_piece, start_worker

if TYPE_CHECKING:
    from ctypes import Array, c_longlong

__all__ = ["choose_decoder", "decode_videos", "default_workers"]

logger = logging.getLogger(__name__)

PIECES_PER_WORKER = 1000
"""Pieces after which a worker is replaced, so that a memory leak in native code cannot grow without bound."""
TICK_SECONDS = 1.0
MAX_IDLE_SECONDS = 60.0
"""Without progress for this long and the time that a chunk may take, the workers do not start."""
MAX_BREAKS = 3
"""How often in a row all workers may end before decoding stops."""
WORKER_START_SECONDS = 3.0
"""About what starting a worker takes. More workers start where a video's other pieces take longer."""
NO_WORKERS = "the decoding processes do not start, or end at once"


def choose_decoder(decoding: Decoding, preferred: str) -> str:
    """Return the decoder that gives the pixels that features need.

    Args:
        decoding: how the features' frames are decoded.
        preferred: the decoder that the settings name.

    Returns:
        The reader to try first.

    Raises:
        UsageError: the features were decoded on a CPU and a GPU is asked for, or this machine has no GPU that decodes.
    """
    if decoding.decoder != "nvdec":
        if preferred == "nvdec":
            raise UsageError("--decoder nvdec: the features were decoded on a CPU; use --decoder pyav")
        return preferred
    from vidpipe.video.reader_nvdec import check_nvdec

    check_nvdec()
    return "nvdec"


def default_workers(device: str = "cpu", decoder: str = DEFAULT_DECODER, *, cores: int | None = None) -> int:
    """Return the number of decoding processes to run beside a backbone.

    On the CPU it is one for every two cores, and one more: small backbones take about as long as decoding, and an idle
    process costs only memory. Beside a GPU it is one for each core but one, which feeds the GPU. Where a GPU decodes,
    it is one for each of its engines.

    Args:
        device: where the backbone runs, `cpu` or `cuda`.
        decoder: the reader to try first.
        cores: how many to use; None for all that the process may use.

    Returns:
        At least 1.
    """
    if decoder == "nvdec":
        import torch

        from vidpipe.video.reader_nvdec import count_engines

        return count_engines(torch.cuda.get_device_name())
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores - 1) if device == "cuda" else min(cores, cores // 2 + 1)


def decode_videos(
    videos: Iterable[VideoFile],
    views: Mapping[str, View],
    *,
    wanted: Mapping[str, Sequence[str]] | None = None,
    view_of: Callable[[VideoFile, str], View] | None = None,
    decoder: str = DEFAULT_DECODER,
    fast_decode: str = "off",
    workers: int,
    timeout_seconds: float,
) -> Generator[FrameBatch | VideoFailure | DecodeProgress]:
    """Decode what the streams need of many videos, in the order in which they get done.

    Each frame is decoded once, whatever number of rows and streams use it. The batches of one video may come in any
    order; `FrameBatch.start` says where each belongs. A video that turns out to be damaged starts again with another
    plan. Where there are fewer videos than workers, the other workers start once a video turns out to be long, and
    share its pieces.

    Args:
        videos: what to read.
        views: by stream, what it needs of each video.
        wanted: by id, the streams that need the video; all of them where it is None.
        view_of: what a stream needs of one video, where it depends on the video; called just before it is decoded.
        decoder: the reader to try first, one of `vidpipe.video.reader.METHODS`.
        fast_decode: one of `vidpipe.video.container.FAST_DECODE`.
        workers: the largest number of processes to run.
        timeout_seconds: how long one chunk of work may take.

    Yields:
        Batches and failures. Where there is neither, a `DecodeProgress` at least once in `TICK_SECONDS`.

    Raises:
        DecodingStoppedError: the processes do not start.
    """
    to_come = iter(videos)
    first = list(islice(to_come, workers))
    pool = _Workers(workers, num_videos=len(first))

    def first_piece(video: VideoFile) -> Piece:
        names = views if wanted is None else wanted[video.id]
        its_views = {name: views[name] if view_of is None else view_of(video, name) for name in names}
        key_frames = all(view.sampling.method == "keyframe" for view in its_views.values())
        return Piece(video, its_views, methods_from(decoder, key_frames=key_frames), fast_decode=fast_decode)

    try:
        schedule = _Schedule(pool, timeout_seconds)
        yield from schedule.run(map(first_piece, chain(first, to_come)))
    finally:
        pool.stop()


@dataclass
class _Running:
    """A piece that runs in a worker, or is queued for it."""

    piece: Piece
    slot: int
    """Where in the shared memory it counts its steps."""
    num_steps: int = 0
    num_chunks: int = -1
    moved_at: float = 0.0
    """When `num_chunks` last grew, on the monotonic clock."""


class _Workers:
    """The processes that decode, and the shared memory in which they count.

    There are two pools, and a pool starts its processes when it gets its first piece. The first has a worker for each
    video that is there at the start; the second has the others, for videos in many pieces.

    Args:
        count: number of processes of both pools.
        num_videos: how many videos are there at the start.
    """

    def __init__(self, count: int, *, num_videos: int) -> None:
        self._count = count
        self._num_first = min(count, max(1, num_videos))
        self._context = decoding_context()
        slots = range(2 * count + 1)  # for each worker a piece that runs and one in its queue, and one more
        self.counts: Array[c_longlong] = self._context.RawArray("q", len(slots))
        self.first_slots = [slot for slot in slots if self._is_first(slot)]
        self.other_slots = [slot for slot in slots if not self._is_first(slot)]
        self._pools = self._new_pools()

    def _is_first(self, slot: int) -> bool:
        """Whether a slot belongs to the first pool. With 3 workers, 2 of them in the first pool: `1101101`."""
        return slot % self._count < self._num_first

    def _new_pools(self) -> tuple[ProcessPool, ProcessPool]:
        self._server = fork_server()
        return self._new_pool(self._num_first), self._new_pool(self._count - self._num_first)

    def _new_pool(self, num_workers: int) -> ProcessPool:
        return ProcessPool(
            max_workers=num_workers,
            max_tasks=PIECES_PER_WORKER,
            context=self._context,
            initializer=start_worker,
            initargs=(self.counts,),
        )

    def submit(self, slot: int, function: Callable[..., "Decoded"], *args: Any) -> "Future[Decoded]":
        """Have a worker call a function.

        Args:
            slot: says which pool.
            function: a module's function.
            args: its arguments.

        Returns:
            Its result, in the future.

        Raises:
            BrokenProcessPool: an idle worker died, which ends the whole pool.
        """
        first, others = self._pools
        try:
            return (first if self._is_first(slot) else others).schedule(function, args=args)
        except RuntimeError as error:
            raise BrokenProcessPool(str(error)) from error

    @property
    def have_ended(self) -> bool:
        """Whether all processes were killed with their fork server."""
        return has_ended(self._server)

    def restart(self) -> None:
        """Replace all processes; the pieces that they were decoding are lost."""
        self.stop()
        self._pools = self._new_pools()

    def stop(self) -> None:
        """End all processes."""
        for pool in self._pools:
            pool.stop()  # type: ignore[no-untyped-call]
        for pool in self._pools:
            pool.join()


class _Schedule:
    """Which pieces run, which wait, and what happens when one fails."""

    def __init__(self, workers: _Workers, timeout_seconds: float) -> None:
        self._workers, self._timeout_seconds = workers, timeout_seconds
        self._free_slots = sorted(workers.first_slots, reverse=True)
        self._held_slots = workers.other_slots
        """Slots of the second pool, which does not start as long as no video is long."""
        self._waiting: deque[Piece] = deque()
        self._running: dict[Future[Decoded], _Running] = {}
        self._is_broken = False
        """Whether all workers have ended: their fork server did, or an idle one died and pebble ended the others."""
        self._num_breaks = 0
        """How often that happened since a piece was last decoded."""

    def run(self, to_come: Iterator[Piece]) -> Iterator[FrameBatch | VideoFailure | DecodeProgress]:
        """Decode videos, given the first piece of each; see `decode_videos`."""
        tick_seconds = min(TICK_SECONDS, self._timeout_seconds / 4)
        idle_seconds = 0.0
        while True:
            self._submit(to_come)
            if self._is_broken:
                self._restart()
                continue
            if not self._running:
                return
            done, _ = wait(self._running, timeout=tick_seconds, return_when=FIRST_COMPLETED)
            news = [*self._collect(done), *self._check_running()]
            idle_seconds = 0.0 if news else idle_seconds + tick_seconds
            if idle_seconds > MAX_IDLE_SECONDS + self._timeout_seconds:
                raise DecodingStoppedError(_why_no_workers())
            yield from news

    def _submit(self, to_come: Iterator[Piece]) -> None:
        """Give the workers pieces until all slots are taken: those that wait, then the first pieces of new videos."""
        while self._free_slots:
            if not self._waiting:
                if (first := next(to_come, None)) is None:
                    return
                self._waiting.append(first)
            slot = self._free_slots[-1]
            self._workers.counts[slot] = 0
            try:
                future = self._workers.submit(slot, decode_piece, self._waiting[0], slot)
            except BrokenProcessPool:
                self._is_broken = True
                return
            self._running[future] = _Running(self._waiting.popleft(), self._free_slots.pop())

    def _restart(self) -> None:
        """Replace the workers, and put the pieces that they were decoding back in the queue."""
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

    def _check_running(self) -> Iterator[VideoFailure | DecodeProgress]:
        """Report the progress of the pieces that run, and stop those that have made none for too long."""
        now = time.monotonic()
        for future, running in list(self._running.items()):
            num_steps = self._workers.counts[running.slot]
            if num_steps and num_steps // STEPS_PER_CHUNK != running.num_chunks:
                running.num_chunks, running.moved_at = num_steps // STEPS_PER_CHUNK, now
            elif num_steps and now - running.moved_at > self._timeout_seconds and future in self._running:
                reason = f"decoding one chunk took over {self._timeout_seconds:g} s (--timeout)"
                yield self._fail(running.piece, DecodeTimeoutError(reason))
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
                self._waiting.appendleft(replace(piece, methods=error.methods_left, opened=None, start=0))
            else:
                yield self._fail(piece, DecodeError(error.message))
        except VideoError as error:
            yield self._fail(piece, error)
        except BrokenProcessPool:
            self._restart_with(piece)
        except ProcessExpired as error:
            if self._workers.have_ended:
                self._restart_with(piece)
                return
            yield self._fail(piece, DecoderCrashError(f"the decoder crashed ({_exit_reason(error.exitcode)})"))
        else:
            self._num_breaks = 0
            if piece.opened is None:
                self._add_other_pieces(piece, decoded)
            yield from _batches(piece, decoded)

    def _restart_with(self, piece: Piece) -> None:
        """Have all processes replaced, and the piece decoded again."""
        self._is_broken = True
        self._waiting.appendleft(piece)

    def _add_other_pieces(self, first: Piece, decoded: Decoded) -> None:
        """Queue the pieces of a video that follow its first one."""
        other = replace(first, opened=(decoded.info, decoded.plan), methods=(decoded.method,))
        step = frames_per_piece(decoded.plan)
        starts = range(step, len(decoded.plan.frame_index), step)
        self._waiting.extend(replace(other, start=start) for start in starts)
        if len(starts) > 1 and len(starts) * decoded.seconds >= WORKER_START_SECONDS:
            self._start_all_workers()

    def _start_all_workers(self) -> None:
        """Let the second pool take pieces too; each worker takes one before any takes a second."""
        self._free_slots = sorted([*self._free_slots, *self._held_slots], reverse=True)
        self._held_slots = []

    def _fail(self, piece: Piece, error: VideoError) -> VideoFailure:
        self._forget(piece.video)
        return VideoFailure(piece.video.id, type(error).__name__, str(error))

    def _forget(self, video: VideoFile) -> None:
        """Drop all pieces of a video; a worker that is decoding one is killed and replaced."""
        self._waiting = deque(piece for piece in self._waiting if piece.video != video)
        for future in [future for future, running in self._running.items() if running.piece.video == video]:
            future.cancel()
            self._take(future)


def _batches(piece: Piece, decoded: Decoded) -> Iterator[FrameBatch]:
    """The batches of a decoded piece, one for each stream; the first one has the time that decoding took."""
    info, plan = piece.opened or (decoded.info, decoded.plan)  # the first piece's objects
    seconds = decoded.seconds
    for made in decoded.pictures:
        yield FrameBatch(piece.video, info, plan, made.stream, made.start, made.pictures, seconds, decoded.worker)
        seconds = 0.0


def _why_no_workers() -> str:
    """Return a message: no worker starts, and the likeliest reason."""
    if _lacks_main_guard():
        return (
            f"{NO_WORKERS}: each one imports the script that calls vidpipe; put what the script does under "
            "`if __name__ == '__main__':`"
        )
    return f"{NO_WORKERS}; is there memory left? Fewer --workers need less"


def _lacks_main_guard() -> bool:
    """Return whether the program is a script that does its work also when a new process imports it."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or Path(path).name == "__main__.py":  # a new process does not import these
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
