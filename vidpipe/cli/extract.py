"""vidpipe extract"""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import SOME_VIDEOS_FAILED, LocalPath, find_inputs, printable, setting_options, vidpipe_command
from vidpipe.config import ExtractConfig

if TYPE_CHECKING:
    from vidpipe.extract import ExtractSummary

logger = logging.getLogger(__name__)


@vidpipe_command(name="extract", short_help="Videos -> features, in a store.")
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=LocalPath())
@click.option("-o", "--output", "store", required=True, type=click.Path(path_type=Path), help="The store's folder.")
@click.option("--force", is_flag=True, help="Extract again what the store already holds.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option(
    "--part", metavar="N/COUNT", default="1/1", help="Do one of COUNT equal parts of the work, for job arrays."
)
@setting_options(ExtractConfig, "extract")
def command(inputs: tuple[Path, ...], store: Path, force: bool, retry_failed: bool, part: str, **settings: Any) -> None:
    """Put the features of videos into a store.

    INPUT is a video, a folder (searched to any depth) or a CSV with a column `video`. What the store already holds is
    skipped, and what is known to fail, so the same command goes on after a stop.

    \b
    vidpipe extract videos/ -o features
    vidpipe extract videos/ -o features --backbone efficientnet_lite0 --sampling fps --fps 2
    vidpipe extract videos/ -o features --part 3/8
    """
    config = ExtractConfig(**settings)

    from vidpipe.cli.progress import extract_progress
    from vidpipe.extract import extract
    from vidpipe.features.locks import Part

    videos, unreadable = find_inputs(inputs, video_column=config.video_column)
    extract_part = partial(extract, part=Part.parse(part), force=force, retry_failed=retry_failed)
    with extract_progress() as show:
        summary = extract_part(videos, store, config=config, on_progress=show)
    _show(store, summary, unreadable)
    if summary.failures or summary.known_failures or unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _show(store: Path, summary: "ExtractSummary", unreadable: list[str]) -> None:
    known = len(summary.known_failures)
    click.echo(
        f"{store}: {summary.num_stored} videos stored ({summary.num_frames} frames, {summary.seconds:.1f} s), "
        f"{summary.num_skipped} were there already, {len(summary.failures)} failed"
        + (f", {known} failed before and were not tried again (--retry-failed)" if known else "")
    )
    if summary.num_stored:
        logger.info(_bottleneck(summary))
    for failure in summary.failures:
        click.echo(printable(f"failed: {failure.video_id}: {failure.message}"), err=True)
    for told in unreadable:
        click.echo(told, err=True)


def _bottleneck(summary: "ExtractSummary") -> str:
    """What kept an extraction from being faster, and what to raise."""
    effort = summary.effort
    seconds = max(summary.seconds, 1e-9)
    if effort.model_waited > effort.decoders_waited:
        what = f"decoding; more --workers (now {effort.num_workers}) help where there are more cores"
    else:
        what = "the image model; a GPU, or a smaller --backbone, would be faster"
    return (
        f"{summary.num_stored / seconds:.2f} videos/s, {summary.num_frames / seconds:.1f} frames/s; the image model "
        f"waited {effort.model_waited:.0%} of the time for frames, the decoders {effort.decoders_waited:.0%} for it. "
        f"Bottleneck: {what}"
    )
