"""A run folder, read back: its records and tables against its files, older versions, and damage."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.stores import make_sequence, make_store
from tests.trainings import heads_of
from vidpipe.config import TrainConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run, save_run, stores_of
from vidpipe.stages.train import TrainResult, train

CONFIG = TrainConfig(head="statistics", C=3.0, device="cpu")
Document = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainResult]:
    """Runs with a test set, with folds, and with neither."""
    folder = tmp_path_factory.mktemp("runs")
    sequences = [make_sequence(f"{label}/{n}.mp4", 4, dim=4, seed=n) for label in "ab" for n in range(20)]
    videos = [LabeledVideo(s.video_id, s.video_id[0], group=f"g{n % 10}") for n, s in enumerate(sequences)]
    store = make_store(folder / "store", sequences)
    configs = {
        "tested": CONFIG,
        "folded": replace(CONFIG, folds=3, repeats=2),
        "untested": replace(CONFIG, val_fraction=0.0, test_fraction=0.0),
    }
    return {name: train(store, videos, folder / name, config=config) for name, config in configs.items()}


@pytest.fixture
def copied(results: dict[str, TrainResult], tmp_path: Path) -> Path:
    """A copy of the run with a test set."""
    return Path(shutil.copytree(results["tested"].run.path, tmp_path / "run"))


def edit(path: Path, change: Callable[[Document], object]) -> None:
    """Change a run's run.json."""
    document = json.loads((path / "run.json").read_text())
    change(document)
    (path / "run.json").write_text(json.dumps(document))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", ["tested", "folded", "untested"])
def test_an_opened_run_equals_the_one_that_train_returned(results: dict[str, TrainResult], name: str) -> None:
    trained, opened = results[name].run, Run.open(results[name].run.path)
    assert opened.metrics == json.loads(json.dumps(trained.metrics))
    assert replace(opened, metrics=trained.metrics) == trained
    assert opened.evaluations.keys() == trained.metrics.keys()


def test_evaluations_are_those_of_the_training(results: dict[str, TrainResult]) -> None:
    result = results["tested"]
    opened = Run.open(result.run.path)
    for subset, evaluations in result.evaluations.items():
        for head, evaluation in evaluations.items():
            found = opened.evaluations[subset][head]
            assert json.dumps(found.as_dict()) == json.dumps(evaluation.as_dict())
            assert found.per_class == evaluation.per_class
            assert found.reliability == evaluation.reliability


def test_tables_have_the_rows_of_the_files(results: dict[str, TrainResult]) -> None:
    opened = Run.open(results["folded"].run.path)
    for name, rows in (("folds", opened.folds), ("predictions", opened.predictions), ("splits", opened.splits)):
        expected = read_csv(opened.path / f"{name}.csv")
        assert [row.video for row in rows] == [row["video"] for row in expected]
        assert [row.label for row in rows] == [row["label"] for row in expected]
    assert [row.right for row in opened.folds] == [
        row["label"] == row["predicted"] for row in read_csv(opened.path / "folds.csv")
    ]
    assert [epoch.train_loss for epoch in opened.history] == [
        float(row["train_loss"]) for row in read_csv(opened.path / "history.csv")
    ]


