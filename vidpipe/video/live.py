"""Rows of a video that is still recorded: a file that grows, or a folder into which a camera puts file after file.

As in `vidpipe.video.decoding`, decoding runs in a process that can be killed: native code may hang or crash. It reads
each byte and decodes each frame once, from the start on. While it waits, it says at each look that it is alive.

file or folder ──frames, with continuous times──► RowPlanner, one a stream ──rows that are certain──► main process
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError, DecoderCrashError, DecodeTimeoutError, NotAVideoError, VideoError
from vidpipe.records import VideoFailure
from vidpipe.video.container import GROWING_FORMATS, open_container, open_stream, video_stream
from vidpipe.video.live_files import GrowingFile, IsStopped, Patience, finished_files
from vidpipe.video.live_rows import LiveRow, RowPlanner
from vidpipe.video.processes import decoding_context, end_with_main_process
from vidpipe.video.reader_pyav import Picture, decode_all
from vidpipe.video.view import View

if TYPE_CHECKING:
    import av

__all__ = ["LiveEnd", "LiveFile", "LiveRows", "read_live"]

_PICTURES_AT_ONCE = 64
_ALIVE_SECONDS = 0.5
"""How often the process says that it is alive."""
_START_SECONDS = 60.0
"""What starting the process may take."""
_NUM_TYPICAL = 25
"""Frames whose distances tell how long a frame without a duration is shown."""
_SECONDS_OF_LONE_FRAME = 0.04


@dataclass(frozen=True)
class LiveFile:
    """A file from which the next rows come."""

    video_id: str
    start_seconds: float
    """Of its first frame."""


@dataclass(frozen=True)
class LiveRows:
    """The next rows of one stream."""

    stream: str
    pts_seconds: NDArray[np.float64]
    """(T,) when the frame at each row's centre is shown."""
    frame_index: NDArray[np.int64]
    """(T,) that frame's number, from the start on."""
    inputs: NDArray[np.uint8]
    """(T, 3, H, W), or (T, W, 3, H, W) for a backbone that sees windows."""
    start_seconds: float
    """Of the video."""
    frames_per_clip: int | None
    """Of a stream that is sampled by clips; None where the video ended within the first one."""


@dataclass(frozen=True)
class LiveEnd:
    """The end of the video."""

    stop_seconds: float
    """When the last frame's presentation ends."""


LiveNews = LiveFile | LiveRows | LiveEnd | VideoFailure


def read_live(
    path: Path,
    views: Mapping[str, View],
    *,
    patience: Patience,
    timeout_seconds: float,
    is_stopped: IsStopped = lambda: False,
) -> Generator[LiveNews]:
    """Read a file that grows, or a folder of files that come one after another, in a process of its own.

    Args:
        path: the file or the folder.
        views: by stream, what it needs.
        patience: how long to wait for more.
        timeout_seconds: without a sign of life for this long, the process is killed.
        is_stopped: where it returns True, the video ends with what was read so far.

    Yields:
        Rows, the same as of the whole video as far as possible; `LiveFile` before the rows of each file; the failure of
        a file of a folder; and at last `LiveEnd`.

    Raises:
        VideoError: the file, or the folder, cannot be read, or the process hangs or crashes.
    """
    context = decoding_context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, path, dict(views), patience), daemon=True)
    process.start()
    theirs.close()
    try:
        yield from _receive(ours, timeout_seconds, is_stopped)
    finally:
        process.kill()
        process.join()
        ours.close()


def _receive(connection: "Connection", timeout_seconds: float, is_stopped: IsStopped) -> Iterator[LiveNews]:
    """Yield the news of the process up to the end of the video."""
    limit_seconds, alive_at = max(timeout_seconds, _START_SECONDS), time.monotonic()
    has_started = has_stopped = False
    while True:
        if is_stopped() and not has_stopped:
            has_stopped = True
            with suppress(OSError):  # where the process has ended
                connection.send("stop")
        if not connection.poll(_ALIVE_SECONDS):
            if time.monotonic() - alive_at > limit_seconds:
                raise DecodeTimeoutError(f"decoding made no progress for {limit_seconds:g} s (--timeout)")
            continue
        try:
            news = connection.recv()
        except (EOFError, ConnectionError) as error:
            if has_stopped and not has_started:  # Ctrl-C before it could ignore the signal
                return
            raise DecoderCrashError("the decoder crashed") from error
        has_started = True
        if isinstance(news, VideoError):
            raise news
        if news is not None:
            yield news
        limit_seconds, alive_at = timeout_seconds, time.monotonic()
        if isinstance(news, LiveEnd):
            return


