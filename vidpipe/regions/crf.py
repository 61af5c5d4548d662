"""Refinement of masks by a fully connected conditional random field (Krähenbühl & Koltun 2011, arXiv 1210.5644).

Each pixel has a probability from the network. Pixels of like colour that are near each other should have the same label
(the appearance kernel), and so should neighbours (the smoothness kernel). Mean field finds labels that fit both.

mask ──► grid of at most 2,048 cells ──► mean field over all pairs of cells ──► messages ──► pixels: mask + messages

The paper computes the messages of all pixels approximately, with a permutohedral lattice. Here they are exact, on a
grid, and the pixels of the frame take them from the cells around them that have their colour (joint bilateral
upsampling, Kopf et al. 2007).
"""

from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

__all__ = ["Crf", "mean_field", "pairwise_kernel", "refine_mask"]


@dataclass(frozen=True)
class Crf:
    """The settings, by default those of the authors' program.

    Distances are a share of the picture's longer side: the program has 80 and 3 pixels, for pictures of 500.
    """

    appearance_weight: float = 10.0
    appearance_distance: float = 0.16
    appearance_color: float = 13.0
    """Of 0 to 255."""
    smoothness_weight: float = 3.0
    smoothness_distance: float = 0.006
    num_iterations: int = 5
    max_cells: int = 2048
    """Of the grid. The kernel has their square."""
    min_probability: float = 0.01
    """The network's probabilities are at most this near to 0 and 1: networks are surer than they are right."""

    def as_dict(self) -> dict[str, float]:
        """Return the settings as plain values, for a key."""
        return asdict(self)


def refine_mask(
    mask: NDArray[np.float32], frame: NDArray[np.uint8], *, crf: Crf, device: torch.device
) -> NDArray[np.float32]:
    """Fit a mask to the edges of a frame.

    Args:
        mask: (H, W) how much each pixel belongs to the object, 0 to 1.
        frame: (H, W, 3) RGB.
        crf: the settings.
        device: where to compute.

    Returns:
        (H, W) the refined mask, 0 to 1.
    """
    pixels = torch.from_numpy(frame.astype(np.float32)).to(device).permute(2, 0, 1)  # (3, H, W)
    probability = torch.from_numpy(mask.astype(np.float32)).to(device)
    probability = probability.clamp(crf.min_probability, 1 - crf.min_probability)
    height, width = mask.shape
    shrink = min(1.0, sqrt(crf.max_cells / (height * width)))
    size = (max(1, int(height * shrink)), max(1, int(width * shrink)))  # (h, w)
    colors = interpolate(pixels[None], size, mode="area")[0]  # (3, h, w)
    coarse = interpolate(probability[None, None], size, mode="area").flatten()  # (h · w,)
    kernel = pairwise_kernel(colors, crf)
    labels = mean_field(torch.stack([(1 - coarse).log(), coarse.log()], dim=1), kernel, crf.num_iterations)
    messages = (kernel @ (labels[:, 1] - labels[:, 0])).reshape(size)
    refined = torch.sigmoid(probability.logit() + _upsampled(messages, colors, pixels, crf))
    return np.asarray(refined.cpu().numpy())


def pairwise_kernel(colors: Tensor, crf: Crf) -> Tensor:
    """Compute how much each cell of a picture wants each other cell to have its own label.

    Both Gaussian kernels are normalised by rows and columns, as in the authors' program: so border cells count alike.

    Args:
        colors: (3, h, w) 0 to 255.
        crf: the settings.

    Returns:
        (h · w, h · w), symmetric, 0 on the diagonal.
    """
    _, height, width = colors.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([rows, columns], dim=-1).reshape(-1, 2).to(colors) / max(height, width)  # (h · w, 2)
    look = colors.reshape(3, -1).T / crf.appearance_color  # (h · w, 3)
    appearance = _gaussian(torch.cat([places / crf.appearance_distance, look], dim=1))
    smoothness = _gaussian(places / crf.smoothness_distance)
    return appearance.mul_(crf.appearance_weight).add_(smoothness, alpha=crf.smoothness_weight)


def _gaussian(features: Tensor) -> Tensor:
    """(N, F) -> (N, N) exp(-distance² / 2), 0 on the diagonal, normalised"""
    squares = features.square().sum(dim=1)
    kernel = torch.addmm(squares[:, None] + squares, features, features.T, alpha=-2).clamp_(min=0)
    kernel.mul_(-0.5).exp_().fill_diagonal_(0)
    scale = kernel.sum(dim=1).clamp_(min=1e-12).rsqrt_()
    return kernel.mul_(scale[:, None]).mul_(scale)


def mean_field(log_probabilities: Tensor, kernel: Tensor, iterations: int) -> Tensor:
    """Approximate the marginals of a fully connected conditional random field with Potts' compatibility.

    Args:
        log_probabilities: (N, K) of each label, from the network alone.
        kernel: (N, N) the weight of a pair with two labels, 0 on the diagonal.
        iterations: in each, all N distributions are updated at once.

    Returns:
        (N, K) probabilities.
    """
    labels = log_probabilities.softmax(dim=1)
    for _ in range(iterations):
        labels = (log_probabilities + kernel @ labels).softmax(dim=1)
    return labels


def _upsampled(coarse: Tensor, colors: Tensor, pixels: Tensor, crf: Crf) -> Tensor:
    """(h, w), (3, h, w), (3, H, W) -> (H, W) the mean of the 3 × 3 nearest cells by nearness and colour"""
    (height, width), size = coarse.shape, pixels.shape[1:]
    if coarse.shape == size:
        return coarse
    cells = pad(torch.cat([coarse[None], colors])[None], (1, 1, 1, 1), mode="replicate")  # (1, 4, h + 2, w + 2)
    down, right = (_offsets(length, count).to(pixels) for length, count in zip(size, (height, width), strict=True))
    total, weights = torch.zeros_like(pixels[0]), torch.zeros_like(pixels[0])
    for row in range(3):
        for column in range(3):
            near = interpolate(cells[..., row : row + height, column : column + width], size, mode="nearest-exact")[0]
            distances = ((near[1:] - pixels) / crf.appearance_color).square_().sum(dim=0)
            distances += (down - (row - 1)).square()[:, None] + (right - (column - 1)).square()
            weight = distances.mul_(-0.5).exp_().add_(1e-6)
            total += weight * near[0]
            weights += weight
    return total / weights


def _offsets(length: int, num_cells: int) -> Tensor:
    """(length,) how far each pixel is from the middle of its cell, in cells"""
    places = (torch.arange(length) + 0.5) * num_cells / length
    return places - places.floor() - 0.5
