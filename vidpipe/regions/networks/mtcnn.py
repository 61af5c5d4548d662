"""MTCNN, a cascade of three networks that finds faces (Zhang et al. 2016, https://arxiv.org/abs/1604.02878).

    frame in several sizes ── P-Net ──► candidates ── R-Net, 24 × 24 ──► fewer ── O-Net, 48 × 48 ──► faces
                                  moved, made square          moved, made square           moved

The layers have the names of the package facenet-pytorch, so that its files of weights fit as they are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import nms

__all__ = ["MIN_FACE", "Mtcnn"]

MIN_FACE = 20
"""Pixels of the smallest side of a face."""
_CELL, _STRIDE = 12, 2
"""What a place of P-Net's output sees, and the distance of places, in pixels of the resized frame."""
_SHRINK = 0.709
"""From one size of the frame to the next: half the area."""
_THRESHOLDS = (0.6, 0.7, 0.7)
"""Probabilities of a face from which on the networks keep a candidate."""
_OVERLAP_IN_SIZE, _OVERLAP = 0.5, 0.7
"""Candidates that overlap a better one by more are dropped; those of one size of the frame first."""

_Found = tuple[Tensor, Tensor, Tensor]
"""(n, 4) boxes in pixels of the frame, (n,) probabilities, (n, 4) how their edges should move, in sides of the box."""


class _Net(nn.Module):
    """Layers one after the other, then a layer for the probability of a face and one for how the box should move."""

    def __init__(self, layers: Mapping[str, nn.Module], score: str, offsets: str) -> None:
        super().__init__()
        self._body = [name for name in layers if name not in (score, offsets)]
        self._score, self._offsets = score, offsets
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, h, w) -1 to 1 -> (N, …) probability of a face, (N, 4, …) left, top, right, bottom"""
        maps = pixels
        for name in self._body:
            layer = self.get_submodule(name)
            if isinstance(layer, nn.Linear) and maps.ndim == 4:
                maps = maps.permute(0, 3, 2, 1).flatten(1)  # the authors' files have columns first
            maps = layer(maps)
        return self.get_submodule(self._score)(maps).softmax(dim=1)[:, 1], self.get_submodule(self._offsets)(maps)


def _pnet() -> _Net:
    layers = {
        **_conv(1, 3, 10, 3),
        "pool1": nn.MaxPool2d(2, 2, ceil_mode=True),
        **_conv(2, 10, 16, 3),
        **_conv(3, 16, 32, 3),
        "conv4_1": nn.Conv2d(32, 2, 1),
        "conv4_2": nn.Conv2d(32, 4, 1),
    }
    return _Net(layers, "conv4_1", "conv4_2")


def _rnet() -> _Net:
    layers = {
        **_conv(1, 3, 28, 3),
        "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        **_conv(2, 28, 48, 3),
        "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
        **_conv(3, 48, 64, 2),
        "dense4": nn.Linear(576, 128),
        "prelu4": nn.PReLU(128),
        "dense5_1": nn.Linear(128, 2),
        "dense5_2": nn.Linear(128, 4),
    }
    return _Net(layers, "dense5_1", "dense5_2")


def _onet() -> _Net:
    layers = {
        **_conv(1, 3, 32, 3),
        "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
        **_conv(2, 32, 64, 3),
        "pool2": nn.MaxPool2d(3, 2, ceil_mode=True),
        **_conv(3, 64, 64, 3),
        "pool3": nn.MaxPool2d(2, 2, ceil_mode=True),
        **_conv(4, 64, 128, 2),
        "dense5": nn.Linear(1152, 256),
        "prelu5": nn.PReLU(256),
        "dense6_1": nn.Linear(256, 2),
        "dense6_2": nn.Linear(256, 4),
    }
    net = _Net(layers, "dense6_1", "dense6_2")
    net.add_module("dense6_3", nn.Linear(256, 10))  # five points of the face, which the file has and no region needs
    return net


def _conv(number: int, inputs: int, outputs: int, kernel: int) -> dict[str, nn.Module]:
    return {f"conv{number}": nn.Conv2d(inputs, outputs, kernel), f"prelu{number}": nn.PReLU(outputs)}


class Mtcnn(nn.Module):
    """The three networks: a frame -> the faces in it."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = _pnet(), _rnet(), _onet()

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Find faces.

        Args:
            frame: (3, H, W) RGB, 0 to 255, float.

        Returns:
            (K, 4) left, top, right and bottom in pixels, also beyond the frame's edges, and (K,) probabilities, the
            largest first.
        """
        sizes = [self._in_size(frame, scale) for scale in _scales(*frame.shape[1:])]
        if not sizes:
            return frame.new_zeros(0, 4), frame.new_zeros(0)
        boxes, scores, offsets = _chosen(*map(torch.cat, zip(*sizes, strict=True)), overlap=_OVERLAP)
        boxes = _squares(_moved(boxes, offsets))
        boxes, scores, offsets = _chosen(*_refined(self.rnet, frame, boxes, 24, _THRESHOLDS[1]), overlap=_OVERLAP)
        boxes = _squares(_moved(boxes, offsets, extra=1))
        boxes, scores, offsets = _refined(self.onet, frame, boxes, 48, _THRESHOLDS[2])
        return _without_parts(_moved(boxes, offsets, extra=1), scores)

    def _in_size(self, frame: Tensor, scale: float) -> _Found:
        """The candidates in one size of the frame."""
        size = [int(side * scale + 1) for side in frame.shape[1:]]
        probability, offsets = self.pnet(_normalised(interpolate(frame[None], size, mode="area")))
        rows, columns = (probability[0] >= _THRESHOLDS[0]).nonzero(as_tuple=True)
        start = torch.stack([columns, rows], dim=1) * _STRIDE
        boxes = (torch.cat([start + 1, start + _CELL], dim=1) / scale).floor()
        return _chosen(boxes, probability[0, rows, columns], offsets[0, :, rows, columns].T, overlap=_OVERLAP_IN_SIZE)


def _scales(height: int, width: int) -> list[float]:
    """By how much a frame is resized, so that faces of each size fill a cell of P-Net in one of them."""
    scales = [_CELL / MIN_FACE]
    shorter = min(height, width) * scales[0]
    while shorter >= _CELL:
        scales.append(scales[-1] * _SHRINK)
        shorter *= _SHRINK
    return scales[:-1]


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) / 128


def _chosen(boxes: Tensor, scores: Tensor, offsets: Tensor, *, overlap: float) -> _Found:
    kept = nms(boxes, scores, overlap)
    return boxes[kept], scores[kept], offsets[kept]


def _moved(boxes: Tensor, offsets: Tensor, *, extra: int = 0) -> Tensor:
    """Move the edges by their share of the sides; R-Net and O-Net count the last pixel as a part of the box."""
    sides = (boxes[:, 2:] - boxes[:, :2] + extra).repeat(1, 2)
    return boxes + offsets * sides


def _squares(boxes: Tensor) -> Tensor:
    """Squares of the longer side around the same centres."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(dim=1, keepdim=True)
    start = boxes[:, :2] + sides / 2 - longer / 2
    return torch.cat([start, start + longer], dim=1)


