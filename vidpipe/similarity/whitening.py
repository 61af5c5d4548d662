"""Whitening of changes: the ways in which all videos of a store change count less than the ways of one video alone.

Staged or similar actions change features alike, most of all along a few directions: people approach, and part. What
distinguishes one footage lies in the others. Each direction is divided by its deviation over the store, and by the mean
deviation where that is larger.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Whitening", "WhiteningFit"]

Floats = NDArray[np.float32]

MAX_DIRECTIONS = 512
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Whitening:
    """A linear map of changes."""

    matrix: Floats
    """(D, K)."""

    def apply(self, changes: Floats) -> Floats:
        """Return the changes as they are compared, (T, D) -> (T, K)."""
        return np.asarray(changes @ self.matrix, np.float32)


class WhiteningFit:
    """Adds up the products of changes."""

    def __init__(self) -> None:
        self._waiting: list[Floats] = []
        self._num_waiting, self._num_rows = 0, 0
        self._products: NDArray[np.float64] | None = None

    def add(self, changes: Floats) -> None:
        """Add the changes of a video, (T, D)."""
        self._waiting.append(changes)
        self._num_waiting += len(changes)
        if self._num_waiting >= ROWS_AT_ONCE:
            self._add_waiting()

    def finish(self, dim: int) -> Whitening:
        """Return the whitening of what was added.

        Args:
            dim: D.

        Returns:
            The map; without any changes, the identity.
        """
        self._add_waiting()
        if self._products is None or self._num_rows == 0:
            return Whitening(np.eye(dim, dtype=np.float32))
        variances, directions = np.linalg.eigh(self._products / self._num_rows)
        largest = slice(None, -MAX_DIRECTIONS - 1, -1)
        variances, directions = np.maximum(variances[largest], 0), directions[:, largest]
        mean = max(float(np.trace(self._products)) / self._num_rows / dim, 1e-12)
        return Whitening(np.asarray(directions / np.sqrt(variances + mean), np.float32))

    def _add_waiting(self) -> None:
        if self._num_waiting:
            rows = np.concatenate(self._waiting)
            products = (rows.T @ rows).astype(np.float64)
            self._products = products if self._products is None else self._products + products
            self._num_rows += len(rows)
            self._waiting, self._num_waiting = [], 0
