"""The head `neighbours`: votes of labelled videos, against scikit-learn's; new classes; a few examples."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from tests.commands import run
from tests.stores import make_sequence, make_store
from tests.trainings import heads_of
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import NEIGHBOUR_BANDWIDTH, NeighboursHead
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run
from vidpipe.stages.train import train
from vidpipe.training.fit import compute_logits, fit_head

CONFIG = TrainConfig(head="neighbours", motion="raw", statistics="mean,thirds", unit_frames=False, device="cpu")


def write_store(folder: Path, labels: Sequence[str], num_each: int = 10) -> tuple[FeatureStore, list[LabeledVideo]]:
    """Videos of a label lie around a point of their own."""
    sequences, videos = [], []
    for number in range(num_each * len(labels)):
        label = labels[number % len(labels)]
        sequence = make_sequence(f"{label}/{number}.mp4", length=5, dim=6, seed=number)
        middle = 2 * np.random.default_rng(ord(label)).standard_normal(6)
        sequence.features[:] = middle + np.random.default_rng(number).standard_normal((5, 6))
        sequences.append(sequence)
        videos.append(LabeledVideo(sequence.video_id, label, group=f"g{number // len(labels)}"))
    return make_store(folder / "store", sequences), videos


def fit(dataset: SequenceDataset) -> NeighboursHead:
    head, _ = fit_head("neighbours", {"train": dataset, "val": dataset.select([])}, CONFIG)
    assert isinstance(head, NeighboursHead)
    return head


def embed(head: NeighboursHead, dataset: SequenceDataset) -> np.ndarray:
    (batch,) = dataset.batches(1000)
    return head.embed(head.pool(head.motion(batch.features, batch.lengths), batch.lengths)).numpy()


def test_the_votes_are_those_of_scikit_learn(tmp_path: Path) -> None:
    store, videos = write_store(tmp_path, "abc")
    dataset = SequenceDataset(store, videos, list("abc"))
    learned, others = dataset.select(dataset.video_ids[:20]), dataset.select(dataset.video_ids[20:])
    head = fit(learned)
    votes = KNeighborsClassifier(20, weights=lambda distances: np.exp(-np.square(distances) / 2 / NEIGHBOUR_BANDWIDTH))
    votes.fit(embed(head, learned), learned.class_index)
    expected = votes.predict_proba(embed(head, others))
    found = compute_logits(head, others).softmax(dim=1).numpy()
    assert found == pytest.approx(expected, abs=1e-3)


def test_one_video_a_class_is_enough(tmp_path: Path) -> None:
    store, videos = write_store(tmp_path, "abc")
    dataset = SequenceDataset(store, videos, list("abc"))
    logits = compute_logits(fit(dataset.select(dataset.video_ids[:3])), dataset)
    assert float((logits.argmax(dim=1) == dataset.class_index).float().mean()) > 0.8


def test_a_run_keeps_the_videos_and_a_new_class_needs_only_labelled_videos(tmp_path: Path) -> None:
    store, videos = write_store(tmp_path, "abcd")
    old = train(store, [video for video in videos if video.label != "d"], tmp_path / "old", config=CONFIG).run
    new = train(store, videos, tmp_path / "new", config=CONFIG).run
    assert (old.class_names, new.class_names) == (("a", "b", "c"), ("a", "b", "c", "d"))
    head = neighbours_of(new)
    assert len(head.examples) == len(videos)
    dataset = SequenceDataset(store, videos, list("abcd"))
    logits = compute_logits(head, dataset)
    assert (logits.argmax(dim=1) == dataset.class_index).float().mean() > 0.9


def neighbours_of(opened: Run) -> NeighboursHead:
    head, *_ = heads_of(Run.open(opened.path)).values()
    assert isinstance(head, NeighboursHead)
    return head


def test_a_saved_head_predicts_as_before(tmp_path: Path) -> None:
    store, videos = write_store(tmp_path, "ab")
    dataset = SequenceDataset(store, videos, list("ab"))
    saved = neighbours_of(train(store, videos, tmp_path / "run", config=CONFIG).run)
    again = neighbours_of(Run.open(tmp_path / "run"))
    assert torch.equal(compute_logits(saved, dataset), compute_logits(again, dataset))
    both = ("--head", "neighbours", "--head", "statistics", "--device", "cpu")
    assert run("train", store.path, "-o", tmp_path / "cli", *both).exit_code == 0


def test_no_ensemble_of_heads_that_no_seed_changes() -> None:
    with pytest.raises(UsageError, match="same for every seed"):
        TrainConfig(head="neighbours", ensemble=3)
