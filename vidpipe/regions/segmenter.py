"""Detectors that are networks of semantic segmentation: they find one mask of each class, not of each object."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError, WeightsError
from vidpipe.regions.detections import Detections
from vidpipe.regions.masks import detections_of_masks
from vidpipe.regions.networks.segmentation import (
    SEGMENTATION_NETWORKS,
    SegmentationNetwork,
    SegmentationSettings,
    build,
)
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.weights import load_weights
from vidpipe.video.resize import resize

__all__ = ["SETTINGS_KEY", "Segmenter", "load_segmenter", "segmenter_of", "settings_of"]

SETTINGS_KEY = "settings"
"""Of the metadata of a trained .safetensors file: what builds the network, as JSON."""
_BATCH_SIZE = 4
"""The first maps of a large network take 100 MB a frame."""


class Segmenter:
    """Finds one mask of each class.

    Args:
        network: computes logits (N, C, h, w) of prepared frames (N, 3, h, w), in evaluation mode.
        prepare: resizes frames (N, 3, H, W) and scales them as the network expects, on its device.
        channels: by class, its channel of the logits.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        prepare: Callable[[NDArray[np.uint8]], Tensor],
        channels: Mapping[int, int],
    ) -> None:
        self._network, self._prepare, self._channels = network, prepare, channels

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """See `Detector.detect`."""
        batches = (frames[start : start + _BATCH_SIZE] for start in range(0, len(frames), _BATCH_SIZE))
        return tuple(found for batch in batches for found in self._detect(batch))

    def _detect(self, frames: NDArray[np.uint8]) -> Iterator[Detections]:
        height, width = frames.shape[2:]
        with torch.inference_mode():
            shares = self._network(self._prepare(frames)).softmax(dim=1)
        masks = shares[:, list(self._channels.values())].cpu().numpy()  # (N, K, h, w)
        for of_frame in masks:
            yield detections_of_masks(dict(zip(self._channels, of_frame, strict=True)), height, width)


def load_segmenter(
    spec: DetectorSpec, weights: WeightsFile, device: torch.device, settings: SegmentationSettings
) -> Segmenter:
    """Build a network of semantic segmentation with its weights.

    Args:
        spec: the detector.
        weights: its weights.
        device: where to run it.
        settings: that build it.

    Returns:
        The detector.

    Raises:
        UsageError: the package of the network is not installed.
        WeightsError: the file cannot be read, or holds another network's weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # so that all decoding processes have the same random weights
        network = build(settings)
    if weights.path is not None:
        load_weights(network, spec, weights.path)
    return segmenter_of(network.requires_grad_(False).eval().to(device))


def segmenter_of(network: SegmentationNetwork) -> Segmenter:
    """Return a detector that runs a network.

    Args:
        network: in evaluation mode.

    Returns:
        The detector.
    """
    settings, device = network.settings, network.mean.device
    channels = {class_id: 1 + place for place, class_id in enumerate(settings.class_ids)}

    def prepare(frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(_resized(frames, settings.size)).to(device).float() / 255

    return Segmenter(network, prepare, channels)


def _resized(frames: NDArray[np.uint8], longer_side: int) -> NDArray[np.uint8]:
    """(N, 3, H, W) -> (N, 3, h, w)"""
    height, width = frames.shape[2:]
    scale = longer_side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return resize(frames.transpose(0, 2, 3, 1), size, "bilinear")


def settings_of(spec: DetectorSpec, path: Path | None) -> SegmentationSettings | None:
    """Return the settings of a network of semantic segmentation: those in its file, or the detector's own.

    Args:
        spec: the detector.
        path: its weights; None for random ones.

    Returns:
        The settings; None where the detector is another kind of network, or has its library's weights.

    Raises:
        WeightsError: the file holds another network, or settings that this vidpipe does not have.
    """
    if spec.name not in SEGMENTATION_NETWORKS:
        return None
    stored = None if path is None or path.suffix != ".safetensors" else _metadata(path).get(SETTINGS_KEY)
    if stored is None:
        return None if spec.library == "torchvision" else SegmentationSettings(spec.name)
    try:
        settings = SegmentationSettings.from_json(stored)
    except (UsageError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as weights of {spec.name}: {error}") from error
    if settings.network != spec.name:
        raise WeightsError(f"{path}: holds weights of {settings.network}; use it with --detector {settings.network}")
    return settings


def _metadata(path: Path) -> Mapping[str, str]:
    """Of a .safetensors file; empty where it is none, which reading the weights reports."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return {}
