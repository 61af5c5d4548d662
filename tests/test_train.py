import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stores import make_sequence, make_store
from tests.trainings import DIM, QUICK, heads_of, rising_and_falling
from vidpipe.config import TrainConfig, load_section
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import SUBSETS
from vidpipe.errors import LabelsError, RunError
from vidpipe.features.store import FeatureStore
from vidpipe.heads.calibration import fit_temperature
from vidpipe.heads.motion import masked_mean
from vidpipe.records import FeatureSequence, LabeledVideo, VideoFile
from vidpipe.runs.run import Run
from vidpipe.stages.evaluate import evaluate
from vidpipe.stages.predict import predict
from vidpipe.stages.train import train
from vidpipe.training.fit import compute_logits, compute_uncalibrated_logits, fit_head
from vidpipe.training.threads import DEFAULT_NUM_THREADS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureStore, list[LabeledVideo]]:
    folder = tmp_path_factory.mktemp("trained")
    store, videos = rising_and_falling(folder)
    train(store, videos, folder / "run", config=QUICK)
    return folder / "run", store, videos


Trained = tuple[Path, FeatureStore, list[LabeledVideo]]


def test_the_lstm_learns_an_order_that_the_baseline_cannot_see(trained: Trained) -> None:
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert metrics["test"]["lstm"]["top1"] == 1.0
    assert metrics["test"]["mean"]["top1"] < 0.8


