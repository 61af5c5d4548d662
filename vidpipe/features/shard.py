"""One HDF5 file of a feature store: the sequences of some videos, one after another. Written once, then never changed.

    features       (ΣT, D)  float32 or float16
    pts_seconds    (ΣT,)    float64, when the frame at the row's centre is shown
    frame_index    (ΣT,)    int64, that frame
    scene_index    (ΣT,)    int32
    start_seconds  (ΣT,)    float64, optional: the row's interval is [start_seconds, stop_seconds)
    stop_seconds   (ΣT,)    float64, optional
    region         (ΣT, 4)  float32, optional: x, y, width, height as fractions of the picture, 0 to 1
    num_repeated   (ΣT,)    int32, optional: frames of the row's window that repeat the last one
    track          (ΣT,)    int32, optional: the number of the person in the row's region, from 1 on
    videos/        one array a column, one row a video: id, start, length, num_frames, …, checksum;
                   optional columns: root, path, fingerprint, source_checksum
    attributes     key (JSON), vidpipe version, created

Row `i` of `videos/` states that its video's sequence is rows [start, start + length) of the arrays above. An optional
array is missing where no row of the shard needs it: all are single whole frames, no window repeats a frame, or no row
is of one person. Where only some videos need it, it holds NaN for the others, or 0 in an array of whole numbers. An
optional column may be missing; then, and where its text is empty, nothing is known.

A file that is read as a shard may hold anything. What refers to other files (links, external and virtual arrays) is
refused. An array that claims more bytes than the file holds is refused before it is read.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import ShardError, StoreError
from vidpipe.features.key import FeatureKey
from vidpipe.records import UNKNOWN_SOURCE, FeatureSequence, Rows, VideoInfo, VideoSource
from vidpipe.version import __version__

__all__ = [
    "COLUMNS",
    "DTYPES",
    "INFO_COLUMNS",
    "OPTIONAL_COLUMNS",
    "REMEDY",
    "SOURCE_COLUMNS",
    "Shard",
    "VideoRow",
    "find_fault",
    "row_arrays",
    "sync_folder",
    "write_new",
    "write_plain",
    "write_shard",
]

INFO_COLUMNS = tuple(field.name for field in fields(VideoInfo))
COLUMNS: dict[str, Any] = {
    "id": str,
    "start": int,
    "length": int,
    **{field.name: field.type for field in fields(VideoInfo)},
    "checksum": str,
}
SOURCE_COLUMNS = tuple(field.name for field in fields(VideoSource))
OPTIONAL_COLUMNS: dict[str, Any] = {**dict.fromkeys(SOURCE_COLUMNS, str), "source_checksum": str}
"""A column is written where one of its values is not its type's empty value, and read as that where it is missing."""
FEATURE_DTYPES = (np.float32, np.float16)
ROW_ARRAYS: dict[str, Any] = {"pts_seconds": np.float64, "frame_index": np.int64, "scene_index": np.int32}
OPTIONAL_ROW_ARRAYS: dict[str, Any] = {
    "start_seconds": np.float64,
    "stop_seconds": np.float64,
    "region": np.float32,
    "num_repeated": np.int32,
    "track": np.int32,
}
"""Written where rows are windows of frames, or regions of the picture. For other videos of the shard they hold
`_no_value`."""
REGION_SIZE = 4
DTYPES: dict[Any, Any] = {int: np.int64, float: np.float64, bool: np.bool_}
MAX_KEY_BYTES = 2**16
ROWS_AT_ONCE = 512
"""How many rows are checked at once: few enough to stay in the processor's caches."""
PLAIN_ARRAYS = frozenset({"features", "pts_seconds", *OPTIONAL_ROW_ARRAYS})
"""What `write_plain` writes of a sequence."""
REMEDY = "`vidpipe store repair` moves it away, and the next extract makes its videos again"
DAMAGE = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)
"""What h5py, or a record's own check, raises on a file whose bytes were changed."""