def _run(connection: "Connection", path: Path, views: Mapping[str, View], patience: Patience) -> None:
    """Run in the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process hears Ctrl-C, and says when to stop
    end_with_main_process()
    import torch

    torch.set_num_threads(1)
    sender = _Sender(connection)
    try:
        _read(path, views, patience, sender)
    except VideoError as error:
        connection.send(error)
    except Exception as error:
        connection.send(DecodeError(f"{type(error).__name__}: {error}"))


def _read(path: Path, views: Mapping[str, View], patience: Patience, sender: "_Sender") -> None:
    rows = _LiveReader(views, sender)
    if not path.is_dir():
        _read_growing(path, patience, rows, sender)
    else:
        for file in finished_files(path, patience, sender.is_stopped):
            try:
                _read_finished(file, rows, sender)
            except VideoError as error:
                sender.send(VideoFailure(file.name, type(error).__name__, str(error)))
    rows.finish()


def _read_growing(path: Path, patience: Patience, rows: "_LiveReader", sender: "_Sender") -> None:
    with GrowingFile(path, patience, sender.is_stopped) as file:
        if not (head := file.peek()):
            raise NotAVideoError("the file stays empty")
        with open_stream(file, head) as container:
            stream = video_stream(container)
            rows.begin(path.name, is_first=True)
            for frame in decode_all(container, stream, on_step=sender.step):
                rows.add(frame)
    if not rows.num_frames:
        raise DecodeError(f"no frame can be decoded while it grows; {GROWING_FORMATS}")


def _read_finished(path: Path, rows: "_LiveReader", sender: "_Sender") -> None:
    num_before = rows.num_frames
    with open_container(path) as container:
        stream = video_stream(container)
        rows.begin(path.name, is_first=not num_before)
        for frame in decode_all(container, stream, on_step=sender.step):
            rows.add(frame)
            if sender.has_stopped:
                return
    if rows.num_frames == num_before:
        raise DecodeError("no frame of the video stream can be decoded")


class _Sender:
    """Sends news to the main process, and hears whether to stop."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._sent_at = 0.0
        self.has_stopped = False
        self.before_waiting: Callable[[], None] = lambda: None

    def send(self, news: LiveNews | None) -> None:
        """Send news, or None as a sign of life."""
        self._connection.send(news)
        self._sent_at = time.monotonic()

    def step(self, num_steps: int) -> None:
        """Send a sign of life, from time to time."""
        if time.monotonic() - self._sent_at > _ALIVE_SECONDS:
            self.send(None)
            self.has_stopped |= self._connection.poll()

    def is_stopped(self) -> bool:
        """Whether the main process wants no more; called while waiting for more to read."""
        self.before_waiting()
        self.step(0)
        self.has_stopped |= self._connection.poll()
        return self.has_stopped


