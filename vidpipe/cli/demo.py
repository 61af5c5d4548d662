"""vidpipe demo"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import vidpipe_command
from vidpipe.heads.members import BASELINE

if TYPE_CHECKING:
    from vidpipe.demo.stage import DemoResult, TimelineResult


@vidpipe_command(name="demo", short_help="Run the whole pipeline on videos that it draws itself.")
@click.argument(
    "folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path("vidpipe-demo")
)
@click.option(
    "--groups",
    type=click.IntRange(min=3),
    default=17,
    show_default=True,
    help="Number of figures and scenes to draw; each gives a video of every action.",
)
@click.option(
    "--annotations",
    is_flag=True,
    help="Also write DIR/annotations.json: the figures' boxes, masks and key points in every fourth frame, as COCO "
    "JSON.",
)
def command(folder: Path, groups: int, annotations: bool) -> None:
    """Draw a small set of action videos, extract their features, train and predict on them, and show the result.

    Nothing is downloaded. The actions come in pairs with the same frames in opposite order, so only a model of the
    order of frames can distinguish them. At last, joins test videos into a long one and finds the actions in it. Writes
    DIR/videos, DIR/features, DIR/run, DIR/demo.png, DIR/long.mp4, DIR/timeline.png and DIR/timeline.html (default DIR:
    vidpipe-demo).

    \b
    vidpipe demo
    """
    from vidpipe.cli.progress import extract_progress
    from vidpipe.demo.stage import run_demo

    with extract_progress() as show:
        result = run_demo(folder, num_groups=groups, annotations=annotations, on_progress=show)
    _print_result(result)


def _print_result(result: "DemoResult") -> None:
    width = max(len(video.video_id) for video in result.test_videos)
    click.echo(f"{'video':<{width}}  predicted")
    for video in result.test_videos:
        prediction = result.predictions[video.video_id]
        mark = "✓" if prediction.labels[0] == video.label else "✗"
        ranking = "   ".join(
            f"{label} {100 * probability:.0f} %"
            for label, probability in zip(prediction.labels, prediction.probabilities, strict=True)
        )
        click.echo(f"{video.video_id:<{width}}  {mark} {ranking}")
    click.echo()
    evaluations = result.trained.evaluations["test"]
    width = max(map(len, evaluations))
    for name, evaluation in evaluations.items():
        about = {result.trained.run.classifier: "  (the classifier)", BASELINE: "  (ignores order: the baseline)"}
        correct = f"{evaluation.top1:6.1%} of {evaluation.num_videos} test videos correct"
        click.echo(f"{name:<{width}} {correct}{about.get(name, '')}")
    _print_timeline(result.timeline)
    click.echo(
        f"\n{result.summary.num_stored} videos, {result.summary.num_frames} frames, extracted in "
        f"{result.summary.seconds:.0f} s. Picture: {result.picture}. Now your own videos:\n"
        f"  vidpipe extract VIDEOS -o features --backbone efficientnet_lite0 --backbone flow\n"
        f"  vidpipe train features -o run\n"
        f"  vidpipe predict run MORE_VIDEOS\n"
        f"  vidpipe predict run LONG_VIDEO --timeline"
    )


def _print_timeline(timeline: "TimelineResult") -> None:
    scores = timeline.scores.segmentation
    predicted, truth = len(timeline.predicted.segments), len(timeline.truth.segments)
    click.echo(
        f"\n{timeline.truth.duration_seconds:.0f} s of test videos in one: {predicted} segments found, {truth} true; "
        f"right label {scores.frame_accuracy:.1%} of the time, F1@50 {scores.f1[50]:.2f}. "
        f"Picture: {timeline.picture}. Page: {timeline.page}"
    )
