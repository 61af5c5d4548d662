"""JSON lines: an object for each video, as `vidpipe predict --timeline --format json` prints them. Holds everything."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidpipe.csv_files import read_text
from vidpipe.errors import LabelsError
from vidpipe.records import Curve, Segment, Timeline
from vidpipe.timeline.formats.files import write_whole

__all__ = ["from_object", "is_json_lines", "read", "to_object", "write"]


def is_json_lines(first_line: str) -> bool:
    """Return whether the first line of a file is an object of this format."""
    try:
        found = json.loads(first_line)
    except ValueError:
        return False
    return isinstance(found, dict) and {"video", "segments"} <= found.keys()


def read(path: Path) -> list[Timeline]:
    """Read timelines.

    Args:
        path: the file.

    Returns:
        The timelines, in the order of the file.

    Raises:
        LabelsError: a line is not an object of this format.
    """
    return list(_timelines(path))


def write(path: Path, timelines: Sequence[Timeline]) -> list[str]:
    """Write timelines.

    Args:
        path: the file.
        timelines: what to write.

    Returns:
        Nothing: this format holds everything.

    Raises:
        VidpipeError: the file cannot be written.
    """
    write_whole(path, "".join(f"{json.dumps(to_object(one), ensure_ascii=False)}\n" for one in timelines))
    return []


def to_object(timeline: Timeline) -> dict[str, Any]:
    """Return a timeline as a JSON object."""
    return {
        "video": timeline.video_id,
        "path": timeline.path if timeline.path is not None else timeline.video_id,
        "status": "ok" if timeline.error is None else "failed",
        "duration_seconds": timeline.duration_seconds,
        "segments": [
            {
                "start_seconds": one.start_seconds,
                "stop_seconds": one.stop_seconds,
                "label": one.label,
                "probability": one.probability,
                **({} if one.person is None else {"person": one.person}),
            }
            for one in timeline.segments
        ],
        "curve": None if timeline.curve is None else _curve_object(timeline.curve),
        "error": timeline.error,
        **({} if timeline.split is None else {"split": timeline.split}),
        **({} if timeline.group is None else {"group": timeline.group}),
    }


def from_object(found: Any, place: str) -> Timeline:
    """Return the timeline of a JSON object.

    Args:
        found: the object. `path`, `status`, `duration_seconds`, `curve`, `error` and probabilities may be missing.
        place: where it was read, for messages.

    Returns:
        The timeline, its segments in order of start.

    Raises:
        LabelsError: it is not such an object.
    """
    if not isinstance(found, dict) or not isinstance(found.get("video"), str):
        raise LabelsError(f'{place}: needs "video": ID and "segments": [...], as `vidpipe predict --timeline` prints')
    try:
        segments = [_segment(one) for one in found.get("segments") or []]
        duration = found.get("duration_seconds")
        return Timeline(
            video_id=found["video"],
            segments=tuple(sorted(segments, key=lambda one: one.start_seconds)),
            duration_seconds=None if duration is None else float(duration),
            curve=None if found.get("curve") is None else _curve(found["curve"]),
            error=found.get("error"),
            path=found.get("path"),
            split=found.get("split"),
            group=found.get("group"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelsError(f"{place}: not a timeline ({type(error).__name__}: {error}); write it again") from error


def _timelines(path: Path) -> Iterator[Timeline]:
    places: dict[str, str] = {}
    for number, line in enumerate(read_text(path, error=LabelsError).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            timeline = from_object(json.loads(line), place)
        except json.JSONDecodeError as error:
            raise LabelsError(f"{place}: not JSON: {error.msg}; the file has an object on each line") from error
        if timeline.video_id in places:
            raise LabelsError(f"{place}: {timeline.video_id!r} is also in {places[timeline.video_id]}; keep one")
        places[timeline.video_id] = place
        yield timeline


def _segment(found: dict[str, Any]) -> Segment:
    probability, person = found.get("probability"), found.get("person")
    return Segment(
        float(found["start_seconds"]),
        float(found["stop_seconds"]),
        str(found["label"]),
        None if probability is None else float(probability),
        None if person is None else int(person),
    )


def _curve(found: dict[str, Any]) -> Curve:
    class_names = tuple(map(str, found["class_names"]))
    pts_seconds = np.asarray(found["pts_seconds"], np.float64)
    probabilities = np.asarray(found["probabilities"], np.float32).reshape(len(pts_seconds), len(class_names))
    return Curve(class_names, pts_seconds, probabilities)


def _curve_object(curve: Curve) -> dict[str, Any]:
    return {
        "class_names": list(curve.class_names),
        "pts_seconds": curve.pts_seconds.tolist(),
        "probabilities": curve.probabilities.tolist(),
    }
