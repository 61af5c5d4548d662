"""Intervals in one file: CSV, and ActivityNet's JSON (Caba Heilbron et al., CVPR 2015)."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidpipe.datasets.intervals import LabeledInterval, read_intervals
from vidpipe.records import Segment, Timeline
from vidpipe.timeline.formats.files import write_whole
from vidpipe.timeline.formats.losses import describe_losses
from vidpipe.version import __version__

__all__ = ["read", "write_activitynet", "write_csv", "write_results"]

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def read(path: Path) -> list[Timeline]:
    """Read a CSV file of intervals, or ActivityNet's JSON. Empty and overlapping intervals are kept.

    Args:
        path: the file.

    Returns:
        The timelines, in the order of the file, their segments in order of start.

    Raises:
        LabelsError: the file cannot be read.
    """
    videos: dict[str, list[LabeledInterval]] = {}
    for interval in read_intervals(path, strict=False):
        videos.setdefault(interval.video_id, []).append(interval)
    return [_timeline(video_id, intervals) for video_id, intervals in videos.items()]


def write_csv(path: Path, timelines: Sequence[Timeline]) -> list[str]:
    """Write a CSV file that `vidpipe train --labels` reads.

    Args:
        path: the file.
        timelines: what to write. The columns `probability`, `person`, `split` and `group` are written where some
            have them.

    Returns:
        Sentences about what CSV cannot hold.

    Raises:
        VidpipeError: the file cannot be written.
    """
    optional = {
        "probability": any(one.probability is not None for timeline in timelines for one in timeline.segments),
        "person": any(one.person is not None for timeline in timelines for one in timeline.segments),
        "split": any(one.split is not None for one in timelines),
        "group": any(one.group is not None for one in timelines),
    }
    columns = ["video", "start_seconds", "stop_seconds", "label", *(name for name, has in optional.items() if has)]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(timeline, segment) for timeline in timelines for segment in timeline.segments)
    write_whole(path, stream.getvalue())
    return describe_losses("CSV", timelines, holds=("probability", "person", "split", "group", "exact"))


def write_activitynet(path: Path, timelines: Sequence[Timeline]) -> list[str]:
    """Write annotations, `{"database": …}`.

    Args:
        path: the file.
        timelines: what to write.

    Returns:
        Sentences about what the format cannot hold.

    Raises:
        VidpipeError: the file cannot be written.
    """
    database = {one.video_id: _video(one) for one in timelines}
    write_whole(path, _as_json({"version": f"vidpipe {__version__}", "database": database}))
    return describe_losses("ActivityNet's annotations", timelines, holds=("duration", "split", "empty", "exact"))


def write_results(path: Path, timelines: Sequence[Timeline]) -> list[str]:
    """Write predictions, `{"results": …}`. A segment without a probability gets the score 1.

    Args:
        path: the file.
        timelines: what to write.

    Returns:
        Sentences about what the format cannot hold.

    Raises:
        VidpipeError: the file cannot be written.
    """
    results = {one.video_id: [_result(segment) for segment in one.segments] for one in timelines}
    write_whole(path, _as_json({"version": f"vidpipe {__version__}", "results": results, "external_data": {}}))
    return describe_losses("ActivityNet's results", timelines, holds=("probability", "empty", "exact"))


def _timeline(video_id: str, intervals: Sequence[LabeledInterval]) -> Timeline:
    segments = [one.segment for one in intervals if one.segment is not None]
    first = intervals[0]
    return Timeline(
        video_id,
        tuple(sorted(segments, key=lambda one: one.start_seconds)),
        first.duration_seconds,
        split=first.split,
        group=first.group,
    )


def _row(timeline: Timeline, segment: Segment) -> dict[str, Any]:
    return {
        "video": timeline.video_id,
        "start_seconds": segment.start_seconds,
        "stop_seconds": segment.stop_seconds,
        "label": segment.label,
        "probability": segment.probability,
        "person": segment.person,
        "split": timeline.split,
        "group": timeline.group,
    }


def _video(timeline: Timeline) -> dict[str, Any]:
    annotations = [{"segment": [one.start_seconds, one.stop_seconds], "label": one.label} for one in timeline.segments]
    return {
        **({} if timeline.split is None else {"subset": _SUBSETS.get(timeline.split, timeline.split)}),
        **({} if timeline.duration_seconds is None else {"duration": timeline.duration_seconds}),
        "annotations": annotations,
    }


def _result(segment: Segment) -> dict[str, Any]:
    score = 1.0 if segment.probability is None else segment.probability
    return {"segment": [segment.start_seconds, segment.stop_seconds], "label": segment.label, "score": score}


def _as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
