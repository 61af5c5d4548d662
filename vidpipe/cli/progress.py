"""The progress of an extraction on stderr: a bar on a terminal, otherwise plain lines; nothing with --quiet."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vidpipe.cli.options import printable
from vidpipe.errors import count_of

if TYPE_CHECKING:
    from vidpipe.execution.progress import ExtractProgress
    from vidpipe.records import DecodeProgress

__all__ = ["ShowText", "count_progress", "extract_progress", "text_progress"]

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def extract_progress() -> Iterator["Callable[[ExtractProgress], None]"]:
    """Show videos done and failed, the rate and the time left.

    Yields:
        The callback for `vidpipe.stages.extract.extract`.
    """
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
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, rates="")

        def show(progress: "ExtractProgress") -> None:
            inside = _fraction(progress.reading) if progress.reading else 0.0
            completed = progress.num_done + progress.num_failed + inside
            bar.update(task, total=progress.num_videos, completed=completed, rates=_rates(progress))

        yield show


ShowText: TypeAlias = Callable[[float, float, str, bool], None]
"""Called with what is done, the total, a text, and whether the text is worth a line of its own."""


@contextmanager
def text_progress(verb: str) -> Iterator[ShowText]:
    """Show how much of a command is done.

    Args:
        verb: what it does, such as `training`.

    Yields:
        The callback.
    """
    console = Console(stderr=True)
    if not (logger.isEnabledFor(logging.INFO) and console.is_terminal):
        yield lambda done, total, text, is_line: logger.info("%s", text) if is_line else None
        return
    columns = (TextColumn(verb), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, text="")
        yield lambda done, total, text, is_line: bar.update(task, completed=done, total=total, text=text)


class _Lines:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, progress: "ExtractProgress") -> None:
        finished = progress.num_done + progress.num_failed
        is_last = finished == progress.num_videos and progress.reading is None
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES or is_last:
            self._last = time.monotonic()
            left = (progress.num_videos - finished) * progress.seconds / finished if finished else None
            logger.info("%s%s", _rates(progress), f", {_clock(left)} left" if left is not None else "")


@contextmanager
def count_progress(**steps: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show how many things of each step of a command are done.

    Args:
        **steps: what each step counts: `reading="video"`.

    Yields:
        The callback: the step, and the numbers of things that are done and to do.
    """
    console = Console(stderr=True)
    if not (logger.isEnabledFor(logging.INFO) and console.is_terminal):
        yield _CountLines(steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {step: bar.add_task(step, total=None, counts="", visible=False) for step in steps}

        def show(step: str, done: int, total: int) -> None:
            counts = f"{done} of {count_of(total, steps[step])}"
            bar.update(tasks[step], total=total, completed=done, counts=counts, visible=done < total)

        yield show


class _CountLines:
    """Reports every few seconds how far a step is."""

    def __init__(self, steps: Mapping[str, str]) -> None:
        self._steps, self._last = steps, time.monotonic()

    def __call__(self, step: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            logger.info("%s: %d of %s", step, done, count_of(total, self._steps[step]))


def _rates(progress: "ExtractProgress") -> str:
    """`12 of 200 videos, 3 failed, 2.1 videos/s, 33 frames/s, lecture.mp4: 1280 of 20000 frames`"""
    seconds = max(progress.seconds, 1e-9)
    finished = progress.num_done + progress.num_failed
    texts = [f"{finished} of {count_of(progress.num_videos, 'video')}"]
    if progress.num_failed:
        texts.append(f"{progress.num_failed} failed")
    texts += [f"{finished / seconds:.1f} videos/s", f"{progress.num_frames / seconds:.0f} frames/s"]
    if progress.reading is not None:
        texts.append(f"{printable(progress.reading.video_id)}: {_place(progress.reading)}")
    return ", ".join(texts)


def _place(reading: "DecodeProgress") -> str:
    if reading.num_planned is None:
        return f"{reading.num_done} packets and frames read"
    return f"{reading.num_done} of {count_of(reading.num_planned, 'frame')}"


def _fraction(reading: "DecodeProgress") -> float:
    """The share of a video that is done, 0 to 1; 0 where it is not known."""
    return reading.num_done / reading.num_planned if reading.num_planned else 0.0


def _clock(seconds: float) -> str:
    """`1:02:03`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
