"""The nearest vectors of many: an exact product, in blocks that take little memory; of very many, an index of faiss."""

import logging
import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["nearest"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]

BLOCK_BYTES = 128 * 2**20
"""Of the products that are in memory at once."""
MAX_EXACT_PRODUCTS = 10**12
"""A million vectors with each other: of 1,280 numbers, about nine hours of one core. Of more, faiss is used if it is
installed."""
LISTS_A_ROOT, NUM_PROBED = 2, 128
"""Of the index: its lists of near vectors, in √P, and how many of them each query searches."""
TRAINED_A_LIST = 40
"""Vectors that the middle of a list is computed from; faiss warns below 39."""
QUERIES_AT_ONCE = 1024


def nearest(
    queries: Floats,
    vectors: Floats,
    number: int,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, NDArray[np.int64], Floats]]:
    """Find the vectors with the largest product with each query.

    The result is exact, unless there are more than `MAX_EXACT_PRODUCTS` products and the extra `faiss` is installed.

    Args:
        queries: (Q, D).
        vectors: (P, D), of length 1.
        number: how many to find of each query, at most.
        on_progress: called with the numbers of queries that are done and to do.

    Yields:
        The number of the first query of a block, then for each query of the block the numbers of its nearest vectors,
        (B, number), nearest first, and the products with them. An index that finds fewer ends with the number -1.
    """
    search, size = _exact(vectors, number), max(1, BLOCK_BYTES // (4 * len(vectors)))
    if len(queries) * len(vectors) > MAX_EXACT_PRODUCTS:
        if find_spec("faiss") is None:
            logger.warning("comparing %d vectors takes long; `pip install 'vidpipe[faiss]'` speeds it up", len(vectors))
        else:
            logger.warning("comparing %d vectors with an index of faiss, which may miss some", len(vectors))
            search, size = _indexed(vectors, number), QUERIES_AT_ONCE
    for start in range(0, len(queries), size):
        yield start, *search(queries[start : start + size])
        on_progress(min(start + size, len(queries)), len(queries))


_Search = Callable[[Floats], tuple[NDArray[np.int64], Floats]]
"""Finds the numbers of the nearest vectors of some queries, and the products with them."""


def _exact(vectors: Floats, number: int) -> _Search:
    others = torch.from_numpy(vectors).T

    def search(queries: Floats) -> tuple[NDArray[np.int64], Floats]:
        products = torch.from_numpy(queries) @ others  # (B, D) @ (D, P) -> (B, P)
        found = products.topk(min(number, len(vectors)), dim=1)
        return found.indices.numpy(), found.values.numpy()

    return search


def _indexed(vectors: Floats, number: int) -> _Search:
    """An inverted file of vectors in half precision (Jégou et al. 2011), built by faiss (Douze et al. 2024)."""
    import faiss

    num_lists = max(1, LISTS_A_ROOT * math.isqrt(len(vectors)))
    index = faiss.index_factory(vectors.shape[1], f"IVF{num_lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // (TRAINED_A_LIST * num_lists))]))
    index.add(vectors)
    faiss.extract_index_ivf(index).nprobe = NUM_PROBED

    def search(queries: Floats) -> tuple[NDArray[np.int64], Floats]:
        products, numbers = index.search(queries, min(number, len(vectors)))
        return numbers, products

    return search
