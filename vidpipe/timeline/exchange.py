"""Read and write timelines in any of the formats: the table of them, and how a file's format is found."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from vidpipe.csv_files import read_text
from vidpipe.errors import InputError, LabelsError, UsageError, unknown_name
from vidpipe.records import Timeline
from vidpipe.timeline.formats import elan, frame_texts, intervals, json_lines, subtitles
from vidpipe.timeline.frames import BACKGROUND

__all__ = ["FORMATS", "format_of_file", "read_timelines", "write_timelines"]

FORMATS: Mapping[str, str] = {
    "jsonl": ".jsonl",
    "csv": ".csv",
    "activitynet": ".json",
    "results": ".json",
    "vtt": ".vtt",
    "srt": ".srt",
    "elan": ".eaf",
    "mstcn": ".txt",
}
"""By name: how the files' names end. `activitynet` are annotations, `results` predictions in ActivityNet's JSON."""

_READERS: Mapping[str, Callable[[Path], list[Timeline]]] = {
    "jsonl": json_lines.read,
    "csv": intervals.read,
    "activitynet": intervals.read,
    "results": intervals.read,
    "vtt": partial(subtitles.read, kind="vtt"),
    "srt": partial(subtitles.read, kind="srt"),
    "elan": elan.read,
}
_WRITERS: Mapping[str, Callable[[Path, Sequence[Timeline]], list[str]]] = {
    "jsonl": json_lines.write,
    "csv": intervals.write_csv,
    "activitynet": intervals.write_activitynet,
    "results": intervals.write_results,
    "vtt": partial(subtitles.write, kind="vtt"),
    "srt": partial(subtitles.write, kind="srt"),
    "elan": elan.write,
}
_ONE_FILE_A_VIDEO = ("vtt", "srt", "elan", "mstcn")


def read_timelines(
    path: Path, *, form: str | None = None, fps: float | None = None, background: str = BACKGROUND
) -> list[Timeline]:
    """Read timelines.

    Args:
        path: a file, or a folder with a file for each video.
        form: a name of `FORMATS`; None finds it by the files' names and contents.
        fps: frames per second of `mstcn`, which needs it.
        background: the label of `mstcn` that is no segment.

    Returns:
        A timeline for each video.

    Raises:
        UsageError: there is no such path or format, or `fps` is missing.
        InputError: a folder has no files of the format.
        LabelsError: a file cannot be read.
    """
    form = format_of_file(path) if form is None else _known(form)
    if form == "mstcn":
        return frame_texts.read(path, fps=_need_fps(path, fps), background=background)
    return _READERS[form](path)


def write_timelines(
    path: Path,
    timelines: Sequence[Timeline],
    *,
    form: str | None = None,
    fps: float | None = None,
    background: str = BACKGROUND,
) -> list[str]:
    """Write timelines. Existing files are replaced.

    Args:
        path: a file; or a folder, for a format that has a file for each video.
        timelines: what to write.
        form: a name of `FORMATS`; None finds it by the file's name. `.json` are results where every segment has a
            probability, otherwise annotations.
        fps: frames per second of `mstcn`, which needs it.
        background: the label of `mstcn` that is no segment.

    Returns:
        Sentences about what the format cannot hold.

    Raises:
        UsageError: there is no such format, `fps` is missing, or a file is given for several videos.
        VidpipeError: a file cannot be written.
    """
    form = _format_to_write(path, timelines) if form is None else _known(form)
    if path.is_dir() and form not in _ONE_FILE_A_VIDEO:
        raise UsageError(f"{path}: is a folder; give a file name for {form}")
    if form == "mstcn":
        return frame_texts.write(path, timelines, fps=_need_fps(path, fps), background=background)
    return _WRITERS[form](path, timelines)


def format_of_file(path: Path) -> str:
    """Return the format of a file or folder, by its name and contents.

    Args:
        path: a file, or a folder with a file for each video.

    Returns:
        A name of `FORMATS`.

    Raises:
        UsageError: there is no such path, or it may be of several formats or of none.
        InputError: a folder has no files of a known format.
        LabelsError: the file cannot be read.
    """
    if path.is_dir():
        return _format_of_folder(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".json":
        return _format_of_json(path)
    return _format_by_suffix(path, "--from")


def _format_to_write(path: Path, timelines: Sequence[Timeline]) -> str:
    """The format that a file's name tells; `.json` are results where every segment has a probability."""
    form = _format_by_suffix(path, "--to")
    segments = [segment for timeline in timelines for segment in timeline.segments]
    if form == "activitynet" and segments and all(one.probability is not None for one in segments):
        return "results"
    return form


def _known(form: str) -> str:
    if form not in FORMATS:
        raise UsageError(unknown_name("format", form, FORMATS))
    return form


def _format_by_suffix(path: Path, option: str) -> str:
    for form, suffix in FORMATS.items():
        if path.suffix.lower() == suffix:
            return form
    raise UsageError(f"{path}: the name does not tell the format; give {option}, one of: {', '.join(FORMATS)}")


def _format_of_folder(path: Path) -> str:
    suffixes = {one.suffix.lower() for one in path.rglob("*") if one.is_file()}
    found = [form for form in _ONE_FILE_A_VIDEO if FORMATS[form] in suffixes]
    if len(found) > 1:
        raise UsageError(f"{path}: has files of {' and '.join(found)}; choose one with --from")
    if not found:
        endings = ", ".join(FORMATS[form] for form in _ONE_FILE_A_VIDEO)
        raise InputError(f"{path}: no files that end in {endings}; give a folder with a file for each video")
    return found[0]


def _format_of_json(path: Path) -> str:
    text = read_text(path, error=LabelsError)
    if json_lines.is_json_lines(text.lstrip().partition("\n")[0]):
        return "jsonl"
    return "activitynet"


def _need_fps(path: Path, fps: float | None) -> float:
    if fps is None or not math.isfinite(fps) or fps <= 0:
        raise UsageError(f"{path}: a label for each frame needs --fps, the frames per second, above 0; got {fps}")
    return fps
