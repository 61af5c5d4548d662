"""What a head sees of a feature sequence: transforms of it, normalised by statistics of the training part.

    raw          the features as they are: mostly the place
    centred      less the clip's own mean: what changes, and in which direction
    difference   this frame less the one before it
    magnitude    |difference|: how much each feature moves

A place that the training part never showed shifts `raw`, and leaves the others nearly as they were.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["TRANSFORMS", "Motion", "masked_mean", "step_mask"]

MIN_SCALE = 1e-6
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


TRANSFORMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "raw": lambda features, lengths: features,
    "centred": _centred,
    "difference": _difference,
    "magnitude": lambda features, lengths: _difference(features, lengths).abs(),
}


class Motion(nn.Module):
    """Features -> normalised transforms, (N, T, D) -> (N, T, M · D); rows after a sequence's end are zeros.

    Args:
        dim: D.
        transforms: names of `TRANSFORMS`, in order.
        unit_frames: scale each frame's feature to length 1 first, which takes out much of light and contrast.
        scale_sharing: 0 divides each feature by its own deviation, 1 all features of a transform by one number. A
            feature that hardly varies in the training scenes may vary much in another: its own deviation would
            amplify it there.
    """

    def __init__(self, dim: int, *, transforms: Sequence[str], unit_frames: bool, scale_sharing: float) -> None:
        super().__init__()
        self._transforms, self._unit_frames, self._scale_sharing = tuple(transforms), unit_frames, scale_sharing
        self.dim = dim * len(self._transforms)
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(self.dim))

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the statistics from the training part: its padded sequences (N, T, D) and lengths (N,), in batches."""
        total, squares = torch.zeros(2, self.dim, dtype=torch.float64)
        num_rows = 0
        for features, lengths in batches:
            rows = self._transformed(features, lengths)[step_mask(features, lengths)].double()  # (ΣT, M · D)
            total += rows.sum(dim=0)
            squares += rows.square_().sum(dim=0)
            num_rows += len(rows)
        mean = total / num_rows
        variance = (squares / num_rows - mean.square()).clamp_min(0).view(len(self._transforms), -1)  # (C, D)
        shared = variance.mean(dim=1, keepdim=True)
        scale = torch.lerp(variance, shared.expand_as(variance), self._scale_sharing).sqrt().flatten()
        self.mean = mean.float()
        self.scale = torch.where(scale < MIN_SCALE, torch.ones_like(scale), scale).float()

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """See the class; `lengths` (N,) int64."""
        normalised = (self._transformed(features, lengths) - self.mean) / self.scale
        seen: Tensor = normalised.masked_fill(~step_mask(features, lengths)[:, :, None], 0)
        return seen

    def _transformed(self, features: Tensor, lengths: Tensor) -> Tensor:
        features = features.masked_fill(~step_mask(features, lengths)[:, :, None], 0)
        if self._unit_frames:
            features = nn.functional.normalize(features, dim=2)
        return torch.cat([TRANSFORMS[name](features, lengths) for name in self._transforms], dim=2)