@dataclass(frozen=True, slots=True)
class VideoRow:
    """Where a video's sequence lies in a shard, and what is known about the video."""

    id: str
    start: int
    length: int
    info: VideoInfo
    checksum: str
    source: VideoSource = UNKNOWN_SOURCE
    source_checksum: str = ""


def _checksum(sequence: FeatureSequence) -> str:
    """Return the sha256 of what a shard holds of a video, apart from its place and its source.

    It covers the JSON text `[id, num_frames, …, mtime_ns, dtype, T, D]` in the columns' order, then the features and
    the rows of each array, then the name and the rows of each optional array that the sequence has.
    """
    known = [COLUMNS[name](getattr(sequence.info, name)) for name in INFO_COLUMNS]
    text = json.dumps([sequence.video_id, *known, sequence.features.dtype.name, *sequence.features.shape])
    digest = hashlib.sha256(text.encode())
    for name, array in row_arrays(sequence).items():
        digest.update(name.encode() if name in OPTIONAL_ROW_ARRAYS else b"")
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _source_checksum(sequence: FeatureSequence) -> str:
    """Return the sha256 of the JSON text `[id, root, path, fingerprint]`; an empty text where no source is known."""
    if sequence.source == UNKNOWN_SOURCE:
        return ""
    return hashlib.sha256(json.dumps([sequence.video_id, *astuple(sequence.source)]).encode()).hexdigest()


def _can_be_used(features: NDArray[np.floating[Any]]) -> bool:
    """Whether the sum of their squares is finite. Then each is finite, and small enough to compute with."""
    if features.dtype == np.float16:  # no float16 is too large, and their sum is slow
        return bool(np.isfinite(features).all())
    return bool(np.isfinite(np.vdot(features, features)))


def find_fault(sequence: FeatureSequence, row: VideoRow) -> str | None:
    """Return what is wrong with a sequence that was read from a shard; None where it is sound.

    That its rows are in order, their centres inside their intervals and their regions inside the picture is checked
    before, by `vidpipe.records.Rows`.

    Args:
        sequence: what was read.
        row: the video's row in the shard.

    Returns:
        The reason, as part of a sentence; None where the sequence is what was written and can be used.
    """
    if _checksum(sequence) != row.checksum:
        return "it is not what was written"
    if _source_checksum(sequence) != row.source_checksum:
        return "what it states about its file is not what was written"
    if not _can_be_used(sequence.features):
        return "its features are not finite, or too large to compute with"
    if not np.isfinite(sequence.pts_seconds).all() or np.any(np.diff(sequence.pts_seconds) < 0):
        return "its pts_seconds do not increase"
    return None


def write_shard(
    folder: Path, sequences: Sequence[FeatureSequence], *, key: FeatureKey, replaces: Path | None = None
) -> Path:
    """Write and seal a shard: written under another name, synced, then renamed, so that a shard is always whole.

    Args:
        folder: where shards lie.
        sequences: at least one; their features are stored as `key.dtype`.
        key: what the features depend on.
        replaces: a shard that this one replaces: the new one counts as newer than that one and older than later ones.

    Returns:
        The shard's file.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    created = datetime.now(UTC)
    age = f"{replaces.stem}~" if replaces else f"{created:%Y%m%dT%H%M%S.%f}-"  # by name: x.h5 < x~1.h5 < y.h5
    final = folder / f"{age}{uuid4().hex[:8]}.h5"
    aside = final.with_suffix(".writing")
    try:
        write_new(aside, _shard_image(sequences, key, created).getbuffer())
        os.replace(aside, final)
        sync_folder(folder)
    finally:
        aside.unlink(missing_ok=True)
    return final


def _shard_image(sequences: Sequence[FeatureSequence], key: FeatureKey, created: datetime) -> io.BytesIO:
    """Return a shard's bytes. HDF5 writes to memory only: on a full disk it ends its process."""
    image = io.BytesIO()
    # From v108 on HDF5 writes checksums of its own metadata. Text of fixed length stays out of its heap, which has no
    # checksum, and which HDF5 reads in an endless loop where a page of it is lost.
    with h5py.File(image, "w", libver=("v108", "latest")) as file:
        for name, text in (
            ("key", key.as_json()),
            ("vidpipe_version", __version__),
            ("created", created.isoformat()),
        ):
            file.attrs[name] = _fixed_text([text])[0]
        _write_arrays(file, sequences)
    return image


