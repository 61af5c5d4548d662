"""The background check: classifiers on altered videos of which it is known what tells the classes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import vidpipe
from tests.media import write_frames
from tests.pages import Page
from tests.stores import KEY, make_sequence, make_store
from tests.trainings import QUICK, rising_and_falling
from vidpipe.backbones.flow import FlowParameters, describe
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import LabelsError, UsageError, VidpipeError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.report.collect import collect_report
from vidpipe.report.page import write_report
from vidpipe.runs.background_check import CONTROLS, BackgroundCheck, ControlScore
from vidpipe.runs.metrics import bootstrap_interval
from vidpipe.runs.run import Run
from vidpipe.stages.train import TrainResult, train
from vidpipe.training.controls import MaskedStores, freeze, shuffle, still_features

LOOK: dict[str, Any] = {"head": "statistics", "motion": "raw", "statistics": "mean", "device": "cpu"}
"""A classifier of what frames look like."""
FOLDS = TrainConfig(**LOOK, folds=5, check_background=True)
Made = tuple[FeatureStore, list[LabeledVideo]]


def write_videos(folder: Path, sees: str, num_videos: int = 40) -> None:
    """Videos of a square that moves right or left under a bright or dark sky; gray for what `sees` leaves out."""
    for number in range(num_videos):
        random = np.random.default_rng(number)
        sky, ground = (220, 30) if number % 2 else (30, 220)
        frames = []
        for step in range(12):
            frame = np.full((64, 96, 3), 120, np.uint8)
            if sees != "square":
                frame[:32], frame[32:] = sky + random.integers(0, 20), ground
            left = 9 + (step if number // 2 % 2 else 11 - step) * 6
            if sees != "place":
                frame[26:38, left : left + 12] = (255, 0, 0)
            frames.append(frame)
        write_frames(folder / f"{number:02d}.mp4", frames)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of stores of the same videos: whole, without the square, and with nothing but the square."""
    folder = tmp_path_factory.mktemp("drawn")
    for sees in ("whole", "place", "square"):
        write_videos(folder / "videos" / sees, sees)
        settings: dict[str, Any] = {"backbone": "lenet5,flow", "num_frames": 8, "device": "cpu", "workers": 1}
        vidpipe.extract(folder / "videos" / sees, folder / sees, **settings)
    for name, labels in {"place": ("dark", "bright"), "direction": ("left", "right")}.items():
        rows = [f"{n:02d}.mp4,{labels[(n if name == 'place' else n // 2) % 2]},g{n:02d}" for n in range(40)]
        (folder / f"{name}.csv").write_text("\n".join(["video,label,group", *rows]))
    return folder


def check_of(stores: Path, run: Path, *, stream: str, label: str) -> BackgroundCheck:
    masked: dict[str, Any] = {"without_people": stores / "place", "only_people": stores / "square"}
    labels: dict[str, Any] = {"labels": stores / f"{label}.csv", "streams": stream, "folds": 5}
    found = vidpipe.train(stores / "whole", run, check_background=True, **masked, **labels, **LOOK).background_check
    assert found is not None
    return found


@pytest.mark.slow
def test_a_classifier_of_the_place_is_found_out(stores: Path, tmp_path: Path) -> None:
    check = check_of(stores, tmp_path / "run", stream="lenet5", label="place")
    assert check.whole.top1 == 1
    assert {name: score.top1 for name, score in check.controls.items() if name != "only_people"} == {
        "frozen": 1,
        "one_frame": 1,
        "shuffled": 1,
        "without_people": 1,
    }
    assert check.controls["only_people"].interval is not None
    assert check.controls["only_people"].interval[0] <= 0.5
    assert check.sentences["without_people"].endswith("it has learned the place")
    assert check.sentences["only_people"].endswith("it needs the place")
    assert check.caveats == (check.sentences["frozen"], check.sentences["without_people"])


@pytest.mark.slow
def test_a_classifier_of_the_motion_is_cleared(stores: Path, tmp_path: Path) -> None:
    check = check_of(stores, tmp_path / "run", stream="flow", label="direction")
    assert check.whole.top1 == 1
    assert "one_frame" not in check.controls  # there is no stream of pictures
    assert check.controls["frozen"].top1 <= 0.5
    assert check.controls["without_people"].top1 <= 0.5
    assert check.controls["only_people"].top1 == 1
    assert check.sentences["frozen"].endswith("it needs what changes over time")
    assert check.sentences["without_people"].endswith("it needs the people")
    assert check.sentences["only_people"].endswith("the people are enough")
    assert check.caveats == ()


