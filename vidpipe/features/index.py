"""The index of a store with many shards: where each video lies, without opening the shards.

features/
  shards/*.h5      the truth
  index/           derived from them, a folder a segment; see `vidpipe.features.segment`

A store of `MIN_SHARDS` shards or more is opened by its index. Shards that no segment covers are read, and written as a
new segment where they are many; segments of similar size are joined, so that few are left. A segment covers a shard if
it notes the name, the size and the modification time that the shard has now. What it states about other shards is not
used: they were removed, or changed. A segment that cannot be read is not used either, and is replaced.

One process at a time writes to the index (`index/writer.lock`). The others read the shards that it lacks themselves, as
does a process that may not write to the folder. What a killed writer leaves is removed by the next. The index may be
removed at any time.
"""

import logging
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import ShardError, StoreError, count_of, first_few
from vidpipe.features.locks import HeldError, acquire, release
from vidpipe.features.segment import Segment, digest_of, write_segment
from vidpipe.features.shard import Shard, VideoRow

__all__ = ["IndexedShards", "VideoIndex", "find_index_faults", "find_lost", "needs_index", "open_index", "remove_index"]

logger = logging.getLogger(__name__)

MIN_SHARDS = 256
"""A store of fewer shards has no index, and fewer new ones are not added to it: they are read in a second."""
SHARDS_AT_ONCE = 2048
"""How many shards are read before a segment of them is written: what a killed writer loses."""
MAX_RATIO = 2
"""A segment is joined with smaller ones that together have at least 1 / MAX_RATIO of its rows."""
ROWS_AT_ONCE = 4096
MAX_OPEN_SHARDS = 64
"""How many shards' tables are kept in memory."""
UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
Place = tuple[int, VideoRow]
"""The number of a video's shard, and its row there."""
Numbered = tuple[Segment, NDArray[np.int64]]
"""A segment, and the number in the store of each of its shards, (S,): the oldest is 0, -1 one that is not used."""


