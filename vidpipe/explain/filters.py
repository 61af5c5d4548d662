"""What a channel looks for: pictures that activate it, made from noise by gradient ascent.

Erhan et al. 2009; normalised gradients and blur as in Yosinski et al. 2015; jitter as in Mordvintsev et al. 2015.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidpipe.backbones.image import WholeNetwork
from vidpipe.explain.layers import Stage, run_up_to

__all__ = ["Filters", "find_filters", "is_convolutional"]

_SIDE_IN_PLACES, _MIN_SIDE, _MAX_SIDE = 8, 48, 96
"""A picture has this number of places of the stage along each side, and pixels from 48 to 96, or the network's input
size: a channel's pattern repeats, so a part of a whole input shows it."""
STEP = 0.12
"""Of the first step, of the values of pixels, which are 0 to 1; the gradient has a mean square of 1."""
NOISE = 0.2
"""Standard deviation of the noise around grey at the start."""
JITTER = 8
"""Pixels by which a picture is moved in each step, so that no pattern depends on where the network's grid lies."""
BELOW_ZERO = 0.5
"""The weight of activations below zero in what is raised."""
LEAK = 0.1
"""Of the gradient, passes where an activation function has none: a channel that is silent everywhere can be raised."""
_FLAT = (nn.ReLU, nn.ReLU6, nn.Hardtanh)


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
    """Return whether a network has no attention and no fixed number of patches: it sees pictures of other sizes."""
    kinds = {type(module).__name__.lower() for module in network.features.modules()}
    return not any(fixed in kind for kind in kinds for fixed in ("attention", "patchembed"))


def find_filters(
    network: WholeNetwork, stage: Stage, channels: Sequence[int], *, num_steps: int, seed: int = 0
) -> Filters:
    """Find pictures that activate channels of a convolutional network.

    What is raised is the mean of the channel over all places. Activations below zero count half: the whole mean of a
    linear filter for edges is zero for every picture.

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
    num_blurs = _num_blurs(network, stage)
    with _leaky(network.features):
        for step in range(num_steps):
            shift = torch.randint(-JITTER, JITTER + 1, (2,), generator=random).tolist()
            gradient = _gradient(network, stage, pixels.roll(shift, dims=(-2, -1)), chosen)
            gradient = _blurred(gradient.roll([-one for one in shift], dims=(-2, -1)), num_blurs)
            size = gradient.flatten(1).square().mean(dim=1).sqrt().clamp_min(1e-12)  # (F,)
            rate = STEP * (1 - step / num_steps)
            pixels = (pixels + rate * gradient / size.view(-1, *[1] * (gradient.ndim - 1))).clamp(0, 1)
    shown = pixels if pixels.ndim == 4 else pixels[:, pixels.shape[1] // 2]
    pictures = (255 * shown).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Filters(tuple(channels), pictures, before, _means(network, stage, pixels, chosen))


def _noise(network: WholeNetwork, stage: Stage, random: torch.Generator) -> Tensor:
    """(3, H, W) or (W, 3, H, W) float, 0 to 1"""
    side = min(max(_SIDE_IN_PLACES * _place_side(network, stage), _MIN_SIDE), _MAX_SIDE, network.input_size)
    noise = torch.randn(*network.input_shape[:-2], side, side, generator=random)
    return (0.5 + NOISE * _blurred(noise, _num_blurs(network, stage))).clamp(0, 1)


def _place_side(network: WholeNetwork, stage: Stage) -> int:
    """Pixels of the picture from one place of the map to the next."""
    return max(1, network.input_size // stage.height)


def _num_blurs(network: WholeNetwork, stage: Stage) -> int:
    """None for the first layers, whose patterns are as fine as pixels; one more each time that the map is halved."""
    return max(0, _place_side(network, stage).bit_length() - 2)


def _gradient(network: WholeNetwork, stage: Stage, pixels: Tensor, chosen: Tensor) -> Tensor:
    """How each picture's channel grows with its pixels."""
    pixels = pixels.detach().requires_grad_()
    own = _own_channels(network, stage, pixels, chosen)
    raised = nn.functional.leaky_relu(own, BELOW_ZERO).flatten(1).mean(dim=1).sum()
    return torch.autograd.grad(raised, pixels)[0]


def _own_channels(network: WholeNetwork, stage: Stage, pixels: Tensor, chosen: Tensor) -> Tensor:
    maps = run_up_to(network, 255 * pixels, stage.name)
    return maps[torch.arange(len(chosen)), chosen]  # (F, C, …, h, w) -> (F, …, h, w)


@torch.no_grad()
def _means(network: WholeNetwork, stage: Stage, pixels: Tensor, chosen: Tensor) -> NDArray[np.float32]:
    """(F,) the mean of each picture's channel over the places"""
    means: NDArray[np.float32] = _own_channels(network, stage, pixels, chosen).flatten(1).mean(dim=1).cpu().numpy()
    return means


@contextmanager
def _leaky(model: nn.Module) -> Iterator[None]:
    """Give the activation functions that are flat somewhere a gradient everywhere; their values stay the same."""

    def leak(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + LEAK * (inputs[0] - inputs[0].detach())

    flat = [module for module in model.modules() if isinstance(module, _FLAT)]
    hooks = [module.register_forward_hook(leak, prepend=True) for module in flat]
    in_place = {module for module in flat if module.inplace}
    try:
        for module in in_place:
            module.inplace = False
        yield
    finally:
        for module in in_place:
            module.inplace = True
        for hook in hooks:
            hook.remove()


def _blurred(pixels: Tensor, times: int) -> Tensor:
    """(…, H, W), each pixel with its neighbours, over the edges, weighed 1 : 2 : 1 on both axes"""
    for _ in range(times):
        for axis in (-2, -1):
            pixels = (pixels.roll(1, dims=axis) + 2 * pixels + pixels.roll(-1, dims=axis)) / 4
    return pixels
