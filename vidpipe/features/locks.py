"""Locks of a store: each part of the work has one writer at a time.

    locks/
      gate.lock        a mutex, held briefly while a process takes a part
      3-of-8.lock      held by the writer of part 3/8 while it writes
      3-of-8.json      {"part", "pid", "host", "since"} of that writer, shown to processes that are refused
      a1b2c3.job       there while that writer's actors on other nodes may write; see `vidpipe.execution.node`

A lock is the system's own (flock), so the system releases it when its process ends. What it guarantees depends on the
file system:

- a local one, and NFS and others that pass flock on to their server: a part never has two writers, on any machine;
- one without flock: a marker file replaces the lock. The marker of a dead process of this machine is removed; one that
  a machine left when it was switched off has to be removed by hand, and the error names it;
- one that accepts flock but keeps it to the machine (some network mounts), or allows no marker either: writers on
  several machines do not see each other. Each writes its own shards, so nothing is damaged, but work is done twice.
"""

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP
from hashlib import sha256
from pathlib import Path
from typing import Self

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from vidpipe.errors import StoreError, UsageError

__all__ = ["JOB_SUFFIX", "WHOLE", "HeldError", "Part", "acquire", "lock", "release", "remove_leftovers"]

logger = logging.getLogger(__name__)

NO_FLOCK = {ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP}
MUTEX_SECONDS = 60.0
MAX_NOTE_BYTES = 10_000
JOB_SUFFIX = ".job"


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of the work, by a hash of each video's id: the same on every machine, in every run.

    Raises:
        UsageError: the number is not between 1 and the count.
    """

    number: int
    """1 to count."""
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise _no_part(str(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of `--part`: `3/8` -> Part(3, 8)

        Args:
            text: NUMBER/COUNT.

        Returns:
            The part.

        Raises:
            UsageError: the text is no part.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise _no_part(text)
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """The form in the names of files: `3-of-8`."""
        return f"{self.number}-of-{self.count}"

    def holds(self, video_id: str) -> bool:
        """Return whether a video belongs to this part."""
        digest = sha256(video_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Part(1, 1)
"""All videos."""


def _no_part(text: str) -> UsageError:
    return UsageError(
        f"no part {text!r}; a part is NUMBER/COUNT with NUMBER from 1 to COUNT: 3/8 is the third of eight"
    )


@contextmanager
def lock(store_path: Path, part: Part) -> Iterator[None]:
    """Lock a part of a store for writing, as a context manager.

    Args:
        store_path: the store's folder.
        part: the part to write.

    Yields:
        None, while the lock is held.

    Raises:
        StoreError: another process writes this part, or a part of another COUNT, which may share videos with it; or the
            folder cannot be written.
    """
    folder = store_path / "locks"
    note = folder / f"{part.name}.json"
    with _mutex(store_path, folder):
        own = _take(store_path, folder, part, part)
        try:
            _refuse_beside_others(store_path, folder, part)
        except BaseException:
            release(own)
            raise
        _write_note(note, part)
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        release(own)


def remove_leftovers(store_path: Path) -> None:
    """Remove what writers that have ended left in `locks/`; only for the holder of the whole store's lock.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = store_path / "locks"
    with _mutex(store_path, folder):
        for path in folder.iterdir():
            if not path.name.startswith((f"{WHOLE.name}.", "gate.")):
                path.unlink(missing_ok=True)


@contextmanager
def _mutex(store_path: Path, folder: Path) -> Iterator[None]:
    """Let one process at a time try locks, so that none mistakes another's try for a writer."""
    try:
        folder.mkdir(exist_ok=True)
        mutex = acquire(folder / "gate.lock", timeout_seconds=MUTEX_SECONDS)
    except HeldError as held:
        raise StoreError(
            f"{store_path}: another vidpipe has kept the store's locks for {MUTEX_SECONDS:g} s; stop it{held.remedy}"
        ) from None
    except OSError as error:
        raise StoreError(f"{store_path}: cannot be locked for writing ({error})") from error
    try:
        yield
    finally:
        release(mutex)


def _take(store_path: Path, folder: Path, wanted: Part, part: Part) -> BaseFileLock | None:
    """Take the lock of a part, for a process that is to write `wanted`: the same part, or another one.

    Raises:
        StoreError: another process holds it.
    """
    try:
        return acquire(folder / f"{part.name}.lock", timeout_seconds=0)
    except HeldError as held:
        reason, option = "", "--part"
        if part != wanted:
            reason = f"; part {wanted}, which you asked for, may share videos with it: the counts differ"
            option = f"--part NUMBER/{part.count}" if part.count > 1 else "--part in every command"
        written = "all" if part == WHOLE else f"part {part}"
        raise StoreError(
            f"{store_path}: another vidpipe is writing {written} of this store ({_holder(folder, part)}){reason}; "
            f"wait for it, stop it, or split the work with {option}{held.remedy}"
        ) from None
    except OSError as error:
        raise StoreError(f"{store_path}: cannot be locked for writing ({error})") from error


def _refuse_beside_others(store_path: Path, folder: Path, part: Part) -> None:
    """Try the lock of each part that has another count."""
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"([0-9]{1,6})-of-([0-9]{1,6})\.lock", path.name)
        if match is not None and 1 <= int(match[1]) <= int(match[2]) != part.count:
            release(_take(store_path, folder, part, Part(int(match[1]), int(match[2]))))


class HeldError(Exception):
    """Another process holds the lock."""

    def __init__(self, lock: BaseFileLock) -> None:
        super().__init__()
        is_marker = isinstance(lock, SoftFileLock)
        self.remedy = f". If it no longer runs, remove {lock.lock_file}" if is_marker else ""


def acquire(path: Path, *, timeout_seconds: float) -> BaseFileLock | None:
    """Acquire a lock.

    Args:
        path: the lock's file; it is made if it does not exist.
        timeout_seconds: how long to wait for another process that holds it.

    Returns:
        The lock, for `release`; None where the file system has no locks.

    Raises:
        HeldError: another process still holds it after this time.
        OSError: the file cannot be made.
    """
    for lock in (FileLock(path, fallback_to_soft=False), SoftFileLock(path.with_suffix(".marker"))):
        try:
            lock.acquire(timeout=timeout_seconds)
        except Timeout:
            raise HeldError(lock) from None
        except NotImplementedError:
            continue
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
        else:
            return lock
    logger.warning("%s: this file system has no locks; make sure that only one vidpipe writes here", path.parent)
    return None


def release(lock: BaseFileLock | None) -> None:
    """Release a lock from `acquire`."""
    if lock is not None:
        lock.release()


def _write_note(path: Path, part: Part) -> None:
    """Write who holds a part. Without the note, a process that is refused cannot name the holder."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"part": str(part), "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    aside = path.with_suffix(".writing")
    with suppress(OSError):
        aside.write_text(json.dumps(note) + "\n", encoding="utf-8")
        os.replace(aside, path)


def _holder(folder: Path, part: Part) -> str:
    """`pid 4711 on host, since 2026-11-22 12:03 UTC`"""
    try:
        with (folder / f"{part.name}.json").open(encoding="utf-8") as stream:
            note = json.loads(stream.read(MAX_NOTE_BYTES))
        since = datetime.fromisoformat(note["since"]).astimezone(UTC)
        return f"pid {int(note['pid'])} on {note['host']}, since {since:%Y-%m-%d %H:%M} UTC"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "unknown process"
