"""A store's features as plain files, for other programs."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np

from vidpipe.errors import StoreError, UsageError, unknown_name
from vidpipe.features.maintenance import new_folder, sound_sequences
from vidpipe.features.new_files import write_new
from vidpipe.features.shard import write_plain
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence

__all__ = ["export", "plain_name"]

MAX_NAME_BYTES = 255
"""The longest file name on nearly every file system."""


def export(store: FeatureStore, folder: Path, *, form: str) -> int:
    """Write a store's features as plain files, for your own training code.

    `npy`: a file for each video, under the video's own path, and a table of all files:

        for row in csv.DictReader(open("exported/index.csv")):        # id, file, length, fps, duration_seconds, …
            features = np.load(f"exported/{row['file']}")             # (T, D)

    `h5`: one file, features.h5, that holds the times too:

        with h5py.File("exported/features.h5") as file:
            for name in file["name"].asstr():
                features = file["features"][name][:]                  # (T, D); .attrs: id, fps, duration_seconds, …
                pts_seconds = file["pts_seconds"][name][:]            # (T,)

    Where rows are windows of frames, it also holds `start_seconds/<name>` and `stop_seconds/<name>`, (T,); where they
    are regions of the picture, `region/<name>`, (T, 4); where a video is shorter than the shortest window of its
    backbone, `num_repeated/<name>`, (T,), how many frames of the window repeat the last one.

    A name is the video's id, with the parts escaped that would lead to another folder: `../a.mp4` becomes
    `%2E%2E/a.mp4`. A file's name that is too long for a file system ends in a hash; index.csv has the id of each file.

    Args:
        store: what to export.
        folder: a folder that is empty or does not exist. It appears once it is complete.
        form: `npy` or `h5`.

    Returns:
        How many videos were written.

    Raises:
        UsageError: there is no such form.
        ShardError: something is damaged; `repair` comes first.
        StoreError: the folder holds something, or cannot be written.
    """
    if form not in _FORMS:
        raise UsageError(unknown_name("form", form, _FORMS))
    with new_folder(folder) as aside:
        _FORMS[form](aside, sound_sequences(store, store.ids))
    return len(store)


def _export_npy(folder: Path, sequences: Iterator[FeatureSequence]) -> None:
    rows = []
    for sequence in sequences:
        path = folder / _file_name(sequence.video_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = io.BytesIO()  # np.save reports no error on a full disk
        np.save(image, sequence.features)
        write_new(path, image.getbuffer(), sync=False)  # refuses to replace a file, where a.mp4 and A.mp4 are one name
        file = path.relative_to(folder).as_posix()
        rows.append({"id": sequence.video_id, "file": file, "length": len(sequence), **asdict(sequence.info)})
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ("id", "file", "length"))
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: str(row["id"])))


def _export_h5(folder: Path, sequences: Iterator[FeatureSequence]) -> None:
    try:
        write_plain(folder / "features.h5", ((plain_name(sequence.video_id), sequence) for sequence in sequences))
    except (TypeError, ValueError) as error:
        raise StoreError(f"HDF5 cannot hold these ids, one is the folder of another ({error}); use npy") from error


_FORMS: Mapping[str, Callable[[Path, Iterator[FeatureSequence]], None]] = {"npy": _export_npy, "h5": _export_h5}


def plain_name(video_id: str) -> str:
    """Return an id as a path that stays below its folder: `../a.mp4` -> `%2E%2E/a.mp4`, `/a.mp4` -> `%2F/a.mp4`"""
    escaped = {"": "%2F", ".": "%2E", "..": "%2E%2E"}
    return "/".join(escaped.get(part, part) for part in video_id.split("/"))


def _file_name(video_id: str) -> Path:
    """An id as a file that file systems take: `b/a.mp4` -> `b/a.mp4.npy`"""
    *folders, name = plain_name(video_id).split("/")
    return Path(*(_shortened(folder) for folder in folders), _shortened(name, ".npy"))


def _shortened(name: str, suffix: str = "") -> str:
    """Return a name with its suffix; where it is too long for a file name, a hash of it replaces its end."""
    if len(name.encode()) + len(suffix) <= MAX_NAME_BYTES:
        return name + suffix
    mark = f"~{sha256(name.encode()).hexdigest()[:16]}{suffix}"
    return name.encode()[: MAX_NAME_BYTES - len(mark)].decode(errors="ignore") + mark
