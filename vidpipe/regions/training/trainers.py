"""The detectors that can be trained: what each learns, how it is built, and its loss. A row each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vidpipe.errors import UsageError, unknown_name
from vidpipe.regions.detections import Detections
from vidpipe.regions.detector import Detector
from vidpipe.regions.networks import segmentation, torchvision_detectors, yolov3, yolov3_loss
from vidpipe.regions.networks.segmentation import SegmentationSettings
from vidpipe.regions.networks.yolov3_detector import YoloDetector
from vidpipe.regions.segmenter import segmenter_of
from vidpipe.regions.table import DETECTORS
from vidpipe.regions.torch_detectors import trained_object_detector
from vidpipe.regions.training.examples import Learned

__all__ = ["TRAINERS", "Loss", "Plan", "Settings", "Trainer", "find_trainer"]

Loss: TypeAlias = Callable[[Any, Tensor, Sequence[Detections]], Tensor]
"""Of a network in training mode, pixels (N, 3, H, W) float32 from 0 to 1, and N truths; a scalar."""


class Settings(Protocol):
    """What a network needs to be built again; it is stored with the weights."""

    def to_json(self) -> str:
        """Return the settings as JSON."""
        ...


@dataclass(frozen=True)
class Plan:
    """What a network is built for."""

    detector: str
    class_ids: tuple[int, ...]
    size: int
    """The side of the square pictures, in pixels."""
    width: float
    """The share of the channels."""
    box_sizes: NDArray[np.float32]
    """(K, 2) width and height of the training set's boxes in the square pictures."""
    encoder: str = "resnet34"
    """Of a U-Net."""
    batch_norm: bool = True
    """Of an FCN: without it, it learns only from weights such as VGG-16's."""


@dataclass(frozen=True)
class Trainer:
    """How a detector is trained."""

    size: int
    """The default side of the square pictures, in pixels."""
    settings: Callable[[Plan], Settings]
    build: Callable[[Any], nn.Module]
    loss: Loss
    detector: Callable[[Any], Detector]
    """Of a network in evaluation mode."""
    learned: Learned
    metric: str = "box mAP"
    """Of the validation set: the best epoch is the one where it is largest; the other is `Dice`."""
    has_width: bool = False


def _object_settings(plan: Plan) -> Settings:
    return torchvision_detectors.ObjectSettings(DETECTORS[plan.detector].builder, plan.class_ids, plan.size)


def _yolo_settings(plan: Plan) -> Settings:
    return yolov3.settings_for(plan.class_ids, size=plan.size, width=plan.width, box_sizes=plan.box_sizes)


def _segmentation_settings(plan: Plan) -> Settings:
    return SegmentationSettings(
        plan.detector, plan.class_ids, plan.size, plan.width, batch_norm=plan.batch_norm, encoder=plan.encoder
    )


def _segmentation(size: int, *, has_width: bool = False) -> Trainer:
    """A network of semantic segmentation."""
    return Trainer(
        size,
        _segmentation_settings,
        segmentation.build,
        segmentation.loss,
        segmenter_of,
        Learned(masks=True),
        metric="Dice",
        has_width=has_width,
    )


def _objects(size: int, learned: Learned | None = None) -> Trainer:
    """A detector of torchvision, with its own losses."""
    return Trainer(
        size,
        _object_settings,
        torchvision_detectors.build,
        torchvision_detectors.loss,
        trained_object_detector,
        learned or Learned(),
    )


TRAINERS: Mapping[str, Trainer] = {
    "fasterrcnn": _objects(800),
    "fasterrcnn_mobilenet": _objects(800),
    "maskrcnn": _objects(800, Learned(masks=True)),
    "keypointrcnn": _objects(800, Learned(key_points=True)),
    "ssdlite": _objects(320),
    "retinanet": _objects(800),
    "yolov3": Trainer(416, _yolo_settings, yolov3.build, yolov3_loss.loss, YoloDetector, Learned(), has_width=True),
    "fcn32s": _segmentation(512, has_width=True),
    "fcn16s": _segmentation(512, has_width=True),
    "fcn8s": _segmentation(512, has_width=True),
    "unet": _segmentation(512, has_width=True),
    "deeplab": _segmentation(512),
    "deeplab_mobilenet": _segmentation(512),
    "fcn_resnet50": _segmentation(512),
}


def find_trainer(name: str) -> Trainer:
    """Find how a detector is trained.

    Args:
        name: a key of `TRAINERS`.

    Returns:
        The trainer.

    Raises:
        UsageError: there is no such detector, or it cannot be trained.
    """
    if name in DETECTORS and name not in TRAINERS:
        raise UsageError(f"{name} cannot be trained: it is {_what_it_is(name)}; these can: {', '.join(TRAINERS)}")
    if name not in TRAINERS:
        raise UsageError(unknown_name("detector", name, list(TRAINERS)))
    return TRAINERS[name]


def _what_it_is(name: str) -> str:
    """Return why a detector cannot be trained."""
    if name == "mtcnn":
        return "three networks, each of which learns from what the one before it finds, and vidpipe trains one network"
    return "an ONNX file, which has a network's results and not its gradients"
