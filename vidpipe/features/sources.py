"""Where the files of videos lie, and how one file is distinguished from another."""

import os
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from vidpipe.records import UNKNOWN_SOURCE, VideoFile, VideoSource

__all__ = ["file_of", "fingerprint_of", "is_gone", "prefix_of", "sources_of", "stamp_of"]

NUM_BLOCKS, BLOCK_BYTES = 16, 16 * 1024
"""Of a fingerprint: 256 KiB of a file, which are in the system's cache after the video was decoded."""


def stamp_of(video: VideoFile) -> tuple[int, int] | None:
    """Return the size in bytes and the time in ns that identify a file; None where it cannot be read."""
    if video.remote is not None:
        return video.remote.size_bytes, video.remote.mtime_ns
    try:
        status = video.path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def fingerprint_of(path: Path) -> str:
    """Compute a text that distinguishes a file's content from others without reading all of it.

    Args:
        path: the file.

    Returns:
        sha256 over the size in decimal digits, then 16 blocks of 16 KiB spread evenly over the file: the first begins
        with the file, the last ends with it. A file of up to 256 KiB is read whole. Empty where it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        return _fingerprint(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _fingerprint(descriptor: int) -> str:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return ""
    size_bytes = status.st_size
    digest = sha256(str(size_bytes).encode())
    room = max(0, size_bytes - BLOCK_BYTES)
    starts = [room * number // (NUM_BLOCKS - 1) for number in range(NUM_BLOCKS)]
    if size_bytes <= NUM_BLOCKS * BLOCK_BYTES:
        starts = list(range(0, size_bytes, BLOCK_BYTES))
    for start in starts:
        digest.update(os.pread(descriptor, BLOCK_BYTES, start))
    return digest.hexdigest()


def sources_of(videos: Iterable[VideoFile]) -> dict[str, VideoSource]:
    """Return where each video's file lies, by id, without its fingerprint; all empty for a video without a root."""
    resolved: dict[Path, tuple[str, str]] = {}
    found = {}
    for video in videos:
        if video.remote is not None:
            found[video.id] = VideoSource(video.remote.root, video.remote.url.removeprefix(f"{video.remote.root}/"))
            continue
        if video.root is None:
            found[video.id] = UNKNOWN_SOURCE
            continue
        if video.root not in resolved:
            resolved[video.root] = _as_text(os.path.realpath(video.root)), os.path.join(video.root, "")
        root, start = resolved[video.root]
        path = str(video.path)
        path = path[len(start) :] if path.startswith(start) else str(video.path.absolute())
        found[video.id] = VideoSource(root, _as_text(path))
    return found


def _as_text(path: str) -> str:
    """A path as text that UTF-8 can encode; other bytes are escaped: `caf\\xe9`"""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def prefix_of(video_id: str, source: VideoSource) -> str:
    """Return what --prefix put before the path to make the id: `old/` of `old/walk/a.mp4`, nothing of `walk/a.mp4`."""
    return video_id.removesuffix(source.path) if video_id.endswith(source.path) else ""


def file_of(source: VideoSource) -> Path:
    """Return the path where the file was found."""
    return Path(source.root, source.path)


def is_gone(source: VideoSource) -> bool:
    """Return whether the file no longer exists; False also where that cannot be determined."""
    if not source.root or "://" in source.root or "\\" in source.root + source.path:  # a path whose bytes are escaped
        return False
    try:
        os.lstat(file_of(source))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
