"""What the commands share: options made from the settings, the config file, logging, and how errors are told."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from vidpipe.config import Config, LabelsConfig, Setting, load_section, settings
from vidpipe.csv_files import is_url
from vidpipe.errors import ConfigError, VidpipeError, count_of

if TYPE_CHECKING:
    from vidpipe.records import VideoFile
    from vidpipe.runs.metrics import Evaluation
    from vidpipe.video.files import Skipped

__all__ = [
    "SOME_VIDEOS_FAILED",
    "LocalPath",
    "evaluation_lines",
    "exclude_option",
    "find_inputs",
    "format_option",
    "inputs_argument",
    "json_line",
    "label_options",
    "prefix_option",
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


def find_inputs(
    inputs: Sequence[Path],
    *,
    prefix: str = "",
    exclude: Sequence[str] = (),
    video_column: str | None = None,
    on_skipped: "Callable[[Skipped], None] | None" = None,
) -> "tuple[list[VideoFile], list[str]]":
    """The videos that a command's INPUTs name, and what of them cannot be read, in words.

    Args:
        inputs: files, folders and CSVs.
        prefix: put before each id, as a folder.
        exclude: the patterns of --exclude.
        video_column: the column of the CSVs that names the videos.
        on_skipped: called with each file and folder that is left out.

    Returns:
        The videos in the order of the inputs, and a line for each folder that cannot be read.

    Raises:
        VidpipeError: as `vidpipe.video.files.find_videos` does.
    """
    from vidpipe.video.files import find_videos

    unreadable: list[str] = []
    videos = find_videos(
        inputs,
        prefix=prefix,
        exclude=exclude,
        on_unreadable=lambda path, error: unreadable.append(f"{path}: {error.strerror}"),
        on_skipped=on_skipped or (lambda skipped: None),
        video_column=video_column,
    )
    return videos, [printable(f"cannot be read: {told}") for told in unreadable]


def inputs_argument(function: Function) -> Function:
    """INPUT…, for the commands that read videos."""
    return click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=LocalPath())(function)


def exclude_option(function: Function) -> Function:
    """--exclude, for the commands that take INPUTs."""
    return click.option(
        "--exclude",
        metavar="GLOB",
        multiple=True,
        help="Leave out videos by their path relative to INPUT, such as 'rejected/*'. Without a / in it, GLOB is "
        "compared with each name on the path, such as '*.gif'. Repeatable.",
    )(function)


def prefix_option(function: Function) -> Function:
    """--prefix, for the commands that take INPUTs and a store."""
    return click.option(
        "--prefix",
        metavar="NAME",
        default="",
        help="Put NAME/ before the videos' ids, to tell folders of one store apart.",
    )(function)


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


class LocalPath(click.Path):
    """A path of this machine: refuses a URL as it was typed, and an empty text, which a `Path` would take for `.`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; wrong usage where the text is empty or a URL."""
        if value == "":
            self.fail("the path is empty; is a variable of the shell not set? '.' is this folder", param, ctx)
        if isinstance(value, str) and is_url(value):
            raise click.UsageError(printable(f"{value}: URLs are not read; download the file, and name it here"), ctx)
        return super().convert(value, param, ctx)


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
    handler.setLevel(logging.ERROR if quiet and not debug else logging.NOTSET)  # a run keeps what is not shown
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


def setting_options(config: type[Config], *sections: str, only: Sequence[str] = ()) -> Callable[[Function], Function]:
    """An option for each setting of a config; and --config for a file of them, where `sections` names its tables.

    Args:
        config: the class whose settings become options.
        sections: tables of the file that feed the command's options, the last one before the others.
        only: the settings to take; empty for all.
    """
    chosen = [setting for setting in settings(config) if not only or setting.name in only]

    def decorate(function: Function) -> Function:
        for setting in reversed(chosen):
            function = _setting_option(setting)(function)
        function = _dropping_replaced(config, chosen)(function)
        return _config_option(*sections)(function) if sections else function

    return decorate


def _dropping_replaced(config: type[Config], chosen: Sequence[Setting]) -> Callable[[Function], Function]:
    """Forget what a config file says of a method that an option replaces."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def with_file(*args: Any, **kwargs: Any) -> Any:
            ctx = click.get_current_context()
            source = {setting.name: ctx.get_parameter_source(_parameter(setting.name)) for setting in chosen}
            given = {name: kwargs[_parameter(name)] for name in source if source[name] is ParameterSource.COMMANDLINE}
            replaced = config.replaced(ctx.default_map or {}, given)
            for setting in chosen:
                if setting.name in replaced and source[setting.name] is ParameterSource.DEFAULT_MAP:
                    kwargs[_parameter(setting.name)] = setting.default
            return function(*args, **kwargs)

        return with_file  # type: ignore[return-value]

    return decorate