class _LiveReader:
    """Makes rows of frames, in the order in which they are shown, over the files of one video."""

    def __init__(self, views: Mapping[str, View], sender: _Sender) -> None:
        self._streams = {name: _LiveStream(name, view) for name, view in views.items()}
        self._sender = sender
        sender.before_waiting = self._flush
        self.num_frames = 0
        self._video_id, self._is_first = "", True
        self._offset_seconds: float | None = None
        """Added to the times of a file; None before its first frame."""
        self._picture: Picture | None = None
        self._last: _Shown | None = None
        """The last frame, of which it is not known yet whether a row needs it."""
        self._distances: deque[float] = deque(maxlen=_NUM_TYPICAL)

    def begin(self, video_id: str, *, is_first: bool) -> None:
        """Begin a file. Its first frame follows the last one without a gap."""
        self._video_id, self._is_first = video_id, is_first
        self._offset_seconds = self._picture = None

    def add(self, frame: "av.VideoFrame") -> None:
        """Take the next frame, and send the rows that are now certain."""
        shown = self._placed(frame)
        if self._last is not None:
            self._distances.append(shown.seconds - self._last.seconds)
        for stream in self._streams.values():
            stream.add(self.num_frames, shown.seconds, self._last)
        self._last = shown
        self.num_frames += 1
        if any(stream.num_pictures >= _PICTURES_AT_ONCE for stream in self._streams.values()):
            self._flush()

    def finish(self) -> None:
        """Send the rows that are left, and the end."""
        stop_seconds = self._stop_seconds()
        for stream in self._streams.values():
            stream.finish(stop_seconds, self._last, self.num_frames - 1)
        self._flush()
        self._sender.send(LiveEnd(stop_seconds))

    def _placed(self, frame: "av.VideoFrame") -> "_Shown":
        """The frame at its time: later than the one before, also where a file says otherwise or nothing."""
        seconds = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        if self._offset_seconds is None:
            self._picture = Picture(frame)
            start_seconds = (seconds or 0.0) if self._is_first else self._stop_seconds()
            self._offset_seconds = start_seconds - (seconds or 0.0)
            self._flush()
            self._sender.send(LiveFile(self._video_id, start_seconds))
        assert self._picture is not None
        placed = None if seconds is None else seconds + self._offset_seconds
        if placed is None or (self._last is not None and placed <= self._last.seconds):
            placed = self._stop_seconds()
        duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return _Shown(placed, duration, frame, self._picture)

    def _stop_seconds(self) -> float:
        """When the presentation of the last frame ends."""
        if self._last is None:
            return 0.0
        typical = median(self._distances) if self._distances else _SECONDS_OF_LONE_FRAME
        return self._last.seconds + (self._last.duration_seconds or typical)

    def _flush(self) -> None:
        for stream in self._streams.values():
            if (rows := stream.take()) is not None:
                self._sender.send(rows)


class _Shown:
    """A frame and the time at which it is shown."""

    def __init__(self, seconds: float, duration_seconds: float, frame: "av.VideoFrame", picture: Picture) -> None:
        self.seconds, self.duration_seconds = seconds, duration_seconds
        self._frame, self._picture = frame, picture

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """(1, H, W, 3)"""
        return self._picture.rgb(self._frame)[None]


class _LiveStream:
    """The rows of one stream, and the pictures that they still need."""

    def __init__(self, name: str, view: View) -> None:
        self._name, self._view = name, view
        self._planner = RowPlanner(view)
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        """By the frame's number, (3, H, W)."""
        self._pts_seconds: list[float] = []
        self._centres: list[int] = []
        self._inputs: list[NDArray[np.uint8]] = []

    @property
    def num_pictures(self) -> int:
        """Of the rows that were not taken yet."""
        return len(self._inputs) * (self._view.window.num_frames if self._view.window else 1)

    def add(self, number: int, seconds: float, before: _Shown | None) -> None:
        """Take the time of the next frame, and the frame before it."""
        rows = list(self._planner.add(seconds))
        is_used = any(number - 1 in row.frames for row in rows)
        if before is not None and (is_used or self._planner.may_need(number - 1)):
            self._keep(number - 1, before)
        self._add_rows(rows)

    def finish(self, stop_seconds: float, last: _Shown | None, number: int) -> None:
        """Make the rows that are left."""
        if last is not None:
            self._keep(number, last)
        self._add_rows(list(self._planner.finish(stop_seconds)))

    def take(self) -> LiveRows | None:
        """Return the rows since the last call, if there are any."""
        if not self._inputs:
            return None
        planner = self._planner
        rows = LiveRows(
            self._name,
            np.array(self._pts_seconds),
            np.array(self._centres, np.int64),
            np.stack(self._inputs),
            planner.start_seconds,
            planner.frames_per_clip,
        )
        self._pts_seconds, self._centres, self._inputs = [], [], []
        return rows

    def _keep(self, number: int, shown: _Shown) -> None:
        from vidpipe.video.resize import resize_and_crop

        self._pictures[number] = resize_and_crop(shown.rgb, self._view.preprocessing)[0]

    def _add_rows(self, rows: Sequence[LiveRow]) -> None:
        for row in rows:
            pictures = [self._pictures[number] for number in row.frames]
            self._pts_seconds.append(row.pts_seconds)
            self._centres.append(row.centre)
            self._inputs.append(np.stack(pictures) if self._view.window else pictures[0])
        needed = self._planner.first_needed
        for number in [number for number in self._pictures if number < needed]:
            del self._pictures[number]
