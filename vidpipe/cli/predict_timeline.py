"""vidpipe predict --timeline"""

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import json_line, printable
from vidpipe.cli.outputs import OutputLines
from vidpipe.config import ExtractConfig, TimelineConfig
from vidpipe.errors import InterruptedExtractionError, VidpipeError, count_of

if TYPE_CHECKING:
    from vidpipe.records import Segment, Timeline, VideoFile
    from vidpipe.runs.run import Run

__all__ = ["CSV_COLUMNS", "Copies", "print_timelines"]

logger = logging.getLogger(__name__)

CSV_COLUMNS = ("video", "start_seconds", "stop_seconds", "label", "probability")
PERSON_COLUMN = "person"
"""The last column, of runs that were trained on people one by one."""


def print_timelines(
    run: "Run",
    videos: "Sequence[VideoFile]",
    timeline: TimelineConfig,
    *,
    min_confidence: float,
    store: Path | None,
    output: Path | None,
    format_: str,
    config: ExtractConfig,
) -> int:
    """Print the segments of each video as soon as they are known.

    Args:
        run: the run.
        videos: what to read.
        timeline: the windows, and how segments are read off.
        min_confidence: segments with a lower probability are left out.
        store: where features are kept; None keeps none.
        output: the file to write; None for stdout.
        format_: `table`, `json` or `csv`.
        config: how to extract.

    Returns:
        The number of videos that failed, or whose annotated copy failed.

    Raises:
        VidpipeError: as `vidpipe.stages.timeline.predict_timelines`.
    """
    from vidpipe.datasets.people import has_tracks
    from vidpipe.stages.timeline import predict_timelines

    copies = Copies(videos, timeline.write_video)
    found = predict_timelines(
        run, videos, timeline=timeline, min_confidence=min_confidence, store_path=store, config=config
    )
    num_failed = num_done = 0
    paths = {video.id: video.place for video in videos}
    by_person = any(has_tracks(key) for key in run.keys.values())
    columns = (*CSV_COLUMNS, PERSON_COLUMN) if by_person else CSV_COLUMNS
    with OutputLines(output, ",".join(columns) if format_ == "csv" else None) as lines:
        try:
            for one in found:
                num_done += 1
                if one.error is not None:
                    num_failed += 1
                    click.echo(printable(f"failed: {one.video_id}: {one.error}"), err=True)
                for line in _lines(one, format_, paths, has_curves=timeline.curves, by_person=by_person):
                    lines.write(line)
                copies.write(one)
        except KeyboardInterrupt:
            raise InterruptedExtractionError(_where_it_stands(num_done, len(videos), lines, store)) from None
    return num_failed + copies.num_failed


class Copies:
    """Writes annotated copies of videos into a folder, or none where there is no folder."""

    def __init__(self, videos: "Sequence[VideoFile]", folder: str | None) -> None:
        self._paths = {video.id: video.path for video in videos}
        self.num_failed = 0
        self._folder = None if folder is None else Path(folder)
        if self._folder is not None:
            from vidpipe.timeline.video_files import check_copies

            check_copies(self._folder, list(self._paths))

    def write(self, timeline: "Timeline") -> None:
        """Write the copy of a video that could be read; report it where that fails."""
        if self._folder is None or timeline.error is not None:
            return
        from vidpipe.timeline.annotated import write_copy

        try:
            copy = write_copy(self._paths[timeline.video_id], timeline, self._folder)
        except VidpipeError as error:
            click.echo(printable(f"failed: annotated copy of {timeline.video_id}: {error}"), err=True)
            self.num_failed += 1
            return
        logger.info("%s: annotated copy of %s", copy, timeline.video_id)


def _where_it_stands(num_done: int, num_videos: int, lines: OutputLines, store: Path | None) -> str:
    kept = f" Those written so far are in {lines.partial}." if lines.partial and lines.num_lines else ""
    remedy = "computes only what is missing" if store else "starts over; with --store FOLDER it would keep the features"
    return f"stopped after {num_done} of {count_of(num_videos, 'video')}.{kept} The same command {remedy}"


def _lines(
    timeline: "Timeline", format_: str, paths: Mapping[str, str], *, has_curves: bool, by_person: bool
) -> Iterator[str]:
    if format_ == "json":
        from vidpipe.timeline.formats.json_lines import to_object

        kept = timeline if has_curves else replace(timeline, curve=None)
        yield json_line(to_object(replace(kept, path=paths[timeline.video_id])))
    elif format_ == "csv":
        yield from (_csv_line(timeline.video_id, segment, by_person=by_person) for segment in timeline.segments)
    elif timeline.error is None:
        yield from _table(timeline)


def _table(timeline: "Timeline") -> Iterator[str]:
    """`long.mp4   10:12.3, 2 segments`, then a line for each."""
    assert timeline.duration_seconds is not None
    num_segments = count_of(len(timeline.segments), "segment")
    yield f"{printable(timeline.video_id)}   {_clock(timeline.duration_seconds)}, {num_segments}"
    for one in timeline.segments:
        probability = f"{100 * (one.probability or 0):.1f} %"
        person = "" if one.person is None else f"person {one.person}   "
        times = f"{_clock(one.start_seconds)} – {_clock(one.stop_seconds)}"
        yield f"  {times}   {person}{printable(one.label)} {probability}"


def _csv_line(video_id: str, segment: "Segment", *, by_person: bool) -> str:
    text = io.StringIO()
    times = f"{segment.start_seconds:.3f}", f"{segment.stop_seconds:.3f}"
    person = ["" if segment.person is None else segment.person] if by_person else []
    row = [video_id, *times, segment.label, f"{segment.probability:.6f}", *person]
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()


def _clock(seconds: float) -> str:
    """`1:02:03.4`, `02:03.4`"""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02}:{tenths // 10:02}.{tenths % 10}"
    return f"{hours}:{text}" if hours else text
