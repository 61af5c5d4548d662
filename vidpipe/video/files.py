"""Which videos a user means: files, folders, or a CSV with a column `video`."""

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from vidpipe.errors import InputError, UsageError
from vidpipe.records import VideoFile
from vidpipe.tables import is_url, read_table

__all__ = ["MEDIA_SUFFIXES", "find_videos"]

logger = logging.getLogger(__name__)

_VIDEO = """
    .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .m1v .m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mkv .mov .mp4
    .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m
"""
_TABLES = (".csv", ".tsv")
_SOUND = ".aac .flac .m4a .mka .mp3 .oga .ogg .opus .wav .wma"
MEDIA_SUFFIXES = frozenset((_VIDEO + _SOUND).split())
"""What a folder's walk takes for media. Sound files count: one that holds no video is reported, not passed over."""


OnUnreadable = Callable[[Path, OSError], None]


def _warn(folder: Path, error: OSError) -> None:
    logger.warning("%s: this folder cannot be read (%s); what it holds is left out", folder, error.strerror)


def find_videos(
    inputs: Sequence[Path], *, on_unreadable: OnUnreadable = _warn, video_column: str | None = None
) -> list[VideoFile]:
    """The videos that `inputs` name, sorted by id.

    A folder is walked and gives ids relative to itself; files given one by one give ids relative to the folder that
    holds them all; a CSV gives the paths in its column `video`, relative to the CSV's own folder. Where a CSV has a
    column `path` too, as `vidpipe predict` writes it, that is where the file is, and `video` is its id.

    Args:
        inputs: files, folders and CSVs.
        on_unreadable: called with each folder on the way that cannot be read, and why; a warning is logged by default.
        video_column: the column of the CSVs that names the videos; None takes `video`, or one that is named alike.

    Raises:
        UsageError: a path is not there, cannot be read or is no regular file, or two videos would have the same id.
        InputError: a folder holds no videos, or a CSV cannot be used.
    """
    kinds = {path: _kind(path) for path in inputs}
    files = [path for path, kind in kinds.items() if kind == "file"]
    found = list(_from_files(files))
    for path, kind in kinds.items():
        if kind == "folder":
            found.extend(_from_folder(path, on_unreadable))
        elif kind == "csv":
            found.extend(_from_csv(path, video_column))
    return _unique(found)


def _kind(path: Path) -> str:
    """`folder`, `csv` or `file`."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(mode):
        return "folder"
    if path.suffix.lower() not in _TABLES:
        return "file"
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: not a regular file; a list of videos is a CSV file")
    return "csv"


def _from_files(files: Sequence[Path]) -> Iterator[VideoFile]:
    if files:
        folder = os.path.commonpath([path.absolute().parent for path in files])
        for path in files:
            yield VideoFile(_as_id(os.path.relpath(path.absolute(), folder)), path.absolute(), Path(folder))


def _from_folder(folder: Path, on_unreadable: OnUnreadable) -> Iterator[VideoFile]:
    empty, unreadable = True, ""

    def note(parent: Path, error: OSError) -> None:
        nonlocal unreadable
        unreadable = unreadable or f"; {parent} cannot be read ({error.strerror})"
        on_unreadable(parent, error)

    for path in _walk(folder, note):
        if path.suffix.lower() in MEDIA_SUFFIXES and not path.name.startswith("."):
            empty = False
            yield VideoFile(_as_id(os.path.relpath(path, folder)), path.absolute(), folder.absolute())
    if empty:
        raise InputError(
            f"{folder}: no videos in this folder (looked for {', '.join(sorted(MEDIA_SUFFIXES)[:6])}, …){unreadable}; "
            "name files of other kinds one by one"
        )


def _walk(folder: Path, on_unreadable: OnUnreadable) -> Iterator[Path]:
    """Every file below, links followed, no folder entered twice; however deep, for it does not recurse."""
    entered = {os.path.realpath(folder)}
    waiting = [(str(folder), os.path.realpath(folder))]
    while waiting:
        parent, real_parent = waiting.pop()
        try:
            with os.scandir(parent) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            on_unreadable(Path(parent), error)
            continue
        subfolders = []
        for entry in entries:
            if not _is_folder(entry):
                yield Path(entry.path)
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real_parent, entry.name)
            if real not in entered:
                entered.add(real)
                subfolders.append((entry.path, real))
        waiting.extend(reversed(subfolders))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, or one that leads where nobody may look
        return False


def _from_csv(path: Path, video_column: str | None) -> Iterator[VideoFile]:
    table = read_table(path, error=InputError)
    column = table.need("video", video_column)
    place_column = table.named("path") or column
    lines = {
        (row.cells[column], row.cells[place_column] or row.cells[column]): row.line
        for row in table.rows()
        if row.cells[column]
    }
    if not lines:
        raise InputError(f"{path}: the column {column!r} is empty")
    for (name, place), line in lines.items():
        _check_path(name, f"{path}, line {line}")
        _check_path(place, f"{path}, line {line}")
        file, video_id = (path.parent / place).absolute(), _as_id(os.path.normpath(name).lstrip("/"))
        yield VideoFile(video_id, file, _root_of(file, video_id) or path.parent.absolute())


def _check_path(name: str, where: str) -> None:
    if "\0" in name:
        raise InputError(f"{where}: {name!r} holds a NUL byte, which no path can")
    if is_url(name):
        raise InputError(f"{where}: {name}: URLs are not read; download the video, and name its file")


def _root_of(file: Path, video_id: str) -> Path | None:
    """The folder that an id is relative to, where the file's path ends with the id."""
    root = str(file).removesuffix(f"/{video_id}")
    return Path(root or "/") if root != str(file) else None


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
