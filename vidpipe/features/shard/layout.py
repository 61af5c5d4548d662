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
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import UNKNOWN_SOURCE, FeatureSequence, VideoInfo, VideoSource

__all__ = [
    "COLUMNS",
    "DTYPES",
    "FEATURE_DTYPES",
    "INFO_COLUMNS",
    "OPTIONAL_COLUMNS",
    "OPTIONAL_ROW_ARRAYS",
    "REGION_SIZE",
    "ROW_ARRAYS",
    "SOURCE_COLUMNS",
    "VideoRow",
    "has_values",
    "no_values",
    "row_arrays",
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
`no_values`."""
REGION_SIZE = 4
DTYPES: dict[Any, Any] = {int: np.int64, float: np.float64, bool: np.bool_}


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


def row_arrays(sequence: FeatureSequence) -> dict[str, NDArray[Any]]:
    """Return the arrays of a sequence that a shard holds, by name; optional ones only where the sequence has them."""
    arrays = {"features": sequence.features, **{name: getattr(sequence.rows, name) for name in ROW_ARRAYS}}
    optional = {name: getattr(sequence.rows, name) for name in OPTIONAL_ROW_ARRAYS}
    return arrays | {name: array for name, array in optional.items() if array is not None and has_values(name, array)}


def no_values(name: str, num_rows: int) -> NDArray[Any]:
    """Return what an optional array holds for a video that does not need it: 0 or NaN."""
    shape = (num_rows, REGION_SIZE) if name == "region" else (num_rows,)
    return np.full(shape, 0 if OPTIONAL_ROW_ARRAYS[name] is np.int32 else np.nan, OPTIONAL_ROW_ARRAYS[name])


def has_values(name: str, array: NDArray[Any]) -> bool:
    """Whether an optional array says something about a video's rows."""
    return bool(array.any() if OPTIONAL_ROW_ARRAYS[name] is np.int32 else not np.isnan(array).all())