@pytest.mark.slow
def test_a_classifier_of_the_order_needs_the_order(tmp_path: Path) -> None:
    result = train(*rising_and_falling(tmp_path), tmp_path / "run", config=replace(QUICK, check_background=True))
    check = result.background_check
    assert check is not None
    assert check.evaluation_set == "test"
    assert check.num_videos == len(result.split.test)
    assert check.whole.top1 == result.evaluations["test"]["lstm"].top1 > 0.9
    assert check.controls["shuffled"].difference < -0.2
    assert "order of the frames does not matter" not in check.sentences["shuffled"]


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Videos whose class shows in the middle row alone; the rest is noise."""
    sequences, videos = [], []
    for number in range(40):
        sequence = make_sequence(f"{number}.mp4", length=5 + number % 3, seed=number)
        sequence.features[len(sequence) // 2, 0] += 9 * (number % 2)
        sequences.append(sequence)
        videos.append(LabeledVideo(f"{number}.mp4", "ab"[number % 2], group=f"g{number // 4}"))
    return make_store(tmp_path_factory.mktemp("placed") / "store", sequences), videos


@pytest.fixture(scope="module")
def checked(placed: Made, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A training on these videos with the check."""
    return train(*placed, tmp_path_factory.mktemp("checked") / "run", config=FOLDS)


def check_in(result: TrainResult) -> BackgroundCheck:
    assert result.background_check is not None
    return result.background_check


def test_the_figures_are_those_of_the_test_folds(placed: Made, tmp_path: Path) -> None:
    result = train(*placed, tmp_path / "run", config=replace(FOLDS, repeats=2))
    check, folds = result.background_check, result.cross_validation
    assert check is not None
    assert folds is not None
    estimate = folds.estimate("statistics")
    assert (check.evaluation_set, check.num_videos, check.chance) == ("folds", 40, 0.5)
    assert check.whole.top1 == pytest.approx(estimate.mean)
    assert check.whole.interval == pytest.approx((estimate.low, estimate.high))
    assert check.controls["one_frame"].top1 == 1
    for score in check.controls.values():
        assert score.difference == pytest.approx(score.top1 - check.whole.top1)


def test_differences_are_paired_by_video(checked: TrainResult) -> None:
    check = check_in(checked)
    assert check.controls["shuffled"].difference_interval == (0, 0)  # the mean over time is the same in any order
    assert check.whole.difference_interval == (0, 0)


def test_the_interval_is_that_of_the_bootstrap_over_groups(checked: TrainResult) -> None:
    assert checked.cross_validation is not None
    correct = checked.cross_validation.accuracy_by_video("statistics")
    expected = bootstrap_interval(np.array(list(correct.values())), [video.group or "" for video in correct], seed=0)
    assert check_in(checked).controls["shuffled"].interval == pytest.approx(expected)


def test_the_classifiers_of_the_training_are_not_changed(placed: Made, checked: TrainResult, tmp_path: Path) -> None:
    train(*placed, tmp_path / "without", config=replace(FOLDS, check_background=False))
    model = (tmp_path / "without/model.safetensors").read_bytes()
    assert model == (checked.run.path / "model.safetensors").read_bytes()
    assert Run.open(tmp_path / "without").background_check is None


def test_a_run_keeps_the_check(checked: TrainResult) -> None:
    run = checked.run.path
    assert Run.open(run).background_check == checked.background_check
    section = json.loads((run / "metrics.json").read_text())["background_check"]
    assert section["controls"]["one_frame"]["top1"] == 1


def test_the_report_shows_the_check(checked: TrainResult, tmp_path: Path) -> None:
    write_report(collect_report(Run.open(checked.run.path)), tmp_path / "report.html")
    page, check = Page(tmp_path / "report.html"), check_in(checked)
    header, whole, *rows = page.tables["controls"]
    assert [row[0] for row in rows] == [CONTROLS[name].title for name in check.controls]
    assert [row[1] for row in (whole, *rows)] == [f"{one.top1:.3f}" for one in (check.whole, *check.controls.values())]
    assert len(header) == len(whole) == 5
    for sentence in check.sentences.values():
        assert sentence[1:] in page.text


