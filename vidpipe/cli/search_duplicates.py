"""vidpipe search duplicates"""

import csv
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    LocalPath,
    format_option,
    json_line,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.cli.outputs import check_replaceable, is_own_page
from vidpipe.cli.progress import count_progress
from vidpipe.cli.tables import show_table
from vidpipe.config import DUPLICATE_THRESHOLD, DUPLICATES_SETTINGS, ExtractConfig
from vidpipe.errors import count_of

if TYPE_CHECKING:
    from vidpipe.search.duplicates import DuplicateGroup

__all__ = ["duplicates"]

COLUMNS = ("group", "video", "other", "score", "seconds alike", "offset", "speed", "keep", "")
CSV_COLUMNS = (
    *("group", "video", "other", "score", "start_seconds", "stop_seconds", "other_start_seconds"),
    *("other_stop_seconds", "matched_seconds", "offset_seconds", "speed", "doubtful", "keep_video", "keep_other"),
)


@vidpipe_command(name="duplicates", short_help="Find videos of a store that show the same footage.")
@click.argument("store", type=LocalPath())
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, min_open=True),
    default=DUPLICATE_THRESHOLD,
    show_default=True,
    help="Score from which on a pair is reported: lower finds more pairs, and more false ones.",
)
@click.option("--stream", metavar="NAME", help="Stream to use of a folder of stores.  [default: the first]")
@click.option(
    "--embedding",
    metavar="EMB",
    type=LocalPath(),
    help="Compare each video with those nearest by this embedding of `search train`.",
)
@click.option("--page", type=OUTPUT_PATH, help="Also write an HTML page with frames of the videos.")
@format_option("table", "json", "csv")
@setting_options(ExtractConfig, only=DUPLICATES_SETTINGS)
def duplicates(
    store: Path,
    threshold: float,
    stream: str | None,
    embedding: Path | None,
    page: Path | None,
    format_: str,
    **settings: Any,
) -> None:
    """Find videos of a store that show the same footage, also where it was altered: re-encoded, resized, trimmed,
    mirrored, brighter, up to 10 % faster, with a border, a logo or subtitles.

    Clips of one fixed camera are no duplicates: what counts is how the pictures change, not how they look. Each group
    names the videos to keep: the longest, of these the largest, and others that show more than it does.

    \b
    vidpipe search duplicates features
    vidpipe search duplicates features --format csv > duplicates.csv
    vidpipe search duplicates features --page duplicates.html
    """
    config = ExtractConfig(**settings)

    from vidpipe.search.embedded import open_searched
    from vidpipe.search.page import write_duplicates_page
    from vidpipe.stages.search import search_duplicates

    if page is not None:
        check_replaceable(page, "a page of results", is_own=is_own_page)
    with count_progress(embedding="video", reading="video", shortlisting="video", comparing="pair") as show:
        opened, embedded = open_searched(
            store, stream=stream, embedding=embedding, verb="duplicates", on_progress=partial(show, "embedding")
        )
        groups = search_duplicates(opened, threshold=threshold, embedded=embedded, config=config, on_progress=show)
    _print(groups, format_)
    if page is not None:
        write_duplicates_page(opened, groups, page, threshold=threshold)
        click.echo(printable(f"{page}: the groups with frames"), err=True)
    num_videos = sum(len(group.members) for group in groups)
    num_kept = sum(member.keep for group in groups for member in group.members)
    click.echo(
        f"{count_of(len(opened), 'video')}: {count_of(len(groups), 'group')} of duplicates with "
        f"{count_of(num_videos, 'video')}, {num_kept} of them to keep",
        err=True,
    )


def _print(groups: "Sequence[DuplicateGroup]", format_: str) -> None:
    if format_ == "json":
        for number, group in enumerate(groups, 1):
            click.echo(json_line({"group": number, **group.as_dict()}))
    elif format_ == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(_csv_rows(groups))
    elif groups:
        show_table(COLUMNS, _table_rows(groups))


def _csv_rows(groups: "Sequence[DuplicateGroup]") -> Iterator[tuple[object, ...]]:
    for number, group in enumerate(groups, 1):
        keep = {member.video: member.keep for member in group.members}
        for pair in group.pairs:
            values = {**pair.as_dict(), "group": number, "doubtful": pair.is_doubtful}
            values |= {"keep_video": keep[pair.video], "keep_other": keep[pair.other]}
            yield tuple(values[name] for name in CSV_COLUMNS)


def _table_rows(groups: "Sequence[DuplicateGroup]") -> Iterator[tuple[str, ...]]:
    for number, group in enumerate(groups, 1):
        keep = {member.video: member.keep for member in group.members}
        for pair in group.pairs:
            kept = [name for name in (pair.video, pair.other) if keep[name]]
            yield (
                str(number),
                printable(pair.video),
                printable(pair.other),
                f"{pair.score:.2f}",
                f"{pair.matched_seconds:.2f}",
                f"{pair.offset_seconds:+.2f} s",
                f"{pair.speed:.2f}",
                printable(" and ".join(kept)) or "neither",
                "doubtful" if pair.is_doubtful else "",
            )
