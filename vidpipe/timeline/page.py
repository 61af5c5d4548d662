"""Timelines as one HTML page that shows and corrects them: videos, strips of segments, curves, a table.

The page opens from disk. It fetches only the videos, which stay where they are, by paths relative to the page.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from vidpipe.errors import UsageError, VidpipeError, count_of, first_few
from vidpipe.html_pages import render_page, script_json, write_whole
from vidpipe.records import Curve, Segment, Timeline
from vidpipe.timeline.colours import class_colours, labels_of
from vidpipe.timeline.thinning import thin_curve

__all__ = ["write_page"]

MAX_POINTS = 2000
"""Of a class's curve: about what a screen has pixels."""
MAX_POINTS_OF_VIDEO = 60_000
"""Of all curves of one video; with many classes, each curve has fewer points."""
MIN_POINTS = 100


def write_page(
    timelines: Sequence[Timeline], videos: Mapping[str, Path], out: Path, *, truth: Sequence[Timeline] = ()
) -> None:
    """Write the page of timelines: under another name first, so that an existing page is replaced as a whole.

    Args:
        timelines: the videos whose timelines have an error are listed with it.
        videos: the file of each video, by id.
        out: the page.
        truth: correct timelines of the same videos, shown above the others.

    Raises:
        UsageError: the file of a video is not known, or there is no timeline to show.
        VidpipeError: the page cannot be written.
    """
    shown = sorted((timeline for timeline in timelines if timeline.error is None), key=_certainty)
    failed = [timeline for timeline in timelines if timeline.error is not None]
    _check(shown, failed, videos)
    truth_of = {timeline.video_id: timeline.segments for timeline in truth}
    labels = labels_of([*shown, *truth])
    data = {
        "labels": labels,
        "colours": list(class_colours(labels).values()),
        "name": out.stem,
        "videos": [
            {**_video(timeline, truth_of.get(timeline.video_id, ())), "src": _address(videos[timeline.video_id], out)}
            for timeline in shown
        ],
    }
    page = render_page("vidpipe.timeline", "timeline.html", assets="timeline", data=script_json(data), failed=failed)
    write_whole(page, out, kind="the page", error=VidpipeError)


def _check(shown: Sequence[Timeline], failed: Sequence[Timeline], videos: Mapping[str, Path]) -> None:
    if not shown:
        reasons = f": {failed[0].video_id}: {failed[0].error}" if failed else ""
        raise UsageError(f"no timeline to show{reasons}; give timelines of videos that could be read")
    missing = [timeline.video_id for timeline in shown if timeline.video_id not in videos]
    if missing:
        raise UsageError(
            f"the file of {count_of(len(missing), 'video')} is not found: {first_few(missing)}; "
            "give the folder that has it with --videos DIR"
        )


def _certainty(timeline: Timeline) -> float:
    """The probability of the least certain segment; videos without one come last."""
    return min((one.probability for one in timeline.segments if one.probability is not None), default=2.0)


def _video(timeline: Timeline, truth: Sequence[Segment]) -> dict[str, Any]:
    return {
        "id": timeline.video_id,
        "split": timeline.split or "",
        "group": timeline.group or "",
        "duration": timeline.duration_seconds,
        "segments": list(map(_segment, timeline.segments)),
        "truth": list(map(_segment, truth)),
        "curves": _curves(timeline.curve) if timeline.curve else [],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "start": round(segment.start_seconds, 3),
        "stop": round(segment.stop_seconds, 3),
        "label": segment.label,
        "probability": None if segment.probability is None else round(segment.probability, 4),
    }


def _curves(curve: Curve) -> list[dict[str, Any]]:
    """Each class's curve, with as many points as can be seen."""
    max_points = max(MIN_POINTS, min(MAX_POINTS, MAX_POINTS_OF_VIDEO // max(1, len(curve.class_names))))
    curves = []
    for label, values in zip(curve.class_names, curve.probabilities.T, strict=True):  # (K, T)
        seconds, probabilities = thin_curve(curve.pts_seconds, values, max_points=max_points)
        rounded = [round(float(value), 3) for value in probabilities]
        curves.append({"label": label, "seconds": [round(float(when), 3) for when in seconds], "values": rounded})
    return curves


def _address(video: Path, page: Path) -> str:
    """The URL of a video, relative to the page: `./videos/a%20b.mp4`"""
    relative = os.path.relpath(os.path.abspath(video), os.path.dirname(os.path.abspath(page)))
    return "./" + quote_from_bytes(os.fsencode(relative).replace(os.fsencode(os.sep), b"/"))
