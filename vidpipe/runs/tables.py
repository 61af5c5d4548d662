"""The tables of a run as typed rows: each CSV file is written and read here.

splits.csv         `SplitRow`: the subset of each video; itself a labels file
history.csv        `Epoch`: a line an epoch of each member
predictions.csv    `PredictionRow`: what the classifier, each member and the baseline predict for each validation and
                   test video
folds.csv          `FoldRow`: the same for each video in cross-validation, trained without it
leaks.csv          `vidpipe.datasets.leaks.Leak`: pairs of videos in two subsets that look alike
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar, get_args, get_type_hints

from vidpipe.errors import RunError

__all__ = ["Epoch", "FoldRow", "PredictionRow", "RowWriter", "SplitRow", "read_rows", "row_cells", "write_rows"]


@dataclass(frozen=True)
class SplitRow:
    """A video of a run, its subset, and the size that distinguishes it from another file of the same name."""

    video: str
    label: str
    split: str
    """The subset: train, val or test."""
    group: str
    size_bytes: int


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set; of a linear head, its whole fit."""

    epoch: int
    train_loss: float
    train_top1: float
    val_loss: float | None = None
    """None without a validation set."""
    val_top1: float | None = None
    member: int = 0
    """Number of the head in an ensemble."""
    stream: str = ""
    """What the head sees; several names, joined by `+`, for early fusion."""
    head: str = ""
    """The head's name; empty in runs of early versions, which have one head."""

    @property
    def name(self) -> str:
        """`flow/lstm`, as the member is named in the metrics; the head's name alone where there is no stream."""
        return f"{self.stream}/{self.head}" if self.stream else self.head


@dataclass(frozen=True)
class PredictionRow:
    """What a head predicts for one video, beside its label."""

    split: str
    """The subset of the video."""
    head: str
    video: str
    group: str
    label: str
    predicted: str
    probability: float
    right: bool
    """Whether the prediction is correct."""


@dataclass(frozen=True)
class FoldRow:
    """What a head predicts for one test video of one fold, beside its label."""

    fold: int
    seed: int
    head: str
    video: str
    group: str
    label: str
    predicted: str
    probability: float
    right: bool
    """Whether the prediction is correct."""


Row = TypeVar("Row")

BOOLEANS = {"1": True, "0": False, "True": True, "False": False}
KINDS = {int: "a whole number", float: "a number"}


def row_cells(row: Any) -> dict[str, Any]:
    """Return the cells of a row, of any type above, by column; a value of None has no cell."""
    return {name: _cell(name, value) for name, value in vars(row).items() if value is not None}


def _cell(name: str, value: Any) -> Any:
    if name == "probability":
        return f"{value:.6f}"
    return int(value) if name == "right" else value


class RowWriter:
    """Writes rows of one type to an open CSV file, one at a time; the first row gives the header.

    Args:
        stream: a text file opened with `newline=""`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._table: csv.DictWriter[str] | None = None

    def write(self, row: Any) -> None:
        """Write one row."""
        cells = row_cells(row)
        if self._table is None:
            self._table = csv.DictWriter(self._stream, list(cells))
            self._table.writeheader()
        self._table.writerow(cells)


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write rows of one type as a CSV file.

    Args:
        path: the file; it is overwritten.
        rows: at least one.

    Raises:
        OSError: the file cannot be written.
        UnicodeEncodeError: a cell is not valid Unicode.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = RowWriter(stream)
        for row in rows:
            writer.write(row)


def read_rows(path: Path, row_type: type[Row]) -> tuple[Row, ...]:
    """Read a CSV file of a run back into its rows.

    Args:
        path: the file.
        row_type: a dataclass whose fields are the columns; a field with a default may be missing or empty.

    Returns:
        The rows, in the order of the file.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return tuple(_parse_rows(stream, row_type))
    except (OSError, ValueError, csv.Error) as error:
        problem = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(f"{path.parent}: {path.name} cannot be read ({problem}); train the run again") from error


def _parse_rows(stream: TextIO, row_type: type[Row]) -> Iterator[Row]:
    types = {name: _plain_type(annotation) for name, annotation in get_type_hints(row_type).items()}
    optional = {field.name for field in fields(row_type) if field.default is not MISSING}  # type: ignore[arg-type]
    reader = csv.DictReader(stream)
    for cells in reader:
        present = [name for name in types if name not in optional or cells.get(name)]
        try:
            row = row_type(**{name: _parse_cell(cells, name, types[name]) for name in present})
        except ValueError as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
        yield row


def _plain_type(annotation: Any) -> type:
    """`float | None` -> float"""
    kind: type = next(kind for kind in (*get_args(annotation), annotation) if kind is not type(None))
    return kind


def _parse_cell(cells: Mapping[str, str | None], name: str, kind: type) -> Any:
    if name not in cells:
        raise ValueError(f"no column {name!r}")
    cell = cells[name]
    if cell is None:
        raise ValueError(f"ends before the column {name!r}")
    if kind is bool:
        if cell not in BOOLEANS:
            raise ValueError(f"{name} {cell!r} is neither 1 nor 0")
        return BOOLEANS[cell]
    try:
        return kind(cell)
    except ValueError:
        raise ValueError(f"{name} {cell!r} is not {KINDS[kind]}") from None
