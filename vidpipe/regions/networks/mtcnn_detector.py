"""MTCNN as a detector: its weights, and what it finds."""

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.backbones.weights import WeightsFile, load_tensors
from vidpipe.errors import WeightsError
from vidpipe.regions.detections import FACE, Detections
from vidpipe.regions.networks.mtcnn import Mtcnn
from vidpipe.regions.networks.mtcnn_files import read_mtcnn_files

__all__ = ["MtcnnDetector", "load_mtcnn"]


def load_mtcnn(weights: WeightsFile, device: torch.device) -> "MtcnnDetector":
    """Build MTCNN as a detector.

    Args:
        weights: of `vidpipe.regions.networks.mtcnn_files.find_mtcnn_weights`, or random.
        device: where to run it.

    Returns:
        The detector.

    Raises:
        WeightsError: a file cannot be read, or holds another network's weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # all decoding processes have the same random weights
        network = Mtcnn()
    if weights.path is not None:
        for name, content in read_mtcnn_files(weights.path).items():
            path = weights.path / name
            try:
                network.get_submodule(name.removesuffix(".pt")).load_state_dict(dict(load_tensors(path, content)))
            except RuntimeError as error:
                raise WeightsError(
                    f"{path}: these are not weights of mtcnn: other tensors are in its {name}"
                ) from error
    return MtcnnDetector(network.requires_grad_(False).eval().to(device))


class MtcnnDetector:
    """Finds faces of 20 pixels and more.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: Mtcnn) -> None:
        self._network = network
        self._device = next(network.parameters()).device

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """See `Detector.detect`."""
        return tuple(map(self._detect, frames))

    def _detect(self, frame: NDArray[np.uint8]) -> Detections:
        height, width = frame.shape[1:]
        with torch.inference_mode():
            found = self._network(torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).float())
        boxes, scores = (one.cpu().numpy() for one in found)
        limits = np.array([width, height] * 2, np.float32)
        return Detections(height, width, boxes.clip(0, limits), scores, np.full(len(scores), FACE))
