"""Timelines as a picture for papers: a row of coloured segments for each video, the truth above the prediction."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import matplotlib.axes
import matplotlib.figure
from matplotlib.patches import Patch

from vidpipe.errors import UsageError, VidpipeError
from vidpipe.records import Curve, Segment, Timeline
from vidpipe.runs.plots import PNG_METADATA
from vidpipe.timeline.colours import class_colours, labels_of
from vidpipe.timeline.thinning import thin_curve

__all__ = ["MAX_VIDEOS", "write_strip"]

MAX_VIDEOS = 60
"""Rows of one picture."""
MAX_POINTS = 2000
WIDTH_INCHES = 8.0
HEIGHT_INCHES = {"truth": 0.22, "predicted": 0.22, "curves": 0.6}
MAX_TICKS = 12
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000)


def write_strip(
    timelines: Sequence[Timeline], out: Path, *, truth: Sequence[Timeline] | None = None, curves: bool = True
) -> None:
    """Draw timelines as PNG, each video over its own time axis.

    Args:
        timelines: at most `MAX_VIDEOS` without an error; the others are left out.
        out: the file; it is replaced as a whole.
        truth: correct timelines, drawn above those of the same videos.
        curves: whether to draw the probabilities of classes, where there are any.

    Raises:
        UsageError: there is no timeline to draw, or there are too many.
        VidpipeError: the file cannot be written.
    """
    shown = [timeline for timeline in timelines if timeline.error is None]
    if not 1 <= len(shown) <= MAX_VIDEOS:
        raise UsageError(f"a picture shows 1 to {MAX_VIDEOS} videos, got {len(shown)}; give a part of the timelines")
    truth_of = {timeline.video_id: timeline for timeline in truth or ()}
    colours = class_colours(labels_of([*shown, *truth_of.values()]))
    rows = [(one, kind) for one in shown for kind in _kinds(one, has_truth=one.video_id in truth_of, curves=curves)]
    heights = [HEIGHT_INCHES[kind] for _, kind in rows]
    figure = matplotlib.figure.Figure(figsize=(WIDTH_INCHES, sum(heights) + 0.35 * len(shown) + 0.5))
    figure.set_layout_engine("constrained", h_pad=0.02, hspace=0.0)
    panels = figure.subplots(len(rows), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (timeline, kind) in zip(panels, rows, strict=True):
        _draw(axes, kind, timeline, truth_of.get(timeline.video_id), colours)
    for axes, (row, below) in zip(panels, pairwise([*rows, None]), strict=True):
        _finish(axes, is_last=below is None or row is None or below[0] is not row[0])
    patches = [Patch(color=colour) for colour in colours.values()]
    legend = figure.legend(patches, list(colours), loc="outside upper left", ncols=6, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    _save(figure, out)


def _kinds(timeline: Timeline, *, has_truth: bool, curves: bool) -> list[str]:
    """The panels of a video, from top to bottom."""
    has_curves = curves and timeline.curve is not None
    return ["truth"] * has_truth + ["predicted"] + ["curves"] * has_curves


def _draw(
    axes: matplotlib.axes.Axes, kind: str, timeline: Timeline, truth: Timeline | None, colours: Mapping[str, str]
) -> None:
    if kind == "curves" and timeline.curve is not None:
        _draw_curves(axes, timeline.curve, colours)
    elif kind == "truth" and truth is not None:
        _draw_segments(axes, truth.segments, colours)
    else:
        _draw_segments(axes, timeline.segments, colours)
    if kind != "curves" and truth is not None:
        axes.set_ylabel(kind, rotation=0, ha="right", va="center", fontsize=8)
    if kind == ("predicted" if truth is None else "truth"):
        axes.set_title(timeline.video_id, loc="left", fontsize=9, pad=3, parse_math=False)
    end_seconds = _end_seconds(timeline, truth)
    axes.set(xlim=(0, end_seconds), xticks=_ticks(end_seconds))


def _draw_segments(axes: matplotlib.axes.Axes, segments: Sequence[Segment], colours: Mapping[str, str]) -> None:
    for one in segments:
        axes.axvspan(one.start_seconds, one.stop_seconds, color=colours[one.label], linewidth=0)
    axes.set(yticks=[], ylim=(0, 1))


def _draw_curves(axes: matplotlib.axes.Axes, curve: Curve, colours: Mapping[str, str]) -> None:
    for label, values in zip(curve.class_names, curve.probabilities.T, strict=True):  # (K, T)
        axes.plot(*thin_curve(curve.pts_seconds, values, max_points=MAX_POINTS), color=colours[label], linewidth=0.8)
    axes.set(ylim=(-0.03, 1.03), yticks=[0, 1])
    axes.tick_params(labelsize=7)


def _end_seconds(timeline: Timeline, truth: Timeline | None) -> float:
    segments = [*timeline.segments, *(truth.segments if truth else ())]
    stops = [one.stop_seconds for one in segments]
    return max([timeline.duration_seconds or 0.0, *stops]) or 1.0


def _finish(axes: matplotlib.axes.Axes, *, is_last: bool) -> None:
    """Write the times below the last panel of a video."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", labelsize=7, length=2 if is_last else 0, labelbottom=is_last)
    axes.set_xticklabels(list(map(_clock, axes.get_xticks())))


def _ticks(end_seconds: float) -> list[float]:
    """The times to write: at most `MAX_TICKS`, whole minutes where there are many."""
    step = next((step for step in TICK_STEPS if end_seconds / step < MAX_TICKS), end_seconds)
    return [number * step for number in range(int(end_seconds / step) + 1)]


def _clock(seconds: float) -> str:
    """`83.5` -> `1:23.5`"""
    minutes, rest = divmod(round(seconds, 1), 60)
    text = f"{rest:04.1f}".removesuffix(".0")
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{text}" if hours else f"{minutes}:{text}"


def _save(figure: matplotlib.figure.Figure, out: Path) -> None:
    aside = out.with_name(f".{out.name}.partial")
    try:
        figure.savefig(aside, format="png", dpi=200, metadata=PNG_METADATA)
        os.replace(aside, out)
    except OSError as error:
        raise VidpipeError(f"{out}: cannot be written ({error.strerror}); choose another file") from error
    finally:
        with suppress(OSError):
            aside.unlink()
