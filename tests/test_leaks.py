"""Videos with identical features under different labels are an error of the labels, reported before any training."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import run
from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.datasets.leaks import exclude_conflicts, find_conflicts
from vidpipe.errors import LabelsError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.stages.train import train

LABELS = ("walk", "run")


def make_videos(folder: Path, num_videos: int = 12) -> tuple[FeatureStore, list[LabeledVideo]]:
    """Videos of two classes, each with features of its own, but that run/1 has those of walk/0, and walk/4 too."""
    sequences = [make_sequence(f"{LABELS[number % 2]}/{number}.mp4", seed=number) for number in range(num_videos)]
    for number in (1, 4):
        sequences[number].features[:] = sequences[0].features
    sequences[6].features[0] = sequences[3].features[0]  # the same first frame, and no more
    videos = [LabeledVideo(one.video_id, one.video_id.split("/")[0]) for one in sequences]
    return make_store(folder, sequences), videos


def test_videos_of_the_same_features_and_other_labels_are_found_in_any_subset(tmp_path: Path) -> None:
    store, videos = make_videos(tmp_path / "s")
    assert [[video.video_id for video in group] for group in find_conflicts(store, videos)] == [
        ["walk/0.mp4", "run/1.mp4", "walk/4.mp4"]
    ]
    alike = [replace(video, label="walk") for video in videos]
    assert find_conflicts(store, alike) == []


@pytest.mark.parametrize("second_split", ["train", "test"])
def test_train_refuses_them_before_it_writes_anything(tmp_path: Path, second_split: str) -> None:
    store, videos = make_videos(tmp_path / "s")
    videos = [replace(video, split="train" if number % 3 else second_split) for number, video in enumerate(videos)]
    with pytest.raises(LabelsError, match=r"^2 pairs of videos with identical .* but different labels: ") as raised:
        train(store, videos, tmp_path / "run", config=TrainConfig(device="cpu"))
    assert "walk/0.mp4 (walk) and run/1.mp4 (run), …. Correct one of the two labels, or remove" in str(raised.value)
    assert "--skip-conflicts" in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_they_can_be_left_out(tmp_path: Path) -> None:
    make_videos(tmp_path / "s", 24)
    result = run("train", tmp_path / "s", "-o", tmp_path / "run", "--head", "mean", "--device", "cpu")
    assert result.exit_code == 1
    assert "2 pairs of videos with identical features" in result.stderr
    result = run(
        "train", tmp_path / "s", "-o", tmp_path / "run", "--skip-conflicts", "--head", "mean", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert "excluded 3 videos" in result.stderr
    assert len((tmp_path / "run/splits.csv").read_text().splitlines()) == 1 + 21


def test_only_videos_of_the_same_first_feature_are_read_whole_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, videos = make_videos(tmp_path / "s", 200)
    hashed: list[bytes] = []

    def counting(content: bytes) -> Any:
        hashed.append(content)
        return sha256(content)

    monkeypatch.setattr("vidpipe.datasets.leaks.sha256", counting)
    assert len(exclude_conflicts(store, videos, skip=True)) == 197
    assert len(hashed) == 5
    assert all(np.frombuffer(content, np.float32).size == 3 * 4 for content in hashed)
