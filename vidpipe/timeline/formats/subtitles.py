"""Subtitles, a file for each video: WebVTT (https://www.w3.org/TR/webvtt1/) and SubRip (.srt).

A cue is a segment, and its text the label.
"""

import html
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pysubs2

from vidpipe.csv_files import read_text
from vidpipe.errors import LabelsError
from vidpipe.records import Segment, Timeline
from vidpipe.timeline.formats.files import read_each, write_each
from vidpipe.timeline.formats.losses import describe_losses

__all__ = ["read", "write"]

_Kind = Literal["vtt", "srt"]

_NAMES: Mapping[_Kind, str] = {"vtt": "WebVTT", "srt": "SRT"}
_CUE = re.compile(r"\s*\d.*-->")
_TAG = re.compile(r"</?[a-zA-Z0-9][^<>]*>")
_LINE_BREAK = re.compile(r"\\[Nnh]|\s+")


def read(path: Path, *, kind: _Kind) -> list[Timeline]:
    """Read a file of subtitles, or a folder of them.

    Args:
        path: the file or folder. A video's id is its file's path without `.vtt` or `.srt`.
        kind: `vtt` or `srt`.

    Returns:
        A timeline for each file.

    Raises:
        LabelsError: a file is not of this format.
        InputError: the folder has no such files.
    """
    return read_each(path, f".{kind}", partial(_read_file, kind=kind))


def write(path: Path, timelines: Sequence[Timeline], *, kind: _Kind) -> list[str]:
    """Write subtitles.

    Args:
        path: a folder; or a file, for one video.
        timelines: what to write.
        kind: `vtt` or `srt`.

    Returns:
        Sentences about what the format cannot hold.

    Raises:
        UsageError: a file is given for several videos.
        VidpipeError: a file cannot be written.
    """
    write_each(path, f".{kind}", timelines, partial(_text, kind=kind))
    return describe_losses(_NAMES[kind], timelines, holds=("empty",))


def _read_file(path: Path, video_id: str, *, kind: _Kind) -> Timeline:
    text = read_text(path, error=LabelsError).replace("\r\n", "\n").replace("\r", "\n")
    if kind == "vtt" and not text.startswith("WEBVTT"):
        raise LabelsError(f"{path}: not WebVTT, whose first line is WEBVTT; is it an .srt?")
    events = pysubs2.SSAFile.from_string(text, format_=kind, keep_html_tags=True).events
    cues = [number for number, line in enumerate(text.split("\n"), start=1) if _CUE.match(line)]
    if len(cues) != len(events):
        raise LabelsError(f"{path}: {len(cues)} cues, of which {len(events)} have times; write each {_example(kind)}")
    placed = zip(events, cues, strict=True)
    segments = [_segment(event, f"{path}, line {number}", kind) for event, number in placed]
    return Timeline(video_id, tuple(sorted(segments, key=lambda one: one.start_seconds)))


def _segment(event: pysubs2.SSAEvent, place: str, kind: _Kind) -> Segment:
    label = event.text.split("\\N\\N")[0]
    if kind == "vtt":
        label = html.unescape(_TAG.sub("", label))
    label = _on_one_line(label)
    if not label:
        raise LabelsError(f"{place}: a cue without text; write its label below its times")
    return Segment(event.start / 1000, event.end / 1000, label)


def _text(timeline: Timeline, *, kind: _Kind) -> str:
    subtitles = pysubs2.SSAFile()
    for one in timeline.segments:
        label = _on_one_line(one.label)
        text = html.escape(label, quote=False) if kind == "vtt" else label
        start, end = round(one.start_seconds * 1000), round(one.stop_seconds * 1000)
        subtitles.append(pysubs2.SSAEvent(start=start, end=end, text=text))
    return subtitles.to_string(format_=kind, keep_ssa_tags=True)


def _on_one_line(label: str) -> str:
    return _LINE_BREAK.sub(" ", label).strip()


def _example(kind: _Kind) -> str:
    return "00:00:01.500 --> 00:00:04.000" if kind == "vtt" else "00:00:01,500 --> 00:00:04,000"
