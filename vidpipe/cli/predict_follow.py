"""vidpipe predict --timeline --follow"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vidpipe.cli.options import json_line, printable
from vidpipe.cli.outputs import OutputLines, check_replaceable
from vidpipe.config import ExtractConfig, TimelineConfig
from vidpipe.errors import InputError, UsageError, VideoError

if TYPE_CHECKING:
    from vidpipe.runs.run import Run
    from vidpipe.stages.follow import LiveSegment

__all__ = ["check_follow", "print_live_segments"]

_NOT_FOLLOWED = {
    "store": "the features of a video that is still recorded are not kept",
    "write_video": "a copy needs the whole video; use `vidpipe predict --timeline --write-video` when it is recorded",
    "curves": "it prints segments alone",
    "prefix": "its ids are names of files",
    "exclude": "it follows all files of the folder",
    "decoder": "it reads with PyAV",
    "workers": "it decodes in one process",
}
_IGNORED_IN_FILES = ("decoder", "workers")
"""Settings that config files may have for other commands."""


def check_follow(inputs: Sequence[Path | str], output: Path | None) -> None:
    """Check that the options and inputs of the running command go with --follow.

    Args:
        inputs: the command's.
        output: the file to write.

    Raises:
        UsageError: they do not.
    """
    given = click.get_current_context()
    for name, reason in _NOT_FOLLOWED.items():
        source = given.get_parameter_source(name)
        in_file = source is ParameterSource.DEFAULT_MAP and name not in _IGNORED_IN_FILES
        if source is ParameterSource.COMMANDLINE or in_file:
            raise UsageError(f"--{name.replace('_', '-')} does not go with --follow: {reason}")
    if given.get_parameter_source("format_") is ParameterSource.COMMANDLINE and given.params["format_"] != "json":
        raise UsageError(
            f"--format {given.params['format_']} does not go with --follow, which prints JSON, a line each"
        )
    if len(inputs) != 1:
        raise UsageError(f"--follow reads one file or one folder, got {len(inputs)}; start a command for each")
    if isinstance(inputs[0], str):
        raise UsageError(f"{inputs[0]}: --follow reads a file or folder of this machine, and no URL")
    if not inputs[0].is_file() and not inputs[0].is_dir():
        raise UsageError(f"{inputs[0]}: is not there yet; start the recording first, or give its folder")
    if output is not None:
        check_replaceable(output, "segments", is_own=lambda first: first.startswith(b'{"video": '))


def print_live_segments(
    run: "Run",
    path: Path,
    timeline: TimelineConfig,
    *,
    min_confidence: float,
    output: Path | None,
    config: ExtractConfig,
) -> int:
    """Print each segment as soon as it is certain, up to the end of the recording or Ctrl-C.

    Args:
        run: the run.
        path: the file or folder.
        timeline: the windows, how segments are read off, and how long to wait for more.
        min_confidence: segments with a lower probability are left out.
        output: the file to write; None for stdout.
        config: how to extract.

    Returns:
        The number of files that failed.

    Raises:
        VidpipeError: as `vidpipe.stages.follow.follow`.
    """
    from vidpipe.stages.follow import LiveSegment, follow

    num_failed = 0
    with OutputLines(output) as lines, _stop_at_ctrl_c() as stop:
        found = follow(
            run, path, timeline=timeline, min_confidence=min_confidence, config=config, is_stopped=stop.is_set
        )
        try:
            for one in found:
                if isinstance(one, LiveSegment):
                    lines.write(json_line(_to_object(one)))
                else:
                    num_failed += 1
                    click.echo(printable(f"failed: {one.video_id}: {one.message}"), err=True)
        except VideoError as error:
            raise InputError(f"{path}: {error}") from error
    return num_failed


def _to_object(one: "LiveSegment") -> dict[str, object]:
    segment = one.segment
    return {
        "video": one.video_id,
        "start_seconds": segment.start_seconds,
        "stop_seconds": segment.stop_seconds,
        "label": segment.label,
        "probability": segment.probability,
    }


@contextmanager
def _stop_at_ctrl_c() -> Iterator[Event]:
    """Yield an event that the first Ctrl-C sets; the second one interrupts."""
    stop = Event()

    def set_once(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, set_once)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
