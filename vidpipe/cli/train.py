"""vidpipe train"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import label_options, printable, setting_options, vidpipe_command
from vidpipe.config import TrainConfig
from vidpipe.errors import RunError

if TYPE_CHECKING:
    from vidpipe.fit import Epoch
    from vidpipe.train import TrainResult


@vidpipe_command(name="train", short_help="Features and labels -> a run.")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("-o", "--output", "run", required=True, type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace the run that the folder holds.")
@label_options
@setting_options(TrainConfig, "train")
def command(
    store: Path,
    run: Path,
    overwrite: bool,
    labels: Path | None,
    official_split: int,
    skip_missing: bool,
    **settings: Any,
) -> None:
    """Train a classifier on a store's features, and the mean-feature baseline beside it.

    A video's label is the name of its folder, unless --labels names a file.

    \b
    vidpipe train features -o run
    vidpipe train features -o run --labels labels.csv --hidden-size 128
    """
    config = TrainConfig(**settings)
    if run.exists() and any(run.iterdir() if run.is_dir() else [run]) and not overwrite:
        raise RunError(f"{run}: there is something already; choose another folder, or replace it with --overwrite")

    from vidpipe.datasets.stored import label_store
    from vidpipe.features.store import FeatureStore
    from vidpipe.train import train

    opened = FeatureStore.open(store)
    videos = label_store(opened, labels, official_split=official_split, skip_missing=skip_missing)
    result = train(opened, videos, run, config=config, on_epoch=_log_epoch)
    _print_result(result)


def _log_epoch(head: str, epoch: "Epoch") -> None:
    from vidpipe.cli.progress import logger

    if epoch.epoch % 10 == 0 or epoch.epoch == 1:
        validation = f", validation {epoch.val_loss:.3f} ({epoch.val_top1:.0%})" if epoch.val_top1 is not None else ""
        logger.info(
            "%s, epoch %d: loss %.3f (%.0f%%)%s",
            head,
            epoch.epoch,
            epoch.train_loss,
            100 * epoch.train_top1,
            validation,
        )


def _print_result(result: "TrainResult") -> None:
    split = result.split
    click.echo(f"{result.run.path}: trained on {len(split.train)} videos, {len(result.run.class_names)} classes")
    click.echo(f"split: {printable(split.grouping)}")
    for part, by_head in result.evaluations.items():
        for name, evaluation in by_head.items():
            beside = "" if name == result.run.config.head else "  (baseline)"
            click.echo(
                f"{part:<5} {name:<5} top-1 {evaluation.top1:.3f}  top-5 {evaluation.top5:.3f}  "
                f"macro F1 {evaluation.macro_f1:.3f}  {evaluation.num_videos} videos{beside}"
            )
