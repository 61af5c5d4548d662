"""A confusion matrix with its shares: `vidpipe.runs.plots` and `vidpipe.report.page` draw it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["ConfusedPair", "ConfusionMatrix"]


@dataclass(frozen=True)
class ConfusedPair:
    """Videos of one class that are predicted as another."""

    label: str
    predicted: str
    count: int
    share: float
    """Of the videos with this label."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often each class is predicted as each class."""

    class_names: tuple[str, ...]
    """K names: of the rows (labels), and of the columns (predictions)."""
    counts: NDArray[np.integer[Any]]
    """(K, K) numbers of videos."""
    shares: NDArray[np.floating[Any]]
    """(K, K) shares of the videos with the row's label."""

    @classmethod
    def from_counts(cls, counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Self:
        """Return the matrix of K x K counts, as `Evaluation.confusion` holds them."""
        array = np.asarray(counts)  # (K, K)
        return cls(tuple(class_names), array, array / np.maximum(array.sum(axis=1, keepdims=True), 1))

    @property
    def errors(self) -> NDArray[np.integer[Any]]:
        """(K, K) the counts off the diagonal; the diagonal is 0."""
        errors = self.counts.copy()
        np.fill_diagonal(errors, 0)
        return errors

    def most_confused(self, max_classes: int) -> Self:
        """Return the matrix of the classes with the most errors, in the same order; the shares stay as they are."""
        if len(self.class_names) <= max_classes:
            return self
        num_errors = self.errors.sum(axis=0) + self.errors.sum(axis=1)  # (K,)
        kept = np.sort(np.argsort(-num_errors, kind="stable")[:max_classes])
        cells = np.ix_(kept, kept)
        return type(self)(tuple(self.class_names[index] for index in kept), self.counts[cells], self.shares[cells])

    def pairs(self, max_pairs: int) -> list[ConfusedPair]:
        """Return the pairs of classes with the most errors, most first."""
        names = self.class_names
        pairs = [
            ConfusedPair(names[row], names[column], int(self.counts[row, column]), float(self.shares[row, column]))
            for row, column in np.argwhere(self.errors)
        ]
        return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))[:max_pairs]
