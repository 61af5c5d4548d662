"""Which files a command may replace (those that vidpipe wrote as the same kind of output), and lines to a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TextIO

import click

from vidpipe.errors import UsageError, VidpipeError

__all__ = ["OutputLines", "check_replaceable", "is_own_page", "is_own_picture"]

NUM_FIRST_BYTES = 65536


def check_replaceable(path: Path, kind: str, *, is_own: Callable[[bytes], bool]) -> None:
    """Check that writing an output replaces nothing but an older output of its kind.

    A file that does not exist, an empty file and a device such as `/dev/null` pass.

    Args:
        path: the file to write.
        kind: what the command writes, for the message: `a report`.
        is_own: whether a file is of that kind and by vidpipe, told by its first 64 KiB.

    Raises:
        UsageError: the path is a folder, another kind of file, or a file that cannot be read.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file")
    if not path.is_file():
        return
    try:
        with path.open("rb") as stream:
            first = stream.read(NUM_FIRST_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: exists and cannot be read ({error.strerror}); choose another file") from error
    if first and not is_own(first):
        raise UsageError(
            f"{path}: exists and is not {kind} written by vidpipe; choose another file, or delete this one first"
        )


def is_own_page(first: bytes) -> bool:
    """Whether a file's first bytes are those of a page that `vidpipe report` wrote."""
    return b'<meta name="generator" content="vidpipe ' in first


def is_own_picture(first: bytes) -> bool:
    """Whether a file's first bytes are those of a PNG that `vidpipe.runs.plots` wrote."""
    return first.startswith(b"\x89PNG") and b"Software\0vidpipe " in first


class OutputLines:
    """Lines to stdout, or to a file that has its name only when it is whole.

    Until then it is FILE.partial, each line of it on disk as soon as it is written: an interruption loses none.

    Args:
        path: the file; None for stdout. A device such as `/dev/null` is written directly.
        header: the first line, if there is one.

    Raises:
        UsageError: FILE.partial is there, from an interrupted command.
        VidpipeError: the file cannot be written.
    """

    def __init__(self, path: Path | None, header: str | None = None) -> None:
        self.num_lines = 0
        """Without the header."""
        self._path = path.resolve() if path is not None else None
        self._header = header
        self._is_aside = self._path is not None and (self._path.is_file() or not self._path.exists())
        self._stream: TextIO | None = None

    @property
    def partial(self) -> Path | None:
        """Where the lines are until the end; None where they go to stdout or to a device."""
        return self._path.with_name(f"{self._path.name}.partial") if self._path and self._is_aside else None

    def __enter__(self) -> Self:
        if self.partial is not None and self.partial.exists():
            raise UsageError(
                f"{self.partial}: holds the lines of a command that was interrupted; rename it to keep them, or delete "
                "it"
            )
        place = self.partial or self._path
        if place is not None:
            with self._errors_told():
                self._stream = place.open("w", encoding="utf-8", newline="")
        if self._header is not None:
            self._put(self._header)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is None:
            return
        with self._errors_told():
            self._stream.close()
            if self.partial is None or self._path is None:
                return
            if kind is None:
                self.partial.replace(self._path)
            elif self.num_lines == 0:
                self.partial.unlink()

    def write(self, line: str) -> None:
        """Write a line."""
        self._put(line)
        self.num_lines += 1

    def _put(self, line: str) -> None:
        if self._stream is None:
            click.echo(line)
            return
        with self._errors_told():
            self._stream.write(f"{line}\n")
            self._stream.flush()

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VidpipeError(f"{self._path}: cannot be written ({error.strerror}); -o names another file") from error
