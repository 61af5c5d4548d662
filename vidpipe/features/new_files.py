"""New files, and their names, put on the disk itself."""

import os
from pathlib import Path

__all__ = ["sync_folder", "write_new"]


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
