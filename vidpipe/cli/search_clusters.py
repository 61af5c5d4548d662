"""vidpipe search clusters"""

from collections.abc import Iterator
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
from vidpipe.cli.progress import count_progress
from vidpipe.cli.tables import show_table
from vidpipe.config import ClustersConfig, LabelsConfig
from vidpipe.errors import count_of

if TYPE_CHECKING:
    from vidpipe.search.clusters import Clustering

__all__ = ["clusters"]

_NUM_TYPICAL, _NUM_ODD = 5, 3
"""Videos of a cluster in the JSON."""


@vidpipe_command(name="clusters", short_help="Find clusters of videos that look alike.")
@click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=LocalPath())
@click.option("-o", "--output", "folder", required=True, type=OUTPUT_PATH, help="Folder for the page and the CSV.")
@click.option("--overwrite", is_flag=True, help="Replace the clusters in the folder.")
@click.option("--embedding", metavar="EMB", type=LocalPath(), help="Embedding of `search train` to use.")
@format_option("table", "json")
@setting_options(LabelsConfig, only=("labels", "video_column", "label_column"))
@setting_options(ClustersConfig)
def clusters(
    stores: tuple[Path, ...], folder: Path, overwrite: bool, embedding: Path | None, format_: str, **settings: Any
) -> None:
    """Find clusters of videos without labels, and write a page to name them.

    The page shows the most typical and the oddest videos of each cluster, and a map of all. The CSV that it saves is a
    labels file for `vidpipe train --labels`. With --labels, clusters have the name of most of their labelled videos.

    \b
    vidpipe search clusters features -o clusters
    vidpipe search clusters features -o clusters --method kmeans --num-clusters 8 --streams flow
    """
    from vidpipe.api import search_clusters

    with count_progress(reading="video") as show:
        found, files = search_clusters(
            stores, folder, embedding=embedding, overwrite=overwrite, on_progress=partial(show, "reading"), **settings
        )
    if format_ == "json":
        for row in _json_rows(found):
            click.echo(json_line(row))
        return
    columns = ("cluster", "videos", "label", "medoid", "oddest")
    show_table(columns, _table_rows(found))
    click.echo(f"{count_of(len(found.unclustered), 'video')} in no cluster")
    if not found.clusters:
        click.echo("no clusters: give a smaller --min-size, or --method kmeans --num-clusters K", err=True)
    click.echo(printable(", ".join(map(str, files))))


def _table_rows(found: "Clustering") -> Iterator[tuple[str, ...]]:
    for cluster in found.clusters:
        label = "" if cluster.label is None else f"{cluster.label} ({cluster.share:.0%})"
        cells = (str(cluster.number), str(len(cluster.video_ids)), label, cluster.medoid, cluster.video_ids[-1])
        yield tuple(map(printable, cells))


def _json_rows(found: "Clustering") -> Iterator[dict[str, Any]]:
    for cluster in found.clusters:
        yield {
            "cluster": cluster.number,
            "num_videos": len(cluster.video_ids),
            "label": cluster.label,
            "share": cluster.share,
            "medoid": cluster.medoid,
            "typical": list(cluster.video_ids[:_NUM_TYPICAL]),
            "odd": list(cluster.video_ids[: -_NUM_ODD - 1 : -1]),
        }
    if found.unclustered:
        none: dict[str, Any] = {"label": None, "share": None, "medoid": None, "typical": [], "odd": []}
        yield {"cluster": None, "num_videos": len(found.unclustered), **none}
