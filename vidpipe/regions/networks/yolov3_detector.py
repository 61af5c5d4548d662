"""YOLO v3 as a detector: its weights, letterboxing, and non-maximum suppression."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms

from vidpipe.backbones.weights import WeightsFile, load_tensors
from vidpipe.errors import WeightsError
from vidpipe.regions.detections import Detections
from vidpipe.regions.networks.darknet_weights import load_darknet_weights
from vidpipe.regions.networks.letterbox import Letterbox
from vidpipe.regions.networks.yolov3 import YoloSettings, YoloV3, build
from vidpipe.regions.networks.yolov3_boxes import boxes_of, join_scales, priors_of

__all__ = ["YoloDetector", "load_yolov3", "read_yolov3"]

_MIN_SCORE = 0.005
_NMS_THRESHOLD = 0.45
"""Both are those of Darknet's evaluation on COCO."""
_MAX_CANDIDATES = 1000
_MAX_DETECTIONS = 100
"""COCO's limit of detections in a picture."""
_BATCH_SIZE = 8


def load_yolov3(weights: WeightsFile, device: torch.device) -> "YoloDetector":
    """Build YOLO v3 as a detector.

    Args:
        weights: Darknet's yolov3.weights, a .safetensors file of vidpipe's, or random.
        device: where to run it.

    Returns:
        The detector.

    Raises:
        WeightsError: the file cannot be read, or holds another network's weights.
    """
    return YoloDetector(read_yolov3(weights).requires_grad_(False).eval().to(device))


def read_yolov3(weights: WeightsFile) -> YoloV3:
    """Build YOLO v3 with its weights, to run it or to train it further.

    Args:
        weights: Darknet's yolov3.weights, a .safetensors file of vidpipe's, or random.

    Returns:
        The network, in training mode.

    Raises:
        WeightsError: the file cannot be read, or holds another network's weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # all decoding processes have the same random weights
        network = build(_settings_of(weights))
    if weights.path is not None and weights.path.suffix == ".weights":
        load_darknet_weights(network, weights.path)
    elif weights.path is not None:
        try:
            network.load_state_dict(dict(load_tensors(weights.path)))
        except RuntimeError as error:
            raise WeightsError(
                f"{weights.path}: these are not weights of yolov3: its tensors have other names or shapes"
            ) from error
    return network


def _settings_of(weights: WeightsFile) -> YoloSettings:
    """The settings in the metadata of a .safetensors file; those of yolov3.weights for any other."""
    from safetensors import SafetensorError, safe_open

    if weights.path is None or weights.path.suffix != ".safetensors":
        return YoloSettings()
    try:
        with safe_open(weights.path, "pt") as file:
            metadata = file.metadata() or {}
        return YoloSettings.from_json(metadata["settings"]) if "settings" in metadata else YoloSettings()
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{weights.path}: cannot be read as weights of yolov3: {error}") from error


class YoloDetector:
    """Finds objects of the network's classes.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: YoloV3) -> None:
        self._network = network
        self._class_ids = np.array(network.settings.class_ids)
        self._device = next(network.parameters()).device
        size = network.settings.size
        self._priors = priors_of(network.settings, size, size, self._device)

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """See `Detector.detect`."""
        starts = range(0, len(frames), _BATCH_SIZE)
        return tuple(one for start in starts for one in self._detect_batch(frames[start : start + _BATCH_SIZE]))

    def _detect_batch(self, frames: NDArray[np.uint8]) -> list[Detections]:
        height, width = frames.shape[2:]
        letterbox = Letterbox.of(height, width, self._network.settings.size)
        pixels = torch.from_numpy(letterbox.pictures(frames)).to(self._device) / 255
        with torch.inference_mode():
            raw = join_scales(self._network(pixels), self._network.settings.num_anchors)  # (N, P, 5 + K)
            boxes = boxes_of(raw, self._priors).clamp(0, letterbox.size)
            scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()  # (N, P, K)
            return [self._detections(*one, letterbox) for one in zip(boxes, scores, strict=True)]

    def _detections(self, boxes: Tensor, scores: Tensor, letterbox: Letterbox) -> Detections:
        """(P, 4), (P, K) -> the best boxes of each class, by score"""
        best, pairs = scores.flatten().topk(min(_MAX_CANDIDATES, scores.numel()))
        pairs, best = pairs[best > _MIN_SCORE], best[best > _MIN_SCORE]
        candidates, classes = boxes[pairs // scores.shape[1]], pairs % scores.shape[1]
        kept = batched_nms(candidates, best, classes, _NMS_THRESHOLD)[:_MAX_DETECTIONS]
        return Detections(
            letterbox.height,
            letterbox.width,
            letterbox.to_frame(candidates[kept].cpu().numpy()),
            best[kept].cpu().numpy(),
            self._class_ids[classes[kept].cpu().numpy()],
        )