def test_fold_scores_are_those_of_the_folds(results: dict[str, TrainResult]) -> None:
    opened = Run.open(results["folded"].run.path)
    scores = opened.fold_scores["statistics"]
    assert [(fold.seed, fold.fold) for fold in scores.folds] == [(n // 3, n) for n in range(6)]
    for fold in scores.folds:
        correct = [row.right for row in opened.folds if (row.head, row.fold) == ("statistics", fold.fold)]
        assert fold.num_videos == len(correct)
        assert fold.top1 == pytest.approx(sum(correct) / len(correct))
    own = [row.right for row in opened.folds if row.head == "statistics"]
    assert scores.estimate.mean == pytest.approx(sum(own) / len(own))


def test_a_run_without_evaluation_has_empty_tables(results: dict[str, TrainResult]) -> None:
    opened = Run.open(results["untested"].run.path)
    assert (opened.evaluation_set, opened.predictions, opened.folds, opened.fold_scores) == ("", (), (), {})
    assert opened.leaks == ()


@pytest.mark.parametrize(
    ("metrics", "expected"), [("test val folds", "test"), ("val folds", "folds"), ("val", "val"), ("", "")]
)
def test_the_headline_comes_from_the_most_reliable_evaluation_set(
    results: dict[str, TrainResult], metrics: str, expected: str
) -> None:
    run = replace(results["tested"].run, metrics={name: {} for name in metrics.split()})
    assert run.evaluation_set == expected


def test_leaks_are_read_as_rows(copied: Path) -> None:
    lines = [
        "video,split,other,other_split,cosine,same",
        "a.mp4,train,b.mp4,test,0.9712,False",
        "c,train,d,val,1.0,True",
    ]
    (copied / "leaks.csv").write_text("\n".join(lines))
    first, second = Run.open(copied).leaks
    assert (first.video, first.other, first.cosine, first.same) == ("a.mp4", "b.mp4", 0.9712, False)
    assert second.same is True


def test_the_learned_videos_are_those_of_the_learned_subsets(copied: Path) -> None:
    rows = read_csv(copied / "splits.csv")
    assert len(Run.open(copied).learned) == len(rows)
    edit(copied, lambda document: document.update(learned_subsets=["train"]))
    assert [row.video for row in Run.open(copied).learned] == [row["video"] for row in rows if row["split"] == "train"]


def make_version_4(document: Document) -> None:
    """A run of one stream and one head, as version 4 wrote it."""
    assert document["version"] == 5
    document["version"] = 4
    ((stream,), _) = document.pop("streams"), document.pop("members")
    document["feature_key"], document["feature_dim"] = stream["key"], stream["dim"]
    del document["has_found_weights"]
    for name in ("components", "jitter", "streams", "fusion"):
        del document["config"][name]


def test_a_run_of_version_4_is_read(copied: Path) -> None:
    expected = Run.open(copied)
    edit(copied, make_version_4)
    found = Run.open(copied)
    assert [(one.name, one.key, one.dim) for one in found.streams] == [
        (one.name, one.key, one.dim) for one in expected.streams
    ]
    assert (found.classifier, found.metrics) == (expected.classifier, expected.metrics)
    assert heads_of(found).keys() == {"statistics", "mean"}


def test_a_run_of_version_3_is_read(copied: Path) -> None:
    expected = Run.open(copied)

    def make_version_3(document: Document) -> None:
        make_version_4(document)
        document["version"] = 3
        document["learned_parts"] = document.pop("learned_subsets")
        document["config"]["inverse_penalty"] = document["config"].pop("C")

    edit(copied, make_version_3)
    found = Run.open(copied)
    assert (found.keys, found.metrics) == (expected.keys, expected.metrics)
    assert (found.config.C, found.learned_subsets) == (3.0, ("train", "val", "test"))
    assert heads_of(found).keys() == {"statistics", "mean"}


def test_metrics_that_early_versions_wrote_for_a_class_without_videos_are_read_as_none(copied: Path) -> None:
    def make_old(document: Document) -> None:
        for metrics in document["metrics"]["test"].values():
            metrics["top5"] = 1.0
            metrics["per_class"][1] |= {"precision": 0.0, "recall": 0.0, "f1": 0.0, "num_videos": 0}

    edit(copied, make_old)
    evaluation = Run.open(copied).evaluations["test"]["statistics"]
    assert evaluation.top5 is None
    assert (evaluation.per_class[1].f1, evaluation.num_classes_tested) == (None, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(version=6), "run.json has version 6; this vidpipe reads 3 to 5"),
        (lambda document: document.update(format="other"), "run.json is not that of a run"),
        (lambda document: document.pop("grouping"), "run.json is incomplete or damaged (KeyError: 'grouping')"),
        (lambda document: document.update(metrics=None), "run.json is incomplete or damaged (TypeError"),
        (lambda document: document["config"].update(colour=1), "run.json is incomplete or damaged (TypeError"),
        (lambda document: document.update(version=3, config=None), "run.json is incomplete or damaged (AttributeError"),
    ],
)
def test_a_run_that_cannot_be_read_is_an_error_with_the_remedy(
    copied: Path, change: Callable[[Document], object], message: str
) -> None:
    edit(copied, change)
    with pytest.raises(RunError, match="rain the run again") as caught:
        Run.open(copied)
    assert str(caught.value).startswith(f"{copied}: {message}")


