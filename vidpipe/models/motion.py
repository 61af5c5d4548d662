"""What a head sees of a feature sequence: channels of motion, normalised by statistics of the training part.

    raw          the features as they are: mostly the place
    centred      less the clip's own mean: what changes, and in which direction
    difference   this frame less the one before it
    magnitude    |difference|: how much each feature moves

A place that the training part never showed shifts `raw`, and leaves the others nearly as they were.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["CHANNELS", "Motion", "masked_mean", "step_mask"]

SMALLEST_SCALE = 1e-6
"""Below it a feature does not vary, and is left as it is: to divide by almost nothing would blow it up elsewhere."""


def step_mask(sequences: Tensor, lengths: Tensor) -> Tensor:
    """(N, T) bool: which steps of (N, T, D) lie within their sequence."""
    steps = torch.arange(sequences.shape[1], device=sequences.device)
    return steps[None, :] < lengths.to(sequences.device)[:, None]


def masked_mean(sequences: Tensor, lengths: Tensor) -> Tensor:
    """The mean over each sequence's own steps: (N, T, D), (N,) -> (N, D)"""
    mask = step_mask(sequences, lengths)
    total = sequences.masked_fill(~mask[:, :, None], 0).sum(dim=1)  # (N, T, D) -> (N, D)
    return total / lengths.to(total)[:, None]


def _centred(features: Tensor, lengths: Tensor) -> Tensor:
    return features - masked_mean(features, lengths)[:, None]


def _difference(features: Tensor, lengths: Tensor) -> Tensor:
    """The first step repeats the second's, so that T stays: x0 x1 x2 -> x1-x0 x1-x0 x2-x1; a lone step has none."""
    steps = (features[:, 1:] - features[:, :-1]).masked_fill(~step_mask(features, lengths)[:, 1:, None], 0)
    first = steps[:, :1] if steps.shape[1] else torch.zeros_like(features)
    return torch.cat([first, steps], dim=1)  # (N, T, D)


CHANNELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "raw": lambda features, lengths: features,
    "centred": _centred,
    "difference": _difference,
    "magnitude": lambda features, lengths: _difference(features, lengths).abs(),
}


class Motion(nn.Module):
    """Features -> normalised channels, (N, T, D) -> (N, T, C · D); rows after a sequence's end are zeros.

    Args:
        dim: D.
        channels: names of `CHANNELS`, in order.
        unit_frames: scale each frame's feature to length 1 first, which takes out much of light and contrast.
        scale_sharing: 0 divides each feature by its own deviation, 1 all features of a channel by one number. A feature
            that is quiet in the training part's place may be loud in another: its own deviation would make it louder.
    """

    def __init__(self, dim: int, *, channels: Sequence[str], unit_frames: bool, scale_sharing: float) -> None:
        super().__init__()
        self._channels, self._unit_frames, self._scale_sharing = tuple(channels), unit_frames, scale_sharing
        self.dim = dim * len(self._channels)
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(self.dim))

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the statistics from the training part: its padded sequences (N, T, D) and lengths (N,), in batches."""
        total, squares = torch.zeros(2, self.dim, dtype=torch.float64)
        num_rows = 0
        for features, lengths in batches:
            rows = self._channels_of(features, lengths)[step_mask(features, lengths)].double()  # (ΣT, C · D)
            total += rows.sum(dim=0)
            squares += rows.square_().sum(dim=0)
            num_rows += len(rows)
        mean = total / num_rows
        variance = (squares / num_rows - mean.square()).clamp_min(0).view(len(self._channels), -1)  # (C, D)
        shared = variance.mean(dim=1, keepdim=True)
        scale = torch.lerp(variance, shared.expand_as(variance), self._scale_sharing).sqrt().flatten()
        self.mean = mean.float()
        self.scale = torch.where(scale < SMALLEST_SCALE, torch.ones_like(scale), scale).float()

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """See the class; `lengths` (N,) int64."""
        normalised = (self._channels_of(features, lengths) - self.mean) / self.scale
        seen: Tensor = normalised.masked_fill(~step_mask(features, lengths)[:, :, None], 0)
        return seen

    def _channels_of(self, features: Tensor, lengths: Tensor) -> Tensor:
        features = features.masked_fill(~step_mask(features, lengths)[:, :, None], 0)
        if self._unit_frames:
            features = nn.functional.normalize(features, dim=2)
        return torch.cat([CHANNELS[name](features, lengths) for name in self._channels], dim=2)
