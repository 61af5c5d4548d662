"""The nearest vectors of many: an exact product, in blocks that take little memory."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["nearest"]

Floats = NDArray[np.float32]

BLOCK_BYTES = 128 * 2**20
"""Of the products that are in memory at once."""


def nearest(
    queries: Floats,
    vectors: Floats,
    number: int,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, NDArray[np.int64], Floats]]:
    """Find the vectors with the largest product with each query.

    Args:
        queries: (Q, D).
        vectors: (P, D).
        number: how many to find of each query, at most.
        on_progress: called with the numbers of queries that are done and to do.

    Yields:
        The number of the first query of a block, then for each query of the block the numbers of its nearest vectors,
        (B, number), nearest first, and the products with them.
    """
    size = max(1, BLOCK_BYTES // (4 * len(vectors)))
    others = torch.from_numpy(vectors).T
    for start in range(0, len(queries), size):
        products = torch.from_numpy(queries[start : start + size]) @ others  # (B, D) @ (D, P) -> (B, P)
        found = products.topk(min(number, len(vectors)), dim=1)
        yield start, found.indices.numpy(), found.values.numpy()
        on_progress(min(start + size, len(queries)), len(queries))