def _config_option(*sections: str) -> Callable[[Function], Function]:
    tables = " and ".join(f"[{section}]" for section in sections)
    return click.option(
        "--config",
        type=LocalPath(),
        is_eager=True,
        expose_value=False,
        callback=functools.partial(_load_config, sections=sections),
        help=f"TOML file with {'tables' if len(sections) > 1 else 'a table'} {tables}; options given here win over it. "
        "Paths in it are relative to the working folder, as here.",
    )


def _load_config(ctx: click.Context, parameter: click.Parameter, path: Path | None, *, sections: Sequence[str]) -> None:
    if path is None:
        return
    try:
        values = {name: value for section in sections for name, value in load_section(path, section).items()}
    except ConfigError as error:
        raise _Told(str(error), error.exit_code) from error
    ctx.default_map = {_parameter(name): value for name, value in values.items()}


def _parameter(setting_name: str) -> str:
    """What the commands' functions call a setting whose own name is taken."""
    return {"format": "format_", "split": "official_split"}.get(setting_name, setting_name)


def _setting_option(setting: Setting) -> Callable[[Function], Function]:
    flag = setting.name.replace("_", "-")
    flags = (f"--{flag}/--no-{flag}" if setting.type is bool else f"--{flag}", *setting.flags)
    return click.option(
        *flags,
        _parameter(setting.name),
        type=None if setting.type is bool else _click_type(setting),
        default=setting.default,
        show_default=setting.default is not None,
        metavar=setting.metavar or None,
        help=setting.help,
    )


def _click_type(setting: Setting) -> click.ParamType[Any] | type:
    if setting.is_path:
        return LocalPath()
    if setting.choices and not setting.several:
        return click.Choice(setting.choices)
    if setting.type is int:
        low, high = (None if bound is None else int(bound) for bound in (setting.low, setting.high))
        return click.IntRange(low, high, min_open=setting.above)
    if setting.type is float:
        return click.FloatRange(setting.low, setting.high, min_open=setting.above)
    return setting.type


def evaluation_lines(evaluations: "Mapping[str, Evaluation]", *, own: str) -> Iterator[str]:
    """A line a head, aligned: `lstm top-1 0.650 (95 % by group 0.512 to 0.794)  macro F1 0.642  40 videos`.

    Args:
        evaluations: by head, all on the same videos.
        own: the run's own head; the others are baselines.
    """
    width = max(map(len, evaluations))
    for name, evaluation in evaluations.items():
        yield f"{name:<{width}} {_figures(evaluation)}{'  (baseline)' * (name != own)}"


def _figures(evaluation: "Evaluation") -> str:
    interval = "too few groups for an interval"
    if evaluation.top1_interval is not None:
        interval = "95 % by group {:.3f} to {:.3f}".format(*evaluation.top1_interval)
    figures = [f"top-1 {evaluation.top1:.3f} ({interval})"]
    if evaluation.top5 is not None:
        figures.append(f"top-5 {evaluation.top5:.3f}")
    num_tested, num_classes = evaluation.num_classes_tested, len(evaluation.per_class)
    some = f" over {num_tested} of {num_classes} classes" if num_tested < num_classes else ""
    return "  ".join([*figures, f"macro F1 {evaluation.macro_f1:.3f}{some}", count_of(evaluation.num_videos, "video")])


def format_option(*formats: str) -> Callable[[Function], Function]:
    """--format, the first one by default."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Form of the output" + "; json: one JSON object a line, see docs/output.md" * ("json" in formats) + ".",
    )


label_options = setting_options(LabelsConfig)
"""Where labels come from, for the commands that need them."""
