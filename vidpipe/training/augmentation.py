"""Augmentation of training clips: shorter, shifted, thinned out or reversed in time, or mixed."""

from dataclasses import replace

import torch
from torch import Tensor

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import PaddedBatch

__all__ = ["augment", "mix", "selected_steps"]


def augment(batch: PaddedBatch, config: TrainConfig) -> PaddedBatch:
    """Return a batch with clips augmented at random as the config asks; the batch itself if it asks for nothing."""
    if config.subsequence == 1 and not (config.shift_frames or config.drop_frames or config.reverse):
        return batch
    selected = selected_steps(batch.lengths, config)  # (N, T)
    lengths = (selected >= 0).sum(dim=1)  # (N,)
    selected = selected[:, : int(lengths.max())].to(batch.features.device)
    rows = torch.arange(len(selected), device=selected.device)[:, None]
    features = batch.features[rows, selected.clamp_min(0)].masked_fill(selected[:, :, None] < 0, 0)
    return replace(batch, features=features, lengths=lengths)


def selected_steps(lengths: Tensor, config: TrainConfig) -> Tensor:
    """Choose the steps of each augmented clip at random.

    Args:
        lengths: (N,) lengths of the clips.
        config: `subsequence`, `shift_frames`, `drop_frames` and `reverse`.

    Returns:
        (N, T) the steps in their new order, at least one for each clip, then -1.
    """
    steps = torch.arange(int(lengths.max()))[None, :]  # (1, T)
    share = config.subsequence + (1 - config.subsequence) * torch.rand(len(lengths))
    kept = (share * lengths).ceil().long().clamp(min=1)  # (N,) steps in the subsequence
    start = (torch.rand(len(lengths)) * (lengths - kept + 1)).long()
    stop = start + kept
    start = torch.minimum(start + torch.randint(config.shift_frames + 1, start.shape), stop - 1)
    inside = (steps >= start[:, None]) & (steps < stop[:, None])  # (N, T)
    chosen = inside & (torch.rand(inside.shape) >= config.drop_frames)
    chosen = torch.where(chosen.any(dim=1, keepdim=True), chosen, steps == start[:, None])
    is_reversed = config.reverse & (torch.rand(len(lengths)) < 0.5)
    rank = torch.where(is_reversed[:, None], -steps, steps)  # orders the chosen steps
    order = rank.masked_fill(~chosen, steps.shape[1]).argsort(dim=1, stable=True)
    return order.masked_fill(steps >= chosen.sum(dim=1, keepdim=True), -1)


def mix(batch: PaddedBatch, targets: Tensor, concentration: float) -> tuple[PaddedBatch, Tensor]:
    """Mix each clip, and its label, with another one over the steps that both have (mixup). Zhang et al. 2018.

    Args:
        batch: N clips.
        targets: (N, K) probabilities of the classes.
        concentration: parameter of the Beta distribution of the shares; 0 changes nothing.

    Returns:
        The mixed batch and targets.
    """
    if concentration == 0:
        return batch, targets
    order = torch.randperm(len(targets))
    share = torch.distributions.Beta(concentration, concentration).sample((len(targets),)).to(batch.features)
    lengths = torch.minimum(batch.lengths, batch.lengths[order])
    order = order.to(batch.features.device)
    features = torch.lerp(batch.features[order], batch.features, share[:, None, None])[:, : int(lengths.max())]
    return replace(batch, features=features, lengths=lengths), torch.lerp(targets[order], targets, share[:, None])
