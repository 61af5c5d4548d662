"""vidpipe search"""

import click

from vidpipe.cli.search_clusters import clusters
from vidpipe.cli.search_train import train

__all__ = ["command"]

command = click.Group(
    "search",
    commands=[clusters, train],
    short_help="Find similar videos and duplicates in a store.",
    help="Find similar videos and duplicates in a store.",
)
