"""Finding the videos that a user names: files, folders, or a CSV with a column `video`."""

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidpipe.csv_files import is_url, read_table
from vidpipe.errors import InputError, UsageError, count_of
from vidpipe.records import VideoFile
from vidpipe.video.exclude import Exclude

__all__ = ["MEDIA_SUFFIXES", "Skipped", "find_videos"]

logger = logging.getLogger(__name__)

_VIDEO = """
    .3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .h265 .hevc .m1v .m2ts .m2v .m4v .mj2 .mjpeg .mjpg .mkv .mov .mp4
    .mpe .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m
"""
_TABLES = (".csv", ".tsv")
_SOUND = ".aac .flac .m4a .mka .mp3 .oga .ogg .opus .wav .wma"
MEDIA_SUFFIXES = frozenset((_VIDEO + _SOUND).split())
"""The suffixes by which a search of a folder recognises media. Sound files count: one without video is reported."""
SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot"),  # Synology, QNAP
        *("$recycle.bin", "system volume information", "lost+found", "__macosx"),  # Windows, ext4, zip on macOS
    )
)
"""Folders of thumbnails and deleted files, in lower case; skipped like hidden folders."""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that a search for videos left out."""

    name: str
    """Path relative to the INPUT, written as an id; a folder's ends with `/`."""
    reason: str


OnUnreadable = Callable[[Path, OSError], None]
OnSkipped = Callable[[Skipped], None]
HIDDEN, SYSTEM_FOLDER = "hidden", "system folder"
OTHER_NAME = "not a video by its name"
SEARCHED_ALREADY = "link to a folder that is searched already"


def _warn(folder: Path, error: OSError) -> None:
    logger.warning("%s: this folder cannot be read (%s); its files are left out", folder, error.strerror)


def find_videos(
    inputs: Sequence[Path | str],
    *,
    prefix: str = "",
    exclude: Sequence[str] = (),
    on_unreadable: OnUnreadable = _warn,
    on_skipped: OnSkipped = lambda skipped: None,
    video_column: str | None = None,
) -> list[VideoFile]:
    """Find the videos that `inputs` name, in the order of the inputs; those of a folder are sorted by id.

    A folder is searched; ids are relative to it. Ids of files given one by one are relative to the folder that holds
    all of them. A CSV names paths in its column `video`, relative to the CSV's own folder. Where it also has a column
    `path`, as `vidpipe predict` writes it, the file is there, and `video` is its id. Hidden files and folders are
    skipped.

    Args:
        inputs: files, folders and CSVs; a text is the URL of a remote file or folder.
        prefix: a folder to put before each id: with `old`, `walk/a.mp4` becomes `old/walk/a.mp4`.
        exclude: patterns of ids to leave out, without the prefix; see `vidpipe.video.exclude.Exclude`.
        on_unreadable: called with each folder that cannot be read, and the error; logs a warning by default.
        on_skipped: called with each file and folder that is left out, and the reason.
        video_column: the column of the CSVs that names the videos; None takes `video`, or one with a similar name.

    Returns:
        The videos; no two have the same id.

    Raises:
        UsageError: a path does not exist, cannot be read or is no regular file, two videos would have the same id, or
            the prefix cannot be part of a path.
        InputError: a folder holds no videos, all are excluded, or a CSV cannot be used.
    """
    excluded = Exclude(exclude)
    kinds = {path: _kind(path) for path in inputs if isinstance(path, Path)}
    files = [path for path, kind in kinds.items() if kind == "file"]
    by_file = dict(zip(files, _from_files(files), strict=True))
    found: list[VideoFile] = []
    for path in dict.fromkeys(inputs):
        if isinstance(path, str):
            found.extend(_from_remote(path, excluded, on_skipped))
            continue
        kind = kinds[path]
        if kind == "folder":
            inside = _from_folder(path, excluded, on_unreadable, on_skipped)
            found.extend(sorted(inside, key=lambda video: video.id))
        else:
            named = [by_file[path]] if kind == "file" else _from_csv(path, video_column)
            found.extend(_not_excluded(named, excluded, on_skipped))
    _check_excluded(excluded, found, inputs)
    return _unique(_prefixed(found, prefix))


def _not_excluded(videos: Iterable[VideoFile], exclude: Exclude, on_skipped: OnSkipped) -> Iterator[VideoFile]:
    for video in videos:
        if (pattern := exclude.find(video.id)) is None:
            yield video
        else:
            on_skipped(Skipped(video.id, _excluded_by(pattern)))


def _excluded_by(pattern: str) -> str:
    return f"excluded by {pattern!r}"


def _check_excluded(exclude: Exclude, found: Sequence[VideoFile], inputs: Sequence[Path | str]) -> None:
    """Refuse patterns that leave no video, and warn about those that match nothing.

    Raises:
        InputError: no video is left.
    """
    if exclude.used and not found:
        patterns = " ".join(f"--exclude {pattern!r}" for pattern in exclude.used)
        raise InputError(f"{', '.join(map(str, inputs))}: {patterns} leaves no video")
    example = min((video.id for video in found), key=lambda name: ("/" not in name, name), default="fight/a.mp4")
    for pattern in exclude.unused:
        logger.warning("--exclude %r matches nothing; it is compared with paths such as %r", pattern, example)


