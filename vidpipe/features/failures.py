"""failures.jsonl: the videos that could not be read, a line each, with the size and time of their files."""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from vidpipe.errors import StoreError
from vidpipe.features.new_files import write_new
from vidpipe.records import UNKNOWN_SOURCE, VideoFailure, VideoSource

__all__ = ["FailureEntry", "FailureLog", "failure_of", "source_of_entry"]

FailureEntry = dict[str, Any]
"""`video`, `error`, `message`, `time`; `size_bytes` and `mtime_ns` of the file, or None; `root` and `path`, where they
are known, as `vidpipe.records.VideoSource` says."""


class FailureLog:
    """The list of failures of one store.

    Args:
        folder: the store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "failures.jsonl"

    def append(
        self, failure: VideoFailure, stamp: tuple[int, int] | None, source: VideoSource = UNKNOWN_SOURCE
    ) -> None:
        """Add a failure.

        Args:
            failure: the video and the reason.
            stamp: size in bytes and time in ns of the video's file; None where it cannot be read.
            source: where the file lies.

        Raises:
            StoreError: the line cannot be written.
        """
        size_bytes, mtime_ns = stamp or (None, None)
        entry = {
            "video": failure.video_id,
            "error": failure.error,
            "message": failure.message,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "size_bytes": size_bytes,
            "mtime_ns": mtime_ns,
            **({"root": source.root, "path": source.path} if source.root else {}),
        }
        try:
            _append_line(self._path, _line(entry))
        except OSError as error:
            raise StoreError(
                f"{self._folder}: failures.jsonl cannot be written ({error}); what was sealed before is safe: "
                "make room, or allow writing there, and run the same command again"
            ) from error

    def latest(self) -> dict[str, FailureEntry]:
        """Read the latest entry of each video. A line that a crash cut short is not used.

        Returns:
            The entries, by video id.

        Raises:
            StoreError: the list cannot be read.
        """
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self._folder}: failures.jsonl cannot be read ({error})") from error
        return {entry["video"]: entry for entry in map(_parse, lines) if entry is not None}

    def rewrite(self, entries: Iterable[FailureEntry]) -> None:
        """Replace the list.

        Args:
            entries: the new list.

        Raises:
            OSError: it cannot be written.
        """
        lines = b"".join(map(_line, entries))
        if lines or self._path.exists():
            aside = self._path.with_suffix(f".{uuid4().hex[:8]}")
            try:
                write_new(aside, lines)
                os.replace(aside, self._path)
            finally:
                aside.unlink(missing_ok=True)


def failure_of(entry: FailureEntry) -> VideoFailure:
    """Return an entry's video and reason."""
    return VideoFailure(entry["video"], entry["error"], entry["message"])


def source_of_entry(entry: FailureEntry) -> VideoSource:
    """Return where an entry's file was found."""
    return VideoSource(entry.get("root", ""), entry.get("path", ""))


def _line(entry: Mapping[str, Any]) -> bytes:
    """Bytes of a file's name that are not UTF-8 stay escaped, as JSON does: `\\udcff`"""
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _append_line(path: Path, line: bytes) -> None:
    """Append a line in one system call, so that lines of several writers do not mix.

    A blank line may come between it and one that is being written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":  # a crash cut the last line short
            line = b"\n" + line
        while line:
            line = line[os.write(descriptor, line) :]
    finally:
        os.close(descriptor)


def _parse(line: str) -> FailureEntry | None:
    """Parse an entry; None for a line that is none. Lines of older stores have no size and time."""
    try:
        entry = json.loads(line)
        texts = {name: str(entry[name]) for name in ("video", "error", "message", "time")}
        texts |= {name: str(entry[name]) for name in ("root", "path") if name in entry}
        return texts | {name: entry.get(name) for name in ("size_bytes", "mtime_ns")}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
