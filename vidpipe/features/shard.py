"""One HDF5 file of a feature store: the sequences of some videos, one after another. Written once, then never changed.

    features     (ΣT, D)  float32 or float16
    pts_seconds  (ΣT,)    float64
    frame_index  (ΣT,)    int64
    scene_index  (ΣT,)    int32
    videos/      one array a column, one row a video: id, start, length, num_frames, …, checksum
    attributes   key (JSON), vidpipe version, created

Row `i` of `videos/` says that its video's sequence is rows [start, start + length) of the arrays above.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
from numpy.typing import NDArray

from vidpipe import __version__
from vidpipe.errors import ShardError
from vidpipe.features.key import FeatureKey
from vidpipe.records import FeatureSequence, FramePlan, VideoInfo

__all__ = ["Shard", "VideoRow", "checksum", "fault", "write_plain", "write_shard"]

INFO_COLUMNS = tuple(field.name for field in fields(VideoInfo))
COLUMNS = ("id", "start", "length", *INFO_COLUMNS, "checksum")
ROW_ARRAYS = ("features", "pts_seconds", "frame_index", "scene_index")
REMEDY = "`vidpipe store repair` moves it away, and the next extract makes its videos again"
DAMAGE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
"""What h5py, or a record's own check, raises on a file whose bytes were changed."""


@dataclass(frozen=True)
class VideoRow:
    """Where a video's sequence lies in a shard, and what is known of the video."""

    id: str
    start: int
    length: int
    info: VideoInfo
    checksum: str


def checksum(sequence: FeatureSequence) -> str:
    """sha256 over a sequence's rows, as they are stored."""
    digest = hashlib.sha256()
    for array in _row_arrays(sequence):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def fault(sequence: FeatureSequence, row: VideoRow) -> str | None:
    """What is wrong with a sequence that was read from a row; None where it is what was written, and can be used."""
    if checksum(sequence) != row.checksum:
        return "its rows are not those that were written"
    if not np.isfinite(sequence.features).all():
        return "its features are not finite"
    if not np.isfinite(sequence.pts_seconds).all() or np.any(np.diff(sequence.pts_seconds) < 0):
        return "its pts_seconds do not increase"
    return None


def write_shard(
    folder: Path, sequences: Sequence[FeatureSequence], *, key: FeatureKey, in_place_of: Path | None = None
) -> Path:
    """Write and seal a shard: aside, flushed, synced, then renamed, so that a shard's name is never on half a file.

    Args:
        folder: where shards lie.
        sequences: at least one; their features are stored as `key.dtype`.
        key: what the features depend on.
        in_place_of: a shard that this one is to replace: it counts as newer than that one, and older than all since.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    created = datetime.now(UTC)
    age = f"{in_place_of.stem}~" if in_place_of else f"{created:%Y%m%dT%H%M%S.%f}-"  # by name: x.h5 < x~1.h5 < y.h5
    final = folder / f"{age}{uuid4().hex[:8]}.h5"
    aside = final.with_suffix(".writing")
    try:
        # From v108 on HDF5 puts checksums on what it keeps about itself. Text of fixed length stays out of its heap,
        # which has none, and which HDF5 reads for ever where a page of it is lost.
        with h5py.File(aside, "w", libver=("v108", "latest")) as file:
            for name, text in (
                ("key", key.as_json()),
                ("vidpipe_version", __version__),
                ("created", created.isoformat()),
            ):
                file.attrs[name] = _fixed_text([text])[0]
            _write_arrays(file, sequences)
        _sync(aside)
        os.replace(aside, final)
        _sync(folder)
    finally:
        aside.unlink(missing_ok=True)
    return final


def _write_arrays(file: h5py.File, sequences: Sequence[FeatureSequence]) -> None:
    for name, arrays in zip(ROW_ARRAYS, zip(*map(_row_arrays, sequences), strict=True), strict=True):
        file.create_dataset(name, data=np.concatenate(arrays))
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    table: dict[str, Any] = {
        "id": [sequence.video_id for sequence in sequences],
        "start": np.cumsum(lengths) - lengths,
        "length": lengths,
        "checksum": [checksum(sequence) for sequence in sequences],
        **{name: [getattr(sequence.info, name) for sequence in sequences] for name in INFO_COLUMNS},
    }
    videos = file.create_group("videos")
    for name in COLUMNS:
        is_text = isinstance(table[name][0], str)
        videos.create_dataset(name, data=_fixed_text(table[name]) if is_text else table[name])


def _fixed_text(texts: Sequence[str]) -> NDArray[np.bytes_]:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def write_plain(path: Path, sequences: Iterable[tuple[str, FeatureSequence]]) -> None:
    """Write sequences, each with the name it is to have, as an HDF5 file for other programs.

        name                (N,)    the names
        features/<name>     (T, D)  what is known of the video stands in the attributes
        pts_seconds/<name>  (T,)

    Raises:
        OSError: the file cannot be written.
        ValueError, TypeError: a name is another one's folder.
    """
    names = []
    with h5py.File(path, "w") as file:
        features, pts_seconds = file.create_group("features"), file.create_group("pts_seconds")
        for name, sequence in sequences:
            dataset = features.create_dataset(name, data=sequence.features)
            dataset.attrs.update({"id": sequence.video_id, **asdict(sequence.info)})
            pts_seconds.create_dataset(name, data=sequence.pts_seconds)
            names.append(name)
        file.create_dataset("name", data=sorted(names), dtype=h5py.string_dtype())


def _row_arrays(sequence: FeatureSequence) -> tuple[NDArray[Any], ...]:
    plan = sequence.plan
    return sequence.features, plan.pts_seconds, plan.frame_index, plan.scene_index


def _sync(path: Path) -> None:
    """Have the system put a file, or a folder's names, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Shard:
    """A sealed shard, read. The file is opened for each access and never held, so that it may be read after a fork.

    Raises:
        ShardError: the file is no shard of this format, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            key_json = file.attrs["key"]
            self.key_json = key_json.decode() if isinstance(key_json, bytes) else str(key_json)
            self.videos = tuple(_read_table(file))

    def sequence(self, row: VideoRow) -> FeatureSequence:
        """The sequence of one of this shard's videos."""
        return next(self.sequences([row]))

    def sequences(self, rows: Sequence[VideoRow]) -> Iterator[FeatureSequence]:
        """The sequences of some of this shard's videos, with the file opened once."""
        with self._open() as file:
            for row in rows:
                yield _read_sequence(file, row)

    def faults(self) -> Iterator[tuple[VideoRow, str]]:
        """The videos whose rows are not what was written, or cannot be used, each with what is wrong."""
        overlapping = set(_overlapping(self.videos))
        with self._open() as file:
            for row in self.videos:
                wrong = "its rows are another video's too" if row in overlapping else _row_fault(file, row)
                if wrong is not None:
                    yield row, wrong

    def rows(self) -> NDArray[np.floating[Any]]:
        """(ΣT, D) the features of all videos."""
        with self._open() as file:
            return file["features"][:]  # type: ignore[no-any-return]

    def _open(self) -> "_Opened":
        return _Opened(self.path)


