"""LeNet-5 against its paper and scikit-learn's digits; then, with its learned weights, all of vidpipe in seconds."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from tests.media import write_frames
from tools.train_lenet5 import WEIGHTS, accuracy, digits
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.lenet import DigitClassifier, LeNet5
from vidpipe.backbones.table import BACKBONES
from vidpipe.cli import main

STATED_ACCURACY = 0.993
"""As docs/backbones.md states it."""


def test_its_layers_have_as_many_trainable_parameters_as_the_paper_counts() -> None:
    counted = {name: sum(p.numel() for p in layer.parameters()) for name, layer in LeNet5().named_children()}
    assert counted == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert sum(counted.values()) == 60_000


def test_c3_sees_the_maps_of_the_papers_table() -> None:
    model = LeNet5()
    seen_by = [conv.in_channels for conv in model.c3]
    assert seen_by == [3] * 6 + [4] * 9 + [6]


def test_black_and_white_reach_it_as_the_paper_has_them() -> None:
    backbone = load_backbone(BACKBONES["lenet5"], device="cpu")
    seen: list[torch.Tensor] = []
    backbone.features.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for shade in (0, 255):
        backbone(torch.full((1, 3, 32, 32), shade, dtype=torch.uint8))
    assert [float(pixels.mean()) for pixels in seen] == pytest.approx([-0.1, 1.175], abs=1e-3)


def test_the_shipped_weights_are_small_and_name_digits_they_never_saw() -> None:
    model = DigitClassifier()
    model.load_state_dict(load_file(WEIGHTS))
    _, test = digits()
    assert WEIGHTS.stat().st_size < 300_000
    assert len(test.labels) == 450
    assert accuracy(model.eval(), test) >= STATED_ACCURACY >= 0.97


def counting(first: int, *, up: bool) -> list[NDArray[np.uint8]]:
    """Frames of handwritten digits that count up, or down."""
    pictures, labels = load_digits(return_X_y=True)
    numbers = [(first + (step if up else -step)) % 10 for step in range(8)]
    chosen = [pictures[labels == number][first].reshape(8, 8) * (255 / 16) for number in numbers]
    return [np.rint(digit).astype(np.uint8).repeat(8, 0).repeat(8, 1)[..., None].repeat(3, 2) for digit in chosen]


@pytest.mark.slow
def test_with_it_vidpipe_learns_the_order_of_digits_from_end_to_end(tmp_path: Path) -> None:
    rows = []
    for label in ("up", "down"):
        for number in range(30):
            video = f"{label}/{number}.mp4"
            write_frames(tmp_path / "videos" / video, counting(number % 10, up=label == "up"))
            rows.append((video, label, "test" if number % 3 == 0 else "val" if number % 3 == 1 else "train"))
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("video", "label", "split"), *rows])
    store, run, labels = (str(tmp_path / name) for name in ("store", "run", "labels.csv"))
    for arguments in (
        ["extract", str(tmp_path / "videos"), "-o", store, "--backbone", "lenet5", "--num-frames", "8"],
        ["train", store, "-o", run, "--labels", labels, "--device", "cpu", "--hidden-size", "32", "--lr", "0.01"],
        ["evaluate", run, store, "--labels", labels, "--format", "json"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["top1"] > 0.8
