"""The number of threads of a training. A training sets its own, as sums depend on it in their last bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["DEFAULT_NUM_THREADS", "use_threads"]

DEFAULT_NUM_THREADS = 1
"""A step of the default heads is too small to divide: with two threads on two cores, a training of 60 videos took 72 s,
with one 21 s. One thread also gives the same model on machines with other numbers of cores."""


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
