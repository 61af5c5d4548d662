"""A label for each frame, as MS-TCN reads and writes them (Abu Farha and Gall, CVPR 2019): a text file for each video.

`VIDEO.txt` has a label a line. MS-TCN's own results, files without extension whose first line is
`### Frame level recognition: ###`, are read too.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vidpipe.csv_files import read_text
from vidpipe.errors import InputError, LabelsError
from vidpipe.records import Timeline
from vidpipe.timeline.formats.files import write_each
from vidpipe.timeline.formats.losses import describe_losses
from vidpipe.timeline.frames import frame_labels, segments_of_frames

__all__ = ["read", "read_labels_of_frames", "write"]

_RESULTS_HEADER = "### Frame level recognition"


def read_labels_of_frames(path: Path) -> dict[str, list[str]]:
    """Read the label of each frame.

    Args:
        path: a file, or a folder of them.

    Returns:
        A list of labels for each video's id: its file's path relative to the folder, without `.txt`.

    Raises:
        LabelsError: a file cannot be read, or has an empty line.
        InputError: the folder has no such files.
    """
    if not path.is_dir():
        return {path.stem if path.suffix == ".txt" else path.name: _labels(path)}
    files = [one for one in sorted(path.rglob("*")) if one.is_file() and (one.suffix == ".txt" or _is_result(one))]
    if not files:
        raise InputError(f"{path}: no files that end in .txt; give a folder with a file for each video")
    return {one.relative_to(path).as_posix().removesuffix(".txt"): _labels(one) for one in files}


def read(path: Path, *, fps: float, background: str) -> list[Timeline]:
    """Read files as segments.

    Args:
        path: a file, or a folder of them.
        fps: frames per second; frame k is `[k / fps, (k + 1) / fps)`.
        background: the label that is no segment.

    Returns:
        A timeline for each file.

    Raises:
        LabelsError: a file cannot be read, or has an empty line.
        InputError: the folder has no such files.
    """
    return [
        Timeline(video_id, segments_of_frames(labels, fps=fps, background=background), len(labels) / fps)
        for video_id, labels in read_labels_of_frames(path).items()
    ]


def write(path: Path, timelines: Sequence[Timeline], *, fps: float, background: str) -> list[str]:
    """Write files.

    Args:
        path: a folder; or a file, for one video.
        timelines: what to write.
        fps: frames per second; frame k gets the label at its centre, (k + 0.5) / fps.
        background: the label of frames that no segment covers.

    Returns:
        Sentences about what the format cannot hold.

    Raises:
        UsageError: a file is given for several videos.
        VidpipeError: a file cannot be written.
    """
    write_each(path, ".txt", timelines, partial(_text, fps=fps, background=background))
    name = f"text of {fps:g} frames a second"
    losses = describe_losses(name, timelines, holds=("duration", "empty", "exact"))
    changed = [one.video_id for one in timelines if _is_changed(one, fps, background)]
    if changed:
        losses.append(
            f"{name} rounds boundaries to frames, and keeps one of overlapping segments: {', '.join(changed[:3])}"
        )
    if unknown := [one.video_id for one in timelines if one.duration_seconds is None]:
        losses.append(f"the duration is unknown, so the text ends with the last segment: {', '.join(unknown[:3])}")
    return losses


def _is_changed(timeline: Timeline, fps: float, background: str) -> bool:
    """Whether the frames, read back, are other segments."""
    labels = frame_labels(timeline, fps=fps, background=background)
    back = {
        (one.start_seconds, one.stop_seconds, one.label)
        for one in segments_of_frames(labels, fps=fps, background=background)
    }
    return back != {(one.start_seconds, one.stop_seconds, one.label) for one in timeline.segments}


def _is_result(path: Path) -> bool:
    if path.suffix:
        return False
    with path.open("rb") as stream:
        return stream.read(len(_RESULTS_HEADER)) == _RESULTS_HEADER.encode()


def _labels(path: Path) -> list[str]:
    text = read_text(path, error=LabelsError)
    if text.startswith(_RESULTS_HEADER):
        return text.partition("\n")[2].split()
    labels = [line.strip() for line in text.rstrip().splitlines()]
    if "" in labels:
        raise LabelsError(f"{path}, line {labels.index('') + 1}: empty; each line is the label of one frame")
    return labels


def _text(timeline: Timeline, *, fps: float, background: str) -> str:
    return "".join(f"{label}\n" for label in frame_labels(timeline, fps=fps, background=background))
