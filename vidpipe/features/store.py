"""A feature store: a folder of sealed shards under one key, and the list of the videos that failed.

features/
  store.json        {"format": "vidpipe-features", "version": 1, "key": {…}}
  shards/*.h5       sealed
  failures.jsonl    {"video", "error", "message", "time", "size_bytes", "mtime_ns"}, a line a failure;
                    "root" and "path" too where the video was found in a folder
  locks/            who writes; see `vidpipe.features.locks`
"""

import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import KeyMismatchError, ShardError, StoreError, UsageError, count_of
from vidpipe.features.failures import FailureEntry, FailureLog, failure_of
from vidpipe.features.index import IndexedShards, VideoIndex, find_lost, needs_index, open_index
from vidpipe.features.key import FeatureKey
from vidpipe.features.locks import JOB_SUFFIX, WHOLE, Part, lock
from vidpipe.features.new_files import write_new
from vidpipe.features.shard import REMEDY, Shard, VideoRow, write_shard
from vidpipe.features.sources import fingerprint_of, sources_of, stamp_of
from vidpipe.records import FeatureSequence, VideoFailure, VideoFile, VideoInfo

__all__ = ["MAX_BYTES", "MAX_VIDEOS", "FeatureStore", "StoreWriter"]

logger = logging.getLogger(__name__)

FORMAT, VERSION = "vidpipe-features", 1
MAX_VIDEOS, MAX_BYTES, MAX_SECONDS = 256, 64 * 2**20, 60.0
"""When a writer seals a shard, by default."""
MAX_DOCUMENT_LENGTH = 2**20
"""Characters of a store.json that are read; a longer one does not parse."""
RETRIED_ERRORS = frozenset({"UnreadableFileError", "ActorCrashError"})
"""Failures that may not depend on the file itself, such as a network mount that was missing, or a node that ended."""


