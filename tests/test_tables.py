"""The CSV files of a run: what is written is read back, and a damaged file is reported with the line."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from vidpipe.datasets.leaks import Leak
from vidpipe.errors import RunError
from vidpipe.runs.tables import Epoch, FoldRow, PredictionRow, RowWriter, SplitRow, read_rows, write_rows

TRICKY = 'é, "quoted"\nand a second line'
ROWS: dict[str, list[Any]] = {
    "splits": [SplitRow("a/1.mp4", "a", "train", "g1", 10), SplitRow(TRICKY, TRICKY, "test", "", 2**40)],
    "history": [Epoch(1, 0.1 + 0.2, 0.5, 1e-17, 1.0), Epoch(2, 0.25, 0.75, 0.5, 0.125, member=1)],
    "history without validation": [Epoch(1, 0.1, 0.5), Epoch(1, 0.2, 0.25, member=1)],
    "predictions": [PredictionRow("val", "lstm", TRICKY, "", "a", "b", 0.5, False)],
    "folds": [FoldRow(2, 7, "lstm", "a/1.mp4", "g1", "a", "a", 0.123456, True)],
    "leaks": [Leak("a.mp4", "train", "b.mp4", "test", 0.9712, False), Leak("c", "train", "d", "val", 1.0, True)],
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_read_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "table.csv", ROWS[name])
    assert list(read_rows(tmp_path / "table.csv", type(ROWS[name][0]))) == ROWS[name]


def test_a_file_has_a_column_for_each_field_and_short_numbers(tmp_path: Path) -> None:
    rows = [
        FoldRow(0, 3, "lstm", "a.mp4", "g", "a", "b", 2 / 3, False),
        FoldRow(1, 3, "mean", "b", "", "b", "b", 1, True),
    ]
    write_rows(tmp_path / "folds.csv", rows)
    assert (tmp_path / "folds.csv").read_bytes().decode().split("\r\n") == [
        "fold,seed,head,video,group,label,predicted,probability,right",
        "0,3,lstm,a.mp4,g,a,b,0.666667,0",
        "1,3,mean,b,,b,b,1.000000,1",
        "",
    ]


def test_a_history_without_validation_has_no_such_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "history.csv", ROWS["history without validation"])
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == "epoch,train_loss,train_top1,member,stream,head"


def test_rows_written_one_at_a_time_make_the_same_file(tmp_path: Path) -> None:
    stream = io.StringIO(newline="")
    writer = RowWriter(stream)
    for row in ROWS["splits"]:
        writer.write(row)
    write_rows(tmp_path / "splits.csv", ROWS["splits"])
    assert stream.getvalue().encode() == (tmp_path / "splits.csv").read_bytes()


def test_a_column_with_a_default_may_be_missing_and_others_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("note,epoch,train_loss,train_top1,val_loss\nx,3,0.5,0.25,\n")
    assert read_rows(path, Epoch) == (Epoch(3, 0.5, 0.25),)


PREDICTIONS = "split,head,video,group,label,predicted,probability,right"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "No such file or directory"),
        ("split,head\ntest,lstm\n", "line 2: no column 'video'"),
        (f"{PREDICTIONS}\ntest,lstm,a,,a,a,0.5,1\ntest,lstm,b,,b\n", "line 3: ends before the column 'predicted'"),
        (f"{PREDICTIONS}\ntest,lstm,a,,a,a,often,1\n", "line 2: probability 'often' is not a number"),
        (f"{PREDICTIONS}\ntest,lstm,a,,a,a,0.5,yes\n", "line 2: right 'yes' is neither 1 nor 0"),
        (f"{PREDICTIONS}\n\udcff", "invalid start byte"),
        (f'{PREDICTIONS}\n"{"x" * (csv.field_size_limit() + 1)}"\n', "field larger than field limit"),
    ],
)
def test_a_damaged_file_is_reported_with_the_line_and_the_remedy(
    tmp_path: Path, text: str | None, problem: str
) -> None:
    if text is not None:
        (tmp_path / "predictions.csv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError) as caught:
        read_rows(tmp_path / "predictions.csv", PredictionRow)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: predictions.csv cannot be read (")
    assert problem in message
    assert message.endswith("; train the run again")


def test_a_whole_number_is_not_read_from_a_fraction(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("video,label,split,group,size_bytes\na,a,train,,1.5\n")
    with pytest.raises(RunError, match=r"line 2: size_bytes '1\.5' is not a whole number"):
        read_rows(tmp_path / "splits.csv", SplitRow)
