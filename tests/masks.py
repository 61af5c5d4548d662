"""Masks of drawn figures: exact ones, and such as a network might give; the measure of how near they are."""

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.demo.figures import draw, pose, random_figure, random_scene


def drawn_figure(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A frame with a drawn figure, and the pixels that differ from the scene without it."""
    random = np.random.default_rng(seed)
    scene = random_scene(320, 240, random, indoors=seed % 2 == 0)
    frame = np.asarray(draw(random_figure(random), scene, pose("raise_arms", float(random.uniform()))))
    empty = scene.behind.copy()
    empty.paste(scene.before, mask=scene.before)
    without = np.asarray(empty.reduce(scene.behind.width // frame.shape[1]))
    return frame, np.abs(frame.astype(int) - without).max(axis=2) > 40


def coarse(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """As of a network with a stride of 16 pixels."""
    pixels = torch.from_numpy(mask.astype(np.float32))[None, None]
    small = torch.nn.functional.avg_pool2d(pixels, 16)
    return torch.nn.functional.interpolate(small, mask.shape, mode="bilinear")[0, 0].numpy()


def patchy(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """With holes in the figure and spots beside it."""
    spots = torch.randn((1, 1, 24, 32), generator=torch.Generator().manual_seed(0))
    noise = torch.nn.functional.interpolate(spots, mask.shape, mode="bilinear")[0, 0].numpy()
    return np.asarray(1 / (1 + np.exp(-(np.where(mask, 1.5, -2) + 2 * noise))), np.float32)


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())
