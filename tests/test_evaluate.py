"""`vidpipe evaluate` and the function: metrics, excluded videos, and stores that do not fit the run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import run
from tests.stores import KEY, make_sequence, make_store
from tests.trainings import heads_of
from vidpipe.config import TrainConfig
from vidpipe.errors import LabelsError, RunError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run, stores_of
from vidpipe.stages.evaluate import evaluate
from vidpipe.stages.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`store/`, and `run/`, which has not learned from its test set."""
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


def test_an_error_about_another_backbone_names_both_backbones(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = replace(KEY, backbone="efficientnet_lite1", weights="1" * 64)
    FeatureStore.create(made / "lite1", other)
    result = run("evaluate", made / "run", made / "lite1")
    assert result.exit_code == 1
    message = f"{made / 'lite1'} holds efficientnet_lite1 features; {made / 'run'} needs resnet50 features. "
    assert message in result.stderr
    assert "1" * 64 not in result.stderr
    assert "--debug" in result.stderr
    assert "1" * 64 in run("evaluate", made / "run", made / "lite1", "--debug").stderr


@pytest.mark.parametrize(
    ("other", "contrast"),
    [
        (replace(KEY, sampling={"method": "fps", "fps": 2.0}), ("sampled 2 fps", "sampled uniform, 16 frames")),
        (replace(KEY, pooling="max", dtype="float16"), ("max pooling, float16", "avg pooling, float32")),
        (replace(KEY, weights="ab" * 32), ("weights abababab…", "weights 00000000…")),
        (replace(KEY, precision="half"), ("half precision", "full precision")),
        (replace(KEY, preprocessing={**KEY.preprocessing, "crop": 192}), ("crop 192", "crop 224")),
    ],
)
def test_an_error_about_one_backbone_names_the_settings_that_differ(
    made: Path, tmp_path: Path, other: FeatureKey, contrast: tuple[str, str]
) -> None:
    store = FeatureStore.create(tmp_path / "s", other)
    with pytest.raises(Exception, match="holds") as caught:
        stores_of(Run.open(made / "run"), store)
    held, needed = contrast
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


def unseen_videos(run: Run) -> list[LabeledVideo]:
    return [LabeledVideo(row.video, row.label) for row in run.splits if row.split == "test"]


def test_evaluate_gives_the_metrics_that_the_training_measured(made: Path) -> None:
    opened = Run.open(made / "run")
    report = evaluate(opened, FeatureStore.open(made / "store"), unseen_videos(opened), device="cpu")
    assert report.num_excluded == 0
    assert list(report.evaluations) == ["mean"]
    found = {**report.evaluations["mean"].as_dict(), "top1_interval": None}
    expected = {**opened.metrics["test"]["mean"], "top1_interval": None}
    assert json.loads(json.dumps(found)) == expected


def test_scores_agree_with_the_head_applied_to_one_video_at_a_time(made: Path) -> None:
    opened, store = Run.open(made / "run"), FeatureStore.open(made / "store")
    videos = unseen_videos(opened)
    scores = evaluate(opened, store, videos, device="cpu").scores["mean"]
    head = heads_of(opened)["mean"]
    for video, row, predicted, correct in zip(videos, scores.rows(), scores.predicted, scores.correct, strict=True):
        features = torch.from_numpy(store[video.video_id].features)[None]
        with torch.inference_mode():
            probabilities = head(features, torch.tensor([features.shape[1]])).softmax(dim=1)[0]
        assert opened.class_names[predicted] == row["predicted"] == opened.class_names[int(probabilities.argmax())]
        assert bool(correct) == row["right"] == (row["predicted"] == video.label)
        assert row["probability"] == pytest.approx(float(probabilities.max()), abs=1e-5)


def test_a_video_of_the_same_id_and_another_size_is_not_excluded(made: Path, tmp_path: Path) -> None:
    opened = Run.open(made / "run")
    names = [row.video for row in opened.splits]
    sequences = [make_sequence(name, 4, dim=8) for name in names]
    grown = [replace(s, info=replace(s.info, size_bytes=s.info.size_bytes + 1)) for s in sequences]
    store = make_store(tmp_path / "store", grown)
    report = evaluate(opened, store, [LabeledVideo(name, name[0]) for name in names], device="cpu")
    assert (report.num_excluded, report.evaluations["mean"].num_videos) == (0, len(names))


def test_a_label_that_the_run_does_not_know_is_refused(made: Path) -> None:
    opened, store = Run.open(made / "run"), FeatureStore.open(made / "store")
    with pytest.raises(LabelsError, match=r"'c': not a class of this run; its classes are a, b\. Correct"):
        evaluate(opened, store, [LabeledVideo(store.ids[0], "c")], device="cpu")


def test_a_run_that_has_seen_every_video_cannot_be_evaluated_on_them(made: Path) -> None:
    opened, store = Run.open(made / "run"), FeatureStore.open(made / "store")
    (*_, seen) = [row.video for row in opened.splits if row.split == "train"]
    with pytest.raises(RunError, match="the one video given was used for training or model selection; give others"):
        evaluate(opened, store, [LabeledVideo(seen, seen[0])], device="cpu")
