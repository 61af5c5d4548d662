"""Folders of files, however deep."""

import os
from pathlib import Path


def make_files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def make_deep(folder: Path, name: str, depth: int) -> None:
    """A folder in a folder in a folder …, also where the path to it is longer than the system takes."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        above, here = here, os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(above)
    os.close(here)


def names_in(folder: Path) -> set[str]:
    """The files of a folder, at any depth, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
