"""vidpipe regions"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    SOME_VIDEOS_FAILED,
    LocalPath,
    find_inputs,
    format_option,
    inputs_argument,
    json_line,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.cli.outputs import check_replaceable
from vidpipe.cli.progress import text_progress
from vidpipe.cli.tables import show_table
from vidpipe.config import DetectorConfig
from vidpipe.errors import InputError, UsageError, count_of

if TYPE_CHECKING:
    from vidpipe.cli.progress import ShowText
    from vidpipe.records import VideoFile
    from vidpipe.regions.training.finding import Found
    from vidpipe.regions.training.fit import Step
    from vidpipe.regions.training.scoring import DetectorScores

__all__ = ["command", "detect", "score", "train"]

logger = logging.getLogger(__name__)

detector_option = click.option(
    "--detector", metavar="NAME", required=True, help="Name of a detector: vidpipe backbones --kind detector."
)


@vidpipe_command(name="train", short_help="Train a detector on your own annotations.")
@click.argument("videos", metavar="FOLDER", type=LocalPath())
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="File of the detector, .safetensors.")
@detector_option
@click.option(
    "--annotations",
    metavar="COCO.json",
    required=True,
    type=LocalPath(),
    help="COCO JSON over frames of the videos, or over pictures.",
)
@click.option(
    "--val-annotations",
    metavar="COCO.json",
    type=LocalPath(),
    help="Annotations that choose the best epoch.  [default: those of a share of the videos]",
)
@setting_options(DetectorConfig)
def train(
    videos: Path, output: Path, detector: str, annotations: Path, val_annotations: Path | None, **settings: Any
) -> None:
    """Train a detector on the boxes, masks or key points of your own videos.

    FOLDER has the videos and pictures that the annotations name. `vidpipe extract --detector NAME --detector-weights`
    takes the file that is written.

    \b
    vidpipe regions train videos/ --annotations boxes.json --detector ssdlite -o mine.safetensors
    vidpipe extract videos/ -o features --regions people --detector ssdlite --detector-weights mine.safetensors
    """
    from vidpipe.api import train_detector

    check_replaceable(output, "a trained detector", is_own=_is_own_detector)
    with text_progress("training") as show:
        result = train_detector(
            annotations,
            videos,
            output,
            detector=detector,
            val_annotations=val_annotations,
            on_step=lambda step: _show_step(show, step),
            **settings,
        )
    names = printable(", ".join(result.header.classes.values()))
    click.echo(
        f"{result.path}: finds {names}; learned from {count_of(result.num_train, 'frame')}; best {result.metric} on "
        f"the validation frames in epoch {result.best_epoch}:"
    )
    _print_scores(result.scores)


def _is_own_detector(first: bytes) -> bool:
    from vidpipe.regions.trained import FORMAT

    return f'"format":"{FORMAT}"'.encode() in first


def _show_step(show: "ShowText", step: "Step") -> None:
    done, total = (step.epoch - 1) * step.num_batches + step.batch, step.num_epochs * step.num_batches
    text = f"epoch {step.epoch} of {step.num_epochs}, loss {step.loss:.3f}"
    show(done, total, text if step.score is None else f"{text}, validation {step.score:.3f}", step.score is not None)


@vidpipe_command(name="detect", short_help="Find people and objects in videos, as COCO JSON.")
@inputs_argument
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="COCO JSON to write.")
@detector_option
@click.option(
    "--detector-weights", metavar="FILE", default="default", show_default=True, help="Its weights, as for extract."
)
@click.option(
    "--annotations",
    metavar="COCO.json",
    type=LocalPath(),
    help="Look at the frames that this COCO JSON names; INPUT is the folder of their videos.",
)
@click.option("--every", type=click.IntRange(min=1), default=1, show_default=True, help="Look at every Nth frame.")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Leave out objects of a lower score. Average precision needs those of low score too.",
)
@click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="Device that runs the detector.",
)
def detect(
    inputs: tuple[Path, ...],
    output: Path,
    detector: str,
    detector_weights: str,
    annotations: Path | None,
    every: int,
    min_score: float,
    device: str,
) -> None:
    """Find people and objects in frames of videos, and write their boxes, masks and key points as COCO JSON.

    \b
    vidpipe regions detect videos/ --detector fasterrcnn -o found.json --every 10
    vidpipe regions detect videos/ --detector ssdlite --annotations truth.json -o found.json
    """
    from vidpipe.regions.load import load_detector
    from vidpipe.regions.table import find_detector
    from vidpipe.regions.training.coco import as_coco, is_own_coco, write_coco
    from vidpipe.regions.training.finding import class_names
    from vidpipe.regions.weights import find_detector_weights

    check_replaceable(output, "COCO JSON of detections", is_own=is_own_coco)
    spec = find_detector(detector)
    weights = find_detector_weights(spec, detector_weights)
    network = load_detector(spec, weights, device=device)
    failed: list[str] = []
    with text_progress("detecting") as show:
        if annotations is None:
            videos, failed = find_inputs(inputs)
            frames = _in_videos(videos, network, every, min_score, show, failed)
        else:
            frames = _in_annotated(annotations, inputs, network, min_score, show)
        content = as_coco(frames, class_names(spec, weights), scores=True)
    for line in failed:
        click.echo(line, err=True)
    if not content["images"]:
        raise InputError(f"no frame could be read; {output} is not written")
    write_coco(output, content)
    num_found, num_frames = len(content["annotations"]), len(content["images"])
    click.echo(f"{output}: {count_of(num_found, 'object')} in {count_of(num_frames, 'frame')}")
    if failed:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _in_videos(
    videos: "list[VideoFile]", network: Any, every: int, min_score: float, show: "ShowText", failed: list[str]
) -> "Iterator[Found]":
    from vidpipe.records import VideoFailure
    from vidpipe.regions.training.finding import find_in_videos

    def show_videos(num_done: int) -> None:
        show(num_done, len(videos), f"{num_done} of {count_of(len(videos), 'video')}", num_done == len(videos))

    for one in find_in_videos(videos, network, every=every, min_score=min_score, on_video=show_videos):
        if isinstance(one, VideoFailure):
            failed.append(printable(f"failed: {one.video_id}: {one.message}"))
        else:
            yield one


def _in_annotated(
    path: Path, inputs: tuple[Path, ...], network: Any, min_score: float, show: "ShowText"
) -> "Iterator[Found]":
    from vidpipe.regions.training.coco import read_annotations
    from vidpipe.regions.training.finding import find_in_annotated

    if len(inputs) != 1 or not inputs[0].is_dir():
        raise UsageError("--annotations goes with one INPUT, the folder of the videos that it names")
    annotations = read_annotations(path)
    num_frames = len(annotations.frames)
    found = find_in_annotated(annotations, inputs[0], network, min_score=min_score)
    for number, one in enumerate(found, start=1):
        show(number, num_frames, f"{number} of {count_of(num_frames, 'frame')}", number == num_frames)
        yield one


@vidpipe_command(name="score", short_help="Compare what a detector found with the truth.")
@click.argument("truth", metavar="TRUTH.json", type=LocalPath())
@click.argument("found", metavar="FOUND.json", type=LocalPath())
@format_option("table", "json")
def score(truth: Path, found: Path, format_: str) -> None:
    """Compare what a detector found with the truth: average precision of boxes, masks and key points; IoU and Dice.

    TRUTH.json is COCO JSON with annotations; FOUND.json is what `vidpipe regions detect` wrote. A frame of TRUTH.json
    that FOUND.json lacks counts as one in which nothing was found.

    \b
    vidpipe regions score truth.json found.json
    """
    from vidpipe.regions.training.scoring import score_files

    scores = score_files(truth, found)
    if format_ == "json":
        click.echo(json_line(scores.as_dict()))
    else:
        _print_scores(scores)


def _print_scores(scores: "DetectorScores") -> None:
    click.echo(
        f"{count_of(scores.num_frames, 'frame')}, {count_of(scores.num_objects, 'object')}, {scores.num_found} found"
    )
    kinds = {"boxes": scores.boxes, "masks": scores.masks, "key points": scores.key_points}
    rows = [(kind, f"{one.map:.3f}", f"{one.ap50:.3f}", f"{one.ap75:.3f}") for kind, one in kinds.items() if one]
    show_table(("average precision", "mAP", "AP50", "AP75"), rows)
    if scores.overlap is not None:
        click.echo(f"pixels: IoU {scores.overlap.iou:.3f}, Dice {scores.overlap.dice:.3f}")


command = click.Group(
    "regions",
    commands=[train, detect, score],
    short_help="Train detectors, and find people and objects in videos.",
    help="Train detectors on your own annotations, run them over videos, and score them.",
)
