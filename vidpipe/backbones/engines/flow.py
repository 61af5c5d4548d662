"""Runs the motion backbone: optical flow on the CPU, without torch."""

import time

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.engine import Finish
from vidpipe.backbones.flow import FlowParameters, describe
from vidpipe.backbones.spec import BackboneSpec

__all__ = ["FlowEngine"]


class FlowEngine:
    """Runs a motion backbone, which has no weights.

    Args:
        spec: its parameters, and the size of its pictures.
    """

    name = "opencv"
    device = "cpu"
    max_in_flight = 0

    def __init__(self, spec: BackboneSpec) -> None:
        self.dim, self.preprocessing = spec.dim, spec.preprocessing
        self._parameters = FlowParameters(**spec.parameters or {})

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        """See `Engine.start`; frames are (N, W, 3, H, W)."""
        started = time.perf_counter()
        features = describe(frames, self._parameters)
        seconds = time.perf_counter() - started
        return lambda: (features, seconds)
