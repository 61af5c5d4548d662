"""What the outputs of YOLO v3 mean: a prediction for each anchor at each cell of each scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidpipe.regions.networks.yolov3 import STRIDES, YoloSettings

__all__ = ["Priors", "boxes_of", "join_scales", "priors_of"]


@dataclass(frozen=True)
class Priors:
    """The cell and the anchor of each of the P predictions, in pixels.

    The order is that of Darknet: from the coarsest scale to the finest, row by row, cell by cell, anchor by anchor.
    """

    corners: Tensor
    """(P, 2) left and top of the cell."""
    strides: Tensor
    """(P, 1) the side of the cell."""
    anchors: Tensor
    """(P, 2) width and height."""


def priors_of(settings: YoloSettings, height: int, width: int, device: torch.device) -> Priors:
    """List the cells and anchors of a picture.

    Args:
        settings: of the network.
        height: of the picture in pixels, a multiple of 32.
        width: of the picture in pixels, a multiple of 32.
        device: of the tensors.

    Returns:
        The P = Σ height / stride · width / stride · A priors.
    """
    # The smallest anchors belong to the finest scale, which is the last.
    of_scales = torch.tensor(settings.anchors, device=device).view(len(STRIDES), -1, 2).flip(0)  # (3, A, 2)
    corners, strides, anchors = [], [], []
    for stride, of_scale in zip(STRIDES, of_scales, strict=True):
        rows, columns = torch.arange(height // stride), torch.arange(width // stride)
        cells = torch.cartesian_prod(rows, columns).flip(1).to(device) * stride  # (cells, 2): x, y
        corners.append(cells.repeat_interleave(len(of_scale), dim=0))
        anchors.append(of_scale.repeat(len(cells), 1))
        strides.append(torch.full((len(anchors[-1]), 1), stride, device=device))
    return Priors(torch.cat(corners), torch.cat(strides), torch.cat(anchors))


def join_scales(outputs: Sequence[Tensor], num_anchors: int) -> Tensor:
    """Join the raw outputs of the scales in the order of the priors.

    Args:
        outputs: (N, A · (5 + K), h, w) of each scale.
        num_anchors: A.

    Returns:
        (N, P, 5 + K): x, y, width, height, objectness and classes, before any activation.
    """
    # (N, A · (5 + K), h, w) -> (N, h, w, A, 5 + K) -> (N, h · w · A, 5 + K)
    by_anchor = (one.view(len(one), num_anchors, -1, *one.shape[2:]) for one in outputs)
    return torch.cat([one.permute(0, 3, 4, 1, 2).flatten(1, 3) for one in by_anchor], dim=1)


def boxes_of(raw: Tensor, priors: Priors) -> Tensor:
    """Decode boxes, as in section 2.1 of the paper.

    Args:
        raw: (N, P, 4 or more) from `join_scales`.
        priors: of the P predictions.

    Returns:
        (N, P, 4) left, top, right and bottom in pixels of the network's picture.
    """
    centres = priors.corners + priors.strides * raw[..., :2].sigmoid()
    halves = priors.anchors * raw[..., 2:4].exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)
