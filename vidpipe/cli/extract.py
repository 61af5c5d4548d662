"""vidpipe extract"""

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    SOME_VIDEOS_FAILED,
    LocalPath,
    exclude_option,
    find_inputs,
    inputs_or_urls_argument,
    prefix_option,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.config import ExtractConfig
from vidpipe.errors import InputError, count_of, first_few

if TYPE_CHECKING:
    from vidpipe.records import VideoFile
    from vidpipe.stages.extract import ExtractSummary, StreamSummary
    from vidpipe.video.files import Skipped

__all__ = ["command"]

logger = logging.getLogger(__name__)


@vidpipe_command(name="extract", short_help="Extract features of videos into a store.")
@inputs_or_urls_argument
@click.option(
    "-o",
    "--output",
    "store",
    required=True,
    type=LocalPath("a store is a folder; docs/scale.md says how to copy it to a bucket, and back"),
    help="The store's folder.",
)
@prefix_option
@click.option(
    "--force",
    is_flag=True,
    help="Extract stored videos again; replace another folder's videos of the same ids.",
)
@click.option("--retry-failed", is_flag=True, help="Retry videos that failed in an earlier run.")
@click.option(
    "--part", metavar="N/COUNT", default="1/1", help="Extract one of COUNT equal shares of the videos, for job arrays."
)
@exclude_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="List the videos to extract and those to skip, with the reason; write nothing.",
)
@setting_options(ExtractConfig, "extract")
def command(
    inputs: tuple[Path | str, ...],
    store: Path,
    prefix: str,
    force: bool,
    retry_failed: bool,
    part: str,
    exclude: tuple[str, ...],
    dry_run: bool,
    **settings: Any,
) -> None:
    """Extract features of videos into a store.

    INPUT is a video, a folder (searched to any depth; hidden folders are skipped), a CSV with a column `video`, or the
    URL of a video or folder (s3://, gs://: pip install 'vidpipe[cloud]'). Skips videos that are stored, and videos that
    failed before, so the same command continues after a stop. A moved or renamed video keeps its features. Videos of a
    second folder with the ids of stored videos are refused; --prefix gives them other ids. Several backbones make a
    store each, STORE/NAME; each video is decoded once for all of them.

    \b
    vidpipe extract videos/ -o features
    vidpipe extract videos/ -o features --backbone efficientnet_lite0 --backbone flow
    vidpipe extract videos/ -o features --sampling fps --fps 2
    vidpipe extract archive/ -o features --sampling keyframe
    vidpipe extract videos/ -o features --part 3/8
    vidpipe extract videos/ -o features --executor ray --ray-address auto
    vidpipe extract videos/ -o features --exclude 'rejected/*' --dry-run
    vidpipe extract more_videos/ -o features --prefix more
    """
    config = ExtractConfig(**settings)

    from vidpipe.cli.progress import extract_progress
    from vidpipe.execution.executor import describe_actors
    from vidpipe.features.locks import Part
    from vidpipe.stages.extract import extract, preview

    selection: dict[str, Any] = {"part": Part.parse(part), "force": force, "retry_failed": retry_failed}
    find = partial(find_inputs, inputs, prefix=prefix, exclude=exclude, video_column=config.video_column)
    if dry_run:
        _show_dry_run(find, partial(preview, store_path=store, config=config, **selection), describe_actors(config))
        return
    videos, unreadable = find()
    with extract_progress() as show:
        summary = extract(videos, store, config=config, on_progress=show, **selection)
    _show(summary, unreadable)
    for stream in summary.streams.values():
        _show_files(inputs, prefix, stream)
    if config.sampling == "keyframe":
        _show_single_key_frames(summary)
    if summary.failures or summary.known_failures or unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _show_dry_run(
    find: "Callable[..., tuple[list[VideoFile], list[str]]]",
    preview: "Callable[[list[VideoFile]], dict[str, str]]",
    actors: str,
) -> None:
    """Show a line for each file, `take  a.mp4` or `skip  notes.txt  (not a video by its name)`, the counts, and Ray."""
    skipped: list[Skipped] = []
    try:
        videos, unreadable = find(on_skipped=skipped.append)
    except InputError:  # no videos: show what there is instead
        _show_lines((one.name, one.reason) for one in skipped)
        raise
    reasons = preview(videos)
    _show_lines([*reasons.items(), *((one.name, one.reason) for one in skipped)])
    counts = Counter(filter(None, [*reasons.values(), *(one.reason for one in skipped)]))
    details = "; ".join(
        f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    num_taken = sum(not reason for reason in reasons.values())
    skip = f"{counts.total()} ({details})" if details else "0"
    click.echo(printable(f"would extract {count_of(num_taken, 'video')}, skip {skip}"))
    if actors:
        click.echo(printable(actors))
    for line in unreadable:
        click.echo(line, err=True)
    if unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _show_lines(reasons: "Iterable[tuple[str, str]]") -> None:
    for name, reason in sorted(reasons):
        click.echo(printable(f"skip  {name}  ({reason})" if reason else f"take  {name}"))


def _show(summary: "ExtractSummary", unreadable: list[str]) -> None:
    """Show a line for each store, then the videos that failed."""
    figures = f"{count_of(summary.num_frames, 'frame')}, {summary.seconds:.1f} s"
    several = len(summary.streams) > 1
    for stream in summary.streams.values():
        click.echo(_stored(stream, "" if several else figures))
    if several and summary.num_stored:
        rows = f"{count_of(summary.num_frames, 'row')}, {summary.seconds:.1f} s"
        click.echo(f"{count_of(summary.num_stored, 'video')} decoded once for all streams ({rows})")
    if summary.num_stored:
        logger.info(_bottleneck(summary))
    for failure in summary.failures:
        click.echo(printable(f"failed: {failure.video_id}: {failure.message}"), err=True)
    for line in unreadable:
        click.echo(line, err=True)


def _show_single_key_frames(summary: "ExtractSummary") -> None:
    """Report videos of several frames that have one row, as only one frame is a key frame."""
    from vidpipe.features.store import FeatureStore

    store = FeatureStore.open(next(iter(summary.streams.values())).store_path)
    single = [
        video_id
        for video_id in store
        if store.length(video_id) == store.key.num_cells and store.info(video_id).num_frames > 1
    ]
    if single:
        click.echo(
            f"note: {len(single)} of {count_of(len(store), 'video')} have a single key frame, and so a single row "
            f"({printable(first_few(single))}); --sampling uniform takes frames between key frames too",
            err=True,
        )


def _stored(stream: "StreamSummary", figures: str) -> str:
    """`features: 5 videos stored (80 frames, 1.2 s), 0 were there already, 1 failed`"""
    known, replaced, reused = len(stream.known_failures), stream.num_replaced, len(stream.reused)
    details = "; ".join(filter(None, [figures, f"{replaced} replacing an older version" * bool(replaced)]))
    return (
        f"{stream.store_path}: {count_of(stream.num_stored, 'video')} stored"
        + (f" ({details})" if details else "")
        + f", {stream.num_skipped} were there already"
        + (f", {reused} recognised by content and not extracted again" if reused else "")
        + f", {len(stream.failures)} failed"
        + (f", {known} failed before and were not retried (--retry-failed)" if known else "")
    )


def _show_files(inputs: tuple[Path | str, ...], prefix: str, summary: "StreamSummary") -> None:
    """Report stored videos whose files were moved, are gone, or are stored twice."""
    if summary.moved:
        click.echo(
            f"moved: {count_of(len(summary.moved), 'old id')} dropped ({printable(first_few(summary.moved))})", err=True
        )
    if summary.gone:
        places = " ".join(shlex.quote(str(path)) for path in inputs) + (
            f" --prefix {shlex.quote(prefix)}" * bool(prefix)
        )
        are = "stored video is" if len(summary.gone) == 1 else "stored videos are"
        click.echo(
            f"{len(summary.gone)} {are} no longer in {places} ({printable(first_few(summary.gone))}); "
            f"`vidpipe store prune {shlex.quote(str(summary.store_path))} {places}` drops them",
            err=True,
        )
    twice = [one for one in summary.reused if one.is_same_path and one.old_id not in summary.moved]
    if twice:
        pairs = first_few([f"{one.old_id} and {one.video_id}" for one in twice], separator="; ")
        click.echo(
            f"warning: {count_of(len(twice), 'file')} stored under two ids, found from two folders or with two "
            f"prefixes: {printable(pairs)}. Training counts them twice; "
            "to give each file one id, extract one of the folders into a new store",
            err=True,
        )


def _bottleneck(summary: "ExtractSummary") -> str:
    """Describe the speed of an extraction, what limited it, and what would make it faster."""
    utilisation = summary.utilisation
    seconds = max(summary.seconds, 1e-9)
    if utilisation.model_idle_share > utilisation.decoders_idle_share:
        limit = f"decoding; more --workers (now {utilisation.num_workers}) help where there are more cores"
    else:
        limit = "the model; a GPU, or a smaller --backbone, is faster"
    return (
        f"{summary.num_stored / seconds:.2f} videos/s, {summary.num_frames / seconds:.1f} frames/s. Utilisation: "
        f"model {1 - utilisation.model_idle_share:.0%}, decoders {1 - utilisation.decoders_idle_share:.0%}. "
        f"Bottleneck: {limit}"
    )
