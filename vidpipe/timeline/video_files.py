"""The files of the videos that timelines are about."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from vidpipe.datasets.matching import match_names
from vidpipe.errors import InputError, UsageError, VidpipeError, count_of, first_few
from vidpipe.records import Timeline
from vidpipe.video.files import find_videos

__all__ = ["check_copies", "copy_path", "find_video_files"]

COPY_SUFFIXES = (".mp4", ".mkv")
"""Of annotated copies: .mkv where MP4 cannot hold the video's sound."""


def find_video_files(timelines: Sequence[Timeline], folders: Sequence[Path], *, beside: Path) -> dict[str, Path]:
    """Find the files of videos: in folders, by their ids; else where the timelines say that they are.

    Args:
        timelines: those with an error need no file.
        folders: where to look; a file name or the end of a path is enough, with or without its extension.
        beside: the file of timelines; a relative path in it is also looked up in its folder.

    Returns:
        The file of each video, by id.

    Raises:
        UsageError: a folder does not exist, or a video is not found, or several files may be it.
    """
    wanted = [one for one in timelines if one.error is None]
    found = _in_folders([one.video_id for one in wanted], folders)
    for timeline in wanted:
        if timeline.video_id not in found and (path := _recorded(timeline, beside)):
            found[timeline.video_id] = path
    missing = [one.video_id for one in wanted if one.video_id not in found]
    if missing:
        looked = f" in {', '.join(map(str, folders))}" if folders else ""
        raise UsageError(
            f"the file of {count_of(len(missing), 'video')} is not found{looked}: {first_few(missing)}; "
            "give the folder that has it with --videos DIR"
        )
    return found


def copy_path(folder: Path, video_id: str, suffix: str) -> Path:
    """Return where the copy of a video goes: `walk/a.mp4` below the folder, and `walk/b.avi.mp4` for `walk/b.avi`.

    Args:
        folder: the folder of copies.
        video_id: the video.
        suffix: of the copy: `.mp4`.

    Returns:
        The path.

    Raises:
        VidpipeError: the id is no path below a folder.
    """
    parts = video_id.removesuffix(suffix).split("/")
    if {"", ".", ".."} & set(parts) or "\0" in video_id:
        raise VidpipeError(f"{video_id!r} is no path below {folder}; rename the video in the file of timelines")
    return folder.joinpath(*parts[:-1], parts[-1] + suffix)


def check_copies(folder: Path, video_ids: Sequence[str]) -> None:
    """Check that copies of videos can be written, and that none exists.

    Args:
        folder: the folder of copies. It is made if it does not exist.
        video_ids: the videos.

    Raises:
        UsageError: the folder cannot be written to, or a copy exists.
        VidpipeError: an id is no path below a folder.
    """
    paths = [copy_path(folder, video_id, suffix) for video_id in video_ids for suffix in COPY_SUFFIXES]
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise UsageError(f"{first_few(existing)}: exists; choose another folder for copies, or delete it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{folder}: copies cannot be written to it ({error.strerror}); choose another folder"
        ) from error


def _in_folders(video_ids: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    if not folders:
        return {}
    try:
        files = {video.id: video.path for video in find_videos(folders)}
    except InputError:
        return {}
    found: dict[str, Path] = {}
    for video_id, matches in match_names(video_ids, files).items():
        if len(matches) > 1:
            names = first_few([match.video_id for match in matches])
            raise UsageError(f"{video_id}: several files may be this video: {names}; give one folder with --videos DIR")
        found.update((video_id, files[match.video_id]) for match in matches)
    return found


def _recorded(timeline: Timeline, beside: Path) -> Path | None:
    """The path that the file of timelines has, where there is such a file."""
    name = timeline.path or timeline.video_id
    try:
        return next((path for path in (Path(name), beside.parent / name) if path.is_file()), None)
    except (OSError, ValueError):
        return None
