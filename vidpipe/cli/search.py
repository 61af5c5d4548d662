"""vidpipe search"""

import click

from vidpipe.cli.search_clusters import clusters
from vidpipe.cli.search_duplicates import duplicates
from vidpipe.cli.search_similar import similar
from vidpipe.cli.search_train import train

__all__ = ["command"]

command = click.Group(
    "search",
    commands=[similar, duplicates, clusters, train],
    short_help="Find similar videos, duplicates and clusters in a store.",
    help="Find similar videos, duplicates and clusters in a store, and learn what makes videos similar.",
)
