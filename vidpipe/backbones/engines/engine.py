"""The interface of an engine: a backbone that is ready to run.

An engine takes and returns NumPy arrays, so that a process that runs ONNX needs no torch.
"""

from collections.abc import Callable
from typing import Any, Protocol

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
    """Batches to start before waiting for the first one: a GPU computes one while the next ones are copied."""

    def start(self, frames: NDArray[Any]) -> "Finish":
        """Start computing the features of frames, or of windows of frames.

        Args:
            frames: (N, 3, H, W) uint8, RGB, resized and cropped; (N, W, 3, H, W) for a clip backbone.

        Returns:
            A function that waits for the features.
        """
        ...


Finish = Callable[[], tuple[NDArray[np.float32], float]]
"""Waits for a batch; returns its features (N, D), or (N, C, D) with C cells of each picture, and the seconds that the
device took for them."""
