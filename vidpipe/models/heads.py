"""The classifiers over a feature sequence: padded sequences and their lengths in, logits out.

All keep one promise, which a test holds them to: padding never changes a prediction.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidpipe.config import TrainConfig

__all__ = ["HEADS", "Head", "LSTMHead", "MeanHead", "build_head", "masked_mean"]


def masked_mean(sequences: Tensor, lengths: Tensor) -> Tensor:
    """The mean over each sequence's own steps: (N, T, D), (N,) -> (N, D)"""
    steps = torch.arange(sequences.shape[1], device=sequences.device)
    mask = steps[None, :] < lengths.to(sequences.device)[:, None]  # (N, T)
    total = (sequences * mask[:, :, None]).sum(dim=1)  # (N, T, D) -> (N, D)
    return total / lengths.to(total)[:, None]


class Head(nn.Module):
    """A classifier over feature sequences that standardises its input by the training part's mean and deviation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(dim))
        self.register_buffer("feature_std", torch.ones(dim))

    def fit_standardisation(self, features: Tensor) -> None:
        """Take mean and deviation from the training part's rows, (ΣT, D)."""
        self.feature_mean = features.mean(dim=0)
        self.feature_std = features.std(dim=0, correction=0).clamp_min(1e-6)

    def standardise(self, features: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)"""
        return (features - self.feature_mean) / self.feature_std

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Classify padded sequences.

        Args:
            features: (N, T, D) float, rows at and after a sequence's length are ignored.
            lengths: (N,) int64, on the CPU, each at least 1.

        Returns:
            logits (N, K)
        """
        raise NotImplementedError


class LSTMHead(Head):
    """An LSTM over the packed sequence; the mean of its outputs is classified.

    Hochreiter & Schmidhuber 1997; over frozen image features: Donahue et al. 2015 (LRCN), Ng et al. 2015.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__(dim)
        between_layers = dropout if num_layers > 1 else 0.0
        self.lstm = nn.LSTM(
            dim, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional, dropout=between_layers
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size * (1 + bidirectional), num_classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.forward`."""
        packed = pack_padded_sequence(
            self.dropout(self.standardise(features)), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)  # (N, T, H)
        logits: Tensor = self.classifier(self.dropout(masked_mean(outputs, lengths)))  # (N, H) -> (N, K)
        return logits


class MeanHead(Head):
    """A linear classifier of the mean feature: blind to order and motion, the baseline that others must beat."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.forward`."""
        logits: Tensor = self.classifier(masked_mean(self.standardise(features), lengths))  # (N, D) -> (N, K)
        return logits


def _lstm(dim: int, num_classes: int, config: TrainConfig) -> Head:
    return LSTMHead(
        dim,
        num_classes,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        bidirectional=config.bidirectional,
        dropout=config.dropout,
    )


HEADS: Mapping[str, Callable[[int, int, TrainConfig], Head]] = {
    "lstm": _lstm,
    "mean": lambda dim, num_classes, config: MeanHead(dim, num_classes),
}


def build_head(name: str, dim: int, num_classes: int, config: TrainConfig) -> Head:
    """The head of that name, for features of size `dim` and `num_classes` classes."""
    return HEADS[name](dim, num_classes, config)
