"""Stage 2: features and labels -> a run. The head asked for and the mean-feature baseline are trained alike."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
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

__all__ = ["Epoch", "TrainResult", "compute_logits", "make_optimiser", "seen_by", "train", "train_epoch"]

SMALLEST_STD = 1e-6
"""Of a feature that does not vary: what it is divided by."""


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
    parts = _read_parts(store, split, class_names)
    device = choose_device(config.device)
    dim, (mean, std) = parts["train"].dim, parts["train"].mean_and_std()
    standard = {"feature_mean": mean, "feature_std": std.clamp_min(SMALLEST_STD)}
    heads: dict[str, Head] = {}
    history: dict[str, list[Epoch]] = {}
    evaluations: dict[str, dict[str, Evaluation]] = {part: {} for part in ("val", "test") if len(parts[part])}
    for name in dict.fromkeys((config.head, BASELINE)):
        seen = {part: seen_by(name, dataset) for part, dataset in parts.items()}
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            head = build_head(name, dim, len(class_names), config)
            head.load_state_dict(standard, strict=False)
            history[name] = _fit(head.to(device), seen, config, partial(on_epoch, name))
        heads[name] = head.eval()
        for part, by_head in evaluations.items():
            by_head[name] = _evaluate(head, seen[part], class_names)
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


def _read_parts(store: FeatureStore, split: Split, class_names: Sequence[str]) -> dict[str, SequenceDataset]:
    """The parts of a split, over one array of features."""
    whole = SequenceDataset(store, [*split.train, *split.val, *split.test], class_names)
    val, test = len(split.train), len(split.train) + len(split.val)
    bounds = {"train": range(val), "val": range(val, test), "test": range(test, len(whole))}
    return {name: whole.part(numbers) for name, numbers in bounds.items()}


def seen_by(head: str, dataset: SequenceDataset) -> SequenceDataset:
    """A data set as a head of that name sees it: the baseline has no use for more than the mean of each sequence."""
    return dataset.averaged() if head == BASELINE else dataset


def _fit(
    head: Head, parts: dict[str, SequenceDataset], config: TrainConfig, on_epoch: Callable[[Epoch], None]
) -> list[Epoch]:
    """Train until the validation loss stops falling, and go back to where it was lowest."""
    training, validation = parts["train"], parts["val"]
    optimiser = make_optimiser(head, config)
    shuffle = np.random.default_rng(config.seed)
    history: list[Epoch] = []
    best_loss, best_epoch, best_state = float("inf"), 0, head.state_dict()
    for number in range(1, config.epochs + 1):
        order = torch.from_numpy(shuffle.permutation(len(training)))
        loss, top1 = train_epoch(head, training, optimiser, config.batch_size, order)
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


def make_optimiser(head: Head, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters, which takes a twelfth off a step on the CPU."""
    return torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def train_epoch(
    head: Head, training: SequenceDataset, optimiser: torch.optim.Optimizer, batch_size: int, order: Tensor
) -> tuple[float, float]:
    """One pass; the mean loss and the share of right answers on the way."""
    head.train()
    device = next(head.parameters()).device
    total_loss, num_right = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in training.batches(batch_size, order=order):
        batch = batch.to(device)
        logits = head(batch.features, batch.lengths)  # (N, T, D) -> (N, K)
        loss = cross_entropy(logits, batch.class_index)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        total_loss += loss.detach() * len(logits)
        num_right += (logits.argmax(dim=1) == batch.class_index).sum()
    return float(total_loss) / len(training), float(num_right) / len(training)


def _loss_and_top1(head: Head, dataset: SequenceDataset) -> tuple[float, float]:
    logits = compute_logits(head, dataset)
    right = logits.argmax(dim=1) == dataset.class_index
    return float(cross_entropy(logits, dataset.class_index)), float(right.float().mean())


@torch.inference_mode()
def compute_logits(head: Head, dataset: SequenceDataset, batch_size: int = 256) -> Tensor:
    """(N, K) logits of a data set's videos, in its order, on the CPU."""
    head.eval()
    device = next(head.parameters()).device
    order = dataset.by_length()
    batches = (batch.to(device) for batch in dataset.batches(batch_size, order=order))
    logits = torch.cat([head(batch.features, batch.lengths).cpu() for batch in batches])
    return logits[order.argsort()]


def _evaluate(head: Head, dataset: SequenceDataset, class_names: Sequence[str]) -> Evaluation:
    return evaluate_logits(compute_logits(head, dataset).numpy(), dataset.class_index.numpy(), class_names)


def _split_rows(store: FeatureStore, split: Split) -> list[SplitRow]:
    return [
        SplitRow(video.video_id, video.label, part, video.group or "", store.info(video.video_id).size_bytes)
        for part, videos in (("train", split.train), ("val", split.val), ("test", split.test))
        for video in videos
    ]
