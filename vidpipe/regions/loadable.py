"""A detector that decoding processes load by themselves."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.detector import Detector
from vidpipe.regions.load import load_detector
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.trained import read_header

__all__ = ["LoadableDetector"]


@dataclass(frozen=True)
class LoadableDetector:
    """A detector that a decoding process loads at its first use, and then keeps; it is a `Detect`."""

    spec: DetectorSpec
    weights: WeightsFile
    device: str
    """`auto`, `cpu` or `cuda`."""
    longer_side: int | None = None
    """As for `load_detector`."""

    def __call__(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """(N, H, W, 3) -> what is found in each frame"""
        return _loaded(self).detect(frames.transpose(0, 3, 1, 2))

    def check(self) -> None:
        """Load the detector and drop it, so that a wrong file is one error and not one of each video.

        Raises:
            UsageError: the device or ONNX Runtime is not available, or the detector learned to find other things than
                people.
            WeightsError: the weights cannot be read, or belong to another network.
        """
        header = None if self.weights.path is None else read_header(self.weights.path)
        if header is not None and PERSON not in header.classes:
            raise UsageError(
                f"{self.weights.path}: finds {', '.join(header.classes.values())}; a detector of the class `person` is "
                "needed, or of one class"
            )
        load_detector(self.spec, self.weights, device=self.device)


@lru_cache(maxsize=2)
def _loaded(detector: LoadableDetector) -> Detector:
    """One thread for each process: the processes share the cores."""
    return load_detector(
        detector.spec,
        detector.weights,
        device=detector.device,
        num_threads=1,
        longer_side=detector.longer_side,
    )
