"""Heads that label each row of a long video: padded sequences in, logits of every row out.

Each head gives the logits of one or more stages; the last one counts, and training adds the losses of all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidpipe.config import TrainConfig
from vidpipe.heads.heads import MIN_DIM_TO_PROJECT, MIN_SCALE, Components
from vidpipe.heads.motion import step_mask

__all__ = ["ROW_HEADS", "RowHead", "build_row_head"]

NUM_LAYERS, NUM_REFINEMENTS = 8, 2
"""Of the temporal convolutional network; its last layer sees 2 · 2⁷ rows to each side."""


class RowHead(nn.Module, ABC):
    """Labels each row of a sequence.

    Args:
        dim: D, the features of a row.
        config: the settings.
    """

    centre: Tensor
    """(D,) mean of the training rows."""
    scale: Tensor
    """(D,) their standard deviation."""

    def __init__(self, dim: int, config: TrainConfig) -> None:
        super().__init__()
        is_projected = dim > MIN_DIM_TO_PROJECT and config.components > 0
        self.components = Components(dim, config.components) if is_projected else None
        self.seen_dim = config.components if is_projected else dim
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit_input(self, rows: Tensor) -> None:
        """Fit the normalisation, and the principal components of large features, to rows (n, D)."""
        self.centre.copy_(rows.mean(dim=0))
        self.scale.copy_(rows.std(dim=0, correction=0).clamp_min(MIN_SCALE))
        if self.components is not None:
            self.components.fit((rows - self.centre) / self.scale)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Label padded sequences.

        Args:
            features: (N, T, D) float; rows after a sequence's end are ignored.
            lengths: (N,) int64, on the CPU.

        Returns:
            (S, N, T, K) logits of each stage.
        """
        seen = (features - self.centre) / self.scale
        seen = seen if self.components is None else self.components(seen)
        seen = self.dropout(seen) * step_mask(features, lengths)[:, :, None]  # (N, T, P)
        return self.label(seen, lengths)

    @abstractmethod
    def label(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """Label what is seen of the rows: (N, T, P) -> (S, N, T, K)"""


class _RecurrentRowHead(RowHead):
    """A bidirectional LSTM over the rows, with a linear classifier of each output. Graves & Schmidhuber 2005."""

    def __init__(self, dim: int, num_classes: int, config: TrainConfig) -> None:
        super().__init__(dim, config)
        self.recurrent = nn.LSTM(
            self.seen_dim, config.hidden_size, config.num_layers, batch_first=True, bidirectional=True
        )
        self.classifier = nn.Linear(2 * config.hidden_size, num_classes)

    def label(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `RowHead.label`."""
        packed = pack_padded_sequence(seen, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=seen.shape[1])
        logits: Tensor = self.classifier(self.dropout(outputs))
        return logits[None]


class _TCNRowHead(RowHead):
    """A temporal convolutional network of several stages, each of which corrects the one before. Abu Farha & Gall 2019.

    MS-TCN with dilations 1, 2, 4 …, for features of a few rows a second.
    """

    def __init__(self, dim: int, num_classes: int, config: TrainConfig) -> None:
        super().__init__(dim, config)
        size = config.hidden_size
        self.first = _Stage(self.seen_dim, size, num_classes, config.dropout)
        self.refinements = nn.ModuleList(
            _Stage(num_classes, size, num_classes, config.dropout) for _ in range(NUM_REFINEMENTS)
        )

    def label(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `RowHead.label`."""
        mask = step_mask(seen, lengths)[:, None]  # (N, 1, T)
        stages = [self.first(seen.transpose(1, 2), mask)]
        for refine in self.refinements:
            stages.append(refine(stages[-1].softmax(dim=1) * mask, mask))
        return torch.stack(stages).transpose(2, 3)  # (S, N, K, T) -> (S, N, T, K)


class _Stage(nn.Module):
    """Residual layers of dilated convolutions, then a classifier of each row."""

    def __init__(self, dim: int, size: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv1d(dim, size, 1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(size, size, 3, padding=2**layer, dilation=2**layer) for layer in range(NUM_LAYERS)
        )
        self.mixed = nn.ModuleList(nn.Conv1d(size, size, 1) for _ in range(NUM_LAYERS))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv1d(size, num_classes, 1)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(N, D, T), (N, 1, T) -> (N, K, T)"""
        steps = self.project(rows) * mask
        for dilated, mixed in zip(self.dilated, self.mixed, strict=True):
            steps = (steps + self.dropout(mixed(dilated(steps).relu()))) * mask
        logits: Tensor = self.classifier(steps)
        return logits


ROW_HEADS: Mapping[str, Callable[[int, int, TrainConfig], RowHead]] = {
    "bilstm": _RecurrentRowHead,
    "tcn": _TCNRowHead,
}
"""By name: D, K and the settings -> a head."""


def build_row_head(name: str, dim: int, num_classes: int, config: TrainConfig, rows: Iterable[Tensor] = ()) -> RowHead:
    """Build a head that labels rows.

    Args:
        name: a key of `ROW_HEADS`.
        dim: D, the features of a row.
        num_classes: K.
        config: the settings.
        rows: of the training set, (n, D) each; without any, the input is not normalised.

    Returns:
        The head, with random weights from torch's random number generator.
    """
    head = ROW_HEADS[name](dim, num_classes, config)
    found = list(rows)
    if found:
        head.fit_input(torch.cat(found))
    return head
