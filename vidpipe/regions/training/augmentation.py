"""Alters examples at random, so that a detector does not learn them by heart."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import affine_grid, grid_sample

from vidpipe.regions.detections import NUM_KEY_POINTS, Detections

__all__ = ["augment", "flip", "zoom"]

_MIRRORED = [0, *(index for left in range(1, NUM_KEY_POINTS, 2) for index in (left + 1, left))]
"""COCO's key points are the nose, then pairs of left and right."""
_CONTRAST, _BRIGHTNESS = 0.3, 40.0
"""The largest change of a colour channel: of its scale, and of its level (0 to 255)."""
_ZOOM, _SHIFT = 0.25, 0.15
"""The largest change of scale, and of place as a share of the picture's side."""
_GREY = 127
_MIN_VISIBLE = 0.4
"""An object of whose box less is left is left out."""


def augment(
    picture: NDArray[np.uint8], truth: Detections, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Detections]:
    """Mirror an example in half of the cases, zoom and shift it, and change its colours.

    Args:
        picture: (3, H, W)
        truth: its objects.
        rng: the source of chance.

    Returns:
        The picture and its objects.
    """
    if rng.random() < 0.5:
        picture, truth = flip(picture, truth)
    scale, (x, y) = 1 + rng.uniform(-_ZOOM, _ZOOM), rng.uniform(-_SHIFT, _SHIFT, 2)
    picture, truth = zoom(picture, truth, scale=scale, shift=(x * truth.width, y * truth.height))
    contrast = 1 + rng.uniform(-_CONTRAST, _CONTRAST) + rng.uniform(-_CONTRAST / 3, _CONTRAST / 3, (3, 1, 1))
    level = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    return (picture * contrast + level).clip(0, 255).astype(np.uint8), truth


def flip(picture: NDArray[np.uint8], truth: Detections) -> tuple[NDArray[np.uint8], Detections]:
    """Mirror an example, left to right; the left and right key points change places.

    Args:
        picture: (3, H, W)
        truth: its objects.

    Returns:
        The picture and its objects.
    """
    left, top, right, bottom = truth.boxes.T
    boxes = np.stack([truth.width - right, top, truth.width - left, bottom], axis=1)
    key_points = truth.key_points
    if key_points is not None:
        key_points = key_points[:, _MIRRORED]
        key_points[..., 0] = np.where(key_points[..., 2] > 0, truth.width - key_points[..., 0], 0)
    masks = None if truth.masks is None else truth.masks[..., ::-1].copy()
    return picture[..., ::-1].copy(), replace(truth, boxes=boxes, key_points=key_points, masks=masks)


def zoom(
    picture: NDArray[np.uint8], truth: Detections, *, scale: float, shift: tuple[float, float]
) -> tuple[NDArray[np.uint8], Detections]:
    """Enlarge or shrink an example around its middle, then shift it; what is beside it is grey.

    Objects that are mostly out of the picture are left out.

    Args:
        picture: (3, H, W)
        truth: its objects.
        scale: above 1 enlarges.
        shift: to the right and down, in pixels.

    Returns:
        The picture and its objects.
    """
    size = np.array([truth.width, truth.height], np.float32)
    offset = (np.array(shift) + size / 2 * (1 - scale)).astype(np.float32)  # a point p is moved to scale · p + offset
    moved = truth.boxes * np.float32(scale) + np.tile(offset, 2)
    boxes = moved.clip(0, np.tile(size, 2))
    kept = _areas(boxes) >= _MIN_VISIBLE * _areas(moved)
    key_points, masks = truth.key_points, truth.masks
    if key_points is not None:
        key_points = _moved_points(key_points[kept], scale, offset, size)
    if masks is not None:
        masks = _warped(masks[kept], scale, shift, mode="nearest")
    zoomed = _warped(picture.astype(np.float32) - _GREY, scale, shift, mode="bilinear") + _GREY
    objects = replace(
        truth,
        boxes=boxes[kept],
        scores=truth.scores[kept],
        classes=truth.classes[kept],
        key_points=key_points,
        masks=masks,
    )
    return zoomed.round().astype(np.uint8), objects


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _moved_points(
    points: NDArray[np.float32], scale: float, offset: NDArray[np.float32], size: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(K, 17, 3); a point that leaves the picture is not there"""
    places = points[..., :2] * np.float32(scale) + offset
    is_there = (points[..., 2:] > 0) & ((places >= 0) & (places < size)).all(axis=-1, keepdims=True)
    return np.where(is_there, np.concatenate([places, points[..., 2:]], axis=-1), np.float32(0))


def _warped(
    pictures: NDArray[np.float32], scale: float, shift: tuple[float, float], *, mode: str
) -> NDArray[np.float32]:
    """(C, H, W) -> (C, H, W); 0 beside the picture"""
    height, width = pictures.shape[1:]
    x, y = 2 * shift[0] / width, 2 * shift[1] / height
    matrix = torch.tensor([[1 / scale, 0, -x / scale], [0, 1 / scale, -y / scale]], dtype=torch.float32)
    if not len(pictures):
        return pictures
    grid = affine_grid(matrix[None], [1, len(pictures), height, width], align_corners=False)
    return grid_sample(torch.from_numpy(pictures)[None], grid, mode=mode, align_corners=False)[0].numpy()
