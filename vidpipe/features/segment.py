"""A segment of a store's index: what some sealed shards state about their videos, in one file a column.

    index/0f3a…/
      header.json                      {"format": "vidpipe-index", "version": 1, "key": "…",
                                        "shards": [[name, size_bytes, mtime_ns, num_videos], …]}
      length.npy, size_bytes.npy, …    (N,) a number a video, in the order of the shards and of their tables
      id.text.npy, id.offsets.npy      (B,) uint8, (N + 1,) int64: text i is [offsets[i], offsets[i + 1]) of the bytes
      digest_high.npy, digest_low.npy  (N,) uint64, the halves of a BLAKE2b digest of the id

A segment is written aside, synced and renamed, and never changed. Its arrays are mapped into memory: a column takes
memory where it is read.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from vidpipe.features.new_files import sync_folder
from vidpipe.features.shard import (
    COLUMNS,
    DTYPES,
    INFO_COLUMNS,
    OPTIONAL_COLUMNS,
    SOURCE_COLUMNS,
    Shard,
    VideoRow,
)
from vidpipe.records import VideoInfo, VideoSource

__all__ = ["Segment", "ShardStamp", "Texts", "digest_of", "write_segment"]

FORMAT, VERSION = "vidpipe-index", 1
KINDS: dict[str, Any] = {**COLUMNS, **OPTIONAL_COLUMNS}
"""The columns of a shard's table, with their types, in the order of `_video_row`."""
DIGESTS = ("digest_high", "digest_low")
_FIELDS = {**dict.fromkeys(INFO_COLUMNS, "info."), **dict.fromkeys(SOURCE_COLUMNS, "source.")}
_values_of = attrgetter(*(_FIELDS.get(name, "") + name for name in KINDS))


class ShardStamp(NamedTuple):
    """What identifies a sealed shard, and how many rows its table has."""

    name: str
    size_bytes: int
    mtime_ns: int
    num_videos: int


