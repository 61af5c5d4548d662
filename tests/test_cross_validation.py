"""Protocols: what is tested on what, the metrics over folds, the choice of a head, and leaks."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stores import make_sequence, make_store
from tests.trainings import rising_and_falling
from vidpipe.config import TrainConfig
from vidpipe.datasets.groups import group_by_pattern
from vidpipe.datasets.leaks import find_leaks
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import SUBSETS, make_folds
from vidpipe.datasets.store_labels import label_store
from vidpipe.errors import LabelsError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, LabeledVideo
from vidpipe.runs.run import Run
from vidpipe.stages.train import train
from vidpipe.training.cross_validation import cross_validate
from vidpipe.training.selection import CANDIDATES, choose_head

LINEAR = TrainConfig(head="statistics", device="cpu")
Made = tuple[FeatureStore, list[LabeledVideo]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return rising_and_falling(tmp_path_factory.mktemp("folds"))


@pytest.mark.parametrize("num_folds", [4, None])
def test_each_video_is_tested_once_and_no_group_is_on_two_sides(made: Made, num_folds: int | None) -> None:
    splits = make_folds(made[1], num_folds, 0.2, seed=0)
    assert len(splits) == (num_folds or 20)
    tested = [video.video_id for split in splits for video in split.test]
    assert sorted(tested) == sorted(video.video_id for video in made[1])
    for split in splits:
        groups = [{video.group for video in split[subset]} for subset in SUBSETS]
        assert sum(map(len, groups)) == len(set().union(*groups))
        assert all(groups)


def test_more_folds_than_groups_are_refused(made: Made) -> None:
    with pytest.raises(LabelsError, match="21 folds need at least 21 groups, found 20"):
        make_folds(made[1], 21, 0.0, seed=0)
    with pytest.raises(UsageError, match="two protocols"):
        TrainConfig(folds=3, leave_one_group_out=True)


def test_folds_give_estimates_and_the_run_learns_from_all(made: Made, tmp_path: Path) -> None:
    result = train(*made, tmp_path / "run", config=replace(LINEAR, folds=4, repeats=2))
    assert len(result.split.test) == 0
    assert len(result.split.train) + len(result.split.val) == 80
    with (tmp_path / "run/folds.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["seed"] for row in rows} == {"0", "1"}
    found = json.loads((tmp_path / "run/metrics.json").read_text())["folds"]
    for head in ("statistics", "mean"):
        correct = [int(row["right"]) for row in rows if row["head"] == head]
        assert len(correct) == 160
        assert found[head]["estimate"]["mean"] == pytest.approx(np.mean(correct))
        of_fold = [
            np.mean([int(row["right"]) for row in rows if row["head"] == head and row["fold"] == str(fold)])
            for fold in range(8)
        ]
        assert [fold["top1"] for fold in found[head]["folds"]] == pytest.approx(of_fold)
        assert found[head]["estimate"]["deviation"] == pytest.approx(np.std(of_fold, ddof=1))
        assert found[head]["estimate"]["low"] <= np.mean(correct) <= found[head]["estimate"]["high"]
    assert found["statistics"]["estimate"]["mean"] == 1.0 > found["mean"]["estimate"]["mean"]


def test_a_given_test_set_is_in_no_fold(made: Made, tmp_path: Path) -> None:
    given = [replace(v, split="test" if i < 16 else "train") for i, v in enumerate(made[1])]
    result = train(made[0], given, tmp_path / "run", config=replace(LINEAR, folds=3))
    assert result.cross_validation is not None
    tested = {video.video_id for video in result.cross_validation.accuracy_by_video("mean")}
    assert tested == {video.video_id for video in given[16:]}
    assert {video.video_id for video in result.split.test} == {video.video_id for video in given[:16]}
    assert result.evaluations["test"]["statistics"].num_videos == 16


def test_several_given_splits_are_each_tested_on_their_own_test_set(made: Made, tmp_path: Path) -> None:
    official = [
        [replace(v, split="test" if i // 4 % 3 == number else "train") for i, v in enumerate(made[1])]
        for number in range(3)
    ]
    result = train(made[0], official[0], tmp_path / "run", config=LINEAR, more_splits=official[1:])
    assert result.cross_validation is not None
    for labelled, found in zip(official, result.cross_validation.of("statistics"), strict=True):
        assert set(found.scores.dataset.video_ids) == {v.video_id for v in labelled if v.split == "test"}


def test_auto_takes_a_head_that_earns_it_and_says_why(made: Made, tmp_path: Path) -> None:
    config = replace(LINEAR, head="auto", budget=0.0, epochs=3)
    result = train(*made, tmp_path / "run", config=config)
    run = Run.open(tmp_path / "run")
    assert run.config.head == CANDIDATES[0] == "statistics,lstm"
    assert run.choice == result.run.choice
    assert "top-1 statistics,lstm 1.000 ± 0.000" in run.choice
    assert "not tried within --budget: statistics, gru, lstm, tcn, attention" in run.choice


@pytest.mark.slow
def test_auto_leaves_the_simple_head_where_another_wins(tmp_path: Path) -> None:
    """The class is how far the feature goes up and down around its mean, and back: its thirds are the same."""
    random = np.random.default_rng(0)
    sequences, videos = [], []
    for number in range(60):
        sequence = make_sequence(f"{number}.mp4", length=12, dim=4, seed=number)
        wave = np.tile([1.0, -1.0], 6) if number % 2 else np.tile([1.0, -1.0, -1.0, 1.0], 3)
        sequence.features[:] = 0.05 * random.standard_normal((12, 4))
        sequence.features[:, 0] += wave * random.choice([-1, 1])
        sequences.append(sequence)
        videos.append(LabeledVideo(f"{number}.mp4", "ab"[number % 2], group=f"g{number // 3}"))
    dataset = SequenceDataset(make_store(tmp_path / "s", sequences), videos, ["a", "b"])
    settings = {"hidden_size": 8, "epochs": 40, "lr": 0.01, "dropout": 0.0, "motion": "centred", "unit_frames": False}
    config = replace(LINEAR, **settings)  # type: ignore[arg-type]
    choice = choose_head(dataset, config)
    assert choice.head != "statistics"
    assert choice.reason.startswith(f"{choice.head}, by 3 folds over the groups of 60 training videos")


def test_the_same_file_and_nearly_the_same_one_are_found_across_subsets_only(tmp_path: Path) -> None:
    sequences = [make_sequence(f"{number}.mp4", 6, dim=64, seed=number) for number in range(12)]
    copied = make_sequence("copy.mp4", 6, dim=64)
    copied.features[:] = sequences[0].features
    encoded_again = make_sequence("again.mp4", 6, dim=64)
    encoded_again.features[:] = sequences[1].features + 0.01 * np.random.default_rng(0).standard_normal((6, 64))
    within = make_sequence("within.mp4", 6, dim=64)
    within.features[:] = sequences[2].features
    everything: list[FeatureSequence] = [*sequences, within, copied, encoded_again]
    store = make_store(tmp_path / "store", everything)
    videos = [LabeledVideo(sequence.video_id, "x") for sequence in everything]
    dataset = SequenceDataset(store, videos, ["x"])
    ids = {"train": dataset.video_ids[:13], "val": [], "test": ["copy.mp4", "again.mp4"]}
    same, alike = find_leaks({subset: dataset.select(its_ids) for subset, its_ids in ids.items()})
    assert (same.video, same.split, same.other, same.other_split, same.same) == (
        "0.mp4",
        "train",
        "copy.mp4",
        "test",
        True,
    )
    assert (alike.video, alike.other, alike.same) == ("1.mp4", "again.mp4", False)
    assert 0.95 < alike.cosine < 1


def test_a_warning_of_leaks_names_the_first_pair(tmp_path: Path) -> None:
    sequences = [
        make_sequence(f"{label}/{n}.mp4", 6, dim=32, seed=n + 50 * (label == "b")) for label in "ab" for n in range(8)
    ]
    sequences[7].features[:] = sequences[0].features
    store = make_store(tmp_path / "store", sequences)
    videos = [
        LabeledVideo(s.video_id, s.video_id[0], split="test" if s.video_id[2] in "67" else "train") for s in sequences
    ]
    result = train(store, videos, tmp_path / "run", config=replace(LINEAR, val_fraction=0.0))
    assert any("a/0.mp4 (train) and a/7.mp4 (test), cosine 1.000" in warning for warning in result.run.warnings)
    assert "a/0.mp4,train,a/7.mp4,test,1.0,True" in (tmp_path / "run/leaks.csv").read_text()
    assert Run.open(tmp_path / "run").warnings == result.run.warnings


def test_groups_come_from_an_expression_or_a_column(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [make_sequence(f"a/cam{n % 3}_{n}.mp4") for n in range(6)])
    found = label_store(store, group_by=r"(cam\d)_")
    assert {video.video_id: video.group for video in found}["a/cam2_5.mp4"] == "cam2"
    assert {video.group for video in group_by_pattern(found, r"cam\d")} == {"cam0", "cam1", "cam2"}
    rows = [f"a/cam{n % 3}_{n}.mp4,x,night{n % 2}" for n in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label,time", *rows]))
    found = label_store(store, tmp_path / "labels.csv", group_by="time")
    assert {video.group for video in found} == {"night0", "night1"}
    found = label_store(store, tmp_path / "labels.csv", group_by=r"cam\d")
    assert {video.group for video in found} == {"cam0", "cam1", "cam2"}


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("camera", LabelsError, "no such column, and as a regular expression it matches nothing in 2 of 2 ids"),
        ("mp4", LabelsError, "no such column, and as a regular expression it finds the same group 'mp4' in all 2 ids"),
        ("(", UsageError, "no such column, and it is not a regular expression"),
    ],
)
def test_an_expression_that_does_not_fit_is_reported(pattern: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        group_by_pattern([LabeledVideo("a/1.mp4", "a"), LabeledVideo("b/2.mp4", "b")], pattern)


def test_a_single_test_set_has_no_deviation(made: Made) -> None:
    dataset = SequenceDataset(made[0], made[1], ["falling", "rising"])
    split = make_folds(made[1], 4, 0.0, seed=0)[0]
    estimate = cross_validate(dataset, [(0, split)], replace(LINEAR, head="mean")).estimate("mean")
    assert estimate.deviation is None
    assert "±" not in str(estimate)