class _Opened:
    """An open shard whose every error says which file is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> h5py.File:
        try:
            self._file = h5py.File(self._path, "r", locking="best-effort")
        except OSError as error:
            raise ShardError(self._told(error)) from error
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._file.close()
        if isinstance(error, DAMAGE):
            raise ShardError(self._told(error)) from error

    def _told(self, error: BaseException) -> str:
        return f"{self._path}: not a whole shard ({error}); {REMEDY}"


def _read_table(file: h5py.File) -> Iterator[VideoRow]:
    num_rows, *others = (len(file[name]) for name in ROW_ARRAYS)
    if set(others) != {num_rows}:
        raise ValueError(f"{', '.join(ROW_ARRAYS)} differ in length")
    columns = {name: file["videos"][name] for name in COLUMNS}
    table = [
        (column.asstr() if h5py.check_string_dtype(column.dtype) else column)[:].tolist() for column in columns.values()
    ]
    for values in zip(*table, strict=True):
        row = dict(zip(columns, values, strict=True))
        if not row["id"]:
            raise ValueError("a video has no id")
        if not 0 <= row["start"] <= row["start"] + row["length"] <= num_rows:
            raise ValueError(f"the rows of {row['id']} lie outside the file's {num_rows}")
        info = VideoInfo(**{name: row[name] for name in INFO_COLUMNS})
        yield VideoRow(row["id"], row["start"], row["length"], info, row["checksum"])


def _read_sequence(file: h5py.File, row: VideoRow) -> FeatureSequence:
    place = slice(row.start, row.start + row.length)
    features, pts_seconds, frame_index, scene_index = (file[name][place] for name in ROW_ARRAYS)
    plan = FramePlan(frame_index=frame_index, pts_seconds=pts_seconds, scene_index=scene_index)
    return FeatureSequence(row.id, features, plan, row.info)


def _row_fault(file: h5py.File, row: VideoRow) -> str | None:
    try:
        return fault(_read_sequence(file, row), row)
    except DAMAGE as error:
        return f"its rows cannot be read ({error})"


def _overlapping(rows: Iterable[VideoRow]) -> Iterator[VideoRow]:
    """Both of any two rows that share some: `aaaa`, `··bb` -> a, b"""
    furthest: VideoRow | None = None
    for row in sorted(rows, key=lambda row: row.start):
        if furthest is not None and row.length and row.start < furthest.start + furthest.length:
            yield from (furthest, row)
        if furthest is None or row.start + row.length > furthest.start + furthest.length:
            furthest = row