def test_no_group_is_on_two_sides_and_every_video_has_its_place(trained: Trained) -> None:
    with (trained[0] / "splits.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["video"] for row in rows) == sorted(trained[1].ids)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {row["split"] for row in rows} == {"train", "val", "test"}


def test_a_run_folder_is_complete_and_holds_no_pickle(trained: Trained) -> None:
    run_path, store, _ = trained
    names = "model.safetensors run.json config.toml splits.csv history.csv metrics.json predictions.csv leaks.csv"
    names += " history_refit.csv history.png confusion.png"
    assert sorted(path.name for path in run_path.iterdir()) == sorted(names.split())
    document = json.loads((run_path / "run.json").read_text())
    assert document["class_names"] == ["falling", "rising"]
    assert document["streams"][0]["key"] == store.key.as_dict()
    assert torch.__version__.startswith(document["versions"]["torch"])
    assert TrainConfig(**load_section(run_path / "config.toml", "train")) == Run.open(run_path).config
    assert Run.open(run_path).config == replace(QUICK, threads=DEFAULT_NUM_THREADS)
    assert (run_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    with (run_path / "history.csv").open() as stream:
        history = list(csv.DictReader(stream))
    assert float(history[-1]["train_loss"]) < float(history[0]["train_loss"])


def test_the_same_seed_gives_the_same_model(trained: Trained, tmp_path: Path) -> None:
    run_path, store, videos = trained
    train(store, videos[::-1], tmp_path / "again", config=QUICK)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (run_path / "model.safetensors").read_bytes()
    other = TrainConfig(**{**vars(QUICK), "seed": 1, "epochs": 2})
    train(store, videos, tmp_path / "other", config=other)
    assert (tmp_path / "other/model.safetensors").read_bytes() != (run_path / "model.safetensors").read_bytes()


def test_logits_come_in_the_videos_own_order_however_they_are_batched(trained: Trained) -> None:
    run_path, store, videos = trained
    head = heads_of(Run.open(run_path))["lstm"]
    logits = compute_logits(head, SequenceDataset(store, videos, ["falling", "rising"]), batch_size=7)
    for video, row in zip(videos, logits, strict=True):
        features = torch.from_numpy(store[video.video_id].features)[None]
        assert torch.allclose(row, head(features, torch.tensor([features.shape[1]]))[0], atol=1e-5)


def test_training_stops_where_validation_stops_getting_better(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    shuffled = [LabeledVideo(v.video_id, ("a", "b")[i * 7 % 5 % 2], group=v.group) for i, v in enumerate(videos)]
    result = train(
        store, shuffled, tmp_path / "run", config=TrainConfig(**{**vars(QUICK), "patience": 3, "epochs": 500})
    )
    with (tmp_path / "run/history.csv").open() as stream:
        losses = [float(row["val_loss"]) for row in csv.DictReader(stream)]
    assert len(losses) < 500
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    assert result.evaluations["val"]["lstm"].num_videos > 0


def test_without_validation_videos_every_epoch_is_run(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    config = TrainConfig(**{**vars(QUICK), "val_fraction": 0.0, "test_fraction": 0.0, "epochs": 3})
    result = train(store, videos, tmp_path / "run", config=config)
    assert result.evaluations == {}
    assert len((tmp_path / "run/history.csv").read_text().splitlines()) == 4


def test_a_given_split_is_kept(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    given = [
        LabeledVideo(v.video_id, v.label, split=("train", "train", "val", "test")[i // 4 % 4], group=v.group)
        for i, v in enumerate(videos)
    ]
    result = train(store, given, tmp_path / "run", config=TrainConfig(**{**vars(QUICK), "epochs": 2}))
    for subset in SUBSETS:
        assert {v.video_id for v in result.split[subset]} == {v.video_id for v in given if v.split == subset}


def test_evaluation_excludes_videos_that_the_run_was_trained_on(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    run = train(store, videos, tmp_path / "run", config=replace(QUICK, refit=False)).run
    report = evaluate(run, store, videos, device="cpu")
    num_test = sum(row.split == "test" for row in run.splits)
    assert report.num_excluded == len(videos) - num_test
    assert report.evaluations["lstm"].num_videos == num_test
    assert report.evaluations["lstm"].as_dict()["top1"] == run.metrics["test"]["lstm"]["top1"]
    with pytest.raises(RunError, match=r"all of these \d+ videos were used"):
        evaluate(run, store, [v for v in videos if v.video_id in {r.video for r in run.splits if r.split == "train"}])


def test_the_saved_head_has_learned_from_all_videos(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    config = TrainConfig(head="statistics", device="cpu")
    kept = train(store, videos, tmp_path / "kept", config=config)
    tested = train(store, videos, tmp_path / "tested", config=replace(config, refit=False))
    assert kept.run.metrics == tested.run.metrics
    assert (tmp_path / "kept/history_refit.csv").exists()
    assert kept.run.learned_subsets == ("train", "val", "test")
    assert len(kept.run.learned) == len(videos)
    dataset = SequenceDataset(store, videos, kept.run.class_names)
    alone, _ = fit_head("statistics", {"train": dataset, "val": dataset.select([])}, config)
    found = heads_of(kept.run)["statistics"]
    assert torch.allclose(found.get_parameter("classifier.weight"), alone.get_parameter("classifier.weight"), atol=1e-3)
    assert float(found.temperature) == pytest.approx(float(alone.temperature), rel=1e-2)
    with pytest.raises(RunError, match=f"all of these {len(videos)} videos were used for training or model selection"):
        evaluate(kept.run, store, videos)


def test_a_neural_heads_temperature_comes_from_what_the_tested_one_had_not_seen(
    trained: Trained, tmp_path: Path
) -> None:
    run_path, store, videos = trained
    tested = train(store, videos, tmp_path / "run", config=replace(QUICK, refit=False)).run
    splits = {row.video: row.split for row in tested.splits}
    unseen = [video for video in videos if splits[video.video_id] != "train"]
    before = heads_of(tested)["lstm"]
    dataset = SequenceDataset(store, unseen, tested.class_names)
    expected = fit_temperature(compute_uncalibrated_logits(before, dataset), dataset.class_index)
    kept = heads_of(Run.open(run_path))["lstm"]
    assert float(kept.temperature) == pytest.approx(expected, rel=1e-2)


def test_a_run_that_replaces_another_leaves_nothing_of_it(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    config = TrainConfig(head="mean", device="cpu")
    train(store, videos, tmp_path / "run", config=replace(config, folds=2))
    assert {"history_refit.csv", "folds.csv"} <= {path.name for path in (tmp_path / "run").iterdir()}
    (tmp_path / "run/report.html").write_bytes(b"of the older run")
    untested = replace(config, refit=False, val_fraction=0.0, test_fraction=0.0)
    for name in ("run", "new"):
        train(store, videos, tmp_path / name, config=untested, overwrite=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {p.name for p in (tmp_path / "new").iterdir()}


@pytest.mark.slow
def test_a_test_set_that_the_labels_give_is_never_learned_from(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    given = [replace(v, split="test" if v.group in ("g0", "g1") else "train") for v in videos]
    relabelled = [replace(v, label="rising" if v.split == "test" else v.label) for v in given]
    for name, labelled in (("right", given), ("wrong", relabelled)):
        result = train(store, labelled, tmp_path / name, config=replace(QUICK, epochs=2))
        assert result.run.learned_subsets == ("train", "val")
        assert {row.split for row in result.run.splits} == {"train", "val", "test"}
        assert evaluate(result.run, store, labelled).num_excluded == len(result.run.learned)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("right", "wrong")]
    assert models[0] == models[1]


def test_the_refit_runs_for_the_epochs_that_were_best_in_the_first_fit(trained: Trained) -> None:
    with (trained[0] / "history.csv").open() as stream:
        losses = [float(row["val_loss"]) for row in csv.DictReader(stream)]
    with (trained[0] / "history_refit.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1 + int(np.argmin(losses))
    assert "val_loss" not in rows[0]


@pytest.mark.slow
def test_the_refit_follows_the_schedule_of_the_first_fit(trained: Trained, tmp_path: Path) -> None:
    _, store, videos = trained
    shuffled = [replace(v, label=("a", "b")[i * 7 % 5 % 2]) for i, v in enumerate(videos)]
    config = replace(QUICK, schedule="cosine", patience=3, epochs=40, lr=0.003, seed=1)
    result = train(store, shuffled, tmp_path / "run", config=config)
    with (tmp_path / "run/history_refit.csv").open() as stream:
        losses = [float(row["train_loss"]) for row in csv.DictReader(stream)]
    assert 1 < len(losses) < 40
    order = [video for subset in SUBSETS for video in result.split[subset]]
    everything = SequenceDataset(store, order, result.run.class_names)
    _, history = fit_head("lstm", {"train": everything, "val": everything.select([])}, config)
    assert losses == pytest.approx([epoch.train_loss for epoch in history[: len(losses)]], rel=1e-4)


def test_an_unknown_label_is_reported(trained: Trained) -> None:
    with pytest.raises(LabelsError, match="'sideways': not a class of this run"):
        evaluate(Run.open(trained[0]), trained[1], [LabeledVideo(trained[1].ids[0], "sideways")])


def test_predictions_from_a_store_are_the_models_own(trained: Trained, tmp_path: Path) -> None:
    run = Run.open(trained[0])
    path = tmp_path / "new.mp4"
    path.write_bytes(b"contents")
    sequence = make_sequence("new.mp4", 6, DIM, path=path)
    sequence.features[:, 0] = np.linspace(-1, 1, 6)
    store = make_store(tmp_path / "store", [sequence])
    (prediction,) = predict(run, [VideoFile("new.mp4", path)], top=9, store=store)
    head = heads_of(run)["lstm"]
    with torch.inference_mode():
        expected = head(torch.from_numpy(sequence.features)[None], torch.tensor([6])).softmax(dim=1)[0]
    assert prediction.labels == ("rising", "falling")
    assert prediction.probabilities == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-6)
    assert prediction.status == "ok"


def test_the_mean_baseline_is_a_linear_model_of_the_standardised_mean(trained: Trained) -> None:
    head = heads_of(Run.open(trained[0]))["mean"]
    sequence: FeatureSequence = next(trained[1].sequences())
    features, lengths = torch.from_numpy(sequence.features)[None], torch.tensor([len(sequence)])
    state = head.state_dict()
    mean = (masked_mean(features, lengths) - state["motion.mean"]) / state["motion.scale"]
    expected = (mean @ state["classifier.weight"].T + state["classifier.bias"]) / state["temperature"]
    assert torch.allclose(head(features, lengths), expected, atol=1e-5)


def test_below_the_confidence_asked_for_the_answer_is_none_of_these(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "new.mp4"
    path.write_bytes(b"contents")
    store = make_store(tmp_path / "store", [make_sequence("new.mp4", 6, DIM, path=path)])
    run, file = Run.open(trained[0]), VideoFile("new.mp4", path)
    (plain,) = predict(run, [file], store=store)
    surest = plain.probabilities[0]
    (below,) = predict(run, [file], store=store, min_confidence=surest + 1e-4)
    (above,) = predict(run, [file], store=store, min_confidence=surest - 1e-4)
    assert (plain.status, below.status, above.status) == ("ok", "unknown", "ok")
    assert below.labels == plain.labels


def test_a_run_of_the_first_format_is_refused_with_the_remedy(trained: Trained, tmp_path: Path) -> None:
    document = json.loads((trained[0] / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**document, "version": 1}))
    with pytest.raises(RunError, match=r"run.json has version 1; this vidpipe reads 3 to 5"):
        Run.open(tmp_path)


@pytest.mark.parametrize("damage", ["run.json", "model.safetensors", "not json", "no classes"])
def test_a_damaged_run_is_reported(trained: Trained, tmp_path: Path, damage: str) -> None:
    for path in trained[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if damage == "not json":
        (tmp_path / "run.json").write_text("{")
    elif damage == "no classes":
        document = json.loads((tmp_path / "run.json").read_text())
        del document["class_names"]
        (tmp_path / "run.json").write_text(json.dumps(document))
    elif damage == "model.safetensors":
        (tmp_path / damage).write_bytes((tmp_path / damage).read_bytes()[:100])
    else:
        (tmp_path / damage).unlink()
    with pytest.raises(RunError, match=str(tmp_path)):
        heads_of(Run.open(tmp_path))
