"""The number of threads that a training computes with: it sets its own, since sums depend on it in their last bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["default_num_threads", "use_threads"]

MAX_THREADS = 16
"""By default: a step of training is too small to be shared among more."""


def default_num_threads() -> int:
    """Return one thread for each core that this process may run on, up to `MAX_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(cores, MAX_THREADS)


@contextmanager
def use_threads(num_threads: int) -> Iterator[None]:
    """Compute with so many threads in torch, and in the BLAS and OpenMP under numpy, scipy and scikit-learn.

    Independent of OMP_NUM_THREADS and of what was set before, which is restored afterwards.
    """
    import scipy.linalg  # noqa: F401  (limits reach only the libraries that are loaded by then)
    import sklearn.linear_model  # noqa: F401

    before = torch.get_num_threads()
    with threadpool_limits(num_threads):
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
