"""vidpipe extract"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    SOME_VIDEOS_FAILED,
    exclude_option,
    find_inputs,
    inputs_argument,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.config import ExtractConfig
from vidpipe.errors import InputError, count_of

if TYPE_CHECKING:
    from vidpipe.extract import ExtractSummary
    from vidpipe.records import VideoFile
    from vidpipe.video.files import Skipped

logger = logging.getLogger(__name__)


@vidpipe_command(name="extract", short_help="Videos -> features, in a store.")
@inputs_argument
@click.option("-o", "--output", "store", required=True, type=click.Path(path_type=Path), help="The store's folder.")
@click.option("--force", is_flag=True, help="Extract again what the store already holds.")
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option(
    "--part", metavar="N/COUNT", default="1/1", help="Do one of COUNT equal parts of the work, for job arrays."
)
@exclude_option
@click.option("--dry-run", is_flag=True, help="List what would be extracted and what not, with the reason; do nothing.")
@setting_options(ExtractConfig, "extract")
def command(
    inputs: tuple[Path, ...],
    store: Path,
    force: bool,
    retry_failed: bool,
    part: str,
    exclude: tuple[str, ...],
    dry_run: bool,
    **settings: Any,
) -> None:
    """Extract features of videos into a store.

    INPUT is a video, a folder (searched to any depth; hidden folders are skipped) or a CSV with a column `video`. Skips
    videos that are stored, and videos that failed before, so the same command goes on after a stop.

    \b
    vidpipe extract videos/ -o features
    vidpipe extract videos/ -o features --backbone efficientnet_lite0 --sampling fps --fps 2
    vidpipe extract videos/ -o features --part 3/8
    vidpipe extract videos/ -o features --exclude 'rejected/*' --dry-run
    """
    config = ExtractConfig(**settings)

    from vidpipe.cli.progress import extract_progress
    from vidpipe.extract import extract, preview
    from vidpipe.features.locks import Part

    selection: dict[str, Any] = {"part": Part.parse(part), "force": force, "retry_failed": retry_failed}
    find = partial(find_inputs, inputs, exclude=exclude, video_column=config.video_column)
    if dry_run:
        _show_dry_run(find, partial(preview, store_path=store, config=config, **selection))
        return
    videos, unreadable = find()
    with extract_progress() as show:
        summary = extract(videos, store, config=config, on_progress=show, **selection)
    _show(store, summary, unreadable)
    if summary.failures or summary.known_failures or unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _show_dry_run(
    find: "Callable[..., tuple[list[VideoFile], list[str]]]", preview: "Callable[[list[VideoFile]], dict[str, str]]"
) -> None:
    """A line for each file, `take  a.mp4` or `skip  notes.txt  (not a video by its name)`, and one that counts them."""
    skipped: list[Skipped] = []
    try:
        videos, unreadable = find(on_skipped=skipped.append)
    except InputError:  # no videos: what there is instead is what one wants to know
        _show_lines((one.name, one.reason) for one in skipped)
        raise
    reasons = preview(videos)
    _show_lines([*reasons.items(), *((one.name, one.reason) for one in skipped)])
    counts = Counter(filter(None, [*reasons.values(), *(one.reason for one in skipped)]))
    told = "; ".join(
        f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    num_taken = sum(not reason for reason in reasons.values())
    click.echo(
        printable(f"would extract {count_of(num_taken, 'video')}, skip {counts.total()}{f' ({told})' * bool(told)}")
    )
    for line in unreadable:
        click.echo(line, err=True)
    if unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _show_lines(reasons: "Iterable[tuple[str, str]]") -> None:
    for name, reason in sorted(reasons):
        click.echo(printable(f"skip  {name}  ({reason})" if reason else f"take  {name}"))


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