def _write_arrays(file: h5py.File, sequences: Sequence[FeatureSequence]) -> None:
    by_video = [row_arrays(sequence) for sequence in sequences]
    for name in ("features", *ROW_ARRAYS, *OPTIONAL_ROW_ARRAYS):
        if any(name in its for its in by_video):
            rows = [its[name] if name in its else _no_values(name, len(its["features"])) for its in by_video]
            file.create_dataset(name, data=np.concatenate(rows) if len(rows) > 1 else rows[0])
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    table: dict[str, Any] = {
        "id": [sequence.video_id for sequence in sequences],
        "start": np.cumsum(lengths) - lengths,
        "length": lengths,
        "checksum": [_checksum(sequence) for sequence in sequences],
        "source_checksum": [_source_checksum(sequence) for sequence in sequences],
        **{name: [getattr(sequence.info, name) for sequence in sequences] for name in INFO_COLUMNS},
        **{name: [getattr(sequence.source, name) for sequence in sequences] for name in SOURCE_COLUMNS},
    }
    optional = {name: kind for name, kind in OPTIONAL_COLUMNS.items() if any(table[name])}
    videos = file.create_group("videos")
    for name, kind in (COLUMNS | optional).items():
        values = _fixed_text(table[name]) if kind is str else np.array(table[name], DTYPES[kind])
        videos.create_dataset(name, data=values)


def _fixed_text(texts: Sequence[str]) -> NDArray[np.bytes_]:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def write_plain(path: Path, sequences: Iterable[tuple[str, FeatureSequence]]) -> None:
    """Write sequences as an HDF5 file for other programs.

        name                  (N,)    the names
        features/<name>       (T, D)  with what is known about the video in the attributes
        pts_seconds/<name>    (T,)
        start_seconds/<name>  (T,)    where rows are windows of frames
        stop_seconds/<name>   (T,)    where rows are windows of frames
        region/<name>         (T, 4)  where rows are regions of the picture
        num_repeated/<name>   (T,)    where windows repeat the last frame
        track/<name>          (T,)    where rows are of single people

    Args:
        path: the file.
        sequences: each with its name in the file.

    Raises:
        OSError: the file cannot be written.
        ValueError, TypeError: a name is the folder of another name.
    """
    with _ErrorKeepingFile(path, "w+") as stream:
        try:
            _write_plain_arrays(stream, sequences)
        except OSError:  # HDF5 may report what follows from the first error
            stream.raise_error()
            raise


def _write_plain_arrays(stream: "_ErrorKeepingFile", sequences: Iterable[tuple[str, FeatureSequence]]) -> None:
    names = []
    with h5py.File(stream, "w") as file:
        for group in ("features", "pts_seconds"):
            file.create_group(group)
        for name, sequence in sequences:
            for group, array in row_arrays(sequence).items():
                if group in PLAIN_ARRAYS:
                    file.require_group(group).create_dataset(name, data=array)
            file["features"][name].attrs.update({"id": sequence.video_id, **asdict(sequence.info)})
            names.append(name)
            stream.raise_error()
        file.create_dataset("name", data=sorted(names), dtype=h5py.string_dtype())
        file.close()
        stream.raise_error()


