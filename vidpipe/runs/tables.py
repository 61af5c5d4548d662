"""The tables of a run as typed rows: each CSV file is written and read here.

splits.csv         `SplitRow`: the subset of each video; itself a labels file
history.csv        `Epoch`: a line an epoch
predictions.csv    `PredictionRow`: what each head says of each validation and test video
folds.csv          `FoldRow`: the same of each video in cross-validation, by a head that has not seen it
leaks.csv          `vidpipe.datasets.leaks.Leak`: pairs of videos that look alike in two subsets
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from vidpipe.errors import RunError

__all__ = ["Epoch", "FoldRow", "PredictionRow", "SplitRow", "read_rows", "row_cells", "write_rows"]


@dataclass(frozen=True)
class SplitRow:
    """A video in a run: its subset, and what tells it from another file of the same name."""

    video: str
    label: str
    split: str
    group: str
    size_bytes: int


@dataclass(frozen=True)
class Epoch:
    """One pass over the training subset; of a linear head, its whole fit."""

    epoch: int
    train_loss: float
    train_top1: float
    val_loss: float | None = None
    """None where nothing is kept for validation."""
    val_top1: float | None = None
    member: int = 0
    """Which head of an ensemble."""


@dataclass(frozen=True)
class PredictionRow:
    """What a head says of one video, beside its label."""

    split: str
    head: str
    video: str
    group: str
    label: str
    predicted: str
    probability: float
    right: bool


@dataclass(frozen=True)
class FoldRow:
    """What a head that has not seen a video says of it in cross-validation, beside its label."""

    fold: int
    seed: int
    head: str
    video: str
    group: str
    label: str
    predicted: str
    probability: float
    right: bool


Row = TypeVar("Row")


def row_cells(row: Any) -> dict[str, Any]:
    """A row, of any type above, as a line of its CSV file; values that are None have no cell."""
    return {name: _cell(name, value) for name, value in vars(row).items() if value is not None}


def _cell(name: str, value: Any) -> Any:
    if name == "probability":
        return f"{value:.6f}"
    return int(value) if name == "right" else value


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write rows of one type as a CSV file.

    Args:
        path: the file; it is overwritten.
        rows: at least one.

    Raises:
        OSError: the file cannot be written.
        UnicodeEncodeError: a cell is no text.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(row_cells(rows[0])))
        writer.writeheader()
        writer.writerows(map(row_cells, rows))


def read_rows(path: Path, row_type: type[Row]) -> tuple[Row, ...]:
    """Read a CSV file of a run back into its rows.

    Returns:
        The rows, in the order of the file.

    Raises:
        RunError: the file is missing or damaged.
    """
    types = get_type_hints(row_type)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return tuple(row_type(**_values(types, row)) for row in csv.DictReader(stream))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path.parent}: {path.name} cannot be read ({error}); train it again") from error


def _values(types: Mapping[str, Any], row: Mapping[str, str]) -> dict[str, Any]:
    """The cells of a line as the types say; optional values whose cell is missing or empty are left out."""
    values = {}
    for name, kind in types.items():
        cell = row.get(name)
        if kind == float | None:
            kind = float
            if not cell:
                continue
        values[name] = cell == "1" if kind is bool else kind(_needed(cell, name))
    return values


def _needed(cell: str | None, name: str) -> str:
    if cell is None:
        raise ValueError(f"no column {name!r}, or a line is cut off")
    return cell
