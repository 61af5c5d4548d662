"""Alters examples at random, so that a detector does not learn them by heart."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import NUM_KEY_POINTS, Detections

__all__ = ["augment", "flip"]

_MIRRORED = [0, *(index for left in range(1, NUM_KEY_POINTS, 2) for index in (left + 1, left))]
"""COCO's key points are the nose, then pairs of left and right."""
_CONTRAST, _BRIGHTNESS = 0.3, 40.0
"""The largest change of a colour channel: of its scale, and of its level (0 to 255)."""


def augment(
    picture: NDArray[np.uint8], truth: Detections, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Detections]:
    """Mirror an example in half of the cases, and change its colours.

    Args:
        picture: (3, H, W)
        truth: its objects.
        rng: the source of chance.

    Returns:
        The picture and its objects.
    """
    if rng.random() < 0.5:
        picture, truth = flip(picture, truth)
    scale = 1 + rng.uniform(-_CONTRAST, _CONTRAST) + rng.uniform(-_CONTRAST / 3, _CONTRAST / 3, (3, 1, 1))
    level = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    return (picture * scale + level).clip(0, 255).astype(np.uint8), truth


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
