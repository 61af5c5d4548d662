"""Transforms of a feature sequence, normalised by statistics of the training set: the input of a head.

    raw          the features as they are: mostly the scene
    centred      features minus the mean of the clip: what changes, and in which direction
    difference   each frame minus the one before
    magnitude    |difference|: how much each feature moves

A scene that is not in the training set shifts `raw`, and hardly changes the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["TRANSFORMS", "Motion", "masked_mean", "step_mask"]

MIN_SCALE = 1e-6
"""A feature with a smaller deviation is not scaled: dividing by almost zero would blow it up in other videos."""

MIN_NORM = 1e-12
"""As in `torch.nn.functional.normalize`."""


def step_mask(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Return (N, T) bool: which steps of (N, T, D) lie within their sequence."""
    steps = torch.arange(sequences.shape[1], device=sequences.device)
    return steps[None, :] < lengths.to(sequences.device)[:, None]


def _zero_padding(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Return (N, T, D) in which the steps after a sequence's end are zero; as it is, where there are none."""
    if int(lengths.min()) >= sequences.shape[1]:
        return sequences  # filling copies, which costs as much as the rest
    return sequences.masked_fill(~step_mask(sequences, lengths)[:, :, None], 0)


def masked_mean(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over each sequence's own steps: (N, T, D), (N,) -> (N, D)"""
    total = _zero_padding(sequences, lengths).sum(dim=1)  # (N, T, D) -> (N, D)
    return total / lengths.to(total)[:, None]


def _centred(features: Tensor, lengths: Tensor) -> Tensor:
    return features - masked_mean(features, lengths)[:, None]


def _difference(features: Tensor, lengths: Tensor) -> Tensor:
    """The first difference stands twice, which keeps T: x0 x1 x2 -> x1-x0 x1-x0 x2-x1; of a single step it is 0."""
    steps = _zero_padding(features[:, 1:] - features[:, :-1], lengths - 1)
    first = steps[:, :1] if steps.shape[1] else torch.zeros_like(features)
    return torch.cat([first, steps], dim=1)  # (N, T, D)


TRANSFORMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "raw": lambda features, lengths: features,
    "centred": _centred,
    "difference": _difference,
    "magnitude": lambda features, lengths: _difference(features, lengths).abs(),
}


def _split(name: str, parts: Tensor, whole: Tensor) -> Tensor:
    """Transform parts (P, T, D) so that their sum is the transform of the whole (T, D)."""
    lengths = torch.tensor([len(whole)])
    if name != "magnitude":
        return TRANSFORMS[name](parts, lengths.expand(len(parts)))
    return _difference(whole[None], lengths).sign() * _difference(parts, lengths.expand(len(parts)))


class Motion(nn.Module):
    """Turns features into M normalised transforms, (N, T, D) -> (N, T, M · D); rows after a sequence's end are zero.

    Where pictures have cells, the features of a frame are those of its C cells, (N, T, C · D). Each cell is a sequence
    of its own: it is compared with itself over time. The output is (N, T · C, M · D), the cells of a frame together.

    Args:
        dim: D.
        transforms: names of `TRANSFORMS`, in order.
        unit_frames: scale each frame's feature to length 1 first, which removes much of light and contrast.
        scale_sharing: 0 divides each feature by its own deviation; 1 divides all features of a transform by one
            number. A feature that hardly varies in the training scenes may vary much in another scene, where dividing
            by its own small deviation would amplify it.
        num_cells: C, the first cells of each frame that are used; the first one is the whole picture.
    """

    def __init__(
        self,
        dim: int,
        *,
        transforms: Sequence[str],
        unit_frames: bool,
        scale_sharing: float,
        num_cells: int = 1,
    ) -> None:
        super().__init__()
        self.num_cells, self._feature_dim = num_cells, dim
        self._transforms, self._unit_frames, self._scale_sharing = tuple(transforms), unit_frames, scale_sharing
        self.dim = dim * len(self._transforms)
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("scale", torch.ones(self.dim))

    @property
    def sees_one_row(self) -> bool:
        """Whether a sequence of one row says anything: in the other transforms it is zero."""
        return "raw" in self._transforms

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Compute mean and scale over the training set: batches of padded sequences (N, T, C · D) and lengths (N,)."""
        total, squares = torch.zeros(2, self.dim, dtype=torch.float64)
        num_rows = 0
        for features, lengths in batches:
            cells, cell_lengths = self._by_cell(features, lengths)
            rows = self._transformed(cells, cell_lengths)[step_mask(cells, cell_lengths)].double()  # (ΣT · C, M · D)
            total += rows.sum(dim=0)
            squares += rows.square_().sum(dim=0)
            num_rows += len(rows)
        mean = total / num_rows
        variance = (squares / num_rows - mean.square()).clamp_min(0).view(len(self._transforms), -1)  # (M, D)
        shared = variance.mean(dim=1, keepdim=True)
        scale = torch.lerp(variance, shared.expand_as(variance), self._scale_sharing).sqrt().flatten()
        self.mean = mean.float()
        self.scale = torch.where(scale < MIN_SCALE, torch.ones_like(scale), scale).float()

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Apply the transforms and normalise them; `lengths` (N,) int64, in frames."""
        cells, cell_lengths = self._by_cell(features, lengths)
        transformed = self._transformed(cells, cell_lengths)
        seen = _zero_padding(transformed.sub_(self.mean).div_(self.scale), cell_lengths)
        if self.num_cells == 1:
            return seen
        by_video = seen.reshape(len(features), self.num_cells, -1, self.dim)  # (N · C, T, M · D) -> (N, C, T, M · D)
        return by_video.transpose(1, 2).flatten(1, 2)  # -> (N, T · C, M · D)

    def split(self, parts: Tensor, whole: Tensor) -> Tensor:
        """Transform the parts of one cell's sequence, so that their sum is what the head sees of the whole.

        What is not linear is fixed by the whole: the length of each frame's feature, and the signs of differences.

        Args:
            parts: (P, T, D) whose sum is the whole.
            whole: (T, D) the sequence, without padding.

        Returns:
            (P, T, M · D)
        """
        if self._unit_frames:
            norm = whole.norm(dim=1, keepdim=True).clamp_min(MIN_NORM)  # (T, 1)
            parts, whole = parts / norm, whole / norm
        transformed = torch.cat([_split(name, parts, whole) for name in self._transforms], dim=2)
        seen: Tensor = (transformed - self.mean / len(parts)) / self.scale
        return seen

    def _by_cell(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, at least C · D) -> (N · C, T, D) and the lengths (N · C,)"""
        features = features[:, :, : self.num_cells * self._feature_dim]
        if self.num_cells == 1:
            return features, lengths
        cells = features.reshape(*features.shape[:2], self.num_cells, self._feature_dim)  # (N, T, C, D)
        return cells.transpose(1, 2).flatten(0, 1), lengths.repeat_interleave(self.num_cells)

    def _transformed(self, features: Tensor, lengths: Tensor) -> Tensor:
        features = _zero_padding(features, lengths)
        if self._unit_frames:
            features = nn.functional.normalize(features, dim=2)
        return torch.cat([TRANSFORMS[name](features, lengths) for name in self._transforms], dim=2)
