"""Whether what is read from a shard is what was written, and can be computed with."""

import hashlib
import json
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.features.shard.layout import COLUMNS, INFO_COLUMNS, OPTIONAL_ROW_ARRAYS, VideoRow, row_arrays
from vidpipe.records import UNKNOWN_SOURCE, FeatureSequence

__all__ = ["can_be_used", "checksum_of", "find_fault", "source_checksum_of"]


def checksum_of(sequence: FeatureSequence) -> str:
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


def source_checksum_of(sequence: FeatureSequence) -> str:
    """Return the sha256 of the JSON text `[id, root, path, fingerprint]`; an empty text where no source is known."""
    if sequence.source == UNKNOWN_SOURCE:
        return ""
    return hashlib.sha256(json.dumps([sequence.video_id, *astuple(sequence.source)]).encode()).hexdigest()


def can_be_used(features: NDArray[np.floating[Any]]) -> bool:
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
    if checksum_of(sequence) != row.checksum:
        return "it is not what was written"
    if source_checksum_of(sequence) != row.source_checksum:
        return "what it states about its file is not what was written"
    if not can_be_used(sequence.features):
        return "its features are not finite, or too large to compute with"
    if not np.isfinite(sequence.pts_seconds).all() or np.any(np.diff(sequence.pts_seconds) < 0):
        return "its pts_seconds do not increase"
    return None
