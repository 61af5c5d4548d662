"""vidpipe finetune"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    LocalPath,
    exclude_option,
    prefix_option,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.config import FINETUNE_SETTINGS, ExtractConfig, FinetuneConfig
from vidpipe.errors import count_of

if TYPE_CHECKING:
    from vidpipe.runs.tables import Epoch
    from vidpipe.stages.finetune import FinetuneResult

logger = logging.getLogger(__name__)


@vidpipe_command(name="finetune", short_help="Fine-tune the backbone of a run.")
@click.argument("run", type=LocalPath())
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=LocalPath())
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="Folder of the new run.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder when the new one is complete.")
@click.option("--resume", is_flag=True, help="Continue an interrupted fine-tuning (RUN2.training/).")
@prefix_option
@exclude_option
@setting_options(FinetuneConfig, "finetune")
@setting_options(ExtractConfig, only=FINETUNE_SETTINGS)
def command(
    run: Path,
    inputs: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    resume: bool,
    prefix: str,
    exclude: tuple[str, ...],
    **settings: Any,
) -> None:
    """Fine-tune the backbone of a trained run together with its heads, and compare it with the frozen one.

    INPUT is the folder, file or CSV of videos that the run's features were extracted from. The frames are decoded once
    and kept in a folder while the backbone is trained. The split is that of the run. The new run keeps the backbone
    that is better on the validation set, and its report shows both.

    \b
    vidpipe finetune run videos/ -o tuned
    vidpipe finetune run videos/ -o tuned --unfreeze 2 --epochs 30
    vidpipe finetune run videos/ -o tuned --unfreeze all --lora 8
    """
    from vidpipe.api import finetune

    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    result = finetune(
        run,
        inputs,
        output,
        overwrite=overwrite,
        resume=resume,
        prefix=prefix,
        exclude=exclude,
        on_video=_log_video,
        on_epoch=_log_epoch if is_first else lambda epoch: None,
        **settings,
    )
    if is_first:
        _print_result(result)


def _log_video(num_done: int, total: int) -> None:
    if num_done == total or num_done % 50 == 0:
        logger.info("frames of %d of %s decoded", num_done, count_of(total, "video"))


def _log_epoch(epoch: "Epoch") -> None:
    logger.info(
        "epoch %d: loss %.3f (%.0f%%), validation %.3f (%.0f%%)",
        epoch.epoch,
        epoch.train_loss,
        100 * epoch.train_top1,
        epoch.val_loss or 0.0,
        100 * (epoch.val_top1 or 0.0),
    )


def _print_result(result: "FinetuneResult") -> None:
    run, found = result.run, result.fine_tuning
    click.echo(
        f"{run.path}: {', '.join(found.stages)} trained ({found.num_parameters:,} parameters), "
        f"{count_of(found.num_epochs, 'epoch')}, the best is {found.best_epoch}, {found.seconds:.0f} s"
    )
    click.echo(f"split: {printable(run.grouping)}")
    for subset, pair in found.compared.items():
        interval = "too few groups for a CI"
        if pair.interval is not None:
            interval = "95 % CI {:+.3f} to {:+.3f}".format(*pair.interval)
        click.echo(
            f"{subset:<5} top-1 frozen {pair.frozen:.3f}  fine-tuned {pair.fine_tuned:.3f}  difference "
            f"{pair.difference:+.3f} ({interval})  {count_of(pair.num_videos, 'video')}"
        )
    click.echo(found.verdict)
    for warning in run.warnings:
        click.echo(printable(f"warning: {warning}"), err=True)
