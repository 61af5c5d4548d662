"""What the commands share: options made from settings, config files, logging, and error messages."""

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from vidpipe.config import SECTIONS, Config, LabelsConfig, Setting, load_section, settings
from vidpipe.csv_files import is_url
from vidpipe.errors import ConfigError, VidpipeError, count_of
from vidpipe.heads.members import BASELINE, headline_names

if TYPE_CHECKING:
    from vidpipe.records import VideoFile
    from vidpipe.runs.metrics import Evaluation
    from vidpipe.video.files import Skipped

__all__ = [
    "OUTPUT_PATH",
    "SOME_VIDEOS_FAILED",
    "LocalPath",
    "evaluation_lines",
    "exclude_option",
    "find_inputs",
    "format_option",
    "inputs_argument",
    "inputs_or_urls_argument",
    "json_line",
    "label_options",
    "prefix_option",
    "printable",
    "setting_options",
    "vidpipe_command",
]

SOME_VIDEOS_FAILED = 3
"""Exit code of a command that finished, although some videos could not be read."""

Function = TypeVar("Function", bound=Callable[..., Any])


def printable(text: str) -> str:
    """Return text that is safe to print on one line of a terminal: unprintable characters are escaped.

    `a b é 🎬` stays the same. A newline, an escape sequence, a change of direction and a byte that is not UTF-8
    become `\\n`, `\\x1b`, `\\u202e` and `\\udcff`, as in `repr`.
    """
    return text if text.isprintable() else "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, in ASCII if it contains characters that are not printable."""
    line = json.dumps(value, ensure_ascii=False)
    return line if line.isprintable() else json.dumps(value)


def find_inputs(
    inputs: Sequence[Path | str],
    *,
    prefix: str = "",
    exclude: Sequence[str] = (),
    video_column: str | None = None,
    on_skipped: "Callable[[Skipped], None] | None" = None,
) -> "tuple[list[VideoFile], list[str]]":
    """Find the videos of a command's INPUTs.

    Args:
        inputs: files, folders and CSVs; a text is a URL.
        prefix: put before each id, as a folder.
        exclude: the patterns of --exclude.
        video_column: the column of the CSVs with the videos.
        on_skipped: called with each file and folder that is left out.

    Returns:
        the videos in the order of the inputs, and a message for each folder that cannot be read.

    Raises:
        VidpipeError: as `vidpipe.video.files.find_videos`.
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
    return videos, [printable(f"cannot be read: {one}") for one in unreadable]


def inputs_argument(function: Function) -> Function:
    """Add the argument INPUT…."""
    return click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=LocalPath())(function)


def inputs_or_urls_argument(function: Function) -> Function:
    """Add the argument INPUT…, which may be a URL."""
    return click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=_InputPath())(function)


def exclude_option(function: Function) -> Function:
    """Add the option --exclude."""
    return click.option(
        "--exclude",
        metavar="GLOB",
        multiple=True,
        help="Leave out videos whose path relative to INPUT matches, such as 'rejected/*'. A GLOB without a / matches "
        "any name on the path, such as '*.gif'. Repeatable.",
    )(function)


def prefix_option(function: Function) -> Function:
    """Add the option --prefix."""
    return click.option(
        "--prefix",
        metavar="NAME",
        default="",
        help="Put NAME/ before the videos' ids, so that several folders can share a store.",
    )(function)


def vidpipe_command(**attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a click command with --quiet and --debug, and reports errors as one line."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @click.option("--quiet", "-q", is_flag=True, help="Print only results and errors.")
        @click.option("--debug", is_flag=True, help="Show debug messages, and the traceback of an error.")
        @functools.wraps(function)
        def guarded(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> Any:
            _configure_logging(quiet=quiet, debug=debug)
            try:
                return function(*args, **kwargs)
            except (click.ClickException, click.exceptions.Exit):
                raise
            except Exception as error:
                if debug:
                    logging.getLogger("vidpipe").exception("traceback of the error")
                raise _as_click(error) from error

        decorated: click.Command = click.command(**attributes)(guarded)
        return decorated

    return decorate


class LocalPath(click.Path):
    """A local path. Refuses URLs, and the empty text, which `Path` would read as `.`.

    Args:
        on_url: why a URL is refused, and what to do.
    """

    def __init__(self, on_url: str = "URLs are not read; download the file, and name it here") -> None:
        super().__init__(path_type=Path)
        self._on_url = on_url

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; a usage error if the text is empty or a URL."""
        if value == "":
            self.fail("the path is empty; is a shell variable not set? '.' is the current folder", param, ctx)
        if isinstance(value, str) and is_url(value):
            raise click.UsageError(printable(f"{value}: {self._on_url}"), ctx)
        return super().convert(value, param, ctx)


OUTPUT_PATH = LocalPath("the output is written to a local path; copy it from there")
"""The type of options that name what a command writes."""


class _InputPath(LocalPath):
    """A local path, or a URL, which stays a text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the URL; a usage error if the text is empty."""
        return value if isinstance(value, str) and is_url(value) else super().convert(value, param, ctx)


