"""vidpipe train"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    LocalPath,
    evaluation_lines,
    label_options,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.config import TrainConfig
from vidpipe.errors import count_of
from vidpipe.heads.members import BASELINE, headline_names

if TYPE_CHECKING:
    from vidpipe.runs.background_check import BackgroundCheck
    from vidpipe.runs.tables import Epoch
    from vidpipe.stages.train import TrainResult
    from vidpipe.training.cross_validation import CrossValidation
    from vidpipe.training.timelines import TimelineResult

logger = logging.getLogger(__name__)


@vidpipe_command(name="train", short_help="Train a classifier on stored features.")
@click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=LocalPath())
@click.option("-o", "--output", "run", required=True, type=OUTPUT_PATH, help="Folder of the run.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder when the new one is complete.")
@click.option("--resume", is_flag=True, help="Continue an interrupted training (RUN.training/) with the same settings.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events too (pip install 'vidpipe[tensorboard]').")
@click.option(
    "--skip-conflicts", is_flag=True, help="Exclude videos that have identical features but different labels."
)
@click.option(
    "--without-people",
    metavar="STORE",
    multiple=True,
    type=LocalPath(),
    help="Features of the same videos with the people painted out, for --check-background.",
)
@click.option(
    "--only-people",
    metavar="STORE",
    multiple=True,
    type=LocalPath(),
    help="Features of the same videos with all but the people painted out, for --check-background.",
)
@label_options
@setting_options(TrainConfig, "train")
def command(
    stores: tuple[Path, ...],
    run: Path,
    overwrite: bool,
    resume: bool,
    tensorboard: bool,
    skip_conflicts: bool,
    without_people: tuple[Path, ...],
    only_people: tuple[Path, ...],
    official_split: str,
    **settings: Any,
) -> None:
    """Train a classifier on the features of one or more streams, and the mean-feature baseline beside it.

    STORE is a store, or a folder of stores with one for each stream; give it several times for several stores. The
    classifier has a member for each stream and head, and fuses their predictions.

    The label of a video is the name of its folder, unless --labels names a file. The model is tested once on the test
    set, then refitted on all videos and saved (--no-refit saves the tested one). It never learns from a test set that
    the labels give. With --folds or --leave-one-group-out, cross-validation tests each video with a model trained on
    other groups.

    \b
    vidpipe train features -o run
    vidpipe train features -o run --labels labels.csv --folds 5 --group-by camera
    vidpipe train features -o run --streams flow --head lstm --motion raw,difference --ensemble 3
    """
    from vidpipe.api import train

    result = train(
        stores,
        run,
        overwrite=overwrite,
        resume=resume,
        tensorboard=tensorboard,
        skip_conflicts=skip_conflicts,
        without_people=without_people,
        only_people=only_people,
        on_epoch=_log_epoch,
        split=official_split,
        **settings,
    )
    _print_result(result)


def _log_epoch(name: str, epoch: "Epoch") -> None:
    if epoch.epoch % 10 == 0 or epoch.epoch == 1:
        validation = f", validation {epoch.val_loss:.3f} ({epoch.val_top1:.0%})" if epoch.val_top1 is not None else ""
        logger.info(
            "%s, epoch %d: loss %.3f (%.0f%%)%s",
            name,
            epoch.epoch,
            epoch.train_loss,
            100 * epoch.train_top1,
            validation,
        )


def _print_result(result: "TrainResult") -> None:
    run, own = result.run, result.run.classifier
    num_learned, num_train = len(run.learned), len(result.split.train)
    click.echo(f"{run.path}: trained on {count_of(num_learned, 'video')}, {count_of(len(run.class_names), 'class')}")
    click.echo(f"split: {printable(run.grouping)}")
    if num_learned > num_train:
        click.echo(
            f"metrics: model trained on {count_of(num_train, 'video')}; saved model: refitted on all {num_learned}"
        )
    if run.choice:
        click.echo(f"head: {run.choice}")
    if len(run.members) > 1:
        weights = ", ".join(f"{printable(one.member.name)} {one.weight:.2f}" for one in run.members)
        source = "found on folds of the training set" if run.has_found_weights else "the default ones"
        click.echo(f"weights: {weights} ({source})")
    if result.cross_validation is not None:
        _print_folds(result.cross_validation)
    for subset, by_name in result.evaluations.items():
        for line in evaluation_lines(by_name, own=own):
            click.echo(f"{subset:<5} {line}")
    if result.timelines is not None:
        _print_timelines(result.timelines)
    if result.background_check is not None:
        _print_background_check(result.background_check)
    for warning in run.warnings:
        click.echo(printable(f"warning: {warning}"), err=True)


def _print_timelines(found: "TimelineResult") -> None:
    source = "best on training videos" if found.is_found else "the default"
    click.echo(f"timelines: cost of a change {found.decoding.change_cost:g} ({source})")
    for subset, scores in found.scores.items():
        segmentation = scores.segmentation
        maps = "".join(f"  mAP {limits} {value:.3f}" for limits, value in (scores.average_map or {}).items())
        click.echo(
            f"{subset:<5} timelines F1@50 {segmentation.f1[50]:.3f}  edit {segmentation.edit:.3f}  "
            f"frame accuracy {segmentation.frame_accuracy:.3f}{maps}  {count_of(scores.num_videos, 'video')}"
        )


def _print_background_check(found: "BackgroundCheck") -> None:
    from vidpipe.runs.run import EVALUATION_SETS

    click.echo(f"background check on {EVALUATION_SETS[found.evaluation_set]}:")
    for sentence in found.sentences.values():
        click.echo(f"  {sentence}")


def _print_folds(found: "CrossValidation") -> None:
    names = headline_names(found.heads)
    width = max(map(len, names))
    for name in names:
        num_folds, num_videos = len(found.of(name)), len(found.accuracy_by_video(name))
        click.echo(
            f"folds {name:<{width}} top-1 {found.estimate(name)}  {count_of(num_videos, 'video')}, "
            f"{count_of(num_folds, 'test set')}"
            f"{'  (baseline)' * (name == BASELINE != found.heads[0])}"
        )