class FeatureStore(Mapping[str, FeatureSequence]):
    """The features of many videos, by id.

        store = FeatureStore.open("features")
        store["waving/a.mp4"].features    # (T, D)

    Reading opens one shard at a time and keeps none open. Of a video that was extracted again, the newest sequence
    counts.
    """

    def __init__(self, path: Path, key: FeatureKey) -> None:
        self.path = path
        self.key = key
        self.failure_log = FailureLog(path)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open an existing store.

        Args:
            path: the store's folder.

        Returns:
            The store.

        Raises:
            UsageError: there is no such folder.
            StoreError: the folder is no store, or has another format.
        """
        path = Path(path)
        try:
            with (path / "store.json").open(encoding="utf-8") as stream:
                document = json.loads(stream.read(MAX_DOCUMENT_LENGTH))
        except FileNotFoundError:
            remedy = f"`vidpipe extract INPUT… -o {path}` makes a feature store"
            if not path.exists():
                raise UsageError(f"{path}: no such folder; {remedy}") from None
            raise StoreError(f"{path}: no feature store: it has no store.json; {remedy}") from None
        except NotADirectoryError:
            raise StoreError(f"{path}: a file; a feature store is a folder") from None
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{path}: store.json cannot be read ({error})") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise StoreError(f"{path}: store.json is not that of a feature store")
        if document.get("version") != VERSION:
            raise StoreError(f"{path}: store version {document.get('version')}; this vidpipe reads version {VERSION}")
        try:
            return cls(path, FeatureKey.from_dict(document["key"]))
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{path}: store.json holds no valid key ({error})") from error

    @classmethod
    def create(cls, path: Path | str, key: FeatureKey) -> Self:
        """Open the store with this key, or make it.

        Args:
            path: the store's folder; it is made if it does not exist.
            key: of the features to store.

        Returns:
            The store.

        Raises:
            KeyMismatchError: the store has another key.
            StoreError: the folder holds something else, or cannot be written.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_dir():
                raise StoreError(f"{path}: a file; a feature store is a folder, choose another path")
            if not (path / "store.json").exists():
                if path.exists() and any(path.iterdir()) and not (path / "shards").is_dir():
                    raise StoreError(f"{path}: the folder holds other things; choose a new or an empty one")
                _make(path, key)
        except OSError as error:
            raise StoreError(f"{path}: a feature store cannot be made here ({error})") from error
        store = cls.open(path)
        store.check_key(key)
        return store

    def check_key(self, key: FeatureKey) -> None:
        """Check that features with this key may be added to the store.

        Args:
            key: of the features.

        Raises:
            KeyMismatchError: the store has another key.
        """
        if self.key != key:
            holds, wanted = self.key.contrast(key)
            raise KeyMismatchError(
                f"{self.path} holds {holds}; you asked for {wanted}; choose another folder for the new settings, or "
                "give the old ones"
            )

    @cached_property
    def shards(self) -> Sequence[Shard]:
        """The sealed shards, oldest first.

        Returns:
            The shards: opened, or, where an index of the store is used, opened when they are used.

        Raises:
            ShardError: one of them is damaged, or has another key.
        """
        if isinstance(self._places, VideoIndex):
            return IndexedShards(self._sealed, self._places, self.open_shard)
        return self._opened

    @property
    def shard_paths(self) -> tuple[Path, ...]:
        """The files of the sealed shards, oldest first, whether they can be read or not.

        Returns:
            Their paths.

        Raises:
            StoreError: the folder cannot be read.
        """
        folder = self.path / "shards"
        try:
            return tuple(folder / name for name in sorted(os.listdir(folder)) if name.endswith(".h5"))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreError(f"{self.path}: its shards cannot be listed ({error})") from error

    def open_shard(self, path: Path) -> Shard:
        """Open one of the sealed shards.

        Args:
            path: from `shard_paths`.

        Returns:
            The shard.

        Raises:
            ShardError: it is damaged, or has another key.
        """
        shard = Shard(path)
        if shard.key_json != self.key.as_json():
            raise ShardError(f"{path}: made with other settings than the store; {REMEDY}")
        return shard

    @cached_property
    def _sealed(self) -> tuple[Path, ...]:
        return self.shard_paths

    @cached_property
    def _opened(self) -> tuple[Shard, ...]:
        return tuple(self.open_shard(path) for path in self._sealed)

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, VideoRow]]:
        """Each video's shard, by number, and its row there; a newer shard's row replaces an older one's."""
        if needs_index(len(self._sealed)):
            return open_index(self.path, self.key.as_json(), self._sealed, self.open_shard)
        return {row.id: (number, row) for number, shard in enumerate(self._opened) for row in shard.videos}

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids of all videos, sorted."""
        return tuple(sorted(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __getitem__(self, video_id: str) -> FeatureSequence:
        shard, row = self.place(video_id)
        return shard.sequence(row)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def info(self, video_id: str) -> VideoInfo:
        """Return the properties of a stored video, without reading its features."""
        return self.row(video_id).info

    def length(self, video_id: str) -> int:
        """Return T, without reading the features."""
        return self.row(video_id).length

    def row(self, video_id: str) -> VideoRow:
        """Return what is known of a video's newest sequence, without opening its shard."""
        return self._places[video_id][1]

    def rows(self) -> Iterator[VideoRow]:
        """Iterate over what is known of all videos, in no order, without opening shards."""
        return (row for _, row in self._places.values())

    def is_newest(self, shard: Shard, row: VideoRow) -> bool:
        """Return whether a row of one of the shards is its video's newest."""
        number, newest = self._places[row.id]
        return self._sealed[number] == shard.path and newest == row

    def count_repeated(self) -> int:
        """Return how many videos are so short that their window repeats the last frame."""
        by_shard = groupby(self._places_by_shard(), key=itemgetter(0))
        return sum(self.shards[number].count_repeated([row for _, row in its]) for number, its in by_shard)

    def place(self, video_id: str) -> tuple[Shard, VideoRow]:
        """Return the shard that holds a video's newest sequence, opened, and the video's row there."""
        number, row = self._places[video_id]
        return self.shards[number], row

    def sequences(self, video_ids: Iterable[str] | None = None) -> Iterator[FeatureSequence]:
        """Iterate over the sequences of some videos, or all, shard by shard: not in the order of the ids."""
        for number, its_places in groupby(self._places_by_shard(video_ids), key=itemgetter(0)):
            yield from self.shards[number].sequences([row for _, row in its_places])

    def _places_by_shard(self, video_ids: Iterable[str] | None = None) -> Iterable[tuple[int, VideoRow]]:
        """The places of some videos, or all, shard by shard."""
        if video_ids is None and isinstance(self._places, VideoIndex):
            return self._places.values()
        places = [self._places[video_id] for video_id in (self.ids if video_ids is None else video_ids)]
        return sorted(places, key=lambda place: (place[0], place[1].start))

    def features(self, video_ids: Sequence[str], *, check: bool = True) -> list[NDArray[np.floating[Any]]]:
        """Map the features of some videos into memory: they are read from the disk where they are used.

        Args:
            video_ids: which; each must be in the store.
            check: read them all now and refuse values that cannot be computed with.

        Returns:
            (T, D) for each video, float32 or float16 as stored.

        Raises:
            StoreError: a feature is not finite or too large to compute with, or shards differ in D.
        """
        found: dict[str, NDArray[np.floating[Any]]] = {}
        for number, its_rows in self._by_shard(video_ids).items():
            mapped = self._shard_of_one_size(number).features(its_rows, check=check)
            found |= zip((row.id for row in its_rows), mapped, strict=True)
        return [found[video_id] for video_id in video_ids]

    def tracks(self, video_ids: Sequence[str]) -> list[NDArray[np.int32] | None]:
        """Return the number of the person in each row of some videos.

        Args:
            video_ids: which; each must be in the store.

        Returns:
            (T,) for each video; None where its rows are not of single people.
        """
        found: dict[str, NDArray[np.int32] | None] = {}
        for number, its_rows in self._by_shard(video_ids).items():
            found |= zip((row.id for row in its_rows), self.shards[number].tracks(its_rows), strict=True)
        return [found[video_id] for video_id in video_ids]

    def _by_shard(self, video_ids: Iterable[str]) -> dict[int, list[VideoRow]]:
        """By the number of the shard, the rows of some videos."""
        rows: dict[int, list[VideoRow]] = defaultdict(list)
        for video_id in video_ids:
            number, row = self._places[video_id]
            rows[number].append(row)
        return rows

    def _shard_of_one_size(self, number: int) -> Shard:
        shard, first = self.shards[number], self.shards[0]
        if shard.dim != first.dim:
            raise ShardError(f"{shard.path}: features of size {shard.dim}, others {first.dim}; {REMEDY}")
        return shard

    def holds(self, video: VideoFile) -> bool:
        """Return whether the store has this very file: the same id, size and time.

        The time may differ where the fingerprint is the same and the file was stored from another folder, as when a
        data set is moved or copied.
        """
        place = self._places.get(video.id)
        stamp = stamp_of(video)
        if place is None or stamp is None:
            return False
        info, source = place[1].info, place[1].source
        if stamp == (info.size_bytes, info.mtime_ns):
            return True
        return (
            stamp[0] == info.size_bytes
            and source.fingerprint != ""
            and sources_of([video])[video.id].root not in ("", source.root)
            and fingerprint_of(video.path) == source.fingerprint
        )

    def known_failure(self, video: VideoFile) -> VideoFailure | None:
        """Return the latest failure of this very file (same id, size and time); None where a retry may succeed.

        A retry may succeed where the file could not be reached. None also for a video that was stored since. Reads
        failures.jsonl once, and again after `refresh`.
        """
        entry = self._noted.get(video.id)
        if entry is None or entry["error"] in RETRIED_ERRORS or self.holds(video):
            return None
        if stamp_of(video) != (entry["size_bytes"], entry["mtime_ns"]):
            return None
        return failure_of(entry)

    @cached_property
    def _noted(self) -> dict[str, FailureEntry]:
        return self.failure_log.latest()

    @property
    def failures(self) -> tuple[VideoFailure, ...]:
        """The videos that failed and are not stored, each with its latest reason, by id."""
        return tuple(map(failure_of, self.failure_entries()))

    def failure_entries(self) -> list[FailureEntry]:
        """Return the entries of failures.jsonl that still count: the latest of each video that is not stored, by id."""
        latest = self.failure_log.latest()
        return [latest[video_id] for video_id in sorted(latest) if video_id not in self]

    def find_lost(self) -> list[str]:
        """Return the ids that the index has of shards that are gone, and that are not stored: dropped, or lost."""
        return find_lost(self.path, self.key.as_json(), self.shard_paths, self)

    def verify(self) -> None:
        """Read every sequence and check it against its checksum.

        Raises:
            ShardError: a sequence is damaged; the message names shard and video.
                `vidpipe.features.maintenance.find_damage` finds all damage.
        """
        for shard in self.shards:
            for row, wrong in shard.faults():
                raise ShardError(f"{shard.path}: {row.id}: {wrong}")

    def writer(
        self, *, max_videos: int = MAX_VIDEOS, max_bytes: int = MAX_BYTES, max_seconds: float = MAX_SECONDS
    ) -> "StoreWriter":
        """Return a writer of new shards; see `StoreWriter`."""
        return StoreWriter(self, max_videos=max_videos, max_bytes=max_bytes, max_seconds=max_seconds)

    def lock(self, part: Part = WHOLE) -> AbstractContextManager[None]:
        """Lock a part of this store for writing; see `vidpipe.features.locks`.

        Args:
            part: the part to write.

        Returns:
            A context manager that holds the lock.

        Raises:
            StoreError: on entering: another process writes this part, or a part that may share videos with it.
        """
        return lock(self.path, part)

    def clear_leftovers(self) -> None:
        """Remove the unfinished files of killed writers, and their jobs; only for the holder of the whole store's lock.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            jobs = (self.path / "locks").glob(f"*{JOB_SUFFIX}")
            for leftover in (*(self.path / "shards").glob("*.writing"), *jobs):
                leftover.unlink()
        except OSError as error:
            raise StoreError(f"{self.path}: a killed writer's unfinished file cannot be removed ({error})") from error

    def refresh(self) -> None:
        """Read the folder again at the next use."""
        for name in ("shards", "_sealed", "_opened", "_places", "ids", "_noted"):
            self.__dict__.pop(name, None)


class StoreWriter:
    """Adds sequences to a store; a context manager that seals the last shard on exit, also after an error.

    A shard is sealed when it has `max_videos` or `max_bytes`, or its first video has waited for `max_seconds`. A crash
    loses at most the shard that is not sealed.
    """

    def __init__(self, store: FeatureStore, *, max_videos: int, max_bytes: int, max_seconds: float) -> None:
        self._store = store
        self._max_videos, self._max_bytes, self._max_seconds = max_videos, max_bytes, max_seconds
        self._held: list[FeatureSequence] = []
        self._held_bytes = 0
        self._held_since = 0.0

    def add(self, sequence: FeatureSequence) -> None:
        """Add a sequence; it is stored when its shard is sealed.

        Args:
            sequence: the features of one video.

        Raises:
            StoreError: the shard cannot be written.
        """
        self._held_since = self._held_since if self._held else time.monotonic()
        self._held.append(sequence)
        self._held_bytes += sequence.features.nbytes
        if len(self._held) >= self._max_videos or self._held_bytes >= self._max_bytes:
            self.seal()
        self.seal_if_due()

    def seal_if_due(self) -> None:
        """Seal the shard if its first video has waited for `max_seconds`; to be called while no sequence comes.

        Raises:
            StoreError: the shard cannot be written.
        """
        if self._held and time.monotonic() - self._held_since >= self._max_seconds:
            self.seal()

    def fail(self, failure: VideoFailure, video: VideoFile) -> None:
        """Add a video that could not be read to the failures.

        Args:
            failure: the video and the reason.
            video: its file.

        Raises:
            StoreError: the failure cannot be written.
        """
        self._store.failure_log.append(failure, stamp_of(video), sources_of([video])[video.id])

    def seal(self) -> None:
        """Write the sequences that were added as a shard.

        Raises:
            StoreError: it cannot be written.
        """
        if not self._held:
            return
        try:
            path = write_shard(self._store.path / "shards", self._held, key=self._store.key)
        except OSError as error:
            raise StoreError(
                f"{self._store.path}: a shard cannot be written ({error}); what was sealed before is safe: "
                "make room, and run the same command again"
            ) from error
        logger.debug("sealed %s: %s", path, count_of(len(self._held), "video"))
        self._held.clear()
        self._held_bytes = 0
        self._store.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seal()


def _make(path: Path, key: FeatureKey) -> None:
    """Write store.json whole, and never over another one."""
    document = {"format": FORMAT, "version": VERSION, "key": key.as_dict()}
    (path / "shards").mkdir(parents=True, exist_ok=True)
    aside = path / f".store.json.{uuid4().hex[:8]}"
    try:
        write_new(aside, (json.dumps(document, indent=2) + "\n").encode())
        try:
            os.link(aside, path / "store.json")
        except FileExistsError:
            pass  # another writer was first; the keys are compared when it is opened
        except OSError:
            os.replace(aside, path / "store.json")  # a file system without links
    finally:
        aside.unlink(missing_ok=True)