class _ErrorWithExitCode(click.ClickException):
    """An error message with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(printable(message))
        self.exit_code = exit_code  # type: ignore[misc]


def _as_click(error: Exception) -> click.ClickException:
    if isinstance(error, VidpipeError):
        return _ErrorWithExitCode(str(error), error.exit_code)
    if isinstance(error, BrokenPipeError):
        raise error
    kind = type(error).__name__
    return _ErrorWithExitCode(f"{kind}: {error}. This is a bug in vidpipe; run it again with --debug and report it", 1)


class _PrintableFormatter(logging.Formatter):
    """Formats a message on one line, and a traceback on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


def _configure_logging(*, quiet: bool, debug: bool) -> None:
    logger = logging.getLogger("vidpipe")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    handler.setLevel(logging.ERROR if quiet and not debug else logging.NOTSET)  # a run still collects warnings
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


def setting_options(config: type[Config], *sections: str, only: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Add an option for each setting of a config, and --config.

    Args:
        config: the class whose settings become options.
        *sections: tables of the config file with values for the options; later ones override earlier ones. Without any,
            there is no --config.
        only: names of the settings to use; empty for all.

    Returns:
        a decorator of the command's function.
    """
    chosen = [setting for setting in settings(config) if not only or setting.name in only]

    def decorate(function: Function) -> Function:
        for setting in reversed(chosen):
            function = _setting_option(setting)(function)
        function = _dropping_replaced(config, chosen)(function)
        return _config_option(*sections)(function) if sections else function

    return decorate


def _dropping_replaced(config: type[Config], chosen: Sequence[Setting]) -> Callable[[Function], Function]:
    """Ignore settings of the config file that belong to a method which an option replaces."""

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
        help=f"TOML file with {'tables' if len(sections) > 1 else 'a table'} {tables}. Options override it. Paths in "
        "it are relative to the working folder.",
    )


def _load_config(ctx: click.Context, parameter: click.Parameter, path: Path | None, *, sections: Sequence[str]) -> None:
    if path is None:
        return
    try:
        values = {name: value for section in sections for name, value in load_section(path, section).items()}
    except ConfigError as error:
        raise _ErrorWithExitCode(str(error), error.exit_code) from error
    several = {
        one.name for section in sections for config in SECTIONS[section] for one in settings(config) if one.several
    }
    ctx.default_map = {_parameter(name): [value] if name in several else value for name, value in values.items()}


def _parameter(setting_name: str) -> str:
    """The name of a setting in the commands' functions, where its own name is taken."""
    return {"format": "format_", "split": "official_split"}.get(setting_name, setting_name)


def _setting_option(setting: Setting) -> Callable[[Function], Function]:
    flag = setting.name.replace("_", "-")
    flags = (f"--{flag}/--no-{flag}" if setting.type is bool else f"--{flag}", *setting.flags)
    several: dict[str, Any] = {"multiple": True, "callback": _joined} if setting.several else {}
    default = setting.default
    if setting.several:
        default = () if setting.default is None else setting.default.split(",")
    return click.option(
        *flags,
        _parameter(setting.name),
        type=None if setting.type is bool else _click_type(setting),
        default=default,
        show_default=setting.default is not None,
        metavar=setting.metavar or None,
        help=setting.help,
        **several,
    )


def _joined(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """An option that is given several times, as one text: `--head lstm --head tcn` is `--head lstm,tcn`."""
    return ",".join(values) or None


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
    """Format metrics, a line for the classifier, for each stream alone and for the baseline.

        lstm top-1 0.650 (95 % CI 0.512 to 0.794)  macro F1 0.642  40 videos

    Args:
        evaluations: by classifier or part, all on the same videos.
        own: the name of the run's classifier.

    Yields:
        the lines, aligned.
    """
    names = headline_names(evaluations)
    width = max(map(len, names))
    for name in names:
        yield f"{name:<{width}} {_figures(evaluations[name])}{'  (baseline)' * (name == BASELINE != own)}"


def _figures(evaluation: "Evaluation") -> str:
    interval = "too few groups for a CI"
    if evaluation.top1_interval is not None:
        interval = "95 % CI {:.3f} to {:.3f}".format(*evaluation.top1_interval)
    figures = [f"top-1 {evaluation.top1:.3f} ({interval})"]
    if evaluation.top5 is not None:
        figures.append(f"top-5 {evaluation.top5:.3f}")
    num_tested, num_classes = evaluation.num_classes_tested, len(evaluation.per_class)
    some = f" over {num_tested} of {num_classes} classes" if num_tested < num_classes else ""
    return "  ".join([*figures, f"macro F1 {evaluation.macro_f1:.3f}{some}", count_of(evaluation.num_videos, "video")])


def format_option(*formats: str) -> Callable[[Function], Function]:
    """Add the option --format; the first format is the default."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Output format" + "; json: one JSON object a line, see docs/output.md" * ("json" in formats) + ".",
    )


label_options = setting_options(LabelsConfig)
"""Add the options about labels."""
