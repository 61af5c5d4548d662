"""torchvision's detectors and segmentation networks, on the CPU or a GPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from vidpipe.backbones.weights import WeightsFile
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.segmenter import Segmenter
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.weights import load_weights

__all__ = ["ObjectDetector", "load_torch_detector"]

_EPS = {"keypointrcnn_resnet50_fpn": 0.0}
"""Of batch normalisation, where torchvision sets it for its published weights alone."""
_VOC_PERSON = 15
"""Of VOC's 21 classes, the background included."""


def load_torch_detector(spec: DetectorSpec, weights: WeightsFile, device: torch.device) -> "ObjectDetector | Segmenter":
    """Build one of torchvision's networks with its weights.

    Args:
        spec: the detector.
        weights: its weights.
        device: where to run it.

    Returns:
        The detector.

    Raises:
        WeightsError: the file cannot be read, or holds another network's weights.
    """
    network = _build(spec)
    if weights.path is not None:
        load_weights(network, spec, weights.path)
    network.requires_grad_(False).eval().to(device)
    preset = get_model_weights(spec.builder).DEFAULT.transforms()
    if "roi_heads" not in dict(network.named_children()) and spec.has_masks:
        return Segmenter(
            lambda pixels: network(pixels)["out"],
            lambda frames: preset(torch.from_numpy(frames).to(device)),
            {PERSON: _VOC_PERSON},
        )
    return ObjectDetector(network, preset)


def _build(spec: DetectorSpec) -> nn.Module:
    """The network with random weights of a fixed seed, so that all decoding processes have the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"aux_loss": True} if spec.has_masks and spec.classes == "person" else {}
        network: nn.Module = get_model(spec.builder, weights=None, weights_backbone=None, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = _EPS.get(spec.builder, module.eps)
    return network


class ObjectDetector:
    """Finds objects one by one: boxes, and with some networks masks or key points.

    Args:
        network: of torchvision's, in evaluation mode.
        preset: torchvision's preprocessing of its weights.
    """

    def __init__(self, network: nn.Module, preset: Any) -> None:
        self._network, self._preset = network, preset

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """See `Detector.detect`."""
        height, width = frames.shape[2:]
        pixels = [self._preset(frame) for frame in torch.from_numpy(frames).to(_device_of(self._network))]
        with torch.inference_mode():
            return tuple(_detections(found, height, width) for found in self._network(pixels))


def _detections(found: Mapping[str, Tensor], height: int, width: int) -> Detections:
    arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    key_points, masks = arrays.get("keypoints"), arrays.get("masks")
    if key_points is not None:
        key_points = np.concatenate([key_points[..., :2], arrays["keypoints_scores"][..., None]], axis=2)
    return Detections(
        height,
        width,
        arrays["boxes"],
        arrays["scores"],
        arrays["labels"],
        key_points=key_points,
        masks=None if masks is None else masks[:, 0],  # (K, 1, H, W) -> (K, H, W)
    )


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
