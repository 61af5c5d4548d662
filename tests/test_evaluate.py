"""What evaluate prints, and what it says where a store and a run do not go together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.commands import run
from tests.stores import KEY, make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run, check_key
from vidpipe.stages.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`store/`, and `run/`, which keeps its test part."""
    folder = tmp_path_factory.mktemp("evaluate")
    sequences = [make_sequence(f"{label}/{n}.mp4", 4, dim=8, seed=n) for label in "ab" for n in range(8)]
    videos = [LabeledVideo(sequence.video_id, sequence.video_id[0]) for sequence in sequences]
    config = TrainConfig(head="mean", refit=False, device="cpu")
    train(make_store(folder / "store", sequences), videos, folder / "run", config=config)
    return folder


def test_columns_stand_below_each_other_whatever_the_heads_name(made: Path, tmp_path: Path) -> None:
    quick = ("--head", "transformer", "--hidden-size", 8, "--epochs", 1, "--device", "cpu", "--no-refit")
    outputs = [
        run("train", made / "store", "-o", tmp_path / "run", *quick).stdout,
        run("train", made / "store", "-o", tmp_path / "folds", *quick, "--folds", 2).stdout,
        run("evaluate", tmp_path / "run", made / "store").stdout,
    ]
    for output in outputs:
        lines = [line for line in output.splitlines() if " top-1 " in line]
        assert {"transformer", "mean"} <= {word for line in lines for word in line.split()[:2]}
        assert len({line.index("top-1") for line in lines}) == 1


def test_a_store_of_another_backbone_is_told_by_the_two_backbones(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = replace(KEY, backbone="efficientnet_lite1", weights="1" * 64)
    FeatureStore.create(made / "lite1", other)
    result = run("evaluate", made / "run", made / "lite1")
    assert result.exit_code == 1
    told = f"{made / 'lite1'} holds efficientnet_lite1 features; {made / 'run'} needs resnet50 features. "
    assert told in result.stderr
    assert "1" * 64 not in result.stderr
    assert "--debug" in result.stderr
    assert "1" * 64 in run("evaluate", made / "run", made / "lite1", "--debug").stderr


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (replace(KEY, sampling={"method": "fps", "fps": 2.0}), ("sampled 2 fps", "sampled uniform, 16 frames")),
        (replace(KEY, pooling="max", dtype="float16"), ("max pooling, float16", "avg pooling, float32")),
        (replace(KEY, weights="ab" * 32), ("weights abababab…", "weights 00000000…")),
        (replace(KEY, precision="half"), ("half precision", "full precision")),
        (replace(KEY, preprocessing={**KEY.preprocessing, "crop": 192}), ("crop 192", "crop 224")),
    ],
)
def test_of_one_backbone_the_settings_that_differ_are_told(
    made: Path, tmp_path: Path, other: FeatureKey, told: tuple[str, str]
) -> None:
    store = FeatureStore.create(tmp_path / "s", other)
    with pytest.raises(Exception, match="holds") as caught:
        check_key(Run.open(made / "run"), store)
    held, needed = told
    assert (
        f"{tmp_path / 's'} holds resnet50 features, {held}; {made / 'run'} needs resnet50 features, {needed}. Extract"
        in str(caught.value)
    )


def test_one_video_is_not_1_videos(made: Path, tmp_path: Path) -> None:
    tested = [row.video for row in Run.open(made / "run").splits if row.split == "test"]
    (tmp_path / "labels.csv").write_text(f"video,label\n{tested[0]},{tested[0][0]}\n")
    result = run("evaluate", made / "run", made / "store", "--labels", tmp_path / "labels.csv")
    assert result.exit_code == 0, result.output
    assert "  1 video" in result.stdout
    assert "1 videos" not in result.output
    assert np.sum([line.endswith("  1 video") for line in result.stdout.splitlines()]) == 1