@dataclass(frozen=True)
class Texts:
    """A column of texts."""

    content: NDArray[np.uint8]
    """(B,) UTF-8, one text after another."""
    offsets: NDArray[np.int64]
    """(N + 1,) where each text begins, and where the last one ends."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Return the column of some texts."""
        encoded = [text.encode() for text in texts]
        offsets = np.array([0, *accumulate(map(len, encoded))], np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def item(self, row: int) -> str:
        """Return one text."""
        return self.content[self.offsets.item(row) : self.offsets.item(row + 1)].tobytes().decode()

    def tolist(self, start: int, stop: int) -> list[str]:
        """Return the texts of rows [start, stop)."""
        cuts = (self.offsets[start : stop + 1] - self.offsets[start]).tolist()
        content = self.content[self.offsets[start] : self.offsets[stop]].tobytes()
        if content.isascii():
            text = content.decode()
            return [text[cut:end] for cut, end in pairwise(cuts)]
        return [content[cut:end].decode() for cut, end in pairwise(cuts)]


class Segment:
    """What some shards state about their videos: in memory, or mapped from a folder of the index.

    Args:
        shards: the shards, in the order of their rows.
        columns: by name, (N,) each; those of a folder are read when they are used.
        path: the segment's folder; None for a segment in memory.
    """

    def __init__(
        self, shards: Sequence[ShardStamp], columns: dict[str, NDArray[Any] | Texts], path: Path | None = None
    ) -> None:
        self.shards = tuple(shards)
        self.path = path
        self._columns = columns

    @classmethod
    def of_shards(cls, shards: Iterable[tuple[tuple[int, int], Shard]]) -> Self:
        """Read the tables of some shards, one shard at a time.

        Args:
            shards: each with the size and the time in ns that its file had before it was opened.

        Returns:
            The segment, in memory.

        Raises:
            ShardError: one of them is damaged.
        """
        stamps, values = [], list[tuple[Any, ...]]()
        for stamp, shard in shards:
            stamps.append(ShardStamp(shard.path.name, *stamp, len(shard.videos)))
            values.extend(map(_values_of, shard.videos))
        table = dict(zip(KINDS, zip(*values, strict=True) if values else [()] * len(KINDS), strict=True))
        columns: dict[str, NDArray[Any] | Texts] = {
            name: Texts.of(table[name]) if kind is str else np.array(table[name], DTYPES[kind])
            for name, kind in KINDS.items()
        }
        digests = np.array([digest_of(video_id) for video_id in table["id"]], np.uint64).reshape(-1, 2)
        return cls(stamps, columns | dict(zip(DIGESTS, digests.T, strict=True)))

    @classmethod
    def open(cls, path: Path, key_json: str) -> Self:
        """Open a segment's folder; its columns are mapped when they are first read.

        Args:
            path: the folder.
            key_json: the key of the store.

        Returns:
            The segment.

        Raises:
            OSError, ValueError, LookupError, TypeError, AttributeError: the folder holds no whole segment of this key.
        """
        header = json.loads((path / "header.json").read_text(encoding="utf-8"))
        if [header["format"], header["version"], header["key"]] != [FORMAT, VERSION, key_json]:
            raise ValueError("another format, or made with other settings than the store")
        segment = cls([ShardStamp(*stamp) for stamp in header["shards"]], {}, path)
        for name in (*KINDS, *DIGESTS):
            segment.load(name)
        return segment

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(S,) the number of rows of each shard."""
        return np.array([stamp.num_videos for stamp in self.shards], np.int64)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(S + 1,) the first row of each shard, and the number of rows."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> Any:
        """Return a column, mapped: an array of numbers, or `Texts`."""
        if name not in self._columns:
            self._columns[name] = self.load(name)
        return self._columns[name]

    def load(self, name: str) -> Any:
        """Return a column, mapped anew.

        Args:
            name: of the column.

        Returns:
            The array of numbers, or `Texts`.

        Raises:
            OSError, ValueError: it is missing, or is not of this segment's size.
        """
        if self.path is None:
            return self._columns[name]
        if KINDS.get(name) is not str:
            dtype = np.uint64 if name in DIGESTS else DTYPES[KINDS[name]]
            return _map_array(self.path / f"{name}.npy", dtype, len(self))
        offsets = _map_array(self.path / f"{name}.offsets.npy", np.int64, len(self) + 1)
        return Texts(_map_array(self.path / f"{name}.text.npy", np.uint8, int(offsets[-1])), offsets)

    def content(self, at: int) -> list[bytes]:
        """Return all that the segment states of one of its shards, as bytes, to compare two segments."""
        start, stop = int(self.starts[at]), int(self.starts[at + 1])
        return [part for name in (*KINDS, *DIGESTS) for part in _bytes_of(self.column(name), start, stop)]

    def row(self, number: int) -> VideoRow:
        """Return one row."""
        return _video_row([self.column(name).item(number) for name in KINDS])

    def rows(self, start: int, stop: int) -> Iterator[VideoRow]:
        """Yield the rows [start, stop)."""
        columns = [_slice(self.column(name), start, stop) for name in KINDS]
        return map(_video_row, zip(*columns, strict=True))


def digest_of(video_id: str) -> tuple[int, int]:
    """Return the 128 bits by which an id is found, as two numbers of 64 bits."""
    digest = blake2b(video_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _video_row(values: Sequence[Any]) -> VideoRow:
    """Return a row from its values in the order of `KINDS`."""
    video_id, start, length, *known, checksum = values[: len(COLUMNS)]
    *source, source_checksum = values[len(COLUMNS) :]
    return VideoRow(video_id, start, length, VideoInfo(*known), checksum, VideoSource(*source), source_checksum)


def _slice(column: NDArray[Any] | Texts, start: int, stop: int) -> list[Any]:
    return column.tolist(start, stop) if isinstance(column, Texts) else column[start:stop].tolist()


def _bytes_of(column: NDArray[Any] | Texts, start: int, stop: int) -> Iterator[bytes]:
    """Yield the values of rows [start, stop); of texts, their lengths too."""
    if isinstance(column, Texts):
        cuts = column.offsets[start : stop + 1]
        yield np.diff(cuts).tobytes()
        column, start, stop = column.content, int(cuts[0]), int(cuts[-1])
    yield column[start:stop].tobytes()


def _map_array(path: Path, dtype: Any, length: int) -> NDArray[Any]:
    """Map an array of one dimension; an empty one, which cannot be mapped, is read."""
    array = np.load(path, mmap_mode="r" if length else None, allow_pickle=False)
    if array.shape != (length,) or array.dtype != dtype:
        raise ValueError(f"{path}: {array.shape} {array.dtype}, not ({length},) {np.dtype(dtype)}")
    return np.asarray(array)  # a plain view: elements of np.memmap are slower to read


def write_segment(folder: Path, parts: Sequence[tuple[Segment, Sequence[int]]], key_json: str) -> Path:
    """Write the rows of some segments' shards as one segment, a column at a time.

    Args:
        folder: of the index.
        parts: the segments, each with the numbers of its shards that are copied, increasing.
        key_json: the key of the store.

    Returns:
        The new segment's folder.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    final = folder / uuid4().hex
    aside = folder / f"{final.name}.writing"
    shards = [segment.shards[number] for segment, numbers in parts for number in numbers]
    runs = [(segment, list(_runs(segment, numbers))) for segment, numbers in parts]
    try:
        aside.mkdir()
        for name in (*KINDS, *DIGESTS):
            _write_column(aside, name, [(segment.load(name), its_runs) for segment, its_runs in runs])
        header = {"format": FORMAT, "version": VERSION, "key": key_json, "shards": shards}
        with (aside / "header.json").open("xb") as stream:
            _write_synced(stream, [json.dumps(header).encode()])
        sync_folder(aside)
        os.rename(aside, final)
        sync_folder(folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(aside)
    return final


def _runs(segment: Segment, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the rows of some shards as few stretches [start, stop): shards 0, 1, 3 of two rows -> (0, 4), (6, 8)"""
    start = stop = 0
    for number in numbers:
        first, end = int(segment.starts[number]), int(segment.starts[number + 1])
        if first != stop:
            if stop > start:
                yield start, stop
            start = first
        stop = end
    if stop > start:
        yield start, stop


def _write_column(folder: Path, name: str, parts: Sequence[tuple[Any, Sequence[tuple[int, int]]]]) -> None:
    """Write stretches of some columns as one: numbers, or texts with their offsets."""
    if KINDS.get(name) is not str:
        pieces = [column[start:stop] for column, runs in parts for start, stop in runs]
        _write_array(folder / f"{name}.npy", pieces, np.uint64 if name in DIGESTS else DTYPES[KINDS[name]])
        return
    contents, offsets, end = list[NDArray[Any]](), [np.zeros(1, np.int64)], 0
    for texts, runs in parts:
        for start, stop in runs:
            cuts = texts.offsets[start : stop + 1]
            contents.append(texts.content[cuts[0] : cuts[-1]])
            offsets.append(cuts[1:] + (end - cuts[0]))
            end += int(cuts[-1] - cuts[0])
    _write_array(folder / f"{name}.text.npy", contents, np.uint8)
    _write_array(folder / f"{name}.offsets.npy", offsets, np.int64)


def _write_array(path: Path, pieces: Sequence[NDArray[Any]], dtype: Any) -> None:
    """Write pieces of one array as an .npy file. Writing to a map would end the process where the disk is full."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (sum(map(len, pieces)),)}
    with path.open("xb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        _write_synced(stream, [np.ascontiguousarray(piece).data for piece in pieces])


def _write_synced(stream: BinaryIO, contents: Iterable[bytes | memoryview]) -> None:
    for content in contents:
        stream.write(content)
    stream.flush()
    os.fsync(stream.fileno())
