"""What a channel responds to: pictures that raise its mean activation, by gradient ascent from noise.

Activation maximisation (Erhan et al. 2009, "Visualizing Higher-Layer Features of a Deep Network") with normalised
gradients and blur (Yosinski et al. 2015, "Understanding Neural Networks Through Deep Visualization") and jitter
(Mordvintsev et al. 2015, "Inceptionism"); Olah et al. 2017, "Feature Visualization", compare such methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from vidpipe.explain.network import Network, run_to_stage

__all__ = ["Filters", "maximise"]

NOISE_STD = 0.05
STEP = 0.03
"""Mean change of a pixel in a step, of 0 to 1 (root of the mean square)."""
MAX_JITTER_PIXELS = 6
BLUR_EVERY_STEPS = 4
BLUR_KERNEL, BLUR_SIGMA = 3, 0.6


@dataclass(frozen=True)
class Filters:
    """Pictures that raise channels of a stage."""

    channels: tuple[int, ...]
    pictures: Tensor
    """(n, …, 3, H, W) RGB, 0 to 1: of each channel."""
    noise_activation: Tensor
    """(n,) the channels' mean activations for the noise at the start."""
    activation: Tensor
    """(n,) those for the pictures."""


def maximise(
    network: Network, stage: str, channels: Sequence[int], *, shape: tuple[int, ...], steps: int, seed: int
) -> Filters:
    """Find pictures that raise the mean activation of channels, all in one batch.

    Args:
        network: the network.
        stage: a stage's name.
        channels: n channels of the stage.
        shape: (3, H, W) of a picture; (W, 3, H, W) for a clip backbone.
        steps: of the gradient ascent.
        seed: of the noise and the jitter.

    Returns:
        The pictures. The same seed gives the same pictures on the same machine.
    """
    random = torch.Generator().manual_seed(seed)
    noise = 0.5 + NOISE_STD * torch.randn((len(channels), *shape), generator=random)
    pictures = noise = noise.clamp(0, 1).to(network.device)
    for step in range(steps):
        shift = torch.randint(-MAX_JITTER_PIXELS, MAX_JITTER_PIXELS + 1, (2,), generator=random).tolist()
        gradient = _gradient(network, stage, channels, pictures.roll(shift, (-2, -1)))
        gradient = gradient.roll([-pixels for pixels in shift], (-2, -1))
        size = gradient.flatten(1).square().mean(dim=1).sqrt().clamp_min(1e-12)  # (n,)
        pictures = pictures + STEP * gradient / size.view(-1, *[1] * len(shape))
        if step % BLUR_EVERY_STEPS == 0 and step < steps - 1:
            pictures = gaussian_blur(pictures, [BLUR_KERNEL] * 2, [BLUR_SIGMA] * 2)
        pictures = pictures.clamp(0, 1)
    with torch.no_grad():
        before, after = (_activation(network, stage, channels, one) for one in (noise, pictures))
    return Filters(tuple(channels), pictures.cpu(), before.cpu(), after.cpu())


def _gradient(network: Network, stage: str, channels: Sequence[int], pictures: Tensor) -> Tensor:
    """The gradient of each channel's mean activation with respect to its picture, (n, …, 3, H, W)."""
    with torch.enable_grad():
        pictures = pictures.detach().requires_grad_()
        return torch.autograd.grad(_activation(network, stage, channels, pictures).sum(), pictures)[0]


def _activation(network: Network, stage: str, channels: Sequence[int], pictures: Tensor) -> Tensor:
    """(n, …, 3, H, W) a picture for each channel -> (n,) its mean activation"""
    maps = run_to_stage(network, pictures, stage)  # (n, C, …, h, w)
    return maps.flatten(2).mean(dim=2)[torch.arange(len(channels)), list(channels)]
