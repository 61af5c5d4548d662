"""Output files of commands: which existing files may be replaced, and files that are renamed when complete."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TextIO

import click

from vidpipe.errors import UsageError, VidpipeError

__all__ = ["OutputLines", "check_replaceable", "is_own_page", "is_own_picture"]

_NUM_FIRST_BYTES = 65536


def check_replaceable(path: Path, kind: str, *, is_own: Callable[[bytes], bool]) -> None:
    """Check that an output file replaces nothing, or only an older output of the same kind.

    A file that does not exist, an empty file and a device such as `/dev/null` may be written.

    Args:
        path: the file to write.
        kind: what the command writes, for the message: `a report`.
        is_own: returns whether vidpipe wrote a file, as this kind of output, given its first 64 KiB.

    Raises:
        UsageError: the path is a folder, another kind of file, or a file that cannot be read.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give a file name")
    if not path.is_file():
        return
    try:
        with path.open("rb") as stream:
            first = stream.read(_NUM_FIRST_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: exists and cannot be read ({error.strerror}); choose another file") from error
    if first and not is_own(first):
        raise UsageError(
            f"{path}: exists and is not {kind} written by vidpipe; choose another file, or delete it first"
        )


def is_own_page(first: bytes) -> bool:
    """Return whether a file's first bytes are those of a page that `vidpipe report` wrote."""
    return b'<meta name="generator" content="vidpipe ' in first


def is_own_picture(first: bytes) -> bool:
    """Return whether a file's first bytes are those of a PNG that `vidpipe.runs.plots` wrote."""
    return first.startswith(b"\x89PNG") and b"Software\0vidpipe " in first


class OutputLines:
    """Writes lines to stdout, or to FILE.partial, which is renamed to FILE at the end.

    Each line is written to disk at once, so an interrupted command keeps its lines in FILE.partial.

    Args:
        path: the file; None for stdout. A device such as `/dev/null` is written directly.
        header: the first line, if there is one.

    Raises:
        UsageError: FILE.partial exists already, from an interrupted command.
        VidpipeError: the file cannot be written.
    """

    def __init__(self, path: Path | None, header: str | None = None) -> None:
        self.num_lines = 0
        """Lines written, without the header."""
        self._path = path.resolve() if path is not None else None
        self._header = header
        self._is_aside = self._path is not None and (self._path.is_file() or not self._path.exists())
        self._stream: TextIO | None = None

    @property
    def partial(self) -> Path | None:
        """The file that is renamed at the end; None for stdout and devices."""
        return self._path.with_name(f"{self._path.name}.partial") if self._path and self._is_aside else None

    def __enter__(self) -> Self:
        if self.partial is not None and self.partial.exists():
            raise UsageError(
                f"{self.partial}: contains the output of an interrupted command; rename it to keep it, or delete it"
            )
        target = self.partial or self._path
        if target is not None:
            with self._reported_errors():
                self._stream = target.open("w", encoding="utf-8", newline="")
        if self._header is not None:
            self._put(self._header)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is None:
            return
        with self._reported_errors():
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
        with self._reported_errors():
            self._stream.write(f"{line}\n")
            self._stream.flush()

    @contextmanager
    def _reported_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "choose another file with -o"
            raise VidpipeError(f"{self._path}: cannot be written ({error.strerror}); {remedy}") from error
