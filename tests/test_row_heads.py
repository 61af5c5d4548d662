"""Heads that label rows: padding, what they learn, and the run around them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import run
from tests.media import moving_square, write_frames
from vidpipe.config import TrainConfig
from vidpipe.datasets.rows import LabelledRows
from vidpipe.datasets.sequences import pad
from vidpipe.heads.rows import ROW_HEADS, build_row_head
from vidpipe.runs.run import Run
from vidpipe.training.rows import fit_rows

CPU = ("--device", "cpu")
CONFIG = TrainConfig(hidden_size=16, epochs=30, lr=0.01, dropout=0.0, device="cpu")
LENGTHS = (5, 17, 9)


@pytest.mark.parametrize("name", ROW_HEADS)
@pytest.mark.parametrize("dim", [4, 600])
def test_padding_changes_no_label(name: str, dim: int) -> None:
    torch.manual_seed(0)
    sequences = [torch.randn(length, dim) for length in LENGTHS]
    head = build_row_head(name, dim, 3, CONFIG, sequences).eval()
    with torch.no_grad():
        features, lengths = pad(sequences)
        together = head(features + 1e3 * (features == 0), lengths)[-1]
        for number, sequence in enumerate(sequences):
            alone = head(sequence[None], torch.tensor([len(sequence)]))[-1, 0]
            assert torch.allclose(together[number, : len(sequence)], alone, atol=1e-5)


@pytest.mark.parametrize("name", ROW_HEADS)
def test_a_head_learns_labels_that_depend_on_earlier_rows(name: str) -> None:
    """A pulse of the first feature switches the label on, a pulse of the second one off: single rows do not tell."""

    def video(seed: int) -> LabelledRows:
        random = np.random.default_rng(seed)
        rows, labels, state = 0.1 * random.standard_normal((60, 3)), [], 0
        for number in range(60):
            if number % 10 == 5:
                state = 1 - state
                rows[number, 1 - state] += 3
            labels.append(state)
        return LabelledRows(str(seed), torch.from_numpy(rows).float(), torch.tensor(labels))

    head, history = fit_rows(name, [video(seed) for seed in range(8)], 2, CONFIG)
    assert len(history) == 30
    tested = video(100)
    with torch.no_grad():
        labels = head(tested.features[None], torch.tensor([60]))[-1, 0].argmax(dim=1)
    assert (labels == tested.class_index).float().mean() > 0.9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of a square that moves left and right, in turn, their features, and their labels."""
    folder = tmp_path_factory.mktemp("rows")
    lines = ["video,start_seconds,stop_seconds,label"]
    for number in range(8):
        frames = []
        for step in range(4):
            label = ("left", "right")[(number + step) % 2]
            frames += moving_square(10 * number + step, to_the_right=label == "right")
            lines.append(f"{number}.mkv,{0.48 * step:.2f},{0.48 * (step + 1):.2f},{label}")
        write_frames(folder / "videos" / f"{number}.mkv", frames)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    sampling = ("--sampling", "fps", "--fps", 12.5, "--workers", 1)
    backbones = ("--backbone", "lenet5,flow")
    assert run("extract", folder / "videos", "-o", folder / "dense", *backbones, *sampling, *CPU).exit_code == 0
    return folder


@pytest.mark.parametrize("name", ROW_HEADS)
def test_a_run_labels_the_rows_of_new_videos(folder: Path, tmp_path: Path, name: str) -> None:
    options = ("--labels", folder / "labels.csv", "--targets", "rows", "--head", name, "--test-fraction", 0.3)
    size = ("--hidden-size", 16, "--epochs", 30, "--lr", 0.01, "--dropout", 0.1)
    trained = run("train", folder / "dense", "-o", tmp_path / "run", *options, *size, *CPU)
    assert trained.exit_code == 0, trained.output
    assert Run.open(tmp_path / "run").timelines["scores"]["test"]["frame_accuracy"] > 0.8
    command = ("predict", tmp_path / "run", folder / "videos/1.mkv", "--timeline", "--format", "json", *CPU)
    result = run(*command)
    assert result.exit_code == 0, result.output
    segments = json.loads(result.stdout)["segments"]
    assert [one["label"] for one in segments] == ["right", "left", "right", "left"]
    assert [one["stop_seconds"] for one in segments] == pytest.approx([0.48, 0.96, 1.44, 1.92], abs=0.2)
    assert run("report", tmp_path / "run").exit_code == 0


def test_a_run_that_labels_rows_predicts_timelines_only(folder: Path, tmp_path: Path) -> None:
    options = ("--labels", folder / "labels.csv", "--targets", "rows", "--head", "tcn", "--epochs", 1)
    assert run("train", folder / "dense", "-o", tmp_path / "run", *options, *CPU).exit_code == 0
    result = run("predict", tmp_path / "run", folder / "videos", *CPU)
    assert result.exit_code == 1
    assert "labels the rows of long videos, not whole videos; use predict --timeline" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "statistics"), "--targets rows goes with --head bilstm or --head tcn, not with statistics"),
        (("--head", "tcn", "--resume"), "goes without --resume"),
        (("--head", "tcn", "--folds", 3), "--targets rows tests once; leave out --folds"),
    ],
)
def test_what_rows_do_not_go_with_is_named(
    folder: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    rows = ("--labels", folder / "labels.csv", "--targets", "rows")
    result = run("train", folder / "dense", "-o", tmp_path / "run", *rows, *options, *CPU)
    assert result.exit_code == 2
    assert message in result.stderr
