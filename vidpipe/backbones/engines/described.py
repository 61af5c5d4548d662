"""Stands for a backbone where features are made in the decoding processes, as key points are."""

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.engine import Finish
from vidpipe.backbones.spec import BackboneSpec

__all__ = ["DescribedEngine"]


class DescribedEngine:
    """Returns features that are there already.

    Args:
        spec: their size.
    """

    name = "detector"
    device = "cpu"
    max_in_flight = 0

    def __init__(self, spec: BackboneSpec) -> None:
        self.dim, self.preprocessing = spec.dim, spec.preprocessing

    def start(self, frames: NDArray[np.float32]) -> Finish:
        """See `Engine.start`; frames are features (N, D)."""
        return lambda: (frames, 0.0)
