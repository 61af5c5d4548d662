"""Files that are still written: the bytes of one that grows, and the finished ones of a folder, as they come."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vidpipe.errors import DecodeError, UnreadableFileError
from vidpipe.video.files import MEDIA_SUFFIXES

__all__ = ["GrowingFile", "IsStopped", "Patience", "finished_files"]

logger = logging.getLogger(__name__)

_HEAD_BYTES = 2**16


@dataclass(frozen=True)
class Patience:
    """How long to wait for what is still written."""

    idle_seconds: float = 30.0
    """Without growth for this long, the video has ended."""
    settle_seconds: float = 3.0
    """A file of a folder is finished once it has not changed for this long, or a later one exists."""
    poll_seconds: float = 0.2
    """From one look at a file or folder to the next."""


IsStopped = Callable[[], bool]
"""Is called while waiting; returns whether to wait no longer."""


class GrowingFile:
    """The bytes of a file that grows; a `ByteStream`. A read at its end waits for more.

    It has no `seek`, so that FFmpeg reads no index at its end.

    Args:
        path: the file.
        patience: how long to wait.
        is_stopped: called at each look; where it returns True, the file ends where it is.

    Raises:
        UnreadableFileError: it cannot be opened.
    """

    def __init__(self, path: Path, patience: Patience, is_stopped: IsStopped) -> None:
        self.name = path.name
        self._path, self._patience, self._is_stopped = path, patience, is_stopped
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise UnreadableFileError(f"cannot be read ({error.strerror})") from error
        self._head = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def peek(self) -> bytes:
        """Return the first bytes without reading past them; none if the file stays empty."""
        self._head = self._head or self._wait_for(_HEAD_BYTES)
        return self._head

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes, some at least, at most as many as asked for; none once the file has ended."""
        if self._head:
            taken, self._head = self._head[:num_bytes], self._head[num_bytes:]
            return taken
        return self._wait_for(num_bytes)

    def _wait_for(self, num_bytes: int) -> bytes:
        waiting_since = time.monotonic()
        while not (found := self._stream.read(num_bytes)):
            if self._stream.tell() > self._path_size():
                raise DecodeError("became smaller while it was read; give each recording a file of its own")
            if self._is_stopped() or time.monotonic() - waiting_since > self._patience.idle_seconds:
                return b""
            time.sleep(self._patience.poll_seconds)
        return found

    def _path_size(self) -> float:
        try:
            return self._path.stat().st_size
        except OSError:  # deleted: what was written of it can still be read
            return float("inf")


def finished_files(folder: Path, patience: Patience, is_stopped: IsStopped) -> Iterator[Path]:
    """Find the files of a folder as they are finished, in the order of their names, `2.mp4` before `10.mp4`.

    Args:
        folder: the folder; folders in it, hidden files and files that are no media by their names are left out.
        patience: how long to wait.
        is_stopped: called at each look; where it returns True, only files that are finished follow.

    Yields:
        The files.

    Raises:
        UnreadableFileError: the folder cannot be read.
    """
    files = _Folder(folder)
    idle_since = time.monotonic()
    while not is_stopped():
        files.look()
        path = files.next_finished(patience.settle_seconds)
        if path is not None:
            yield path
            idle_since = time.monotonic()
        elif not files.to_come and time.monotonic() - idle_since > patience.idle_seconds:
            return
        else:
            time.sleep(patience.poll_seconds)


class _Folder:
    """What is known about a folder's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps: dict[Path, tuple[int, int]] = {}
        """The size and modification time of the files that are not finished."""
        self._changed_at: dict[Path, float] = {}
        self._done: set[Path] = set()
        self._last: Path | None = None
        self.to_come: list[Path] = []
        """Files that are not finished, in order."""

    def look(self) -> None:
        """Look at the files again."""
        stamps = {path: stamp for path, stamp in _media_in(self._folder).items() if path not in self._done}
        for path in [path for path in stamps if self._last is not None and _order(path) < _order(self._last)]:
            logger.warning("%s: left out: it came after %s, which is later by its name", path, self._last)
            self._done.add(path)
            del stamps[path]
        now = time.monotonic()
        self._changed_at = {
            path: self._changed_at[path] if self._stamps.get(path) == stamp else now for path, stamp in stamps.items()
        }
        self._stamps, self.to_come = stamps, sorted(stamps, key=_order)

    def next_finished(self, settle_seconds: float) -> Path | None:
        """Take the first file if it is finished: not changed for so long, or not the last one."""
        if not self.to_come:
            return None
        first, *later = self.to_come
        if not later and time.monotonic() - self._changed_at[first] < settle_seconds:
            return None
        self._done.add(first)
        self._last = first
        return first


def _media_in(folder: Path) -> dict[Path, tuple[int, int]]:
    """The size and modification time of each file that is media by its name; empty files are left out."""
    try:
        with os.scandir(folder) as scan:
            names = [entry.name for entry in scan if Path(entry.name).suffix.lower() in MEDIA_SUFFIXES]
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from error
    found = {}
    for path in (folder / name for name in names if not name.startswith(".")):
        with suppress(OSError):  # deleted since
            stat = path.stat()
            if path.is_file() and stat.st_size:
                found[path] = (stat.st_size, stat.st_mtime_ns)
    return found


def _order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts numbers in names as numbers."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
