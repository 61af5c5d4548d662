"""torchvision's detectors and segmentation networks, on the CPU or a GPU."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import WeightsError
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.networks import torchvision_detectors
from vidpipe.regions.segmenter import Segmenter
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.trained import TrainedHeader, read_header
from vidpipe.regions.weights import load_weights

__all__ = ["ObjectDetector", "load_torch_detector", "trained_object_detector"]

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
    if weights.path is not None and (header := read_header(weights.path)) is not None:
        return trained_object_detector(_trained(spec, header, weights.path).to(device))
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


def _trained(spec: DetectorSpec, header: TrainedHeader, path: Path) -> nn.Module:
    """The network of a file that `vidpipe regions train` wrote."""
    try:
        network = torchvision_detectors.build(torchvision_detectors.ObjectSettings.from_json(header.settings))
    except ValueError as error:
        raise WeightsError(f"{path}: cannot be read as weights of {spec.name}: {error}") from error
    load_weights(network, spec, path)
    return network.requires_grad_(False).eval()


def trained_object_detector(network: nn.Module) -> "ObjectDetector":
    """Return a detector for one's own classes, ready to run.

    Args:
        network: of `vidpipe.regions.networks.torchvision_detectors.build`, in evaluation mode.

    Returns:
        The detector.
    """
    settings: Any = network.settings
    return ObjectDetector(network, partial(torch.mul, other=1 / 255), class_ids=settings.class_ids)


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
        class_ids: the class of each label, from 1; None where labels are classes.
    """

    def __init__(self, network: nn.Module, preset: Any, *, class_ids: Sequence[int] | None = None) -> None:
        self._network, self._preset = network, preset
        self._class_ids = None if class_ids is None else np.array([0, *class_ids])

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """See `Detector.detect`."""
        height, width = frames.shape[2:]
        pixels = [self._preset(frame) for frame in torch.from_numpy(frames).to(_device_of(self._network))]
        with torch.inference_mode():
            return tuple(_detections(found, height, width, self._class_ids) for found in self._network(pixels))


def _detections(
    found: Mapping[str, Tensor], height: int, width: int, class_ids: NDArray[np.int64] | None
) -> Detections:
    arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    key_points, masks = arrays.get("keypoints"), arrays.get("masks")
    if key_points is not None:
        key_points = np.concatenate([key_points[..., :2], arrays["keypoints_scores"][..., None]], axis=2)
    return Detections(
        height,
        width,
        arrays["boxes"],
        arrays["scores"],
        arrays["labels"] if class_ids is None else class_ids[arrays["labels"]],
        key_points=key_points,
        masks=None if masks is None else masks[:, 0],  # (K, 1, H, W) -> (K, H, W)
    )


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
