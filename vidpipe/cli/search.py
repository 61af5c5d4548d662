"""vidpipe search"""

import click

__all__ = ["command"]

command = click.Group(
    "search",
    commands=[],
    short_help="Find similar videos and duplicates in a store.",
    help="Find similar videos and duplicates in a store.",
)
