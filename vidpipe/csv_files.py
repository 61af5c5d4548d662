"""CSV files as programs and spreadsheets write them: with common delimiters, encodings and column names."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidpipe.errors import UsageError, VidpipeError

__all__ = ["COLUMN_NAMES", "Table", "TableRow", "is_url", "read_table", "read_text"]

_START_NAMES = ("start", "start_second", "start_sec", "start_time", "t_start", "begin", "begin_seconds", "begin_time")
_STOP_NAMES = ("stop", "end", "end_seconds", "stop_sec", "end_sec", "stop_time", "end_time", "t_stop", "t_end")

COLUMN_NAMES: Mapping[str, tuple[Sequence[str], ...]] = {
    "video": (("file", "file_name", "filename", "file_path", "filepath", "path", "video_path", "clip"), ("name",)),
    "label": (("class", "class_name", "category", "action", "activity"),),
    "split": (),
    "group": (),
    "start_seconds": (_START_NAMES,),
    "stop_seconds": (_STOP_NAMES,),
    "probability": (("score", "confidence"),),
    "person": (),
}
"""Other names of each column. Its own name is preferred, then the first group of names, then the next."""

_OPTIONS = ("video", "label", "group")
"""Columns that an option of `train` names."""
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_SPREADSHEET_HINT = re.compile(r"sep=([,;|\t])\r?\n")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.*", re.DOTALL)


@dataclass(frozen=True)
class TableRow:
    """One row of a table: its stripped cells, by column."""

    line: int
    """Number of the row's last line, from 1."""
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A text file whose first line names the columns."""

    path: Path
    columns: tuple[str, ...]
    text: str
    delimiter: str
    error: type[VidpipeError]
    """Raised if the table cannot be read."""

    def rows(self) -> Iterator[TableRow]:
        """Read the rows that are not empty.

        Yields:
            the rows, in order.

        Raises:
            VidpipeError: of the type `error`: a row is not valid CSV, or has more cells than there are columns.
        """
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.delimiter, strict=True)
        try:
            is_header = True
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells) and not is_header:
                    yield TableRow(reader.line_num, self._by_column(cells, reader.line_num))
                is_header = is_header and not any(cells)
        except csv.Error as error:
            raise self.error(
                f"{self.path}, line {reader.line_num}: not a CSV file: {error}; check its double quotes"
            ) from error

    def _by_column(self, cells: list[str], line: int) -> dict[str, str]:
        if any(cells[len(self.columns) :]):
            delimiter = _DELIMITERS.get(self.delimiter, repr(self.delimiter))
            raise self.error(
                f"{self.path}, line {line}: more cells than columns; "
                f"put double quotes around a cell that contains {delimiter}"
            )
        cells += [""] * (len(self.columns) - len(cells))
        return dict(zip(self.columns, cells, strict=False))

    def named(self, name: str) -> str | None:
        """Return the column of this name, or the only one that differs just in case, spaces or dashes."""
        if name.strip() in self.columns:
            return self._single(name.strip())
        alike = [column for column in self.columns if _plain(column) == _plain(name)]
        return self._single(alike[0]) if len(alike) == 1 else None

    def column(self, kind: str, given: str | None = None) -> str | None:
        """Find a column by its own name, or by another common name.

        Args:
            kind: a key of `COLUMN_NAMES`.
            given: the name that the user gives for the column, if any.

        Returns:
            the column, or None if there is none.

        Raises:
            UsageError: there is no column with the given name.
            VidpipeError: of the type `error`: several columns match.
        """
        if given is not None:
            if found := self.named(given):
                return found
            raise UsageError(f"--{kind}-column {given!r}: {self.path} has no such column; it has: {self._column_list}")
        for names in ((kind,), *COLUMN_NAMES[kind]):
            if kind in names and (found := self.named(kind)):
                return found
            alike = list(dict.fromkeys(column for column in self.columns if _plain(column) in names))
            if len(alike) > 1:
                raise self.error(
                    f"{self.path}: columns {alike[0]!r} and {alike[1]!r} could both be the {kind}; "
                    + (f"choose one with --{kind}-column" if kind in _OPTIONS else "rename or remove one of them")
                )
            if alike:
                return self._single(alike[0])
        return None

    def need(self, kind: str, given: str | None = None) -> str:
        """Return a column as `column` does; raise an error of the type `error` if there is none."""
        found = self.column(kind, given)
        if found is None:
            raise self.error(
                f"{self.path}: missing column {kind!r}; found: {self._column_list}; "
                + ("name it in the first line" + (f", or give --{kind}-column" if kind in _OPTIONS else ""))
            )
        return found

    @property
    def _column_list(self) -> str:
        return ", ".join(self.columns)

    def _single(self, column: str) -> str:
        if self.columns.count(column) > 1:
            raise self.error(f"{self.path}: column {column!r} occurs more than once; keep one")
        return column


def read_table(path: Path, *, error: type[VidpipeError]) -> Table:
    """Read a CSV file: separated by commas, semicolons or tabs, in UTF-8, or UTF-16 with a byte order mark.

    Args:
        path: the file.
        error: the type of error to raise.

    Returns:
        the table; its rows are parsed when they are read.

    Raises:
        VidpipeError: of the type `error`: the file cannot be read, or is not text.
    """
    text = read_text(path, error=error)
    if hint := _SPREADSHEET_HINT.match(text):
        text, delimiter = f"\n{text[hint.end() :]}", hint[1]
    else:
        delimiter = max(_DELIMITERS, key=lambda one: len(_header(text, one)))
    columns = _header(text, delimiter)
    if not columns:
        raise error(f"{path}: empty; the first line of a table names its columns")
    return Table(path, tuple(columns), text, delimiter, error)


def read_text(path: Path, *, error: type[VidpipeError]) -> str:
    """Read a text file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Args:
        path: the file.
        error: the type of error to raise.

    Returns:
        the text.

    Raises:
        VidpipeError: of the type `error`: the file cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise error(
            f"{path}, line {line}: not {problem.encoding.upper()} text; save the file as plain text in UTF-8 "
            "(a spreadsheet's `CSV UTF-8`)"
        ) from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from problem


def is_url(name: str) -> bool:
    """Return whether a name is a URL, such as `https://host/a.mp4`, and not a path."""
    return _URL.fullmatch(name) is not None


def _header(text: str, delimiter: str) -> list[str]:
    """The cells of the first line that is not empty."""
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            cells = [cell.strip() for cell in row]
            if any(cells):
                return cells
    except csv.Error:  # an unclosed quote: the table has no columns
        pass
    return []


def _plain(name: str) -> str:
    """`Video Path` -> `video_path`"""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())
