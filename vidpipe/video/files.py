"""Which videos a user means: files, folders, or a CSV with a column `video`."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vidpipe.errors import InputError, UsageError
from vidpipe.records import VideoFile

__all__ = ["MEDIA_SUFFIXES", "find_videos"]

_VIDEO = """
    .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .m1v .m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mkv .mov .mp4
    .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m
"""
_SOUND = ".aac .flac .m4a .mka .mp3 .oga .ogg .opus .wav .wma"
MEDIA_SUFFIXES = frozenset((_VIDEO + _SOUND).split())
"""What a folder's walk takes for media. Sound files count: one that holds no video is reported, not passed over."""


def find_videos(inputs: Sequence[Path]) -> list[VideoFile]:
    """The videos that `inputs` name, sorted by id.

    A folder is walked and gives ids relative to itself; files given one by one give ids relative to the folder that
    holds them all; a CSV gives the paths in its column `video`, relative to the CSV's own folder.

    Raises:
        UsageError: a path is not there, or two videos would have the same id.
        InputError: a folder holds no videos, or a CSV cannot be used.
    """
    missing = [path for path in inputs if not path.exists()]
    if missing:
        raise UsageError(f"{missing[0]}: no such file or folder")
    files = [path for path in inputs if not path.is_dir() and path.suffix.lower() != ".csv"]
    found = list(_from_files(files))
    for path in inputs:
        if path.is_dir():
            found.extend(_from_folder(path))
        elif path.suffix.lower() == ".csv":
            found.extend(_from_csv(path))
    return _unique(found)


def _from_files(files: Sequence[Path]) -> Iterator[VideoFile]:
    if files:
        folder = os.path.commonpath([path.absolute().parent for path in files])
        for path in files:
            yield VideoFile(_as_id(os.path.relpath(path.absolute(), folder)), path.absolute())


def _from_folder(folder: Path) -> Iterator[VideoFile]:
    empty = True
    for path in _walk(folder):
        if path.suffix.lower() in MEDIA_SUFFIXES and not path.name.startswith("."):
            empty = False
            yield VideoFile(_as_id(os.path.relpath(path, folder)), path.absolute())
    if empty:
        raise InputError(
            f"{folder}: no videos in this folder (looked for {', '.join(sorted(MEDIA_SUFFIXES)[:6])}, …); "
            "name files of other kinds one by one"
        )


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below, links followed, no folder entered twice."""
    entered = {os.path.realpath(folder)}
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders.sort()
        for name in list(subfolders):
            real = os.path.realpath(os.path.join(parent, name))
            if real in entered:
                subfolders.remove(name)
            entered.add(real)
        yield from (Path(parent, name) for name in sorted(names))


def _from_csv(path: Path) -> Iterator[VideoFile]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {error}") from error
    if "video" not in columns:
        raise InputError(f"{path}: a column 'video' is needed; found: {', '.join(columns) or 'nothing'}")
    names = [row["video"] for row in rows if row["video"]]
    if not names:
        raise InputError(f"{path}: the column 'video' is empty")
    for name in dict.fromkeys(names):
        yield VideoFile(_as_id(os.path.normpath(name).lstrip("/")), (path.parent / name).absolute())


def _as_id(relative: str) -> str:
    """A relative path as an id: `/` between folders, and text that UTF-8 can hold whatever the name's bytes."""
    return os.fsencode(relative).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _unique(videos: Iterable[VideoFile]) -> list[VideoFile]:
    by_id: dict[str, VideoFile] = {}
    for video in videos:
        other = by_id.setdefault(video.id, video)
        if other.path != video.path:
            raise UsageError(
                f"two videos would have the id {video.id!r}: {other.path} and {video.path}; "
                "give the folder that holds both, or use a store for each"
            )
    return sorted(by_id.values(), key=lambda video: video.id)
