"""Videos in object stores and on servers (`s3://`, `gs://`, …), which fsspec lists and copies.

A copy lies on the disk of the machine that decodes it, from shortly before it is decoded until its features are there.
It has the size and the time of the remote file, so a store recognises the file without a copy. Its process holds a lock
on it, which the system releases when the process ends: a copy without a lock was left by a killed command.
"""

import fcntl
import os
import posixpath
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from vidpipe.errors import UnreadableFileError, UsageError
from vidpipe.records import RemoteFile, VideoFailure, VideoFile

__all__ = ["LocalCopies", "list_files", "place_of_copy", "remove_abandoned_copies"]

COPY_PREFIX = "vidpipe-copy-"
COPIES_AT_ONCE = 4
"""Files that are copied at the same time."""
TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call the time of the last change."""
SECONDS_TO_NS = 10**9


def list_files(url: str) -> list[tuple[str, RemoteFile]]:
    """List the files below a remote folder, or one file.

    Args:
        url: `PROTOCOL://…`.

    Returns:
        For each file its path relative to the folder, and the file; sorted by path.

    Raises:
        UsageError: there is no such folder, it cannot be read, or a package for the protocol is missing.
    """
    from fsspec.core import url_to_fs  # here, because it takes a while, and most inputs are local

    try:
        system, root = url_to_fs(url)
        is_file = system.isfile(root)
        found = {root: system.info(root)} if is_file else system.find(root, detail=True)
    except ImportError as error:
        raise UsageError(f"{url}: needs a package: pip install 'vidpipe[cloud]' ({_first_line(error)})") from error
    except Exception as error:  # each file system has its own errors
        raise UsageError(f"{url}: cannot be read ({_first_line(error)})") from error
    if not found and not system.exists(root):
        raise UsageError(f"{url}: no such file or folder")
    folder, root_url = (posixpath.dirname(one) if is_file else one for one in (root.rstrip("/"), url.rstrip("/")))
    names = {posixpath.relpath(path, folder): facts for path, facts in found.items()}
    return [(name, RemoteFile(f"{root_url}/{name}", root_url, *_stamp(names[name]))) for name in sorted(names)]


def _stamp(facts: Mapping[str, Any]) -> tuple[int, int]:
    """The size in bytes, and the time in ns; 0 where the file system does not know it."""
    time = next((facts[name] for name in TIMES if facts.get(name) is not None), 0)
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return int(facts.get("size") or 0), int(seconds * SECONDS_TO_NS)


def place_of_copy(file: RemoteFile) -> Path:
    """Return where the copy of a file lies while it is needed: in `TMPDIR`, under a name that no other copy has."""
    return Path(tempfile.gettempdir(), f"{COPY_PREFIX}{uuid4().hex}{posixpath.splitext(file.url)[1]}")


def remove_abandoned_copies() -> None:
    """Remove the copies in `TMPDIR` that killed commands left; those of a living process are locked."""
    for path in Path(tempfile.gettempdir()).glob(f"{COPY_PREFIX}*"):
        with suppress(OSError):  # it is locked, is another user's, or is gone
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


class LocalCopies:
    """Copies remote videos some time before they are decoded; a context manager that leaves no copy behind.

    Args:
        videos: what will be decoded, in this order; videos of this file system are passed on as they are.
        num_ahead: how many videos are copied before they are asked for.
    """

    def __init__(self, videos: Iterable[VideoFile], *, num_ahead: int) -> None:
        self._videos = iter(videos)
        self._num_ahead = num_ahead
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[VideoFile, Future[VideoFailure | None] | None]] = deque()
        self._copies: dict[str, _Copy] = {}
        self._failures: list[VideoFailure] = []

    def __iter__(self) -> Iterator[VideoFile]:
        """Yield the videos whose files are here; those that cannot be copied become `failures`."""
        while True:
            for video in islice(self._videos, self._num_ahead - len(self._waiting)):
                self._waiting.append((video, self._start(video)))
            if not self._waiting:
                return
            video, future = self._waiting.popleft()
            failure = None if future is None else future.result()
            if failure is None:
                yield video
            else:
                self.remove(video.id)
                self._failures.append(failure)

    def _start(self, video: VideoFile) -> "Future[VideoFailure | None] | None":
        if video.remote is None:
            return None
        if self._pool is None:
            remove_abandoned_copies()
            self._pool = ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="copy")
        copy = self._copies[video.id] = _Copy(video, video.remote)
        return self._pool.submit(copy.fetch)

    def failures(self) -> Iterator[VideoFailure]:
        """Yield the videos that could not be copied since the last call."""
        while self._failures:
            yield self._failures.pop(0)

    def remove(self, video_id: str) -> None:
        """Remove the copy of a video, if it has one."""
        copy = self._copies.pop(video_id, None)
        if copy is not None:
            copy.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for video_id in list(self._copies):
            self.remove(video_id)


class _Copy:
    """The copy of a remote video; it is locked from before its first byte until it is removed."""

    def __init__(self, video: VideoFile, file: RemoteFile) -> None:
        self._video, self._file = video, file
        self._lock: int | None = None

    def fetch(self) -> VideoFailure | None:
        """Copy the file to its place; return why it cannot be."""
        from fsspec.core import url_to_fs

        video, file = self._video, self._file
        partial = video.path.with_name(f"{video.path.name}.partial")
        try:
            system, path = url_to_fs(file.url)
            self._lock = _create_locked(partial)
            system.get_file(path, str(partial))
            size_bytes = partial.stat().st_size
            if size_bytes != file.size_bytes:
                return _failure(
                    video, f"{file.url}: has {size_bytes} bytes, and had {file.size_bytes} when it was listed"
                )
            os.utime(partial, ns=(file.mtime_ns, file.mtime_ns))
            os.replace(partial, video.path)
        except Exception as error:  # each file system has its own errors
            return _failure(video, f"{file.url}: cannot be copied ({_first_line(error)})")
        finally:
            with suppress(OSError):
                partial.unlink()
        return None

    def remove(self) -> None:
        with suppress(OSError):
            self._video.path.unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _create_locked(path: Path) -> int:
    """Create a file that other users cannot read, and lock it; return the descriptor that holds the lock."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(OSError):  # a file system without locks: nobody removes its copies
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # before it was locked, another process took it for an abandoned one


def _failure(video: VideoFile, message: str) -> VideoFailure:
    return VideoFailure(video.id, UnreadableFileError.__name__, message)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
