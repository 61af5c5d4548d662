"""What the commands share: options made from the settings, the config file, logging, and how errors are told."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vidpipe.config import ExtractConfig, Setting, TrainConfig, load_section, settings
from vidpipe.errors import ConfigError, VidpipeError

if TYPE_CHECKING:
    from vidpipe.metrics import Evaluation
    from vidpipe.records import VideoFile

__all__ = [
    "SOME_VIDEOS_FAILED",
    "evaluation_line",
    "find_inputs",
    "format_option",
    "json_line",
    "label_options",
    "printable",
    "setting_options",
    "vidpipe_command",
]

SOME_VIDEOS_FAILED = 3
"""Exit code of a command that finished, but for videos that could not be read."""

Function = TypeVar("Function", bound=Callable[..., Any])


def printable(text: str) -> str:
    """Text on one line that means nothing to a terminal: what cannot be seen is escaped, as `repr` does.

    `a b é 🎬` stays as it is; a newline, an escape sequence, a change of writing direction and a byte that is no UTF-8
    become `\\n`, `\\x1b`, `\\u202e` and `\\udcff`.
    """
    return text if text.isprintable() else "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def json_line(value: Any) -> str:
    """A value as JSON on one line: text as it is, or in ASCII where a terminal could take part of it for a command."""
    line = json.dumps(value, ensure_ascii=False)
    return line if line.isprintable() else json.dumps(value)


def find_inputs(inputs: Sequence[Path]) -> "tuple[list[VideoFile], list[str]]":
    """The videos that a command's INPUTs name, and what of them cannot be read, in words."""
    from vidpipe.video.files import find_videos

    unreadable: list[str] = []
    videos = find_videos(inputs, on_unreadable=lambda path, error: unreadable.append(f"{path}: {error.strerror}"))
    return videos, [printable(f"cannot be read: {told}") for told in unreadable]


def vidpipe_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with --quiet and --debug, whose errors are one line and an exit code."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.option("--quiet", "-q", is_flag=True, help="Print results and errors only.")
        @click.option("--debug", is_flag=True, help="Show what happens inside, and the traceback of an error.")
        @functools.wraps(function)
        def guarded(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> Any:
            _configure_logging(quiet=quiet, debug=debug)
            try:
                return function(*args, **kwargs)
            except (click.ClickException, click.exceptions.Exit):
                raise
            except Exception as error:
                if debug:
                    logging.getLogger("vidpipe").exception("the error's traceback")
                raise _as_click(error) from error

        decorated: click.Command = click.command(**attributes)(guarded)
        return decorated

    return decorate


class _Told(click.ClickException):
    """An error as its text and its own exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(printable(message))
        self.exit_code = exit_code  # type: ignore[misc]


def _as_click(error: Exception) -> click.ClickException:
    if isinstance(error, VidpipeError):
        return _Told(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        raise error
    kind = type(error).__name__
    return _Told(f"{kind}: {error}. vidpipe did not expect this; run it again with --debug and report it", 1)


class _PrintableFormatter(logging.Formatter):
    """A message on one line, a traceback on its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


def _configure_logging(*, quiet: bool, debug: bool) -> None:
    logger = logging.getLogger("vidpipe")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.INFO)


def setting_options(
    config: type[ExtractConfig] | type[TrainConfig], section: str, *, only: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """An option for each setting of a config, and --config for a file of them."""

    def decorate(function: Function) -> Function:
        chosen = [setting for setting in settings(config) if not only or setting.name in only]
        for setting in reversed(chosen):
            function = _setting_option(setting)(function)
        return click.option(
            "--config",
            type=click.Path(path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=functools.partial(_load_config, section=section, names={setting.name for setting in chosen}),
            help=f"TOML file with a table [{section}]; options given here win over it.",
        )(function)

    return decorate


def _load_config(
    ctx: click.Context, parameter: click.Parameter, path: Path | None, *, section: str, names: set[str]
) -> None:
    if path is not None:
        try:
            values = load_section(path, section)
        except ConfigError as error:
            raise _Told(str(error), error.exit_code) from error
        ctx.default_map = {name: value for name, value in values.items() if name in names}


def _setting_option(setting: Setting) -> Callable[[Function], Function]:
    flag = setting.name.replace("_", "-")
    if setting.type is bool:
        return click.option(f"--{flag}/--no-{flag}", default=setting.default, show_default=True, help=setting.help)
    return click.option(
        f"--{flag}",
        type=_click_type(setting),
        default=setting.default,
        show_default=setting.default is not None,
        help=setting.help,
    )


def _click_type(setting: Setting) -> click.ParamType[Any] | type:
    if setting.choices and not setting.several:
        return click.Choice(setting.choices)
    if setting.type is int:
        low, high = (None if bound is None else int(bound) for bound in (setting.low, setting.high))
        return click.IntRange(low, high, min_open=setting.above)
    if setting.type is float:
        return click.FloatRange(setting.low, setting.high, min_open=setting.above)
    return setting.type


def evaluation_line(name: str, evaluation: "Evaluation", *, is_baseline: bool) -> str:
    """`lstm       top-1 0.650 (95 % by group 0.512 to 0.794)  top-5 1.000  macro F1 0.642  40 videos`"""
    interval = "too few groups for an interval"
    if evaluation.top1_interval is not None:
        interval = "95 % by group {:.3f} to {:.3f}".format(*evaluation.top1_interval)
    return (
        f"{name:<10} top-1 {evaluation.top1:.3f} ({interval})  "
        f"top-5 {evaluation.top5:.3f}  macro F1 {evaluation.macro_f1:.3f}  {evaluation.num_videos} videos"
        f"{'  (baseline)' * is_baseline}"
    )


def format_option(*formats: str) -> Callable[[Function], Function]:
    """--format, the first one by default."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Form of the output.",
    )


def label_options(function: Function) -> Function:
    """Where labels come from, for the commands that need them."""
    for option in (
        click.option("--skip-missing", is_flag=True, help="Leave out labels whose video is not in the store."),
        click.option(
            "--split",
            "--official-split",
            "official_split",
            type=click.Choice(("1", "2", "3", "all")),
            default="1",
            show_default=True,
            help="Which of UCF101's or HMDB51's splits to take, where --labels is their folder; all: each (train).",
        ),
        click.option(
            "--group-by",
            metavar="COLUMN|REGEX",
            help="What tells which clips come from one source: a column of --labels, or a regular expression over the "
            "video's id whose first bracket is the group.",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            help="CSV with columns video,label and optionally split,group; or the official split files of UCF101, "
            "HMDB51 or Kinetics. Without it, a video's label is the name of its folder.",
        ),
    ):
        function = option(function)
    return function
