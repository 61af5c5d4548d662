"""Opening a file that is read as a shard, and may hold anything.

What refers to other files (links, external and virtual arrays) is refused. An array that claims more bytes than the
file holds is refused before it is read.
"""

import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidpipe.errors import ShardError, StoreError

__all__ = ["DAMAGE", "REMEDY", "OpenedShard", "is_fixed_text", "open_array", "open_inside"]

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


class OpenedShard:
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


def open_array(group: h5py.Group, name: str, *dtypes: Any, ndim: int) -> h5py.h5d.DatasetID:
    """Open an array that lies completely in the file.

    Args:
        group: what holds it.
        name: its name there.
        *dtypes: the types that it may have; `str` for text of fixed length.
        ndim: the number of dimensions that it must have.

    Returns:
        HDF5's handle of the array.

    Raises:
        ValueError: it lies elsewhere, or has another type or number of dimensions.
    """
    array = open_inside(group, name, h5py.h5d.DatasetID)
    layout = array.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError(f"{name} lies outside the file")
    shape, dtype = array.shape, array.dtype
    fits = is_fixed_text(dtype) if str in dtypes else dtype in dtypes
    if len(shape) != ndim or not fits:
        raise ValueError(f"{name} is of shape {shape} {dtype}")
    claimed_bytes = math.prod(shape) * dtype.itemsize
    if claimed_bytes != array.get_storage_size() or claimed_bytes > h5py.h5i.get_file_id(group.id).get_filesize():
        raise ValueError(f"{name} claims {claimed_bytes} bytes, which the file does not hold")
    return array


def open_inside(group: h5py.Group, name: str, kind: Any) -> Any:
    """Return what a group holds under a name, if it is of this kind and no link to elsewhere.

    It uses HDF5's own calls: h5py's take a tenth of a millisecond more for each of a store's thousand columns.

    Args:
        group: what is looked into.
        name: the name there.
        kind: class of the handle: `h5py.h5d.DatasetID` or `h5py.h5g.GroupID`.

    Returns:
        HDF5's handle.

    Raises:
        ValueError: nothing of that name and kind is there.
    """
    if not group.id.links.exists(name.encode()):
        raise ValueError(f"{name} is missing")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} lies outside the file")
    found = h5py.h5o.open(group.id, name.encode())
    if not isinstance(found, kind):
        raise ValueError(f"{name} is a {type(found).__name__}")
    return found


def is_fixed_text(dtype: np.dtype[Any]) -> bool:
    """Whether a type is text of fixed length."""
    text = h5py.check_string_dtype(dtype)
    return text is not None and text.length is not None