def _refined(net: _Net, frame: Tensor, boxes: Tensor, side: int, threshold: float) -> _Found:
    """The boxes in which a network sees a face, when it looks at each by itself."""
    height, width = frame.shape[1:]
    left, top, right, bottom = boxes.trunc().int().T.tolist() if len(boxes) else ([], [], [], [])
    cut = [
        frame[None, :, max(y, 1) - 1 : min(y_stop, height), max(x, 1) - 1 : min(x_stop, width)]
        for x, y, x_stop, y_stop in zip(left, top, right, bottom, strict=True)
    ]
    inside = [number for number, one in enumerate(cut) if one.numel()]
    if not inside:
        return frame.new_zeros(0, 4), frame.new_zeros(0), frame.new_zeros(0, 4)
    pictures = torch.cat([interpolate(cut[number], (side, side), mode="area") for number in inside])
    scores, offsets = net(_normalised(pictures))
    kept = scores > threshold
    return boxes[inside][kept], scores[kept], offsets[kept]


def _without_parts(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The faces by score, without those that are mostly inside a better one: the overlap is a share of the smaller."""
    order = scores.argsort(descending=True)
    boxes, scores = boxes[order], scores[order]
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1)
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    stop = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (stop - corner + 1).clamp(min=0).prod(dim=2)
    is_part = common / torch.minimum(areas[:, None], areas[None]) > _OVERLAP
    kept: list[int] = []
    for number in range(len(boxes)):
        if not is_part[number, kept].any():
            kept.append(number)
    return boxes[kept], scores[kept]
