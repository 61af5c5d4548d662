"""How far a long command is, on stderr: a bar on a terminal, else a plain line now and then; nothing with --quiet."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vidpipe.extract import ExtractProgress

__all__ = ["extract_progress"]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def extract_progress() -> Iterator["Callable[[ExtractProgress], None]"]:
    """A callback that shows videos done, failed, rate and time left."""
    console = Console(stderr=True)
    if logger.isEnabledFor(logging.INFO) and console.is_terminal:
        with _bar(console) as show:
            yield show
    else:
        yield _Lines()


@contextmanager
def _bar(console: Console) -> "Iterator[Callable[[ExtractProgress], None]]":
    columns = (
        TextColumn("extracting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, told="")

        def show(progress: "ExtractProgress") -> None:
            finished = progress.num_done + progress.num_failed
            bar.update(task, total=progress.num_videos, completed=finished, told=_rates(progress))

        yield show


class _Lines:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: "ExtractProgress") -> None:
        finished = progress.num_done + progress.num_failed
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES or finished == progress.num_videos:
            self._last = time.monotonic()
            left = (progress.num_videos - finished) * progress.seconds / finished
            logger.info("%d of %d videos, %s, %s left", finished, progress.num_videos, _rates(progress), _clock(left))


def _rates(progress: "ExtractProgress") -> str:
    """`3 failed, 2.1 videos/s, 33 frames/s`"""
    seconds = max(progress.seconds, 1e-9)
    finished = progress.num_done + progress.num_failed
    failed = f"{progress.num_failed} failed, " if progress.num_failed else ""
    return f"{failed}{finished / seconds:.1f} videos/s, {progress.num_frames / seconds:.0f} frames/s"


def _clock(seconds: float) -> str:
    """`1:02:03`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
