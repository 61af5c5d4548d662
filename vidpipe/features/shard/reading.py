"""Reading a shard."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import StoreError
from vidpipe.features.shard.checks import can_be_used, find_fault
from vidpipe.features.shard.layout import (
    COLUMNS,
    DTYPES,
    FEATURE_DTYPES,
    OPTIONAL_COLUMNS,
    OPTIONAL_ROW_ARRAYS,
    REGION_SIZE,
    ROW_ARRAYS,
    VideoRow,
    has_values,
)
from vidpipe.features.shard.opening import DAMAGE, OpenedShard, is_fixed_text, open_array, open_inside
from vidpipe.records import FeatureSequence, Rows, VideoInfo, VideoSource

__all__ = ["Shard"]

MAX_KEY_BYTES = 2**16
ROWS_AT_ONCE = 512
"""How many rows are checked at once: few enough to stay in the processor's caches."""


class Shard:
    """A sealed shard. The file is opened for each access and never held, so that it may be read after a fork.

    Args:
        path: the file.

    Raises:
        ShardError: the file is no shard of this format, or damaged.
        StoreError: the file cannot be read now, and may be sound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.key_json = _read_key(file)
            num_rows, self.dim, self.dtype = _read_form(file)
            self.videos = tuple(_read_table(file, num_rows))

    def sequence(self, row: VideoRow) -> FeatureSequence:
        """Return the sequence of one of this shard's videos."""
        return next(self.sequences([row]))

    def sequences(self, rows: Sequence[VideoRow]) -> Iterator[FeatureSequence]:
        """Yield the sequences of some of this shard's videos; all but the features is read at once."""
        if not rows:
            return
        first, stop = min(row.start for row in rows), max(row.start + row.length for row in rows)
        with self._open() as file:
            arrays = _open_row_arrays(file)
            small: dict[str, Any] = {name: array[first:stop] for name, array in arrays.items() if name != "features"}
            for row in rows:
                features = arrays["features"][row.start : row.start + row.length]
                yield _sequence(features, small, row, row.start - first)

    def faults(self) -> Iterator[tuple[VideoRow, str]]:
        """Yield the videos whose rows are not what was written, or cannot be used, each with the reason."""
        overlapping = set(_overlapping(self.videos))
        with self._open() as file:
            arrays = _open_row_arrays(file)
            for row in self.videos:
                reason = "its rows are another video's too" if row in overlapping else _row_fault(arrays, row)
                if reason is not None:
                    yield row, reason

    def count_repeated(self, rows: Sequence[VideoRow]) -> int:
        """Return how many of some of this shard's videos have windows that repeat a frame."""
        with self._open() as file:
            repeated = _open_row_arrays(file).get("num_repeated")
            return 0 if repeated is None else sum(bool(repeated[r.start : r.start + r.length].any()) for r in rows)

    def tracks(self, rows: Sequence[VideoRow]) -> list[NDArray[np.int32] | None]:
        """Return the number of the person in each row of some of this shard's videos.

        Args:
            rows: the videos.

        Returns:
            (T,) for each video; None where its rows are not of single people.
        """
        with self._open() as file:
            array = _open_row_arrays(file).get("track")
            found = [None if array is None else array[row.start : row.start + row.length] for row in rows]
        return [None if its is None or not its.any() else its for its in found]

    def features(self, rows: Sequence[VideoRow], *, check: bool = True) -> list[NDArray[np.floating[Any]]]:
        """Return the features of some of this shard's videos, as maps of the file that take no memory of their own.

        Args:
            rows: the videos.
            check: read them all, and refuse those that cannot be computed with; without it, nothing is read yet.

        Returns:
            (T, D) for each video.

        Raises:
            StoreError: a feature is not finite, or too large to compute with.
        """
        with self._open() as file:
            mapped = _mapped(self.path, file)
        found = [mapped[row.start : row.start + row.length] for row in rows]
        if check and not all(
            can_be_used(mapped[start : start + ROWS_AT_ONCE]) for start in range(0, len(mapped), ROWS_AT_ONCE)
        ):
            for row, features in zip(rows, found, strict=True):
                if not can_be_used(features):
                    raise StoreError(
                        f"{self.path}: the features of {row.id} are not finite, or too large to compute with; "
                        "extract it again with --force"
                    )
        return found

    def _open(self) -> OpenedShard:
        return OpenedShard(self.path)


def _read_key(file: h5py.File) -> str:
    key = file.attrs.get_id("key")
    if key.shape != () or not is_fixed_text(key.dtype) or key.get_storage_size() > MAX_KEY_BYTES:
        raise ValueError("its key is not a text of fixed length")
    return bytes(file.attrs["key"]).decode()


