"""vidpipe timeline"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    SOME_VIDEOS_FAILED,
    LocalPath,
    format_option,
    json_line,
    printable,
    vidpipe_command,
)
from vidpipe.cli.outputs import check_replaceable, is_own_page, is_own_picture
from vidpipe.cli.tables import show_table
from vidpipe.errors import UsageError, VideoError, count_of, first_few

if TYPE_CHECKING:
    from vidpipe.records import Timeline
    from vidpipe.timeline.score import Protocol, TimelineScores

__all__ = ["annotate", "command", "convert", "page", "score"]

_FORMATS = ("jsonl", "csv", "activitynet", "results", "vtt", "srt", "elan", "mstcn")

_LAST_FRAME = {
    "public": "a segment that reaches the last frame ends one frame early, as in the public evaluator "
    "(--protocol corrected)",
    "corrected": "a segment that reaches the last frame is counted whole, unlike in the public evaluator",
}

background_option = click.option(
    "--background",
    metavar="NAME",
    multiple=True,
    help="Label of time without a segment. Repeatable: the others are not counted as segments either.  "
    "[default: background]",
)


@vidpipe_command(name="score", short_help="Compare predicted segments with the true ones.")
@click.argument("truth", type=LocalPath())
@click.argument("predicted", type=LocalPath())
@format_option("table", "json")
@click.option(
    "--protocol",
    type=click.Choice(("public", "corrected")),
    default="public",
    show_default=True,
    help="public: the figures of the public evaluators, for comparisons with papers; corrected: F1 with the last "
    "frame, which the public evaluator leaves out.",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, min_open=True),
    help="Frames per second for frame accuracy, edit and F1 of segments in seconds.  [default: 10]",
)
@background_option
@click.option("--subset", metavar="NAME", help="Subset of TRUTH to score, or all.  [default: test, if there is one]")
def score(
    truth: Path,
    predicted: Path,
    format_: str,
    protocol: str,
    fps: float | None,
    background: tuple[str, ...],
    subset: str | None,
) -> None:
    """Compare predicted segments with the true ones: mAP by tIoU, frame accuracy, edit score and F1@10/25/50.

    TRUTH and PREDICTED are files of any format that `vidpipe timeline convert` reads, such as a CSV of intervals,
    ActivityNet's JSON, or the output of `vidpipe predict --timeline --format json`. Folders with a label for each frame
    (MS-TCN) are compared frame by frame. A true video without a prediction counts as one in which nothing was found.

    \b
    vidpipe timeline score truth.csv predicted.jsonl
    vidpipe timeline score ground_truth.json predictions.json --subset test --format json
    """
    from vidpipe.timeline.score import score_files

    scores = score_files(
        truth,
        predicted,
        fps=fps,
        background=background or ("background",),
        subset=subset,
        protocol=cast("Protocol", protocol),
    )
    if format_ == "json":
        click.echo(json_line(scores.as_dict()))
    else:
        _print_scores(scores)


def _print_scores(scores: "TimelineScores") -> None:
    frames = "labels of frames as they are" if scores.fps is None else f"a grid of {scores.fps:g} frames a second"
    click.echo(f"{count_of(scores.num_videos, 'video')}; frame metrics on {frames}")
    segmentation = scores.segmentation
    f1 = "  ".join(f"F1@{overlap} {value:.3f}" for overlap, value in segmentation.f1.items())
    click.echo(
        f"frame accuracy {segmentation.frame_accuracy:.3f} (without background "
        f"{segmentation.foreground_accuracy:.3f})  edit {segmentation.edit:.3f}  {f1}"
    )
    click.echo(f"F1: {_LAST_FRAME[scores.protocol]}")
    if scores.average_map is not None:
        averages = "  ".join(f"average mAP {name} {value:.3f}" for name, value in scores.average_map.items())
        click.echo(f"{averages}\n")
        _print_classes(scores)


def _print_classes(scores: "TimelineScores") -> None:
    """Print the average precision of each class and its mean, a column a tIoU threshold."""
    detection = scores.detection
    columns = ["average precision at tIoU", "true", "predicted", *(f"{one:g}" for one in detection.thresholds)]
    rows = [
        (
            printable(label),
            str(detection.num_truth[label]),
            str(detection.num_predicted[label]),
            *(f"{value:.3f}" for value in values),
        )
        for label, values in detection.average_precision.items()
    ]
    sums = (str(sum(counts.values())) for counts in (detection.num_truth, detection.num_predicted))
    show_table(columns, [*rows, ("mean", *sums, *(f"{value:.3f}" for value in detection.map))])


@vidpipe_command(name="convert", short_help="Convert segments to another format.")
@click.argument("source", metavar="IN", type=LocalPath())
@click.argument("target", metavar="OUT", type=LocalPath())
@click.option("--from", "from_", type=click.Choice(_FORMATS), help="Format of IN, where its name does not tell it.")
@click.option("--to", type=click.Choice(_FORMATS), help="Format of OUT, where its name does not tell it.")
@click.option("--fps", type=click.FloatRange(0, min_open=True), help="Frames per second of mstcn, a label a frame.")
@click.option(
    "--background", metavar="NAME", default="background", show_default=True, help="mstcn: label of no segment."
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def convert(
    source: Path, target: Path, from_: str | None, to: str | None, fps: float | None, background: str, overwrite: bool
) -> None:
    """Convert segments to another format, and say what the format cannot hold.

    \b
    jsonl        .jsonl  what `vidpipe predict --timeline --format json` prints; holds everything
    csv          .csv    video,start_seconds,stop_seconds,label, for `vidpipe train --labels` and spreadsheets
    activitynet  .json   ActivityNet's annotations
    results      .json   ActivityNet's predictions; chosen where all segments have probabilities
    vtt, srt     .vtt …  subtitles, for video players
    elan         .eaf    for ELAN; a tier for each class
    mstcn        .txt    a label for each frame, at --fps

    vtt, srt, elan and mstcn have a file for each video: IN and OUT are folders, or files of one video. OUT without a
    suffix is a folder, and needs --to.

    \b
    vidpipe timeline convert predicted.jsonl corrected.csv
    vidpipe timeline convert predicted.jsonl subtitles --to vtt
    """
    from vidpipe.timeline.exchange import read_timelines, write_timelines

    if not overwrite:
        _check_absent(target)
    timelines = read_timelines(source, form=from_, fps=fps, background=background)
    losses = write_timelines(target, timelines, form=to, fps=fps, background=background)
    num_segments = sum(len(one.segments) for one in timelines)
    click.echo(f"{target}: {count_of(num_segments, 'segment')} of {count_of(len(timelines), 'video')}")
    for sentence in losses:
        click.echo(printable(sentence), err=True)


def _check_absent(target: Path) -> None:
    """Refuse a file that is not empty, or a folder with files."""
    if target.is_file() and target.stat().st_size:
        raise UsageError(f"{target}: exists; choose another file, or give --overwrite to replace it")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target}: a folder with files; choose a new one, or give --overwrite to write into it")


videos_option = click.option(
    "--videos",
    multiple=True,
    type=LocalPath(),
    metavar="DIR",
    help="Folder with the videos, or a video. Repeatable.  [default: the paths in PREDICTED]",
)


@vidpipe_command(name="page", short_help="Look at segments beside their videos, and correct them.")
@click.argument("predicted", type=LocalPath())
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="Page to write.")
@videos_option
@click.option("--truth", type=LocalPath(), help="Correct segments, shown above the predicted ones.")
@click.option("--png", type=OUTPUT_PATH, help="Also draw the segments as a picture, a row a video.")
def page(predicted: Path, output: Path, videos: tuple[Path, ...], truth: Path | None, png: Path | None) -> None:
    """Write an HTML page that plays the videos beside their segments and corrects them.

    The page opens from disk and loads only the videos, from where they are: keep page and videos in place. PREDICTED
    is a file of any format that `vidpipe timeline convert` reads. The page saves a CSV for `vidpipe train --labels`.

    \b
    vidpipe timeline page predicted.jsonl --videos videos/ -o page.html
    vidpipe timeline page predicted.jsonl -o page.html --truth truth.csv --png strips.png
    """
    from vidpipe.timeline.exchange import read_timelines
    from vidpipe.timeline.page import write_page
    from vidpipe.timeline.video_files import find_video_files

    check_replaceable(output, "a page", is_own=is_own_page)
    if png is not None:
        check_replaceable(png, "a picture", is_own=is_own_picture)
    timelines = read_timelines(predicted)
    true_ones = read_timelines(truth) if truth else []
    _warn_of_others(timelines, true_ones)
    write_page(timelines, find_video_files(timelines, videos, beside=predicted), output, truth=true_ones)
    click.echo(printable(f"{output}: {_counts(timelines)}"))
    if png is not None:
        from vidpipe.timeline.strip import write_strip

        write_strip(timelines, png, truth=true_ones)
        click.echo(printable(f"{png}: {_counts(timelines)}"))


def _warn_of_others(timelines: "Sequence[Timeline]", truth: "Sequence[Timeline]") -> None:
    others = {one.video_id for one in truth} - {one.video_id for one in timelines}
    if others:
        names = first_few(sorted(others))
        click.echo(printable(f"not shown: {count_of(len(others), 'video')} of --truth alone: {names}"), err=True)


def _counts(timelines: "Sequence[Timeline]") -> str:
    num_shown = sum(one.error is None for one in timelines)
    num_segments = sum(len(one.segments) for one in timelines)
    return f"{count_of(num_segments, 'segment')} of {count_of(num_shown, 'video')}"


@vidpipe_command(name="annotate", short_help="Write copies of videos with their segments burnt in.")
@click.argument("predicted", type=LocalPath())
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="Folder for the copies.")
@videos_option
@click.option("--overwrite", is_flag=True, help="Replace copies that exist.")
def annotate(predicted: Path, output: Path, videos: tuple[Path, ...], overwrite: bool) -> None:
    """Write H.264 copies of videos that show the current label, its probability, and a bar of all segments.

    Frames keep their times, and sound is copied as it is: into .mp4 files, or .mkv where MP4 cannot hold the sound.

    \b
    vidpipe timeline annotate predicted.jsonl --videos videos/ -o annotated/
    """
    from vidpipe.timeline.annotated import write_copy
    from vidpipe.timeline.exchange import read_timelines
    from vidpipe.timeline.video_files import find_video_files

    timelines = read_timelines(predicted)
    paths = find_video_files(timelines, videos, beside=predicted)
    num_failed = 0
    for timeline in timelines:
        try:
            if timeline.error is not None:
                raise VideoError(timeline.error)
            click.echo(printable(str(write_copy(paths[timeline.video_id], timeline, output, overwrite=overwrite))))
        except VideoError as error:
            num_failed += 1
            click.echo(printable(f"failed: {timeline.video_id}: {error}"), err=True)
    if num_failed:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


command = click.Group(
    "timeline",
    commands=[score, convert, page, annotate],
    short_help="Score, convert, show and correct segments of videos.",
    help="Score, convert, show and correct segments of videos.",
)
