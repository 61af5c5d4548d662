"""Frames at a model's size: uint8 with antialiasing, exactly as torchvision's transforms do it."""

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.records import Preprocessing

__all__ = ["resize", "resize_and_crop"]

MAX_ASPECT_RATIO = 10
"""Longer side by shorter side. Of a picture beyond it only this much of its middle is resized: all of one of
10000 × 2 pixels would become 1,280,000 × 256."""


def resize_and_crop(frames: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The shorter side to `preprocessing.resize`, then the centre crop: (T, H, W, 3) -> (T, 3, crop, crop)."""
    frames = _middle(frames)
    height, width = frames.shape[1:3]
    shorter, longer = sorted((height, width))
    long_side = int(preprocessing.resize * longer / shorter)
    size = (preprocessing.resize, long_side) if height <= width else (long_side, preprocessing.resize)
    resized = resize(frames, size, preprocessing.interpolation)
    top, left = (round((side - preprocessing.crop) / 2.0) for side in size)
    return resized[:, :, top : top + preprocessing.crop, left : left + preprocessing.crop]


def _middle(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ample room for the crop around the very centre of pictures that are too elongated; others as they are."""
    height, width = frames.shape[1:3]
    shorter, longer = sorted((height, width))
    if longer <= MAX_ASPECT_RATIO * shorter:
        return frames
    margin = (longer - MAX_ASPECT_RATIO * shorter) // 2
    kept = slice(margin, longer - margin)
    return frames[:, :, kept] if width > height else frames[:, kept]


def resize(frames: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """(T, H, W, 3) -> (T, 3, *size)"""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if size != tuple(pixels.shape[2:]):
        pixels = torch.nn.functional.interpolate(pixels, size, mode=interpolation, antialias=True)
    return pixels.numpy()
