"""The command line. A command parses its arguments, calls one function and prints; it is imported when it is used."""

import os
from importlib import import_module

import click

from vidpipe.version import __version__

__all__ = ["COMMANDS", "main"]

# By default torch's threads spin while they wait for each other, and take the cores from the decoders: on two cores,
# beside one busy process, extraction was 1.8 times as fast with this. Set it before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS = (
    "extract",
    "train",
    "finetune",
    "evaluate",
    "report",
    "predict",
    "timeline",
    "explain",
    "regions",
    "search",
    "info",
    "store",
    "backbones",
    "demo",
)
"""In the order of `vidpipe --help`. Each is a module of this package."""

_INSTEAD = {
    "version": "vidpipe --version",
    "help": "vidpipe --help",
    "models": "vidpipe backbones",
    "detect": "vidpipe regions detect",
    **{name: f"vidpipe store {name}" for name in ("verify", "repair", "merge", "compact", "export")},
    **{name: f"vidpipe timeline {name}" for name in ("score", "convert")},
}
"""What to type instead of names that users try."""


class _LazyGroup(click.Group):
    """Imports each command from the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"vidpipe.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(_unknown_command(*args), ctx)
        return super().resolve_command(ctx, args)


def _unknown_command(name: str, *arguments: str) -> str:
    from vidpipe.errors import unknown_name

    if name == "help" and arguments and arguments[0] in COMMANDS:
        return f"unknown command 'help'; use `vidpipe {arguments[0]} --help`"
    if name in _INSTEAD:
        return f"unknown command {name!r}; use `{_INSTEAD[name]}`"
    return unknown_name("command", name, COMMANDS)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", package_name="vidpipe", prog_name="vidpipe")
def main() -> None:
    """Train an action-recognition model on a folder of videos, and apply it to more videos.

    \b
    vidpipe extract videos/ -o features      compute features of sampled frames with a frozen image model
    vidpipe train features -o run            train a classifier on the features
    vidpipe predict run new_videos/          predict the labels of more videos
    """