def test_frozen_videos_repeat_their_middle_row_in_all_streams(placed: Made) -> None:
    store, videos = placed
    dataset = SequenceDataset({"image": store, "flow": store}, videos[:3], ["a", "b"])
    frozen = freeze(dataset, still={"flow": torch.arange(4.0)})
    assert frozen.lengths.tolist() == dataset.lengths.tolist()
    for number in range(3):
        rows = dataset.stream("image").sequence(number)
        assert torch.equal(frozen.stream("image").sequence(number), rows[len(rows) // 2].expand(len(rows), -1))
        assert torch.equal(frozen.stream("flow").sequence(number), torch.arange(4.0).expand(len(rows), -1))


def test_shuffled_videos_have_the_same_rows_and_one_order_in_all_streams(placed: Made) -> None:
    store, videos = placed
    dataset = SequenceDataset({"one": store, "other": store}, videos, ["a", "b"])
    shuffled, again = shuffle(dataset), shuffle(dataset)
    num_moved = 0
    for number in range(len(videos)):
        before, after = dataset.sequence(number), shuffled.sequence(number)
        assert sorted(before.tolist()) == sorted(after.tolist())
        assert torch.equal(after, shuffled.stream("other").sequence(number))
        assert torch.equal(after, again.sequence(number))
        num_moved += not torch.equal(before, after)
    assert num_moved > 35


def test_the_cells_of_a_picture_stay_together(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store", replace(KEY, grid=2))
    sequence = make_sequence("a.mp4", length=15)
    with store.writer() as writer:
        writer.add(sequence)
    dataset = SequenceDataset(FeatureStore.open(store.path), [LabeledVideo("a.mp4", "a")], ["a"])
    (batch,) = shuffle(dataset).batches(1)
    pictures: NDArray[np.float32] = sequence.features.reshape(3, 20)
    assert sorted(batch.features[0].tolist()) == sorted(pictures.tolist())


def test_a_still_picture_has_one_motion_feature_whatever_it_shows(tmp_path: Path) -> None:
    parameters = FlowParameters(grid=2, num_directions=4)
    key = replace(KEY, parameters=parameters.as_dict())
    found = still_features(
        {"flow": FeatureStore.create(tmp_path / "flow", key), "image": make_store(tmp_path / "s", [])}
    )
    assert set(found) == {"flow"}
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 3, 40, 70), dtype=np.uint8)
    np.testing.assert_allclose(found["flow"], describe(picture.repeat(2, axis=1), parameters)[0], atol=1e-6)


# What it says


def score(
    top1: float, interval: tuple[float, float] | None, difference_interval: tuple[float, float] | None
) -> ControlScore:
    return ControlScore(top1, interval, top1 - 0.8, difference_interval)


WHOLE = ControlScore(0.8, (0.7, 0.9), 0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("found", "meaning", "is_caveat"),
    [
        (score(0.52, (0.44, 0.6), (-0.4, -0.2)), "it needs the people", False),
        (score(0.3, (0.2, 0.4), (-0.6, -0.4)), "it needs the people", False),
        (score(0.61, (0.53, 0.7), (-0.3, -0.1)), "it has learned the place in part", True),
        (score(0.7, (0.6, 0.8), (-0.2, 0.01)), "it has learned the place in part", True),
        (score(0.79, (0.7, 0.9), (-0.1, 0.1)), "it has learned the place", True),
        (score(0.9, (0.8, 1.0), (0.02, 0.2)), "it has learned the place", True),
        (score(0.65, (0.4, 0.9), (-0.4, 0.1)), "too few videos to say", False),
        (score(0.65, None, None), "too few groups of videos", False),
    ],
)
def test_the_sentence_says_what_the_figures_mean(found: ControlScore, meaning: str, is_caveat: bool) -> None:
    check = BackgroundCheck("folds", 200, 0.5, WHOLE, {"without_people": found})
    before, after = check.sentences["without_people"].split("): ")
    assert after.startswith(meaning)
    assert len(after) == len(meaning) or meaning.startswith("too few")
    assert f"names {100 * found.top1:.0f} % (" in before
    assert before.endswith("80 % of the videos as they are; chance 50 %")
    assert bool(check.caveats) == is_caveat


def test_a_sentence_reads_well() -> None:
    found = score(0.61, (0.53, 0.7), (-0.3, -0.1))
    assert BackgroundCheck("folds", 200, 0.5, WHOLE, {"without_people": found}).sentences["without_people"] == (
        "with the people painted out it still names 61 % (95 % CI 53 to 70 %; 80 % of the videos as they are; chance "
        "50 %): it has learned the place in part"
    )


def test_nothing_is_said_of_a_classifier_that_is_at_chance_itself() -> None:
    whole = ControlScore(0.55, (0.45, 0.65), 0.0, (0.0, 0.0))
    controls = dict.fromkeys(CONTROLS, ControlScore(0.55, (0.51, 0.65), 0.0, (-0.1, 0.1)))
    check = BackgroundCheck("folds", 200, 0.5, whole, controls)
    assert check.caveats == ()
    for name, sentence in check.sentences.items():
        assert ("says nothing" in sentence) == (name != "one_frame")


# What does not go together


def message_of(call: type[VidpipeError], stores: Path, run: Path, **settings: Any) -> str:
    with pytest.raises(call) as caught:
        vidpipe.train(stores, run, **{"head": "statistics", "device": "cpu", **settings})
    return str(caught.value)


def masked_store(folder: Path, key: FeatureKey, video_ids: Sequence[str]) -> Path:
    store = FeatureStore.create(folder, key)
    with store.writer() as writer:
        for video_id in video_ids:
            writer.add(make_sequence(video_id, seed=1))
    return folder


def test_a_masked_store_must_fit_the_stores_of_the_training(placed: Made, tmp_path: Path) -> None:
    store, videos = placed
    ids = [video.video_id for video in videos]
    other = masked_store(tmp_path / "other", replace(KEY, backbone="resnet101"), ids)
    few = masked_store(tmp_path / "few", KEY, ids[:-2])
    stage: dict[str, Any] = {"config": FOLDS}
    with pytest.raises(UsageError, match=r"--without-people: no store fits the stream resnet50: .*resnet101"):
        train(store, videos, tmp_path / "run", masked=MaskedStores([FeatureStore.open(other)]), **stage)
    with pytest.raises(UsageError, match="--only-people: no store fits the stream resnet50"):
        train(store, videos, tmp_path / "run", masked=MaskedStores(only_people=[store]), **stage)
    with pytest.raises(LabelsError, match=r"few lacks 2 videos of the training: 38.mp4, 39.mp4"):
        train(store, videos, tmp_path / "run", masked=MaskedStores([FeatureStore.open(few)]), **stage)
    mask = masked_store(tmp_path / "mask", replace(KEY, regions={"kind": "mask", "detector": "deeplab"}), ids)
    with pytest.raises(UsageError, match="mask is of --regions mask; give one of --regions background"):
        train(store, videos, tmp_path / "run", masked=MaskedStores([FeatureStore.open(mask)]), **stage)
    two = [FeatureStore.open(masked_store(tmp_path / name, KEY, ids)) for name in ("one", "two")]
    with pytest.raises(UsageError, match="several stores fit"):
        train(store, videos, tmp_path / "run", masked=MaskedStores(two), **stage)


def test_what_does_not_go_together_is_refused(placed: Made, tmp_path: Path) -> None:
    store, _ = placed
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["video,label,split", *(f"{n}.mp4,{'ab'[n % 2]},train" for n in range(40))]))
    run, given = tmp_path / "run", {"labels": labels}
    assert "give both" in message_of(UsageError, store.path, run, without_people=store.path, **given)
    assert "--targets windows" in message_of(UsageError, store.path, run, check_background=True, targets="rows")
    settings: dict[str, Any] = {"check_background": True, "val_fraction": 0.0}
    assert "--folds 5" in message_of(UsageError, store.path, run, **settings, **given)


def test_without_a_test_set_the_validation_set_is_used(placed: Made, tmp_path: Path) -> None:
    store, videos = placed
    config = TrainConfig(**LOOK, check_background=True, test_fraction=0, val_fraction=0.5)
    check = train(store, videos, tmp_path / "run", config=config).background_check
    assert check is not None
    assert check.evaluation_set == "val"
