"""The cells of a labels file, by their meaning."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidpipe.csv_files import TableRow
from vidpipe.datasets.splits import SUBSETS
from vidpipe.errors import LabelsError, unknown_name
from vidpipe.records import LabeledVideo

__all__ = ["OTHER_SPELLINGS", "Cells", "as_label"]

OTHER_SPELLINGS = {"validation": "val", "validate": "val", "valid": "val"}
"""Other names of subsets."""


def as_label(text: str) -> str:
    """Return a label in Unicode's composed form, without spaces around it: labels that look the same are equal."""
    return unicodedata.normalize("NFC", text.strip())


@dataclass(frozen=True)
class Cells:
    """One row's cells by their meaning."""

    row: TableRow
    columns: Mapping[str, str | None]
    path: Path

    @property
    def place(self) -> str:
        return f"{self.path}, line {self.row.line}"

    def get(self, name: str) -> str:
        column = self.columns[name]
        return self.row.cells[column] if column is not None else ""

    def need(self, name: str) -> str:
        cell = self.get(name)
        if not cell:
            raise LabelsError(
                f"{self.place}: the cell of column {self.columns[name]!r} is empty; fill it in, or remove the line"
            )
        return cell

    def whole_seconds(self, name: str) -> int:
        cell = self.need(name)
        if not cell.isdecimal():
            raise LabelsError(f"{self.place}: {name} is {cell!r}; Kinetics gives whole seconds, such as 12")
        return int(cell)

    def split(self) -> str | None:
        cell = self.get("split").lower()
        if not cell:
            return None
        split = OTHER_SPELLINGS.get(cell, cell)
        if split not in SUBSETS:
            raise LabelsError(f"{self.place}: {unknown_name('split', cell, SUBSETS)}")
        return split

    def as_video(self, name: str, group: str | None) -> LabeledVideo:
        source = f"the labels' column `{self.columns['split']}`"
        return LabeledVideo(name, as_label(self.need("label")), self.split(), group, source)
