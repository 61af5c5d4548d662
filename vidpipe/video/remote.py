"""Videos in object stores and on servers (`s3://`, `gs://`, …), which fsspec lists and copies.

A copy lies on the disk of the machine that decodes it, from shortly before it is decoded until its features are there.
It has the size and the time of the remote file, so a store recognises the file without a copy.
"""

import os
import posixpath
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vidpipe.errors import UnreadableFileError, UsageError
from vidpipe.records import RemoteFile, VideoFailure, VideoFile

__all__ = ["LocalCopies", "list_files", "place_of_copy"]

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
    """Return where the copy of a file lies while it is needed: in `TMPDIR`, with the number of this process."""
    digest, suffix = sha256(file.url.encode()).hexdigest(), posixpath.splitext(file.url)[1]
    return Path(tempfile.gettempdir(), f"vidpipe-copy-{os.getpid()}-{digest[:24]}{suffix}")


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
        self._copied: dict[str, VideoFile] = {}
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
                self._failures.append(failure)

    def _start(self, video: VideoFile) -> "Future[VideoFailure | None] | None":
        if video.remote is None:
            return None
        self._pool = self._pool or ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="copy")
        self._copied[video.id] = video
        return self._pool.submit(_copy, video, video.remote)

    def failures(self) -> Iterator[VideoFailure]:
        """Yield the videos that could not be copied since the last call."""
        while self._failures:
            yield self._failures.pop(0)

    def remove(self, video_id: str) -> None:
        """Remove the copy of a video, if it has one."""
        video = self._copied.pop(video_id, None)
        if video is not None:
            with suppress(OSError):
                video.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for video_id in list(self._copied):
            self.remove(video_id)


def _copy(video: VideoFile, file: RemoteFile) -> VideoFailure | None:
    """Copy a remote file to its place; return why it cannot be."""
    from fsspec.core import url_to_fs

    partial = video.path.with_name(f"{video.path.name}.partial")
    try:
        system, path = url_to_fs(file.url)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))  # other users do not see it
        system.get_file(path, str(partial))
        size_bytes = partial.stat().st_size
        if size_bytes != file.size_bytes:
            return _failure(video, f"{file.url}: has {size_bytes} bytes, and had {file.size_bytes} when it was listed")
        os.utime(partial, ns=(file.mtime_ns, file.mtime_ns))
        os.replace(partial, video.path)
    except Exception as error:  # each file system has its own errors
        return _failure(video, f"{file.url}: cannot be copied ({_first_line(error)})")
    finally:
        with suppress(OSError):
            partial.unlink()
    return None


def _failure(video: VideoFile, message: str) -> VideoFailure:
    return VideoFailure(video.id, UnreadableFileError.__name__, message)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