class _ErrorKeepingFile(io.FileIO):
    """A file for HDF5 to write to. It keeps the first error: HDF5 ends the process where a write raises one."""

    _error: BaseException | None = None

    def write(self, content: Any) -> int:
        """Write all of the content; nothing after an error."""
        rest = memoryview(content)
        num_bytes = rest.nbytes
        try:
            while rest.nbytes and self._error is None:
                rest = rest[super().write(rest) :]
        except BaseException as error:  # Ctrl-C too
            self._error = error
        return num_bytes

    def truncate(self, size: int | None = None) -> int:
        """Change the size; not after an error."""
        try:
            if self._error is None:
                return super().truncate(size)
        except BaseException as error:
            self._error = error
        return size or 0

    def raise_error(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self._error is not None:
            raise self._error


def row_arrays(sequence: FeatureSequence) -> dict[str, NDArray[Any]]:
    """Return the arrays of a sequence that a shard holds, by name; optional ones only where the sequence has them."""
    arrays = {"features": sequence.features, **{name: getattr(sequence.rows, name) for name in ROW_ARRAYS}}
    optional = {name: getattr(sequence.rows, name) for name in OPTIONAL_ROW_ARRAYS}
    return arrays | {name: array for name, array in optional.items() if array is not None and _has_values(name, array)}


def _no_value(name: str) -> float:
    """Return what an optional array holds for a video that does not need it."""
    return 0 if OPTIONAL_ROW_ARRAYS[name] is np.int32 else np.nan


def _no_values(name: str, num_rows: int) -> NDArray[Any]:
    shape = (num_rows, REGION_SIZE) if name == "region" else (num_rows,)
    return np.full(shape, _no_value(name), OPTIONAL_ROW_ARRAYS[name])


def _has_values(name: str, array: NDArray[Any]) -> bool:
    """Whether an optional array says something about a video's rows."""
    return bool(array.any() if OPTIONAL_ROW_ARRAYS[name] is np.int32 else not np.isnan(array).all())


def write_new(path: Path, content: bytes | memoryview, *, sync: bool = True) -> None:
    """Write a new file.

    Args:
        path: the file.
        content: its bytes.
        sync: wait until the system has put it on the disk itself.

    Raises:
        OSError: it cannot be written, or exists already.
    """
    with path.open("xb", buffering=0) as stream:
        rest = memoryview(content)
        while rest.nbytes:
            rest = rest[stream.write(rest) :]
        if sync:
            os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the system has put a folder's names on the disk itself.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            _can_be_used(mapped[start : start + ROWS_AT_ONCE]) for start in range(0, len(mapped), ROWS_AT_ONCE)
        ):
            for row, features in zip(rows, found, strict=True):
                if not _can_be_used(features):
                    raise StoreError(
                        f"{self.path}: the features of {row.id} are not finite, or too large to compute with; "
                        "extract it again with --force"
                    )
        return found

    def _open(self) -> "_Opened":
        return _Opened(self.path)


