"""The interface of a detector: a network that is ready to find people and objects in frames."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import Detections

__all__ = ["Detector"]


class Detector(Protocol):
    """A detector that is ready to run."""

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """Find objects in frames.

        Args:
            frames: (N, 3, H, W) RGB, of any size.

        Returns:
            N records.
        """
        ...
