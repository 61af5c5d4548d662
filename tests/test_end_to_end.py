"""The three verbs on encoded videos, as commands and in Python: both learn the action, and both give the same bytes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidpipe
from tests.commands import run
from tests.media import moving_square, write_frames
from tests.stores import assert_same

SETTINGS: dict[str, Any] = {"backbone": "lenet5", "num_frames": 6, "device": "cpu", "workers": 1}
ACTIONS = ("left", "right")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/left/0.mp4` …: a square moves to the left or right; `new/` has other squares and a damaged file."""
    folder = tmp_path_factory.mktemp("videos")
    for action in ACTIONS:
        for number in range(10):
            frames = moving_square(number, to_the_right=action == "right")
            write_frames(folder / "train" / action / f"{number}.mp4", frames)
        for number in range(10, 14):
            frames = moving_square(number, to_the_right=action == "right")
            write_frames(folder / "new" / f"{action}_{number}.mp4", frames)
    (folder / "new" / "damaged.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def by_commands(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of `features` and `run`, and the predictions."""
    folder = tmp_path_factory.mktemp("commands")
    options = [text for name, value in SETTINGS.items() for text in (f"--{name.replace('_', '-')}", value)]
    extracted = run("extract", videos / "train", "-o", folder / "features", *options)
    assert extracted.exit_code == 0, extracted.output
    trained = run("train", folder / "features", "-o", folder / "run", "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    predicted = run("predict", folder / "run", videos / "new", "--format", "json", "--device", "cpu", "--workers", 1)
    assert predicted.exit_code == 3, predicted.output
    return folder, [json.loads(line) for line in predicted.stdout.splitlines()]


@pytest.fixture(scope="module")
def in_python(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("python")
    assert vidpipe.extract(videos / "train", folder / "features", **SETTINGS).num_stored == 20
    vidpipe.train(folder / "features", folder / "run", device="cpu")
    return folder, list(vidpipe.predict(folder / "run", videos / "new", device="cpu", workers=1))


def test_new_videos_get_the_label_of_their_action(by_commands: tuple[Path, list[dict[str, Any]]]) -> None:
    labels = {row["video"]: row["label"] for row in by_commands[1] if row["status"] == "ok"}
    assert labels == {f"{action}_{number}.mp4": action for action in ACTIONS for number in range(10, 14)}


def test_a_damaged_video_is_reported_and_the_others_are_predicted(in_python: tuple[Path, list[Any]]) -> None:
    failed = [prediction.video_id for prediction in in_python[1] if prediction.error]
    assert (failed, len(in_python[1])) == (["damaged.mp4"], 9)


def test_python_gives_the_features_of_the_commands(
    by_commands: tuple[Path, list[dict[str, Any]]], in_python: tuple[Path, list[Any]]
) -> None:
    one, other = (vidpipe.FeatureStore.open(folder / "features") for folder in (by_commands[0], in_python[0]))
    assert one.ids == other.ids
    for video_id in one.ids:
        assert_same(one[video_id], other[video_id])
        assert one[video_id].features.any()


def test_python_gives_the_model_and_the_predictions_of_the_commands(
    by_commands: tuple[Path, list[dict[str, Any]]], in_python: tuple[Path, list[Any]]
) -> None:
    for name in ("model.safetensors", "metrics.json", "predictions.csv", "splits.csv"):
        assert (by_commands[0] / "run" / name).read_bytes() == (in_python[0] / "run" / name).read_bytes(), name
    rows = {row["video"]: row for row in by_commands[1]}
    for prediction in in_python[1]:
        row = rows[prediction.video_id]
        assert prediction.label == row["label"]
        assert np.array_equal(prediction.probabilities, [one["probability"] for one in row["predictions"]])
