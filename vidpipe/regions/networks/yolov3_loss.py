"""The loss of YOLO v3 (Redmon & Farhadi 2018, section 2).

Each object has one responsible prediction: at the cell of its centre, the anchor whose form fits it best. It learns
the box, the objectness 1 and the class. All others learn the objectness 0, except those whose box overlaps an object
by more than half: they are ignored. As in Darknet, the gradient of x and y is that of cross-entropy, width and height
have squared errors, and small boxes weigh up to twice as much as large ones. Darknet's yolov3.cfg ignores from an
IoU of 0.7; the paper says 0.5. Where objects share a prediction, all of them count; in Darknet it is the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import box_iou

from vidpipe.regions.detections import Detections
from vidpipe.regions.networks.yolov3 import STRIDES, YoloSettings, YoloV3
from vidpipe.regions.networks.yolov3_boxes import Priors, boxes_of, join_scales, priors_of

__all__ = ["IGNORE_THRESHOLD", "loss"]

IGNORE_THRESHOLD = 0.5
"""The IoU with an object above which a prediction is not taught to be background."""


@dataclass(frozen=True)
class _Truth:
    """The K objects of one picture."""

    boxes: Tensor
    """(K, 4) left, top, right and bottom in pixels."""
    classes: Tensor
    """(K,) indices."""
    responsible: Tensor
    """(K,) the indices of the predictions that learn them."""


def loss(network: YoloV3, pixels: Tensor, truths: Sequence[Detections]) -> Tensor:
    """Compute the loss of a batch, the mean of its pictures.

    Args:
        network: in training mode.
        pixels: (N, 3, H, W) float32, 0 to 1; H and W are multiples of 32.
        truths: N records, with boxes in pixels of these pictures and the network's category ids.

    Returns:
        A scalar.

    Raises:
        ValueError: an object has a category that is not the network's.
    """
    settings, (height, width) = network.settings, pixels.shape[2:]
    raw = join_scales(network(pixels), settings.num_anchors)  # (N, P, 5 + K)
    priors = priors_of(settings, height, width, pixels.device)
    objects = [_truth_of(network, one, height, width, pixels.device) for one in truths]
    losses = [_picture_loss(one, priors, truth) for one, truth in zip(raw, objects, strict=True)]
    return torch.stack(losses).mean()


def _truth_of(network: YoloV3, truth: Detections, height: int, width: int, device: torch.device) -> _Truth:
    unknown = set(truth.classes.tolist()) - network.class_indices.keys()
    if unknown:
        raise ValueError(f"the network has no category {min(unknown)}; it has {sorted(network.class_indices)}")
    indices = [network.class_indices[number] for number in truth.classes.tolist()]
    boxes = torch.from_numpy(truth.boxes).to(device, torch.float32)
    responsible = _responsible(network.settings, boxes, height, width)
    return _Truth(boxes, torch.tensor(indices, dtype=torch.int64, device=device), responsible)


def _responsible(settings: YoloSettings, boxes: Tensor, height: int, width: int) -> Tensor:
    """(K, 4) -> (K,) the indices of the predictions, in the order of the priors"""
    sizes, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    anchors = torch.tensor(settings.anchors, device=boxes.device)
    best = box_iou(_at_origin(sizes), _at_origin(anchors)).argmax(dim=1)  # (K,)
    scale = len(STRIDES) - 1 - best // settings.num_anchors  # the smallest anchors belong to the last scale
    strides = torch.tensor(STRIDES, device=boxes.device)
    rows, columns = height // strides, width // strides  # (3,)
    stops = (rows * columns * settings.num_anchors).cumsum(0)
    x = (centres[:, 0] / strides[scale]).long().clamp(min=0).minimum(columns[scale] - 1)
    y = (centres[:, 1] / strides[scale]).long().clamp(min=0).minimum(rows[scale] - 1)
    places: Tensor = (y * columns[scale] + x) * settings.num_anchors + best % settings.num_anchors
    return places + torch.cat([stops.new_zeros(1), stops[:-1]])[scale]


def _at_origin(sizes: Tensor) -> Tensor:
    """(K, 2) -> (K, 4) boxes with a common corner"""
    return torch.cat([torch.zeros_like(sizes), sizes], dim=1)


def _picture_loss(raw: Tensor, priors: Priors, truth: _Truth) -> Tensor:
    """Sum the errors of the boxes, the objectness and the classes of one picture: raw is (P, 5 + K)."""
    chosen = raw[truth.responsible]  # (K, 5 + K)
    classes = torch.zeros_like(chosen[:, 5:]).scatter_(1, truth.classes[:, None], 1)
    class_loss = binary_cross_entropy_with_logits(chosen[:, 5:], classes, reduction="sum")
    return _box_loss(chosen, priors, truth) + _objectness_loss(raw, priors, truth) + class_loss


def _box_loss(chosen: Tensor, priors: Priors, truth: _Truth) -> Tensor:
    corners, strides = priors.corners[truth.responsible], priors.strides[truth.responsible]
    sizes = (truth.boxes[:, 2:] - truth.boxes[:, :2]).clamp(min=1)
    centres = (truth.boxes[:, 2:] + truth.boxes[:, :2]) / 2
    offsets = ((centres - corners) / strides).clamp(0, 1)
    scales = (sizes / priors.anchors[truth.responsible]).log()
    area = sizes.prod(dim=1, keepdim=True) / (priors.corners + priors.strides).amax(dim=0).prod()
    weight = (2 - area).expand(-1, 2)
    centre_loss = binary_cross_entropy_with_logits(chosen[:, :2], offsets, weight, reduction="sum")
    return centre_loss + (weight * (chosen[:, 2:4] - scales).square()).sum() / 2


def _objectness_loss(raw: Tensor, priors: Priors, truth: _Truth) -> Tensor:
    targets = torch.zeros_like(raw[:, 4])
    targets[truth.responsible] = 1
    counted = torch.ones_like(targets)
    if len(truth.boxes):
        overlap = box_iou(boxes_of(raw.detach(), priors), truth.boxes).amax(dim=1)  # (P,)
        counted = ((overlap <= IGNORE_THRESHOLD) | (targets > 0)).to(targets)
    return binary_cross_entropy_with_logits(raw[:, 4], targets, counted, reduction="sum")