class VideoIndex(Mapping[str, Place]):
    """The newest place of each video, by id, from segments.

    Args:
        segments: each with the numbers of its shards. Each shard of the store is used once.
    """

    def __init__(self, segments: Sequence[Numbered]) -> None:
        self.segments = [segment for segment, _ in segments]
        self._starts = np.cumsum([0, *map(len, self.segments)])
        self._numbers = _joined([np.repeat(numbers, one.counts) for one, numbers in segments], np.int32)
        self._rows, self._high = self._newest()
        self._shard_rows = {
            number: (segment, at)
            for segment, (_, numbers) in zip(self.segments, segments, strict=True)
            for at, number in enumerate(numbers.tolist())
            if number >= 0
        }

    def _newest(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the row of each video in all segments and the first half of its id's digest, sorted by the latter."""
        high = _joined([segment.load("digest_high") for segment in self.segments], np.uint64)
        rows = np.flatnonzero(self._numbers >= 0)
        if np.any(np.diff(self._numbers[rows]) < 0):
            rows = rows[np.argsort(self._numbers[rows], kind="stable")]  # the newest shard last
        rows = rows[np.argsort(high[rows], kind="stable")]
        high = high[rows]
        same = high[1:] == high[:-1]
        if same.any():
            low = self._low(rows)
            if np.any(low[1:][same] != low[:-1][same]):  # two ids that share 64 bits
                order = np.lexsort((low, high))
                rows, high, low = rows[order], high[order], low[order]
            is_newest = np.append((high[1:] != high[:-1]) | (low[1:] != low[:-1]), True)
            rows, high = rows[is_newest], high[is_newest]
        return rows, high

    def _low(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        return _joined([segment.load("digest_low") for segment in self.segments], np.uint64)[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._find(video_id) is not None

    def __getitem__(self, video_id: str) -> Place:
        found = self._find(video_id)
        if found is None:
            raise KeyError(video_id)
        row, segment, at = found
        with _naming(segment):
            return self._numbers.item(row), segment.row(at)

    def _find(self, video_id: str) -> tuple[int, Segment, int] | None:
        """Return a video's row in all segments, its segment, and its row there."""
        digest = np.uint64(digest_of(video_id)[0])
        place = int(np.searchsorted(self._high, digest))
        while place < len(self._high) and self._high[place] == digest:
            row = self._rows.item(place)
            segment, at = self._segment_of(row)
            with _naming(segment):
                if segment.column("id").item(at) == video_id:
                    return row, segment, at
            place += 1
        return None

    def _segment_of(self, row: int) -> tuple[Segment, int]:
        number = bisect_right(self._starts, row) - 1
        return self.segments[number], row - int(self._starts[number])

    def __iter__(self) -> Iterator[str]:
        """Yield all ids, shard by shard."""
        for segment, start, stop, wanted in self._chunks():
            with _naming(segment):
                texts = segment.column("id").tolist(start, stop)
            yield from (texts[row] for row in wanted)

    def values(self) -> ValuesView[Place]:
        """Return the places of all videos; they are read shard by shard."""
        return _Places(self)

    def iterate_places(self) -> Iterator[Place]:
        """Yield the places of all videos, shard by shard."""
        first = dict(zip(map(id, self.segments), self._starts.tolist(), strict=False))
        for segment, start, stop, wanted in self._chunks():
            with _naming(segment):
                rows = list(segment.rows(start, stop))
            numbers = self._numbers[first[id(segment)] + start :][: stop - start].tolist()
            yield from ((numbers[row], rows[row]) for row in wanted)

    def _chunks(self) -> Iterator[tuple[Segment, int, int, list[int]]]:
        """Yield stretches [start, stop) of each segment's rows, with those that are a video's newest: 0 is `start`."""
        current = np.sort(self._rows)
        for segment, first in zip(self.segments, self._starts.tolist(), strict=False):
            for start in range(0, len(segment), ROWS_AT_ONCE):
                stop = min(start + ROWS_AT_ONCE, len(segment))
                low, high = np.searchsorted(current, [first + start, first + stop]).tolist()
                if low < high:
                    yield segment, start, stop, (current[low:high] - (first + start)).tolist()

    def rows_of(self, number: int) -> list[VideoRow]:
        """Return what the index holds of the table of one of the store's shards, whether newer rows exist or not."""
        segment, at = self._shard_rows[number]
        return list(segment.rows(int(segment.starts[at]), int(segment.starts[at + 1])))


class _naming:  # noqa: N801
    """Turn an error of texts that are not UTF-8 into one that names the index."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, UnicodeDecodeError):
            path = self._segment.path
            folder = path.parent if path else "index"
            raise StoreError(f"{folder}: damaged: {path} holds what is no text; remove the folder: it is made again")


def _joined(arrays: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays], dtype=dtype, casting="unsafe")


class _Places(ValuesView[Place]):
    _mapping: VideoIndex

    def __iter__(self) -> Iterator[Place]:
        return self._mapping.iterate_places()


class IndexedShards(Sequence[Shard]):
    """The shards of a store, opened when they are used, and compared then with what the index holds of them.

    Args:
        paths: the shards' files, oldest first.
        index: of these shards.
        open_shard: opens one of the files.
    """

    def __init__(self, paths: Sequence[Path], index: VideoIndex, open_shard: Callable[[Path], Shard]) -> None:
        self._paths = paths
        self._index = index
        self._open_shard = open_shard
        self._opened = lru_cache(MAX_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, number: int) -> Shard: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Shard]: ...
    def __getitem__(self, number: int | slice) -> Shard | Sequence[Shard]:
        if isinstance(number, slice):
            return [self._opened(one) for one in range(*number.indices(len(self)))]
        return self._opened(range(len(self))[number])

    def _open(self, number: int) -> Shard:
        shard = self._open_shard(self._paths[number])
        if list(map(_place_in_shard, self._index.rows_of(number))) != list(map(_place_in_shard, shard.videos)):
            folder = shard.path.parent.with_name("index")
            raise StoreError(f"{folder}: damaged: it differs from {shard.path}; remove the folder: it is made again")
        return shard


_place_in_shard = attrgetter("id", "start", "length", "checksum")


@dataclass(frozen=True)
class _Sealed:
    """The sealed shards of a store as they are now."""

    paths: Sequence[Path]
    """Oldest first."""
    known: Mapping[str, tuple[int, int, int]]
    """By name, the number of a shard, and its size and time."""
    open_shard: Callable[[Path], Shard]

    @classmethod
    def of(cls, paths: Sequence[Path], open_shard: Callable[[Path], Shard]) -> Self:
        known = {}
        for number, path in enumerate(paths):
            try:
                status = path.stat()
            except OSError:
                open_shard(path)  # reports the reason
                status = path.stat()
            known[path.name] = number, status.st_size, status.st_mtime_ns
        return cls(paths, known, open_shard)

    def cover(self, segments: Sequence[Segment]) -> tuple[list[Numbered], list[Path]]:
        """Return each segment with the numbers of the shards to take from it, and the shards that no segment covers."""
        missing = dict(enumerate(self.paths))
        covering = []
        for segment in segments:
            numbers = np.full(len(segment.shards), -1, np.int64)
            for at, (name, size_bytes, mtime_ns, _) in enumerate(segment.shards):
                number, *stamp = self.known.get(name, (-1, 0, 0))
                if stamp == [size_bytes, mtime_ns] and missing.pop(number, None) is not None:
                    numbers[at] = number
            covering.append((segment, numbers))
        return covering, list(missing.values())

    def read(self, paths: Sequence[Path]) -> Iterator[Segment]:
        """Read the tables of some shards: `SHARDS_AT_ONCE` into each segment."""
        for start in range(0, len(paths), SHARDS_AT_ONCE):
            batch = paths[start : start + SHARDS_AT_ONCE]
            yield Segment.of_shards((self.known[path.name][1:], self.open_shard(path)) for path in batch)


def needs_index(num_shards: int) -> bool:
    """Return whether a store has enough shards to be opened by an index."""
    return num_shards >= MIN_SHARDS


def open_index(
    store_path: Path, key_json: str, paths: Sequence[Path], open_shard: Callable[[Path], Shard]
) -> VideoIndex:
    """Open the index of a store, and bring it up to date where it lacks many shards.

    Args:
        store_path: the store's folder.
        key_json: its key.
        paths: the files of its shards, oldest first.
        open_shard: opens one of them.

    Returns:
        The index, of exactly these shards.

    Raises:
        ShardError: a shard that the index does not cover is damaged.
        StoreError: a shard cannot be read.
    """
    folder = store_path / "index"
    sealed = _Sealed.of(paths, open_shard)
    segments = _open_segments(folder, key_json)
    missing = sealed.cover(segments)[1]
    if len(missing) >= MIN_SHARDS:
        with _writer(folder) as can_write:
            if can_write:
                segments = _bring_up_to_date(folder, key_json, sealed)
    covering, missing = sealed.cover(segments)
    if missing:
        covering, _ = sealed.cover([*segments, *sealed.read(missing)])
    return VideoIndex(covering)


def find_index_faults(
    store_path: Path, key_json: str, paths: Sequence[Path], open_shard: Callable[[Path], Shard]
) -> Iterator[tuple[Path, str]]:
    """Compare the index of a store with its shards.

    An index that names shards which are gone, or lacks some, is sound: what it states of the former is not used
    (`find_lost` returns it), and the latter are read.

    Args:
        store_path: the store's folder.
        key_json: its key.
        paths: the files of its shards, oldest first.
        open_shard: opens one of them.

    Yields:
        Each segment that cannot be read, or states of a shard what that one does not hold; and the reason. Shards that
        are damaged themselves are not compared.

    Raises:
        StoreError: a shard cannot be read.
    """
    folder = store_path / "index"
    sealed = _Sealed.of([path for path in paths if path.is_file()], open_shard)
    segments = _open_segments(folder, key_json)
    for name in sorted({*_names(folder)} - {one.path.name for one in segments if one.path}):
        yield folder / name, "it cannot be read"
    for segment, numbers in sealed.cover(segments)[0]:
        used = [(at, sealed.paths[number]) for at, number in enumerate(numbers.tolist()) if number >= 0]
        wrong = [path.name for at, path in used if not _is_right(segment, at, path, open_shard)]
        if wrong and segment.path:
            yield segment.path, f"it differs from {first_few(wrong)}"


def _is_right(segment: Segment, at: int, path: Path, open_shard: Callable[[Path], Shard]) -> bool:
    """Return whether a shard holds what a segment states of it; also where the shard itself is damaged."""
    try:
        shard = open_shard(path)
    except ShardError:
        return True
    return segment.content(at) == Segment.of_shards([(segment.shards[at][1:3], shard)]).content(0)


def find_lost(store_path: Path, key_json: str, paths: Sequence[Path], stored: Container[str]) -> list[str]:
    """Find the videos that the index has of shards which are gone, and that are not stored: dropped, or lost.

    Args:
        store_path: the store's folder.
        key_json: its key.
        paths: the files of its shards.
        stored: the ids of its videos.

    Returns:
        Their ids, sorted.

    Raises:
        StoreError: the index holds what is no text.
    """
    there, lost = {path.name for path in paths}, set[str]()
    for segment in _open_segments(store_path / "index", key_json):
        for at, shard in enumerate(segment.shards):
            if shard.name not in there:
                with _naming(segment):
                    ids = segment.column("id").tolist(int(segment.starts[at]), int(segment.starts[at + 1]))
                lost.update(video_id for video_id in ids if video_id not in stored)
    return sorted(lost)


def remove_index(store_path: Path) -> None:
    """Remove the index of a store, so that the next use makes it again; not while another process writes to it.

    Args:
        store_path: the store's folder.

    Raises:
        OSError: it cannot be removed.
    """
    folder = store_path / "index"
    if folder.is_dir():
        with _writer(folder) as can_write:
            if can_write:
                _remove_others(folder, [])


def _open_segments(folder: Path, key_json: str) -> list[Segment]:
    """Open the segments that can be read."""
    segments = []
    for name in _names(folder):
        try:
            segments.append(Segment.open(folder / name, key_json))
        except UNREADABLE as error:
            logger.debug("%s: not used: %s", folder / name, error)
    return segments


def _names(folder: Path) -> list[str]:
    """Return the names of the segments' folders."""
    try:
        return [name for name in sorted(os.listdir(folder)) if "." not in name]
    except OSError:
        return []


def _bring_up_to_date(folder: Path, key_json: str, sealed: _Sealed) -> list[Segment]:
    """Write segments of the shards that none covers, and join small ones; return all segments that can be read."""
    segments = _open_segments(folder, key_json)
    missing = sealed.cover(segments)[1]
    logger.info("%s: indexing %s", folder.parent, count_of(len(missing), "shard"))
    try:
        _remove_others(folder, segments)
        for read in sealed.read(missing):
            path = write_segment(folder, [(read, range(len(read.shards)))], key_json)
            segments.append(Segment.open(path, key_json))
        return _join(folder, key_json, segments, sealed)
    except OSError as error:
        logger.warning("%s: cannot be written (%s); the store opens slowly without it", folder, error)
        return segments


def _join(folder: Path, key_json: str, segments: Sequence[Segment], sealed: _Sealed) -> list[Segment]:
    """Join segments of similar size, and remove those of which nothing is used."""
    covering, _ = sealed.cover(segments)
    parts = [(one, np.flatnonzero(numbers >= 0).tolist()) for one, numbers in covering]
    parts = [(one, used) for one, used in parts if used]
    chosen = _similar([len(one) for one, _ in parts])
    kept = [one for number, (one, _) in enumerate(parts) if number not in chosen]
    if chosen:
        path = write_segment(folder, [parts[number] for number in sorted(chosen)], key_json)
        kept.append(Segment.open(path, key_json))
    _remove_others(folder, kept)
    return kept


def _similar(sizes: Sequence[int]) -> set[int]:
    """Return the numbers of the segments to be joined: each has at most `MAX_RATIO` times the rows of all smaller ones.

    1000, 90, 50, 40 -> the last three; 2000, 400, 100 -> none
    """
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    chosen = 0
    for place in range(1, len(order)):
        if sizes[order[place]] <= MAX_RATIO * sum(sizes[number] for number in order[:place]):
            chosen = place + 1
    return set(order[:chosen])


def _remove_others(folder: Path, kept: Sequence[Segment]) -> None:
    """Remove all but some segments, and what killed writers left; only for the holder of the lock."""
    names = {one.path.name for one in kept if one.path is not None}
    for entry in list(os.scandir(folder)):
        if entry.name not in names and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)


@contextmanager
def _writer(folder: Path) -> Iterator[bool]:
    """Take the lock of the index's only writer; False where another process has it, or the folder cannot be written."""
    try:
        folder.mkdir(exist_ok=True)
        lock = acquire(folder / "writer.lock", timeout_seconds=0)
    except (HeldError, OSError) as error:
        logger.debug("%s: not written: %s", folder, error)
        yield False
        return
    try:
        yield True
    finally:
        release(lock)
