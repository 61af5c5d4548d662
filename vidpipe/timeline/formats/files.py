"""Files of timelines: written under another name and renamed; one for each video, where a format needs it."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from vidpipe.errors import InputError, UsageError, VidpipeError
from vidpipe.records import Timeline

__all__ = ["read_each", "write_each", "write_whole"]


def read_each(path: Path, suffix: str, read: Callable[[Path, str], Timeline]) -> list[Timeline]:
    """Read a format that has a file for each video.

    Args:
        path: a file, or a folder of them, at any depth.
        suffix: what the files' names end with: `.vtt`.
        read: reads a file, given the video's id: the file's path relative to the folder, without the suffix.

    Returns:
        The timelines, in order of the files' names.

    Raises:
        InputError: the folder has no such files.
    """
    if not path.is_dir():
        return [read(path, path.stem)]
    files = sorted(one for one in path.rglob("*") if one.suffix.lower() == suffix and one.is_file())
    if not files:
        raise InputError(f"{path}: no files that end in {suffix}; give a folder with a file for each video")
    return [read(one, one.relative_to(path).as_posix()[: -len(suffix)]) for one in files]


def write_each(path: Path, suffix: str, timelines: Sequence[Timeline], text: Callable[[Timeline], str]) -> None:
    """Write a format that has a file for each video.

    Args:
        path: a folder, made if it does not exist; or a file, for one video.
        suffix: what the files' names end with: `.vtt`.
        timelines: what to write.
        text: makes the text of a file.

    Raises:
        UsageError: a file is given for several videos.
        VidpipeError: a file cannot be written, or an id is no path below the folder.
    """
    if path.suffix.lower() == suffix and not path.is_dir():
        if len(timelines) != 1:
            raise UsageError(f"{path}: one file holds one video, got {len(timelines)}; give a folder, without {suffix}")
        write_whole(path, text(timelines[0]))
        return
    for timeline in timelines:
        write_whole(_file_of(path, timeline.video_id, suffix), text(timeline))


def write_whole(path: Path, text: str) -> None:
    """Write a text file under another name, and rename it.

    Args:
        path: the file. Its folder is made if it does not exist.
        text: written as UTF-8.

    Raises:
        VidpipeError: the file cannot be written.
    """
    with _reported(path):
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{uuid4().hex[:12]}.partial")
        try:
            aside.write_text(text, encoding="utf-8", newline="")
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VidpipeError(f"{path}: cannot be written ({error.strerror}); choose another path") from error


def _file_of(folder: Path, video_id: str, suffix: str) -> Path:
    parts = video_id.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in video_id:
        raise VidpipeError(f"{video_id!r} is no path below {folder}; convert to .jsonl or .csv, or rename the video")
    return folder.joinpath(*parts[:-1], parts[-1] + suffix)
