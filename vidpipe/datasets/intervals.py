"""Read intervals of videos that have labels: from a CSV file, or from ActivityNet's JSON."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from vidpipe.csv_files import Table, read_table, read_text
from vidpipe.datasets.cells import OTHER_SPELLINGS, Cells, as_label
from vidpipe.datasets.splits import SUBSETS
from vidpipe.errors import LabelsError, UsageError, unknown_name
from vidpipe.records import Segment

__all__ = ["LabeledInterval", "as_subset", "has_intervals", "read_intervals"]

_ACTIVITYNET_SUBSETS = {**OTHER_SPELLINGS, "training": "train", "testing": "test"}


@dataclass(frozen=True)
class LabeledInterval:
    """An interval of a video with its label, as a labels file states it."""

    video_id: str
    """The name in the file, not yet matched with a video."""
    segment: Segment | None
    """None where the file lists a video without intervals."""
    place: str
    """`labels.csv, line 3`, for messages."""
    split: str | None = None
    """`train`, `val` or `test`; None where the file does not state it."""
    group: str | None = None
    duration_seconds: float | None = None
    """Of the video, where the file states it."""
    split_source: str = "the labels"
    """Where the split comes from, for messages."""


def as_subset(name: str) -> str:
    """Return a subset's name as vidpipe spells it: `Validation` -> `val`. Unknown ones are in lower case."""
    return _ACTIVITYNET_SUBSETS.get(name.lower(), name.lower())


def has_intervals(path: Path | str) -> bool:
    """Return whether a labels file holds intervals: ActivityNet's JSON, or a CSV with a column `start_seconds`."""
    path = Path(path)
    if not path.is_file() or path.suffix.lower() == ".txt":
        return False
    if path.suffix.lower() == ".json":
        return True
    table = read_table(path, error=LabelsError)
    return any(table.column(kind) is not None for kind in ("start_seconds", "stop_seconds"))


def read_intervals(
    path: Path | str,
    *,
    strict: bool = True,
    group_column: str = "group",
    video_column: str | None = None,
    label_column: str | None = None,
) -> list[LabeledInterval]:
    """Read the labelled intervals of videos.

    CSV: columns `video,start_seconds,stop_seconds,label`, and optionally `probability`, `split` and `group`.
    ActivityNet's JSON: `{"database": {ID: {"subset", "duration", "annotations": [{"segment", "label"}]}}}`, or
    predictions, `{"results": {ID: [{"segment", "label", "score"}]}}` (Caba Heilbron et al., CVPR 2015).

    Args:
        path: a CSV file, or a file that ends in `.json`.
        strict: refuse intervals that are empty or negative, overlapping intervals of one label in one video, and
            unknown subsets. Without it they are read as they stand, as evaluators need them.
        group_column: the column of a CSV that names the groups.
        video_column: the column of a CSV that names the videos; None finds `video`, or a usual name for it.
        label_column: the column of a CSV that holds the labels; None finds `label`, or a usual name for it.

    Returns:
        A record for each interval, in the order of the file. A video that a JSON lists without intervals has one record
        whose segment is None.

    Raises:
        LabelsError: the file cannot be read; an interval is not valid, or overlaps another of its label; a video has
            two splits or groups.
        UsageError: there is no such file or column.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; intervals are a CSV file with columns video,start_seconds,stop_seconds,label, "
            "or ActivityNet's JSON"
        )
    if path.suffix.lower() == ".json":
        intervals = list(_activitynet_intervals(path, strict))
    else:
        table = read_table(path, error=LabelsError)
        intervals = list(_table_intervals(table, strict, group_column, video_column, label_column))
    if not intervals:
        raise LabelsError(f"{path}: no intervals; each needs its video, start, stop and label")
    _check_consistent(intervals)
    if strict:
        _check_no_overlap(intervals)
    return intervals


# CSV


def _table_intervals(
    table: Table, strict: bool, group_column: str, video_column: str | None, label_column: str | None
) -> Iterator[LabeledInterval]:
    columns = {
        "video": table.need("video", video_column),
        "start_seconds": table.need("start_seconds"),
        "stop_seconds": table.need("stop_seconds"),
        "label": table.need("label", label_column),
        "probability": table.column("probability"),
        "person": table.column("person"),
        "split": table.column("split"),
        "group": table.named(group_column),
    }
    for row in table.rows():
        yield _table_interval(Cells(row, columns, table.path), strict)


def _table_interval(cells: Cells, strict: bool) -> LabeledInterval:
    if not cells.get("start_seconds") and not cells.get("stop_seconds"):
        raise LabelsError(
            f"{cells.place}: no interval, although the file has columns for it; fill in "
            f"{cells.columns['start_seconds']!r} and {cells.columns['stop_seconds']!r} (0 and the video's duration for "
            "the whole video), or remove the line"
        )
    start, stop = (_seconds(cells.need(name), cells, name) for name in ("start_seconds", "stop_seconds"))
    probability = _seconds(cells.get("probability"), cells, "probability") if cells.get("probability") else None
    segment = _segment(start, stop, cells.need("label"), probability, cells.place, strict)
    if (person := cells.get("person") or "").isdecimal():  # other texts name people of the data set
        segment = replace(segment, person=int(person))
    source = f"the labels' column `{cells.columns['split']}`"
    group = cells.get("group") or None
    return LabeledInterval(cells.need("video"), segment, cells.place, cells.split(), group, None, source)


def _seconds(text: str, cells: Cells, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LabelsError(
            f"{cells.place}: {cells.columns[name]!r} is {text!r}; write a number with a decimal point, such as 12.5"
        ) from None


# ActivityNet


def _activitynet_intervals(path: Path, strict: bool) -> Iterator[LabeledInterval]:
    try:
        document = json.loads(read_text(path, error=LabelsError))
    except json.JSONDecodeError as error:
        raise LabelsError(f"{path}, line {error.lineno}: not JSON: {error.msg}; check the file") from error
    if isinstance(document, dict) and isinstance(document.get("database"), dict):
        for video_id, video in document["database"].items():
            yield from _database_intervals(path, video_id, video, strict)
    elif isinstance(document, dict) and isinstance(document.get("results"), dict):
        for video_id, found in document["results"].items():
            yield from _annotations(_Video(path, video_id), found, strict)
    else:
        raise LabelsError(
            f"{path}: no 'database' and no 'results'; ActivityNet's JSON is "
            '{"database": {ID: {"annotations": [{"segment": [start, stop], "label": LABEL}]}}}'
        )


@dataclass(frozen=True)
class _Video:
    """A video of ActivityNet's JSON."""

    path: Path
    video_id: str
    split: str | None = None
    duration_seconds: float | None = None

    @property
    def place(self) -> str:
        return f"{self.path}, video {self.video_id!r}"

    def interval(self, segment: Segment | None, place: str) -> LabeledInterval:
        return LabeledInterval(
            self.video_id, segment, place, self.split, None, self.duration_seconds, f"{self.path.name}'s subsets"
        )


