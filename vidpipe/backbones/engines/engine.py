"""What every engine offers: a backbone that is ready to run.

An engine takes and gives NumPy arrays, so that a process that runs ONNX needs no torch.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Preprocessing

__all__ = ["Engine", "Finish"]


class Engine(Protocol):
    """A backbone that is ready to run."""

    name: str
    """`torch` or `onnx`."""
    device: str
    """`cpu` or `cuda`."""
    dim: int
    """D"""
    preprocessing: Preprocessing
    max_in_flight: int
    """Batches to start before the first one is waited for: on a GPU the next ones are copied while one is computed."""

    def start(self, frames: NDArray[np.uint8]) -> "Finish":
        """Begin on (N, 3, H, W) RGB, resized and cropped; what is given waits for the end."""


Finish = Callable[[], tuple[NDArray[np.float32], float]]
"""Gives the features (N, D), and the seconds in which the device was at work on them."""
