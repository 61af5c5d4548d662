"""vidpipe search"""

import click

from vidpipe.cli.search_duplicates import duplicates
from vidpipe.cli.search_similar import similar

__all__ = ["command"]

command = click.Group(
    "search",
    commands=[similar, duplicates],
    short_help="Find similar videos and duplicates in a store.",
    help="Find similar videos and duplicates in a store.",
)
