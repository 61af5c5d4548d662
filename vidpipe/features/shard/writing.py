"""Writing a shard, which is then never changed."""

import io
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import h5py
import numpy as np
from numpy.typing import NDArray

from vidpipe.features.key import FeatureKey
from vidpipe.features.new_files import sync_folder, write_new
from vidpipe.features.shard.checks import checksum_of, source_checksum_of
from vidpipe.features.shard.layout import (
    COLUMNS,
    DTYPES,
    INFO_COLUMNS,
    OPTIONAL_COLUMNS,
    OPTIONAL_ROW_ARRAYS,
    ROW_ARRAYS,
    SOURCE_COLUMNS,
    no_values,
    row_arrays,
)
from vidpipe.records import FeatureSequence
from vidpipe.version import __version__

__all__ = ["write_shard"]


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
            rows = [its[name] if name in its else no_values(name, len(its["features"])) for its in by_video]
            file.create_dataset(name, data=np.concatenate(rows) if len(rows) > 1 else rows[0])
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    table: dict[str, Any] = {
        "id": [sequence.video_id for sequence in sequences],
        "start": np.cumsum(lengths) - lengths,
        "length": lengths,
        "checksum": [checksum_of(sequence) for sequence in sequences],
        "source_checksum": [source_checksum_of(sequence) for sequence in sequences],
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
