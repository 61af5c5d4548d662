"""vidpipe search similar"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    SOME_VIDEOS_FAILED,
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
from vidpipe.config import SEARCH_SETTINGS, ExtractConfig, make_config

if TYPE_CHECKING:
    from vidpipe.search.similar import SimilarResult, SimilarVideo

__all__ = ["similar"]

COLUMNS = ("rank", "video", "score", "stretch of the query", "stretch of the video", "")
PERSON = "person"
"""The column after the video, where rows are of single people."""


@vidpipe_command(name="similar", short_help="Find the videos of a store that are most like a video.")
@click.argument("store", type=LocalPath())
@click.argument("videos", metavar="VIDEO…", nargs=-1, required=True)
@click.option("-k", "--number", type=click.IntRange(min=1), default=10, show_default=True, help="Videos to find.")
@click.option("--stream", metavar="NAME", help="Stream to use of a folder of stores.  [default: the first]")
@click.option("--embedding", metavar="EMB", type=LocalPath(), help="Rank by this embedding of `search train`.")
@click.option("--page", type=OUTPUT_PATH, help="Also write an HTML page with frames of the videos.")
@format_option("table", "json")
@setting_options(ExtractConfig, only=SEARCH_SETTINGS)
def similar(
    store: Path,
    videos: tuple[str, ...],
    number: int,
    stream: str | None,
    embedding: Path | None,
    page: Path | None,
    format_: str,
    **settings: Any,
) -> None:
    """Find the videos of a store that are most like a video, and the stretch in which both are most alike.

    VIDEO is a video file, or the id of a video in the store. Features of a file are computed with the store's settings
    and are not stored. In a store of tracks or faces, each person of VIDEO is compared with each person of the videos.

    \b
    vidpipe search similar features new_video.mp4
    vidpipe search similar features waving/a.mp4 -k 5 --page similar.html
    vidpipe search similar features new_video.mp4 --embedding embedding
    """
    from vidpipe.search.embedded import open_searched
    from vidpipe.search.page import write_similar_page
    from vidpipe.stages.search import search_similar

    if page is not None:
        check_replaceable(page, "a page of results", is_own=is_own_page)
    config = make_config(ExtractConfig, settings)
    results = []
    with count_progress(embedding="video", reading="video") as show:
        opened, embedded = open_searched(
            store, stream=stream, embedding=embedding, verb="similar", on_progress=partial(show, "embedding")
        )
        found = search_similar(
            opened, videos, number=number, embedded=embedded, config=config, on_progress=partial(show, "reading")
        )
    for result in found:
        results.append(result)
        _print(result, format_)
    if page is not None:
        write_similar_page(opened, results, page)
        click.echo(printable(f"{page}: the results with frames"), err=True)
    if any(result.error for result in results):
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _print(result: "SimilarResult", format_: str) -> None:
    if format_ == "json":
        click.echo(json_line(result.as_dict()))
        return
    if result.error is not None:
        click.echo(printable(f"failed: {result.query}: {result.error}"), err=True)
        return
    if result.person is None:
        click.echo(printable(f"like {result.query}:"))
        show_table(COLUMNS, map(_row, result.videos))
    else:
        click.echo(printable(f"like {result.query}, person {result.person}:"))
        rows = [
            (*row[:2], str(one.person), *row[2:])
            for one, row in zip(result.videos, map(_row, result.videos), strict=True)
        ]
        show_table((*COLUMNS[:2], PERSON, *COLUMNS[2:]), rows)


def _row(found: "SimilarVideo") -> tuple[str, ...]:
    return (
        str(found.rank),
        printable(found.video),
        f"{found.score:.3f}",
        f"{found.start_seconds:.2f} to {found.stop_seconds:.2f} s",
        f"{found.video_start_seconds:.2f} to {found.video_stop_seconds:.2f} s",
        "same footage" if found.is_duplicate else "doubtful" if found.is_doubtful else "",
    )