def test_damaged_metrics_are_reported_when_they_are_asked_for(copied: Path) -> None:
    edit(copied, lambda document: document["metrics"]["test"]["statistics"].pop("macro_f1"))
    opened = Run.open(copied)
    with pytest.raises(RunError, match=r"incomplete or damaged \(KeyError: 'macro_f1'\)"):
        _ = opened.evaluations


@pytest.mark.parametrize("name", ["splits", "history", "predictions"])
def test_a_missing_table_is_an_error_when_it_is_asked_for(copied: Path, name: str) -> None:
    (copied / f"{name}.csv").unlink()
    opened = Run.open(copied)
    with pytest.raises(RunError, match=rf"{name}\.csv cannot be read \(No such file or directory\)"):
        getattr(opened, name)


def test_a_path_without_a_run_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder; `vidpipe train STORE -o .*nowhere` makes a run"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no run: it has no run\.json; `vidpipe train STORE"):
        Run.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file; a run is a folder"):
        Run.open(tmp_path / "file")
    (tmp_path / "run.training").mkdir()
    with pytest.raises(
        UsageError, match=r"an unfinished training is in .*run\.training: `vidpipe train` with --resume"
    ):
        Run.open(tmp_path / "run")


def test_heads_are_loaded_with_their_weights(results: dict[str, TrainResult]) -> None:
    heads = heads_of(Run.open(results["tested"].run.path))
    assert list(heads) == ["statistics", "mean"]
    assert not any(head.training for head in heads.values())
    assert all(torch.isfinite(tensor).all() for head in heads.values() for tensor in head.state_dict().values())


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_damaged_model_is_an_error(copied: Path, content: bytes | None) -> None:
    (copied / "model.safetensors").unlink()
    if content is not None:
        (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"model\.safetensors: cannot be loaded"):
        heads_of(Run.open(copied))


def test_a_saved_run_is_opened_as_it_was(results: dict[str, TrainResult], tmp_path: Path) -> None:
    run = Run.open(results["tested"].run.path)
    (tmp_path / "again").mkdir()
    classifiers = dict(zip(("fusion", "mean"), run.load_classifiers(torch.device("cpu")), strict=True))
    tables = {"splits": run.splits, "history": run.history, "predictions": run.predictions, "leaks": run.leaks}
    save_run(run, tmp_path / "again", classifiers=classifiers, tables=tables)
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (run.path / path.name).read_bytes()
    assert not (tmp_path / "again/leaks.csv").exists()


def test_a_folder_that_cannot_be_written_is_an_error(results: dict[str, TrainResult], tmp_path: Path) -> None:
    run = results["tested"].run
    with pytest.raises(RunError, match="the run cannot be written"):
        save_run(run, tmp_path / "nowhere", classifiers={}, tables={})


def test_a_store_of_other_features_is_refused(results: dict[str, TrainResult], tmp_path: Path) -> None:
    run = results["tested"].run
    store = make_store(tmp_path / "store", [make_sequence("a.mp4", 4, dim=4, seed=0)])
    assert stores_of(run, store) == {"resnet50": store}
    (stream,) = run.streams
    other = replace(run, streams=(replace(stream, key=replace(stream.key, backbone="efficientnet_lite0")),))
    with pytest.raises(RunError, match=r"holds .*resnet50.* needs .*efficientnet_lite0"):
        stores_of(other, store)