def _read_form(file: h5py.File) -> tuple[int, int, "np.dtype[Any]"]:
    """Return ΣT, D and the type of the features."""
    arrays = _open_row_arrays(file)
    num_rows, dim = arrays["features"].shape
    if any(len(array) != num_rows for array in arrays.values()):
        raise ValueError(f"{', '.join(arrays)} differ in length")
    return num_rows, dim, arrays["features"].dtype


def _read_table(file: h5py.File, num_rows: int) -> Iterator[VideoRow]:
    videos = open_inside(file, "videos", h5py.h5g.GroupID)
    table = [_read_column(videos, name, kind) for name, kind in COLUMNS.items()]
    optional = [_read_optional_column(videos, name, kind, len(table[0])) for name, kind in OPTIONAL_COLUMNS.items()]
    for required, (*source, source_digest) in zip(zip(*table, strict=True), zip(*optional, strict=True), strict=True):
        video_id, start, length, *known, digest = required
        if not video_id:
            raise ValueError("a video has no id")
        if not 0 <= start <= start + length <= num_rows:
            raise ValueError(f"the rows of {video_id} lie outside the file's {num_rows}")
        yield VideoRow(video_id, start, length, VideoInfo(*known), digest, VideoSource(*source), source_digest)


def _open_row_arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the arrays with one entry a row, by name; optional ones where the shard has them."""
    arrays = {"features": h5py.Dataset(open_array(file, "features", *FEATURE_DTYPES, ndim=2))}
    optional = {name: dtype for name, dtype in OPTIONAL_ROW_ARRAYS.items() if file.id.links.exists(name.encode())}
    for name, dtype in (ROW_ARRAYS | optional).items():
        arrays[name] = h5py.Dataset(open_array(file, name, dtype, ndim=2 if name == "region" else 1))
    if "region" in arrays and arrays["region"].shape[1] != REGION_SIZE:
        raise ValueError(f"region is of shape {arrays['region'].shape}")
    return arrays


def _read_column(videos: h5py.h5g.GroupID, name: str, kind: Any) -> list[Any]:
    array = open_array(h5py.Group(videos), name, DTYPES.get(kind, kind), ndim=1)
    values = np.empty(array.shape, array.dtype)
    array.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    column = values.tolist()
    return [text.decode() for text in column] if kind is str else column


def _read_optional_column(videos: h5py.h5g.GroupID, name: str, kind: Any, num_videos: int) -> list[Any]:
    if not videos.links.exists(name.encode()):
        return [kind()] * num_videos
    return _read_column(videos, name, kind)


def _read_sequence(arrays: Mapping[str, h5py.Dataset], row: VideoRow) -> FeatureSequence:
    read = {name: array[row.start : row.start + row.length] for name, array in arrays.items()}
    return _sequence(read.pop("features"), read, row, 0)


def _sequence(
    features: NDArray[np.floating[Any]], arrays: Mapping[str, NDArray[Any]], row: VideoRow, start: int
) -> FeatureSequence:
    """Return a video's sequence, whose rows of the other arrays begin at `start`."""
    its = {name: array[start : start + row.length] for name, array in arrays.items()}
    known = {name: its[name] for name in its if name not in OPTIONAL_ROW_ARRAYS or has_values(name, its[name])}
    return FeatureSequence(row.id, features, Rows(**known), row.info, row.source)


def _mapped(path: Path, file: h5py.File) -> NDArray[np.floating[Any]]:
    """Return all features of a shard, (ΣT, D): read when they are touched, and held by the system's cache alone."""
    array = open_array(file, "features", *FEATURE_DTYPES, ndim=2)
    offset = array.get_offset()
    if offset is None or 0 in array.shape:  # empty, or in chunks, as other programs may write them
        features: NDArray[np.floating[Any]] = file["features"][:]
        return features
    return np.memmap(path, array.dtype, "c", offset, array.shape)


def _row_fault(arrays: Mapping[str, h5py.Dataset], row: VideoRow) -> str | None:
    try:
        return find_fault(_read_sequence(arrays, row), row)
    except DAMAGE as error:
        return f"its rows cannot be read ({error})"


def _overlapping(rows: Iterable[VideoRow]) -> Iterator[VideoRow]:
    """Yield both of any two videos that share rows of the arrays: `aaaa`, `··bb` -> a, b"""
    furthest: VideoRow | None = None
    for row in sorted(rows, key=lambda row: row.start):
        if furthest is not None and row.length and row.start < furthest.start + furthest.length:
            yield from (furthest, row)
        if furthest is None or row.start + row.length > furthest.start + furthest.length:
            furthest = row
