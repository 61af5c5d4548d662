"""One writer a part: who may write to a store, and who does.

    locks/
      gate.lock        held for a moment by whoever takes or gives up a part
      3-of-8.lock      held by the writer of part 3/8 as long as it writes
      3-of-8.json      {"part", "pid", "host", "since"} of that writer, for whoever is refused

A lock is the system's own (flock), so it goes with its process, however that ends. What this guarantees depends on the
file system:

- a local one, and NFS and others that pass flock on to their server: no two writers of a part, on any machine;
- one that says it has no flock: a marker file stands for the lock. A marker of a dead process of this machine is
  removed; one that a machine left when it was switched off has to be removed by hand, and the refusal says so;
- one that takes flock but keeps it to the machine (some network mounts), or allows no marker either: writers on
  several machines do not see each other. Each writes shards of its own, so nothing is damaged, but work is done twice.
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

__all__ = ["WHOLE", "HeldError", "Part", "hold", "lock", "release", "remove_leftovers"]

logger = logging.getLogger(__name__)

NO_FLOCK = {ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP}
GATE_SECONDS = 60.0
MAX_NOTE_BYTES = 10_000


@dataclass(frozen=True)
class Part:
    """One of `count` equal parts of the work, by a hash of each video's id: the same on every machine, in every run.

    Raises:
        UsageError: there is no such part.
    """

    number: int
    """1 to count."""
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise _no_part(str(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """`3/8` -> Part(3, 8)

        Raises:
            UsageError: the text is none.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None:
            raise _no_part(text)
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """As it stands in a file's name: `3-of-8`."""
        return f"{self.number}-of-{self.count}"

    def holds(self, video_id: str) -> bool:
        """Whether a video belongs to this part."""
        digest = sha256(video_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Part(1, 1)


def _no_part(text: str) -> UsageError:
    return UsageError(
        f"no part {text!r}; a part is NUMBER/COUNT with NUMBER from 1 to COUNT: 3/8 is the third of eight"
    )


@contextmanager
def lock(store_path: Path, part: Part) -> Iterator[None]:
    """Be the one writer of a part of a store for a while.

    Raises:
        StoreError: another process writes this part, or one that is counted differently and so shares videos with it;
            or the folder cannot be written.
    """
    folder = store_path / "locks"
    note = folder / f"{part.name}.json"
    with _gate(store_path, folder):
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
    """Remove what writers that are gone left in `locks/`; only for the holder of the whole store's lock.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = store_path / "locks"
    with _gate(store_path, folder):
        for path in folder.iterdir():
            if not path.name.startswith((f"{WHOLE.name}.", "gate.")):
                path.unlink(missing_ok=True)


@contextmanager
def _gate(store_path: Path, folder: Path) -> Iterator[None]:
    """One process at a time: of several that start together, none takes another's look at a lock for a writer."""
    try:
        folder.mkdir(exist_ok=True)
        gate = hold(folder / "gate.lock", timeout_seconds=GATE_SECONDS)
    except HeldError as held:
        raise StoreError(
            f"{store_path}: another vidpipe has been about to write here for {GATE_SECONDS:g} s; stop it{held.remedy}"
        ) from None
    except OSError as error:
        raise StoreError(f"{store_path}: cannot be locked for writing ({error})") from error
    try:
        yield
    finally:
        release(gate)


def _take(store_path: Path, folder: Path, wanted: Part, part: Part) -> BaseFileLock | None:
    """The lock of a part, for a writer that wants to write another, or the same.

    Raises:
        StoreError: it is held.
    """
    try:
        return hold(folder / f"{part.name}.lock", timeout_seconds=0)
    except HeldError as held:
        why, then = "", "--part"
        if part != wanted:
            why = f"; part {wanted}, asked for now, may share videos with it, being counted differently"
            then = f"--part NUMBER/{part.count}" if part.count > 1 else "--part in every command"
        raise StoreError(
            f"{store_path}: another vidpipe is writing {_told(part)} of this store ({_holder(folder, part)}){why}; "
            f"wait for it, stop it, or split the work with {then}{held.remedy}"
        ) from None
    except OSError as error:
        raise StoreError(f"{store_path}: cannot be locked for writing ({error})") from error


def _told(part: Part) -> str:
    return "the whole" if part == WHOLE else f"part {part}"


def _refuse_beside_others(store_path: Path, folder: Path, part: Part) -> None:
    """Try the lock of each part that is counted differently."""
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"([0-9]{1,6})-of-([0-9]{1,6})\.lock", path.name)
        if match is not None and 1 <= int(match[1]) <= int(match[2]) != part.count:
            release(_take(store_path, folder, part, Part(int(match[1]), int(match[2]))))


class HeldError(Exception):
    """A lock that another process holds."""

    def __init__(self, lock: BaseFileLock) -> None:
        super().__init__()
        is_marker = isinstance(lock, SoftFileLock)
        self.remedy = f". If it runs no more, remove {lock.lock_file}" if is_marker else ""


def hold(path: Path, *, timeout_seconds: float) -> BaseFileLock | None:
    """A lock that is now ours; None where the file system has no kind of it.

    Raises:
        HeldError: another process has it, and did not give it up in time.
        OSError: the file cannot be made.
    """
    for lock in (FileLock(path), SoftFileLock(path.with_suffix(".marker"))):
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
    logger.warning("%s: this file system has no locks; see to it that no two vidpipe write here at once", path.parent)
    return None


def release(lock: BaseFileLock | None) -> None:
    """Give up a lock from `hold`."""
    if lock is not None:
        lock.release()


def _write_note(path: Path, part: Part) -> None:
    """Say who writes. A note that cannot be written is missed only by whoever is refused."""
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
        return "it left no note of who it is"