class _Opened:
    """An open shard whose errors name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> h5py.File:
        self._check_readable()
        try:
            if not self._path.is_file():
                raise FileNotFoundError("no such file")
            self._file = h5py.File(self._path, "r", locking="best-effort")
        except DAMAGE as error:
            raise ShardError(self._describe(error)) from error
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._file.close()
        if isinstance(error, DAMAGE):
            raise ShardError(self._describe(error)) from error

    def _check_readable(self) -> None:
        """Raise StoreError where the file cannot be read now, because of permissions or a network: it may be sound."""
        try:
            os.close(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK))
        except (FileNotFoundError, IsADirectoryError):
            return
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be read ({error.strerror}); see to that first") from error

    def _describe(self, error: BaseException) -> str:
        return f"{self._path}: not a whole shard ({error}); {REMEDY}"


def _read_key(file: h5py.File) -> str:
    key = file.attrs.get_id("key")
    if key.shape != () or not _is_fixed_text(key.dtype) or key.get_storage_size() > MAX_KEY_BYTES:
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
    videos = _inside(file, "videos", h5py.h5g.GroupID)
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
    arrays = {"features": h5py.Dataset(_open_array(file, "features", *FEATURE_DTYPES, ndim=2))}
    optional = {name: dtype for name, dtype in OPTIONAL_ROW_ARRAYS.items() if file.id.links.exists(name.encode())}
    for name, dtype in (ROW_ARRAYS | optional).items():
        arrays[name] = h5py.Dataset(_open_array(file, name, dtype, ndim=2 if name == "region" else 1))
    if "region" in arrays and arrays["region"].shape[1] != REGION_SIZE:
        raise ValueError(f"region is of shape {arrays['region'].shape}")
    return arrays


def _read_column(videos: h5py.h5g.GroupID, name: str, kind: Any) -> list[Any]:
    array = _open_array(h5py.Group(videos), name, DTYPES.get(kind, kind), ndim=1)
    values = np.empty(array.shape, array.dtype)
    array.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    column = values.tolist()
    return [text.decode() for text in column] if kind is str else column


def _read_optional_column(videos: h5py.h5g.GroupID, name: str, kind: Any, num_videos: int) -> list[Any]:
    if not videos.links.exists(name.encode()):
        return [kind()] * num_videos
    return _read_column(videos, name, kind)


def _is_fixed_text(dtype: np.dtype[Any]) -> bool:
    text = h5py.check_string_dtype(dtype)
    return text is not None and text.length is not None


def _open_array(group: h5py.Group, name: str, *dtypes: Any, ndim: int) -> h5py.h5d.DatasetID:
    """Open an array of one of some types, `str` for text of fixed length, that lies completely in the file.

    Raises:
        ValueError: it lies elsewhere, or has another type or number of dimensions.
    """
    array = _inside(group, name, h5py.h5d.DatasetID)
    layout = array.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{name} lies outside the file")
    shape, dtype = array.shape, array.dtype
    fits = _is_fixed_text(dtype) if str in dtypes else dtype in dtypes
    if len(shape) != ndim or not fits:
        raise ValueError(f"{name} is of shape {shape} {dtype}")
    claimed_bytes = math.prod(shape) * dtype.itemsize
    if claimed_bytes != array.get_storage_size() or claimed_bytes > h5py.h5i.get_file_id(group.id).get_filesize():
        raise ValueError(f"{name} claims {claimed_bytes} bytes, which the file does not hold")
    return array


def _inside(group: h5py.Group, name: str, kind: Any) -> Any:
    """Return what a group holds under a name, if it is of this kind and no link to elsewhere.

    It uses HDF5's own calls: h5py's take a tenth of a millisecond more for each of a store's thousand columns.
    """
    if not group.id.links.exists(name.encode()):
        raise ValueError(f"{name} is missing")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} lies outside the file")
    found = h5py.h5o.open(group.id, name.encode())
    if not isinstance(found, kind):
        raise ValueError(f"{name} is a {type(found).__name__}")
    return found


def _read_sequence(arrays: Mapping[str, h5py.Dataset], row: VideoRow) -> FeatureSequence:
    read = {name: array[row.start : row.start + row.length] for name, array in arrays.items()}
    return _sequence(read.pop("features"), read, row, 0)


def _sequence(
    features: NDArray[np.floating[Any]], arrays: Mapping[str, NDArray[Any]], row: VideoRow, start: int
) -> FeatureSequence:
    """Return a video's sequence, whose rows of the other arrays begin at `start`."""
    its = {name: array[start : start + row.length] for name, array in arrays.items()}
    known = {name: its[name] for name in its if name not in OPTIONAL_ROW_ARRAYS or _has_values(name, its[name])}
    return FeatureSequence(row.id, features, Rows(**known), row.info, row.source)


def _mapped(path: Path, file: h5py.File) -> NDArray[np.floating[Any]]:
    """Return all features of a shard, (ΣT, D): read when they are touched, and held by the system's cache alone."""
    array = _open_array(file, "features", *FEATURE_DTYPES, ndim=2)
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
