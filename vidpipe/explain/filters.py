"""What a channel looks for: pictures that activate it, made from noise by gradient ascent.

Erhan et al. 2009; normalised gradients and blur as in Yosinski et al. 2015; jitter as in Mordvintsev et al. 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.backbones.image import WholeNetwork
from vidpipe.explain.layers import Stage, run_up_to

__all__ = ["Filters", "find_filters", "is_convolutional"]

_SIDE_IN_PLACES, _MIN_SIDE, _MAX_SIDE = 8, 48, 96
"""A picture has this number of places of the stage along each side, and pixels from 48 to 96, or the network's input
size: a channel's pattern repeats, so a part of a whole input shows it."""
STEP = 0.06
"""Of the values of pixels, which are 0 to 1; the gradient has a mean square of 1."""
NOISE = 0.15
"""Standard deviation of the noise around grey at the start."""
JITTER = 8
"""Pixels by which a picture is moved in each step, so that no pattern depends on where the network's grid lies."""
BLUR_EVERY = 4
BLUR = 0.25
"""The weight of the mean of a pixel's neighbours, on each axis."""
LEAK = 0.01
"""Weight of activations below zero: a channel that is silent everywhere has a gradient, too."""


@dataclass(frozen=True)
class Filters:
    """Pictures that activate channels of one stage."""

    channels: tuple[int, ...]
    pictures: NDArray[np.uint8]
    """(F, H, W, 3) RGB; of a network that sees windows of frames, the frame in the middle."""
    noise_activations: NDArray[np.float32]
    """(F,) the mean of the channel over the places, for the noise at the start."""
    activations: NDArray[np.float32]
    """(F,) the same for the pictures."""


def is_convolutional(network: WholeNetwork) -> bool:
    """Return whether a network has no attention: it sees pictures of other sizes than its own."""
    return not any("attention" in type(module).__name__.lower() for module in network.features.modules())


def find_filters(
    network: WholeNetwork, stage: Stage, channels: Sequence[int], *, num_steps: int, seed: int = 0
) -> Filters:
    """Find pictures that activate channels of a convolutional network.

    The mean of the channel's positive activations over all places is raised.

    Args:
        network: the network.
        stage: one of its stages.
        channels: of the stage; one picture for each.
        num_steps: steps of gradient ascent.
        seed: of the noise and the jitter; the same seed gives the same pictures on one machine.

    Returns:
        The pictures.
    """
    random = torch.Generator().manual_seed(seed)
    chosen = torch.tensor(channels, device=network.device)
    noise = _noise(network, stage, random).to(network.device)  # (3, H, W) or (W, 3, H, W)
    pixels = torch.stack([noise] * len(channels))
    before = _means(network, stage, pixels, chosen)
    for step in range(num_steps):
        shift = torch.randint(-JITTER, JITTER + 1, (2,), generator=random).tolist()
        moved = pixels.roll(shift, dims=(-2, -1)).requires_grad_()
        maps = run_up_to(network, 255 * moved, stage.name)
        own = maps[torch.arange(len(chosen)), chosen]  # (F, C, …, h, w) -> (F, …, h, w)
        torch.nn.functional.leaky_relu(own, LEAK).flatten(1).mean(dim=1).sum().backward()
        assert moved.grad is not None
        gradient = moved.grad.roll([-one for one in shift], dims=(-2, -1))
        size = gradient.flatten(1).square().mean(dim=1).sqrt().clamp_min(1e-12)  # (F,)
        pixels = pixels + STEP * gradient / size.view(-1, *[1] * (gradient.ndim - 1))
        if step % BLUR_EVERY == BLUR_EVERY - 1 and step < num_steps - BLUR_EVERY:
            pixels = _blurred(pixels)
        pixels = pixels.clamp(0, 1)
    shown = pixels if pixels.ndim == 4 else pixels[:, pixels.shape[1] // 2]
    pictures = (255 * shown).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Filters(tuple(channels), pictures, before, _means(network, stage, pixels, chosen))


def _noise(network: WholeNetwork, stage: Stage, random: torch.Generator) -> Tensor:
    """(3, H, W) or (W, 3, H, W) float, 0 to 1"""
    pixels_of_a_place = network.input_size // stage.height
    side = min(max(_SIDE_IN_PLACES * pixels_of_a_place, _MIN_SIDE), _MAX_SIDE, network.input_size)
    return (0.5 + NOISE * torch.randn(*network.input_shape[:-2], side, side, generator=random)).clamp(0, 1)


@torch.no_grad()
def _means(network: WholeNetwork, stage: Stage, pixels: Tensor, chosen: Tensor) -> NDArray[np.float32]:
    """(F,) the mean of each picture's channel over the places"""
    maps = run_up_to(network, 255 * pixels, stage.name)
    means: NDArray[np.float32] = maps[torch.arange(len(chosen)), chosen].flatten(1).mean(dim=1).cpu().numpy()
    return means


def _blurred(pixels: Tensor) -> Tensor:
    """(…, H, W) with a little of each pixel's neighbours, around the edges"""
    for axis in (-2, -1):
        around = (pixels.roll(1, dims=axis) + pixels.roll(-1, dims=axis)) / 2
        pixels = (1 - BLUR) * pixels + BLUR * around
    return pixels
