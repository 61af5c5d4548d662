"""LeNet-5, after LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition (1998).

C1 ─ S2 ─ C3 ─ S4 ─ C5 ─ F6: 60,000 trainable parameters, as the paper counts them. The feature is F6. The paper's last
layer, ten radial basis functions, is a linear layer here, used only in training and in its test.
"""

import torch
from torch import Tensor, nn

__all__ = ["DigitClassifier", "LeNet5"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""

SOURCES_OF_C3 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""The maps of S2 that each of C3's sixteen maps is connected to: table I of the paper."""


def _squash(activation: Tensor) -> Tensor:
    """The paper's activation function: 1.7159 tanh(2/3 a)."""
    return 1.7159 * torch.tanh(activation * (2 / 3))


class _Subsampling(nn.Module):
    """Sums 2 × 2 pixels; multiplies by a coefficient and adds a bias, both trainable, a pair for each map."""

    def __init__(self, num_maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((num_maps,), 0.25))
        self.bias = nn.Parameter(torch.zeros(num_maps))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h/2, w/2)"""
        sums = 4 * nn.functional.avg_pool2d(maps, 2)
        return sums * self.coefficient.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class LeNet5(nn.Module):
    """Grey images of 32 × 32 pixels -> F6."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = _Subsampling(6)
        self.c3 = nn.ModuleList(nn.Conv2d(len(sources), 1, 5) for sources in SOURCES_OF_C3)
        self.s4 = _Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised RGB -> (N, 84)"""
        gray = (pixels * self.get_buffer("luma")).sum(dim=1, keepdim=True)  # (N, 3, 32, 32) -> (N, 1, 32, 32)
        maps = _squash(self.s2(_squash(self.c1(gray))))  # -> (N, 6, 28, 28) -> (N, 6, 14, 14)
        seen = [conv(maps[:, list(sources)]) for conv, sources in zip(self.c3, SOURCES_OF_C3, strict=True)]
        maps = _squash(self.s4(_squash(torch.cat(seen, dim=1))))  # -> (N, 16, 10, 10) -> (N, 16, 5, 5)
        return _squash(self.f6(_squash(self.c5(maps)).flatten(1)))  # -> (N, 120, 1, 1) -> (N, 84)


class DigitClassifier(LeNet5):
    """LeNet-5 with its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(84, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, 32, 32) normalised RGB -> logits (N, 10)"""
        logits: Tensor = self.output(super().forward(pixels))
        return logits
