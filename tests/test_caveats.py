"""Every warning of a training is in the run, the report and `info`; an impossible protocol is refused at once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import run
from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.datasets.leaks import Leak
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import LabelsError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run
from vidpipe.stages.train import train
from vidpipe.training.caveats import split_caveats

LINEAR = TrainConfig(head="statistics", motion="raw", device="cpu")
Made = tuple[FeatureStore, list[LabeledVideo]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """48 videos of two classes in 12 groups of four, each group with both classes."""
    sequences = [make_sequence(f"{'ab'[n % 2]}/{n}.mp4", 4, dim=4, seed=n) for n in range(48)]
    videos = [LabeledVideo(s.video_id, s.video_id[0], group=f"g{n // 4}") for n, s in enumerate(sequences)]
    return make_store(tmp_path_factory.mktemp("made") / "store", sequences), videos


def write_labels(path: Path, videos: list[LabeledVideo]) -> Path:
    rows = [f"{video.video_id},{video.label},{video.split},{video.group}" for video in videos]
    path.write_text("\n".join(["video,label,split,group", *rows]))
    return path


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_split_that_divides_groups_is_reported_in_the_run_the_report_and_info(
    made: Made, tmp_path: Path, quiet: tuple[str, ...]
) -> None:
    divided = [replace(v, split="train" if n % 4 < 2 or n >= 36 else "test") for n, v in enumerate(made[1])]
    labels = write_labels(tmp_path / "labels.csv", divided[:-1])
    folder = tmp_path / "run"
    result = run("train", made[0].path, "-o", folder, "--labels", labels, "--head", "mean", *quiet)
    assert result.exit_code == 0, result.output
    assert "9 of 12 groups in more than one subset" in result.stdout
    messages = ["9 of 12 groups in more than one subset", "1 video of the store without a label"]
    kept = json.loads((folder / "run.json").read_text())
    shown = json.loads(run("info", folder, "--format", "json").stdout)
    assert run("report", folder).exit_code == 0
    page = (folder / "report.html").read_text()
    for text in messages:
        assert any(text in warning for warning in kept["warnings"]), text
        assert any(text in warning for warning in shown["warnings"]), text
        assert text in page
        assert f"{text}" in result.stderr
    assert kept["grouping"].endswith("9 of 12 groups in more than one subset")


def test_a_class_without_validation_videos_is_in_the_runs_warnings(made: Made, tmp_path: Path) -> None:
    videos = [replace(v, label="c" if v.group == "g0" else v.label) for v in made[1]]
    train(made[0], videos, tmp_path / "run", config=LINEAR)
    warnings = Run.open(tmp_path / "run").warnings
    assert any("c" in warning and "in one group" in warning for warning in warnings)
    assert len(set(warnings)) == len(warnings)


@pytest.mark.parametrize(
    ("num_test", "grouped", "message"),
    [
        (1, True, "only 1 video is in the test set"),
        (1, False, "only 1 video is in the test set"),
        (4, True, "all 4 test videos are of one group"),
        (4, False, "only 4 videos are in the test set"),
        (8, True, "only 2 of 12 groups are in the test set"),
    ],
)
def test_a_small_test_set_is_a_caveat(made: Made, tmp_path: Path, num_test: int, grouped: bool, message: str) -> None:
    videos = [
        replace(v, split="test" if n < num_test else "train", group=v.group if grouped else None)
        for n, v in enumerate(made[1])
    ]
    found = train(made[0], videos, tmp_path / "run", config=LINEAR).run.warnings
    assert sum("test set" in warning or "test videos" in warning for warning in found) == 1
    assert any(warning.startswith(message) for warning in found)


def test_a_baseline_that_beats_the_head_is_a_caveat(made: Made, tmp_path: Path) -> None:
    """The classes differ in the mean alone, which a head that sees the frames less their mean cannot know."""
    sequences = [make_sequence(video.video_id, 4, dim=4, seed=n) for n, video in enumerate(made[1])]
    for sequence in sequences:
        sequence.features[:] += 5.0 * sequence.video_id.startswith("a")
    store = make_store(tmp_path / "store", sequences)
    config = replace(LINEAR, motion="centred", unit_frames=False, folds=3)
    result = train(store, made[1], tmp_path / "run", config=config)
    assert result.cross_validation is not None
    top1 = result.cross_validation.estimate("statistics").mean
    assert top1 < 1.0
    expected = f"the baseline (1.000) beats statistics ({top1:.3f}): do not rely on this model"
    assert expected in result.run.warnings


@pytest.mark.parametrize(
    ("head", "num_rows", "is_warned"), [("statistics", 1, True), ("mean", 1, False), ("statistics", 2, False)]
)
def test_heads_that_see_changes_alone_are_warned_of_videos_of_one_row(
    made: Made, tmp_path: Path, head: str, num_rows: int, is_warned: bool
) -> None:
    sequences = [make_sequence(video.video_id, num_rows, dim=4, seed=n) for n, video in enumerate(made[1])]
    store = make_store(tmp_path / "store", sequences)
    config = replace(LINEAR, head=head, motion=None)
    warnings = train(store, made[1], tmp_path / "run", config=config).run.warnings
    assert any("have one row of" in warning and "--head mean" in warning for warning in warnings) == is_warned


def test_train_says_on_how_many_videos_the_model_was_measured(made: Made, tmp_path: Path) -> None:
    given = [replace(v, split="test" if n < 16 else "train") for n, v in enumerate(made[1])]
    labels = write_labels(tmp_path / "labels.csv", given)
    result = run("train", made[0].path, "-o", tmp_path / "run", "--labels", labels, "--head", "mean")
    num_train = sum(row.split == "train" for row in Run.open(tmp_path / "run").splits)
    assert f"metrics: model trained on {num_train} videos; saved model: refitted on all 32" in result.stdout
    assert "no group in more than one subset" in result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": 2, "test_fraction": 0.0}, r"--repeats 2 .* no test set with --test-fraction 0"),
        ({"folds": 13}, "13"),
        ({"folds": 13, "repeats": 2}, "13"),
    ],
)
def test_a_protocol_that_the_videos_cannot_fill_is_refused_before_training(
    made: Made, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    seen: list[str] = []
    with pytest.raises((UsageError, LabelsError), match=message):
        train(
            *made,
            tmp_path / "run",
            config=replace(LINEAR, **change),  # type: ignore[arg-type]
            on_epoch=lambda head, epoch: seen.append(head),
        )
    assert not seen
    assert not list(tmp_path.iterdir())


def test_repeats_of_a_given_split_without_a_test_set_are_refused_before_training(made: Made, tmp_path: Path) -> None:
    given = [replace(v, split="val" if n < 8 else "train") for n, v in enumerate(made[1])]
    with pytest.raises(UsageError, match="the labels' split has none"):
        train(made[0], given, tmp_path / "run", config=replace(LINEAR, repeats=2))


def test_a_single_group_cannot_be_left_out_nor_compared_by_folds(made: Made, tmp_path: Path) -> None:
    one = [replace(video, group="only") for video in made[1]]
    with pytest.raises(LabelsError, match="group"):
        train(made[0], one, tmp_path / "run", config=replace(LINEAR, leave_one_group_out=True))
    with pytest.raises(UsageError, match=r"--head auto compares heads by 3 folds .* has 1 group; choose a head"):
        train(made[0], one, tmp_path / "run", config=replace(LINEAR, head="auto"))
    with pytest.raises(UsageError, match="too few videos, or too few groups"):
        train(made[0], one, tmp_path / "run", config=replace(LINEAR, repeats=2))


def test_the_warning_of_leaks_has_the_score_of_the_same_footage_and_the_remedy(made: Made) -> None:
    dataset = SequenceDataset(made[0], made[1], ["a", "b"])
    subsets = {"train": dataset, "val": dataset.select([]), "test": dataset}
    alike = Leak("a/0.mp4", "train", "b/1.mp4", "test", 0.971, False)
    copied = Leak("a/2.mp4", "train", "b/3.mp4", "test", 0.62, False, duplicate_score=17.256)

    def warning(leaks: list[Leak]) -> str:
        return next(one for one in split_caveats(subsets, leaks, has_folds=True) if "leaks.csv" in one)

    assert warning([alike]).endswith("b/1.mp4 (test), cosine 0.971; leaks.csv lists all")
    found = warning([copied, alike])
    assert "2 pairs of videos in different subsets look alike, 1 with the same footage, such as a/2.mp4" in found
    assert "cosine 0.620, duplicate score 17.26" in found
    assert "--group-by duplicates" in found
