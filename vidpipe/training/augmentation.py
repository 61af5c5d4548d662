"""Other views of the training clips: pieces of them, with frames left out, later, or backwards."""

from dataclasses import replace

import torch
from torch import Tensor

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import PaddedBatch

__all__ = ["augment", "mix", "selected_steps"]


def augment(batch: PaddedBatch, config: TrainConfig) -> PaddedBatch:
    """A random view of each clip, by the config and torch's random numbers; the batch itself where nothing is asked."""
    if config.subsequence == 1 and not (config.shift_frames or config.drop_frames or config.reverse):
        return batch
    selected = selected_steps(batch.lengths, config)  # (N, T)
    lengths = (selected >= 0).sum(dim=1)  # (N,)
    selected = selected[:, : int(lengths.max())].to(batch.features.device)
    rows = torch.arange(len(selected), device=selected.device)[:, None]
    features = batch.features[rows, selected.clamp_min(0)].masked_fill(selected[:, :, None] < 0, 0)
    return replace(batch, features=features, lengths=lengths)


def selected_steps(lengths: Tensor, config: TrainConfig) -> Tensor:
    """(N, T) which step of the clip stands at each step of its view, -1 after its end; at least one step is left.

    Args:
        lengths: (N,) of the clips.
        config: `subsequence`, `shift_frames`, `drop_frames` and `reverse`.
    """
    steps = torch.arange(int(lengths.max()))[None, :]  # (1, T)
    share = config.subsequence + (1 - config.subsequence) * torch.rand(len(lengths))
    kept = (share * lengths).ceil().long().clamp(min=1)  # (N,) steps in the piece
    start = (torch.rand(len(lengths)) * (lengths - kept + 1)).long()
    stop = start + kept
    start = torch.minimum(start + torch.randint(config.shift_frames + 1, start.shape), stop - 1)
    inside = (steps >= start[:, None]) & (steps < stop[:, None])  # (N, T)
    chosen = inside & (torch.rand(inside.shape) >= config.drop_frames)
    chosen = torch.where(chosen.any(dim=1, keepdim=True), chosen, steps == start[:, None])
    is_reversed = config.reverse & (torch.rand(len(lengths)) < 0.5)
    place = torch.where(is_reversed[:, None], -steps, steps)  # by which the chosen steps are ordered
    order = place.masked_fill(~chosen, steps.shape[1]).argsort(dim=1, stable=True)
    return order.masked_fill(steps >= chosen.sum(dim=1, keepdim=True), -1)


def mix(batch: PaddedBatch, targets: Tensor, concentration: float) -> tuple[PaddedBatch, Tensor]:
    """Mixup: each clip with another one, and their labels, over the steps that both have. Zhang et al. 2018.

    Args:
        batch: N clips.
        targets: (N, K) probabilities of the classes.
        concentration: of the Beta distribution that the shares come from; 0 changes nothing.
    """
    if concentration == 0:
        return batch, targets
    order = torch.randperm(len(targets))
    share = torch.distributions.Beta(concentration, concentration).sample((len(targets),)).to(batch.features)
    lengths = torch.minimum(batch.lengths, batch.lengths[order])
    order = order.to(batch.features.device)
    features = torch.lerp(batch.features[order], batch.features, share[:, None, None])[:, : int(lengths.max())]
    return replace(batch, features=features, lengths=lengths), torch.lerp(targets[order], targets, share[:, None])
