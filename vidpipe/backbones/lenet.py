"""LeNet-5, after LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition (1998).

C1 ─ S2 ─ C3 ─ S4 ─ C5 ─ F6: 60,000 trainable parameters, layer for layer as the paper counts them. Its last layer, ten
radial basis functions on drawn digits, is here a linear one, which only training and its test use: the feature is F6.
"""

import torch
from torch import Tensor, nn

__all__ = ["DigitClassifier", "LeNet5"]

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""

SOURCES_OF_C3 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""Which maps of S2 each of C3's sixteen maps sees: the paper's table I."""


def squash(activation: Tensor) -> Tensor:
    """The paper's sigmoid: 1.7159 tanh(2/3 a)."""
    return 1.7159 * torch.tanh(activation * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2 × 2 pixels, times a trainable coefficient, plus a trainable bias, of each map."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((num_maps,), 0.25))
        self.bias = nn.Parameter(torch.zeros(num_maps))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h/2, w/2)"""
        sums = 4 * nn.functional.avg_pool2d(maps, 2)
        return sums * self.coefficient.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class LeNet5(nn.Module):
    """Gray pictures of 32 × 32 pixels -> F6."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = nn.ModuleList(nn.Conv2d(len(sources), 1, 5) for sources in SOURCES_OF_C3)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised RGB -> (N, 84)"""
        gray = (pixels * self.get_buffer("luma")).sum(dim=1, keepdim=True)  # (N, 3, 32, 32) -> (N, 1, 32, 32)
        maps = squash(self.s2(squash(self.c1(gray))))  # -> (N, 6, 28, 28) -> (N, 6, 14, 14)
        seen = [conv(maps[:, list(sources)]) for conv, sources in zip(self.c3, SOURCES_OF_C3, strict=True)]
        maps = squash(self.s4(squash(torch.cat(seen, dim=1))))  # -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        return squash(self.f6(squash(self.c5(maps)).flatten(1)))  # -> (N, 120, 1, 1) -> (N, 84)


class DigitClassifier(LeNet5):
    """LeNet-5 with its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(84, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised RGB -> logits (N, 10)"""
        logits: Tensor = self.output(super().forward(pixels))
        return logits