def _kind(path: Path) -> str:
    """Return `folder`, `csv` or `file`."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        hint = "; the shell found no file for this pattern" if set("*?[") & set(path.name) else ""
        raise UsageError(f"{path}: no such file or folder{hint}") from None
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


def _from_folder(
    folder: Path, exclude: Exclude, on_unreadable: OnUnreadable, on_skipped: OnSkipped
) -> Iterator[VideoFile]:
    empty, unreadable = True, ""
    hidden: list[str] = []

    def note(parent: Path, error: OSError) -> None:
        nonlocal unreadable
        unreadable = unreadable or f"; {parent} cannot be read ({error.strerror})"
        on_unreadable(parent, error)

    def skip(one: Skipped) -> None:
        if one.reason in (HIDDEN, SYSTEM_FOLDER) and one.name.endswith("/"):
            hidden.append(one.name)
        on_skipped(one)

    root = folder.absolute()
    for parent, name, video_id in _walk(folder, exclude, note, skip):
        if os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES:
            empty = False
            yield VideoFile(video_id, parent / name, root)
        else:
            skip(Skipped(video_id, OTHER_NAME))
    if empty and not exclude.used:
        raise InputError(
            f"{folder}: no videos in this folder (looked for .mp4, .mov, .avi, .mkv, .webm, …){unreadable}; "
            f"{_describe_hidden(hidden)}name files of other kinds one by one"
        )
    if hidden:
        logger.info("%s: %s", folder, _describe_hidden(hidden).removesuffix("; "))


def _from_remote(url: str, exclude: Exclude, on_skipped: OnSkipped) -> Iterator[VideoFile]:
    from vidpipe.video.remote import list_files, place_of_copy

    empty, files = True, list_files(url)
    for name, file in files:
        reason = _why_remote_skipped(name, exclude)
        if not reason and len(files) > 1 and os.path.splitext(name)[1].lower() not in MEDIA_SUFFIXES:
            reason = OTHER_NAME
        if reason:
            on_skipped(Skipped(name, reason))
        else:
            empty = False
            yield VideoFile(name, place_of_copy(file), remote=file)
    if empty and not exclude.used:
        raise InputError(f"{url}: no videos in this folder (looked for .mp4, .mov, .avi, .mkv, .webm, …)")


def _why_remote_skipped(video_id: str, exclude: Exclude) -> str:
    """Return why a remote file is left out because of its name or that of a folder; empty where it is not."""
    parts = video_id.split("/")
    paths = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    reasons = (
        _why_skipped(part, path, exclude, is_folder=path != video_id) for part, path in zip(parts, paths, strict=True)
    )
    return next(filter(None, reasons), "")


def _describe_hidden(folders: Sequence[str]) -> str:
    """Return `skipped 2 hidden folders (@eaDir/, .cache/), searched only if given as INPUT; `, or an empty text."""
    if not folders:
        return ""
    names = ", ".join(folders[:3]) + ", …" * (len(folders) > 3)
    return f"skipped {count_of(len(folders), 'hidden folder')} ({names}), searched only if given as INPUT; "


def _walk(
    folder: Path, exclude: Exclude, on_unreadable: OnUnreadable, on_skipped: OnSkipped
) -> Iterator[tuple[Path, str, str]]:
    """Yield the folder, the name and the id of every file below a folder. Links are followed, each folder once.

    It does not recurse, so that folders may be nested to any depth.
    """
    entered = {os.path.realpath(folder)}
    waiting = [(str(folder), "", os.path.realpath(folder))]
    while waiting:
        parent, parent_id, real_parent = waiting.pop()
        try:
            with os.scandir(parent) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            on_unreadable(Path(parent), error)
            continue
        subfolders, absolute = [], Path(parent).absolute()
        for entry in entries:
            is_folder, its_id = _is_folder(entry), parent_id + _as_id(entry.name)
            reason = _why_skipped(entry.name, its_id, exclude, is_folder=is_folder)
            if not is_folder and not reason:
                yield absolute, entry.name, its_id
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real_parent, entry.name)
            if reason or real in entered:
                on_skipped(Skipped(its_id + "/" * is_folder, reason or SEARCHED_ALREADY))
            else:
                entered.add(real)
                subfolders.append((entry.path, f"{its_id}/", real))
        waiting.extend(reversed(subfolders))


def _why_skipped(name: str, its_id: str, exclude: Exclude, *, is_folder: bool) -> str:
    """Return why a file or folder is left out because of its name; an empty text where it is not."""
    if name.startswith("."):
        return HIDDEN
    if is_folder and name.casefold() in SYSTEM_FOLDERS:
        return SYSTEM_FOLDER
    pattern = exclude.find(its_id)
    return "" if pattern is None else _excluded_by(pattern)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links, or a link to a folder without permission
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
    """Return the folder that an id is relative to, where the file's path ends with the id."""
    root = str(file).removesuffix(f"/{video_id}")
    return Path(root or "/") if root != str(file) else None


def _as_id(relative: str) -> str:
    """Return a relative path as an id: `/` between folders, and valid UTF-8 whatever the name's bytes."""
    text = relative if relative.isascii() else os.fsencode(relative).decode("utf-8", "backslashreplace")
    return text.replace(os.sep, "/")


def _prefixed(videos: Iterable[VideoFile], prefix: str) -> Iterator[VideoFile]:
    parts = prefix.strip("/").split("/")
    if prefix and (not prefix.isprintable() or {"", ".", ".."} & set(parts)):
        raise UsageError(f"prefix {prefix!r}: a name, or several with `/` between them, is needed, such as 'old'")
    for video in videos:
        yield replace(video, id="/".join([*parts, video.id])) if prefix else video


def _unique(videos: Iterable[VideoFile]) -> list[VideoFile]:
    by_id: dict[str, VideoFile] = {}
    for video in videos:
        other = by_id.setdefault(video.id, video)
        if other is not video and other.path != video.path:
            raise UsageError(
                f"two videos would have the id {video.id!r}: {other.path} and {video.path}; "
                "give the folder that holds both, or extract one input after the other, with --prefix NAME for the "
                "second"
            )
    return list(by_id.values())
