"""Features as a plain HDF5 file, for other programs."""

import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py

from vidpipe.features.shard.layout import OPTIONAL_ROW_ARRAYS, row_arrays
from vidpipe.records import FeatureSequence

__all__ = ["write_plain"]

PLAIN_ARRAYS = frozenset({"features", "pts_seconds", *OPTIONAL_ROW_ARRAYS})
"""What `write_plain` writes of a sequence."""


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