def _database_intervals(path: Path, video_id: str, video: Any, strict: bool) -> Iterator[LabeledInterval]:
    if not isinstance(video, dict):
        raise LabelsError(f"{path}, video {video_id!r}: not an object with 'annotations', got {video!r:.60}")
    place = f"{path}, video {video_id!r}"
    split = _subset(video.get("subset"), place, strict)
    duration = video.get("duration")
    seconds = None if duration is None else _number(duration, place, "duration")
    yield from _annotations(_Video(path, video_id, split, seconds), video.get("annotations", []), strict)


def _subset(subset: Any, place: str, strict: bool) -> str | None:
    if not subset:
        return None
    split = as_subset(str(subset))
    if strict and split not in SUBSETS:
        raise LabelsError(f"{place}: {unknown_name('subset', str(subset), ('training', 'validation', 'testing'))}")
    return split


def _annotations(video: _Video, found: Any, strict: bool) -> Iterator[LabeledInterval]:
    if not isinstance(found, list):
        raise LabelsError(f"{video.place}: annotations are a list, got {found!r:.60}")
    for number, one in enumerate(found, start=1):
        place = f"{video.place}, annotation {number}"
        yield video.interval(_annotated(one, place, strict), place)
    if not found:
        yield video.interval(None, video.place)


def _annotated(one: Any, place: str, strict: bool) -> Segment:
    segment = one.get("segment") if isinstance(one, dict) else None
    if not isinstance(segment, list) or len(segment) != 2 or not isinstance(one.get("label"), str):
        raise LabelsError(f'{place}: needs "segment": [start, stop] and "label": TEXT, got {one!r:.80}')
    start, stop = (_number(value, place, "segment") for value in segment)
    score = None if one.get("score") is None else _number(one["score"], place, "score")
    return _segment(start, stop, one["label"], score, place, strict)


def _number(value: Any, place: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LabelsError(f"{place}: {name} needs a number, got {value!r:.60}")
    return float(value)


# Checks


def _segment(start: float, stop: float, label: str, probability: float | None, place: str, strict: bool) -> Segment:
    if not all(map(math.isfinite, (start, stop, probability or 0.0))):
        raise LabelsError(f"{place}: {start:g} to {stop:g} needs finite numbers; correct it, or remove it")
    if not as_label(label):
        raise LabelsError(f"{place}: the label is empty; write one, or remove the interval")
    if strict and start < 0:
        raise LabelsError(f"{place}: starts at {start:g} s, before the video; times count from 0, the first frame")
    if strict and stop <= start:
        raise LabelsError(
            f"{place}: from {start:g} to {stop:g} s is no interval; it needs to stop after its start: correct it, or "
            "remove it"
        )
    return Segment(start, stop, as_label(label), probability)


def _check_consistent(intervals: Iterable[LabeledInterval]) -> None:
    """Refuse a video that has two splits or two groups."""
    first: dict[str, LabeledInterval] = {}
    for one in intervals:
        other = first.setdefault(one.video_id, one)
        for what in ("split", "group"):
            mine, others = getattr(one, what), getattr(other, what)
            if mine != others:
                raise LabelsError(
                    f"video {one.video_id!r} has {what} {others!r} in {other.place}, and {what} {mine!r} in "
                    f"{one.place}; give all its intervals the same"
                )


def _check_no_overlap(intervals: Iterable[LabeledInterval]) -> None:
    """Refuse two intervals of one label in one video that share time."""
    found: dict[tuple[str, str], list[tuple[Segment, str]]] = defaultdict(list)
    for one in intervals:
        if one.segment is not None:
            found[one.video_id, one.segment.label].append((one.segment, one.place))
    for (video_id, _), placed in found.items():
        placed.sort(key=lambda one: one[0].start_seconds)
        for (first, first_place), (second, place) in pairwise(placed):
            if second.start_seconds < first.stop_seconds:
                raise LabelsError(
                    f"{place}: {_described(second)} in {video_id!r} overlaps {_described(first)} in {first_place}; "
                    "join the two, or remove one"
                )


def _described(segment: Segment) -> str:
    return f"{segment.label!r} from {segment.start_seconds:g} to {segment.stop_seconds:g} s"
