"""Fitting: linear heads against scikit-learn on numpy's statistics; a resumed training against an uninterrupted one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from torch.nn.functional import cross_entropy

from tests.stores import make_sequence, make_store
from tests.trainings import QUICK, rising_and_falling
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import RunError, TrainingError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS
from vidpipe.heads.heads import build_head
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run
from vidpipe.stages.train import train
from vidpipe.training import checkpoints
from vidpipe.training.fit import compute_logits, fit_head, train_epoch

CLASSES = ["falling", "rising"]
LINEAR = TrainConfig(head="statistics", C=30.0, device="cpu", calibrate=False)
Made = tuple[FeatureStore, list[LabeledVideo]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return rising_and_falling(tmp_path_factory.mktemp("fit"))


def subsets_of(made: Made, num_train: int = 50, class_names: Sequence[str] = CLASSES) -> dict[str, SequenceDataset]:
    store, videos = made
    subsets = {"train": videos[:num_train], "val": videos[num_train:]}
    return {subset: SequenceDataset(store, its_videos, class_names) for subset, its_videos in subsets.items()}


def alone(training: SequenceDataset) -> dict[str, SequenceDataset]:
    """A training set without a validation set."""
    return {"train": training, "val": training.select([])}


def test_the_statistics_head_is_a_logistic_regression_on_deviation_and_thirds_of_motion(made: Made) -> None:
    def pooled(
        sequence: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        unit = sequence / np.linalg.norm(sequence, axis=1, keepdims=True)
        steps = np.abs(np.diff(unit, axis=0))
        transforms = [unit - unit.mean(axis=0), np.concatenate([steps[:1], steps])]
        drawn_out = [np.repeat(transform, 3, axis=0).reshape(3, len(sequence), -1) for transform in transforms]
        thirds = [np.hstack([three[third].mean(axis=0) for three in drawn_out]) for third in range(3)]
        return np.concatenate([*(transform.std(axis=0) for transform in transforms), *thirds])

    subsets = subsets_of(made)
    head, _ = fit_head("statistics", subsets, LINEAR)
    rows = {
        name: np.stack([pooled(dataset.sequence(i).numpy()) for i in range(len(dataset))])
        for name, dataset in subsets.items()
    }
    dim = rows["train"].shape[1] // 8
    # a transform's scale, then a block's: together each block of D is divided by its own deviation
    deviation = np.sqrt(rows["train"].var(axis=0).reshape(-1, dim).mean(axis=1)).repeat(dim)
    scale = deviation * np.sqrt(rows["train"].shape[1])
    model = LogisticRegression(C=LINEAR.C, max_iter=2000)
    model.fit((rows["train"] - rows["train"].mean(axis=0)) / scale, subsets["train"].class_index.numpy())
    expected = model.predict_log_proba((rows["val"] - rows["train"].mean(axis=0)) / scale)
    found = compute_logits(head, subsets["val"]).log_softmax(dim=1).numpy()
    assert np.allclose(found, expected, atol=2e-2)
    assert (found.argmax(axis=1) == subsets["val"].class_index.numpy()).mean() == 1.0


def test_a_class_without_training_videos_is_never_predicted(made: Made) -> None:
    subsets = subsets_of(made, class_names=[*CLASSES, "standing", "waving"])
    head, _ = fit_head("statistics", subsets, LINEAR)
    assert set(compute_logits(head, subsets["val"]).argmax(dim=1).tolist()) == {0, 1}


def least_loss_temperature(logits: torch.Tensor, truth: torch.Tensor) -> float:
    best = minimize(lambda t: float(cross_entropy(logits / float(np.exp(t[0])), truth)), [0.0], method="Nelder-Mead")
    return float(np.exp(best.x[0]))


def partly_wrong(truth: torch.Tensor) -> torch.Tensor:
    """A quarter of the labels is wrong, so that no probability should be near 1."""
    wrong = truth.clone()
    wrong[::4] = 1 - wrong[::4]
    return wrong


def test_a_neural_heads_temperature_is_the_one_of_least_validation_loss(made: Made) -> None:
    subsets = subsets_of(made)
    subsets["val"].class_index = partly_wrong(subsets["val"].class_index)
    plain, _ = fit_head("attention", subsets, replace(QUICK, epochs=3, calibrate=False))
    calibrated, _ = fit_head("attention", subsets, replace(QUICK, epochs=3))
    logits = compute_logits(plain, subsets["val"])
    expected = least_loss_temperature(logits, subsets["val"].class_index)
    assert float(calibrated.temperature) == pytest.approx(expected, rel=1e-2)
    assert torch.equal(compute_logits(calibrated, subsets["val"]).argmax(1), logits.argmax(1))


def test_a_linear_heads_temperature_is_the_one_of_least_loss_on_folds_by_group(made: Made) -> None:
    training = subsets_of(made, num_train=72)["train"]
    training.class_index = partly_wrong(training.class_index)
    subsets = alone(training)
    plain, _ = fit_head("mean", subsets, LINEAR)
    sequences = [training.sequence(number).numpy() for number in range(len(training))]
    rows = np.stack([sequence.mean(axis=0) for sequence in sequences]) / np.concatenate(sequences).std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0).sum())  # about as long as 1
    predicted = cross_val_predict(
        LogisticRegression(C=LINEAR.C, max_iter=2000),
        rows,
        training.class_index,
        groups=training.units,
        cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
        method="predict_log_proba",
    )
    expected = least_loss_temperature(torch.from_numpy(predicted), training.class_index)
    calibrated, _ = fit_head("mean", subsets, replace(LINEAR, calibrate=True))
    assert float(calibrated.temperature) == pytest.approx(expected, rel=2e-2)
    assert torch.equal(compute_logits(calibrated, training).argmax(1), compute_logits(plain, training).argmax(1))


def test_too_few_videos_or_groups_leave_a_linear_head_its_own_probabilities(made: Made) -> None:
    dataset = SequenceDataset(*made, CLASSES)
    few = dataset.select(dataset.video_ids[: MIN_CALIBRATION_VIDEOS - 1])
    one_group = SequenceDataset(made[0], [replace(video, group="one") for video in made[1]], CLASSES)
    for training in (few, one_group):
        head, _ = fit_head("mean", alone(training), replace(LINEAR, calibrate=True))
        assert float(head.temperature) == 1.0


class BrokenOffError(Exception):
    pass


def break_off_after(number: int) -> Callable[[str, object], None]:
    seen = []

    def on_epoch(head: str, epoch: object) -> None:
        seen.append(head)
        if len(seen) > number:
            raise BrokenOffError

    return on_epoch


@pytest.mark.parametrize(("ensemble", "number"), [(1, 4), (2, 8), (1, 9)], ids=["first", "second member", "refit"])
def test_a_resumed_training_gives_the_same_model(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ensemble: int, number: int
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    config = replace(QUICK, epochs=6, dropout=0.5, schedule="cosine", drop_frames=0.2, ensemble=ensemble)
    train(*made, tmp_path / "whole", config=config)
    with pytest.raises(BrokenOffError):
        train(*made, tmp_path / "parts", config=config, on_epoch=break_off_after(number))
    assert list((tmp_path / "parts.training").glob("checkpoint*.safetensors"))
    assert len((tmp_path / "parts.training/history.csv").read_text().splitlines()) >= 5
    assert not (tmp_path / "parts").exists()
    with pytest.raises(RunError, match="other settings or videos"):
        train(*made, tmp_path / "parts", config=replace(config, lr=0.5), resume=True)
    train(*made, tmp_path / "parts", config=config, resume=True)
    for name in ("model.safetensors", "history.csv", "history_refit.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"parts", "whole"}
    assert Run.open(tmp_path / "parts").config == replace(config, threads=1)


def test_a_resumed_training_keeps_its_number_of_threads(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    with pytest.raises(BrokenOffError):
        train(*made, tmp_path / "run", config=replace(QUICK, epochs=2, threads=2), on_epoch=break_off_after(1))
    assert train(*made, tmp_path / "run", config=replace(QUICK, epochs=2), resume=True).run.config.threads == 2


@pytest.mark.slow
def test_a_resumed_training_does_not_choose_its_head_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    config = replace(QUICK, head="auto", budget=0.0, epochs=3, ensemble=2)
    with pytest.raises(BrokenOffError):
        train(*made, tmp_path / "run", config=config, on_epoch=break_off_after(3))
    with pytest.raises(RunError, match="other settings or videos"):
        train(*made, tmp_path / "run", config=replace(config, head="gru"), resume=True)
    monkeypatch.delattr("vidpipe.stages.train.choose_head")
    run = train(*made, tmp_path / "run", config=config, resume=True).run
    assert run.config.head == "statistics,lstm"
    assert run.choice.startswith("statistics,lstm, by 3 folds over the groups of")


def test_a_loss_that_is_not_finite_stops_with_the_video_named(tmp_path: Path) -> None:
    sequences = [make_sequence(f"{name}.mp4", 5) for name in "abcd"]
    for sequence in sequences:
        sequence.features[:, 0] = 0
    sequences[2].features[1, 0] = 1e10  # finite as it is; divided by its scale, it is not
    store = make_store(tmp_path / "store", sequences)
    videos = [LabeledVideo(f"{name}.mp4", label) for name, label in zip("abcd", "xyxy", strict=True)]
    dataset = SequenceDataset(store, videos, ["x", "y"])
    config = replace(QUICK, motion="centred")
    torch.manual_seed(0)  # of some random heads, the rectifiers make the infinite a zero
    head = build_head("tcn", dataset.dim, 2, config)
    head.motion.get_buffer("scale")[0] = 1e-30
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match=r"a step with c\.mp4;"):
        train_epoch(head, dataset, optimiser, config, torch.arange(4))


@pytest.mark.parametrize(
    "change",
    [
        {"mixup": 0.4, "label_smoothing": 0.1},
        {"subsequence": 0.6, "shift_frames": 1, "drop_frames": 0.2},
        {"balance": "weights"},
        {"balance": "sampling"},
        {"schedule": "cosine"},
    ],
)
def test_every_regularisation_still_learns_the_order(made: Made, change: dict[str, object]) -> None:
    subsets = subsets_of(made)
    config = replace(QUICK, motion="raw", scale_sharing=0.0, **change)  # type: ignore[arg-type]
    head, _ = fit_head("gru", subsets, config)
    correct = compute_logits(head, subsets["val"]).argmax(dim=1) == subsets["val"].class_index
    assert correct.float().mean() > 0.9


def test_an_ensemble_of_a_convex_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="the same for every seed"):
        TrainConfig(head="statistics", ensemble=3)


def test_tensorboard_writes_events_or_says_what_to_install(made: Made, tmp_path: Path) -> None:
    config = replace(QUICK, epochs=2)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"pip install 'vidpipe\[tensorboard\]'"):
            train(*made, tmp_path / "run", config=config, tensorboard=True)
        return
    train(*made, tmp_path / "run", config=config, tensorboard=True)
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_many_classes_with_few_videos_each_are_fitted_without_a_warning(tmp_path: Path) -> None:
    names = [f"{number % 20}/{number}.mp4" for number in range(24)]
    store = make_store(tmp_path / "s", [make_sequence(name, 4, seed=number) for number, name in enumerate(names)])
    videos = [LabeledVideo(name, name.split("/")[0]) for name in names]
    dataset = SequenceDataset(store, videos, sorted({video.label for video in videos}))
    head, _ = fit_head("statistics", alone(dataset), LINEAR)
    assert compute_logits(head, dataset).shape == (24, 20)
