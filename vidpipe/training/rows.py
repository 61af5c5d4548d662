"""Fit a head that labels each row of long videos."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.rows import LabelledRows
from vidpipe.datasets.sequences import pad
from vidpipe.errors import TrainingError, first_few
from vidpipe.heads.rows import RowHead, build_row_head
from vidpipe.runs.tables import Epoch

__all__ = ["fit_rows"]

EPOCHS, MAX_ROWS, VIDEOS_PER_STEP = 60, 1024, 4
"""A step sees parts of this many rows of some videos."""
SMOOTHING, MAX_CHANGE = 0.15, 4.0
"""Weight and bound of the loss on changes between neighbouring rows, as in MS-TCN."""
IGNORED = -100


def fit_rows(
    name: str,
    videos: Sequence[LabelledRows],
    num_classes: int,
    config: TrainConfig,
    *,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[RowHead, list[Epoch]]:
    """Fit a head to long videos: cross-entropy of each row, and a smooth change of its log-probabilities over time.

    Abu Farha & Gall, MS-TCN, CVPR 2019.

    Args:
        name: a key of `vidpipe.heads.rows.ROW_HEADS`.
        videos: at least one.
        num_classes: K.
        config: the settings; `epochs` is 60 where it is None.
        on_epoch: called after each epoch.

    Returns:
        The fitted head, and its epochs.

    Raises:
        TrainingError: a loss is not finite.
    """
    device, num_epochs, history = choose_device(config.device), config.epochs or EPOCHS, list[Epoch]()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        rows = (video.features for video in videos)
        head = build_row_head(name, videos[0].features.shape[1], num_classes, config, rows).to(device)
        optimiser = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_epochs)
        for number in range(1, num_epochs + 1):
            shuffle = np.random.default_rng((config.seed, number))
            torch.manual_seed(int(shuffle.integers(2**62)))
            history.append(Epoch(number, *_train_epoch(head, videos, optimiser, shuffle), head=name))
            schedule.step()
            on_epoch(history[-1])
    return head.eval(), history


def _train_epoch(
    head: RowHead, videos: Sequence[LabelledRows], optimiser: torch.optim.Optimizer, shuffle: np.random.Generator
) -> tuple[float, float]:
    """The mean loss of an epoch, and the share of rows that are right."""
    head.train()
    device = next(head.parameters()).device
    order, total_loss, num_right, num_rows = shuffle.permutation(len(videos)), 0.0, 0, 0
    for start in range(0, len(order), VIDEOS_PER_STEP):
        chosen = [videos[number] for number in order[start : start + VIDEOS_PER_STEP]]
        features, targets, lengths = _batch(chosen, shuffle)
        stages = head(features.to(device), lengths)  # (S, N, T, K)
        loss = _loss(stages, targets.to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        if not torch.isfinite(loss + norm):
            names = first_few([video.video_id for video in chosen])
            raise TrainingError(f"the loss is not finite in a step with {names}; look at their features, or lower --lr")
        optimiser.step()
        is_row = targets != IGNORED
        total_loss += float(loss.detach()) * int(is_row.sum())
        num_right += int((stages[-1].argmax(dim=2).cpu() == targets)[is_row].sum())
        num_rows += int(is_row.sum())
    return total_loss / num_rows, num_right / num_rows


def _batch(videos: Sequence[LabelledRows], shuffle: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random part of each video: (N, T, D), (N, T) with -100 after a part's end, (N,)"""
    parts = []
    for video in videos:
        start = int(shuffle.integers(max(1, len(video.features) - MAX_ROWS + 1)))
        parts.append((video.features[start : start + MAX_ROWS], video.class_index[start : start + MAX_ROWS]))
    features, lengths = pad([rows for rows, _ in parts])
    targets = torch.nn.utils.rnn.pad_sequence(
        [index for _, index in parts], batch_first=True, padding_value=float(IGNORED)
    )
    return features, targets, lengths


def _loss(stages: Tensor, targets: Tensor) -> Tensor:
    """(S, N, T, K), (N, T) -> ()"""
    is_pair = (targets[:, 1:] != IGNORED)[..., None]  # (N, T - 1, 1)
    losses = []
    for logits in stages:
        logs = logits.log_softmax(dim=2)
        change = (logs[:, 1:] - logs[:, :-1].detach()).clamp(-MAX_CHANGE, MAX_CHANGE).square() * is_pair
        smooth = change.sum() / (is_pair.sum() * logits.shape[2]).clamp_min(1)
        losses.append(cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED) + SMOOTHING * smooth)
    return torch.stack(losses).sum()
