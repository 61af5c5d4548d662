"""Stage 2: features and labels -> a run. The head asked for and the mean-feature baseline are trained alike."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import Split, make_split
from vidpipe.features.store import FeatureStore
from vidpipe.metrics import Evaluation, evaluate_logits
from vidpipe.models.frozen import choose_device
from vidpipe.models.heads import Head, build_head
from vidpipe.plots import plot_confusion, plot_history
from vidpipe.records import LabeledVideo
from vidpipe.run import BASELINE, Run, SplitRow, save_run

__all__ = ["Epoch", "TrainResult", "compute_logits", "train"]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training part."""

    epoch: int
    train_loss: float
    train_top1: float
    val_loss: float | None = None
    """None where nothing is kept for validation."""
    val_top1: float | None = None

    def as_row(self) -> dict[str, float]:
        """A line of history.csv."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class TrainResult:
    """A run, and how well its heads do on each part: `evaluations["test"]["lstm"]`."""

    run: Run
    split: Split
    evaluations: dict[str, dict[str, Evaluation]]


def train(
    store: FeatureStore,
    videos: Sequence[LabeledVideo],
    run_path: Path,
    *,
    config: TrainConfig,
    on_epoch: Callable[[str, Epoch], None] = lambda head, epoch: None,
) -> TrainResult:
    """Train a head, and the baseline, on a store's features; the test part is used once, at the end.

    Args:
        store: the features.
        videos: labelled videos, each in the store.
        run_path: the folder to write.
        config: the settings.
        on_epoch: called with the head's name after each epoch.

    Raises:
        LabelsError: the labels cannot be split.
        RunError: the folder cannot be written.
    """
    split = make_split(videos, val_fraction=config.val_fraction, test_fraction=config.test_fraction, seed=config.seed)
    class_names = tuple(sorted({video.label for video in split.train}))
    parts = {
        name: SequenceDataset(store, part, class_names)
        for name, part in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    device = choose_device(config.device)
    dim = parts["train"].rows.shape[1]
    heads: dict[str, Head] = {}
    history: dict[str, list[Epoch]] = {}
    for name in dict.fromkeys((config.head, BASELINE)):
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            head = build_head(name, dim, len(class_names), config).to(device)
            history[name] = _fit(head, parts, config, partial(on_epoch, name))
        heads[name] = head.eval()
    evaluations = {
        part: {name: _evaluate(head, dataset, class_names) for name, head in heads.items()}
        for part, dataset in parts.items()
        if part != "train" and len(dataset)
    }
    run = Run(
        path=run_path,
        config=config,
        class_names=class_names,
        key=store.key,
        dim=dim,
        metrics={part: {name: e.as_dict() for name, e in by_head.items()} for part, by_head in evaluations.items()},
        grouping=split.grouping,
    )
    rows = [epoch.as_row() for epoch in history[config.head]]
    save_run(run, heads=heads, splits=_split_rows(store, split), history=rows)
    plot_history(run_path / "history.png", rows)
    for part in [part for part in ("test", "val") if part in evaluations][:1]:
        best = evaluations[part][config.head]
        plot_confusion(run_path / "confusion.png", best.confusion, class_names, f"{config.head}, {part} videos")
    return TrainResult(run, split, evaluations)


def _fit(
    head: Head, parts: dict[str, SequenceDataset], config: TrainConfig, on_epoch: Callable[[Epoch], None]
) -> list[Epoch]:
    """Train until the validation loss stops falling, and go back to where it was lowest."""
    training, validation = parts["train"], parts["val"]
    device = next(head.parameters()).device
    head.fit_standardisation(training.rows.to(device))
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    shuffle = np.random.default_rng(config.seed)
    history: list[Epoch] = []
    best_loss, best_epoch, best_state = float("inf"), 0, head.state_dict()
    for number in range(1, config.epochs + 1):
        loss, top1 = _train_epoch(
            head, training, optimiser, config.batch_size, shuffle.permutation(len(training)).tolist()
        )
        epoch = Epoch(number, loss, top1)
        if len(validation):
            epoch = Epoch(number, loss, top1, *_loss_and_top1(head, validation))
        history.append(epoch)
        on_epoch(epoch)
        if epoch.val_loss is not None and epoch.val_loss < best_loss:
            best_loss, best_epoch, best_state = epoch.val_loss, number, copy.deepcopy(head.state_dict())
        if epoch.val_loss is not None and number - best_epoch >= config.patience:
            break
    head.load_state_dict(best_state)
    return history


def _train_epoch(
    head: Head, training: SequenceDataset, optimiser: torch.optim.Optimizer, batch_size: int, order: list[int]
) -> tuple[float, float]:
    """One pass; the mean loss and the share of right answers on the way."""
    head.train()
    device = next(head.parameters()).device
    total_loss, num_right = 0.0, 0
    for batch in training.batches(batch_size, order=order):
        batch = batch.to(device)
        logits = head(batch.features, batch.lengths)  # (N, T, D) -> (N, K)
        loss = cross_entropy(logits, batch.class_index)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        total_loss += loss.item() * len(logits)
        num_right += int((logits.argmax(dim=1) == batch.class_index).sum())
    return total_loss / len(training), num_right / len(training)


def _loss_and_top1(head: Head, dataset: SequenceDataset) -> tuple[float, float]:
    logits = compute_logits(head, dataset)
    right = logits.argmax(dim=1) == dataset.class_index
    return float(cross_entropy(logits, dataset.class_index)), float(right.float().mean())


@torch.inference_mode()
def compute_logits(head: Head, dataset: SequenceDataset, batch_size: int = 256) -> torch.Tensor:
    """(N, K) logits of a data set's videos, in its order, on the CPU."""
    head.eval()
    device = next(head.parameters()).device
    batches = (batch.to(device) for batch in dataset.batches(batch_size))
    return torch.cat([head(batch.features, batch.lengths).cpu() for batch in batches])


def _evaluate(head: Head, dataset: SequenceDataset, class_names: Sequence[str]) -> Evaluation:
    return evaluate_logits(compute_logits(head, dataset).numpy(), dataset.class_index.numpy(), class_names)


def _split_rows(store: FeatureStore, split: Split) -> list[SplitRow]:
    return [
        SplitRow(video.video_id, video.label, part, video.group or "", store.info(video.video_id).size_bytes)
        for part, videos in (("train", split.train), ("val", split.val), ("test", split.test))
        for video in videos
    ]
