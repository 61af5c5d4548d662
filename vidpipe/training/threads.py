"""The number of threads of a training. A training sets its own, as sums depend on it in their last bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["default_num_threads", "use_threads"]

MAX_THREADS = 16
"""Maximum of the default: a training step is too small for more threads."""


def default_num_threads() -> int:
    """Return one thread for each core that this process may run on, up to `MAX_THREADS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(cores, MAX_THREADS)


@contextmanager
def use_threads(num_threads: int) -> Iterator[None]:
    """Set the number of threads of torch, and of the BLAS and OpenMP that numpy, scipy and scikit-learn use.

    OMP_NUM_THREADS has no effect. The numbers set before are restored afterwards.
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
