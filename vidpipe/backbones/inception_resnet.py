"""Inception-ResNet v1 for faces (Szegedy et al. 2016, https://arxiv.org/abs/1602.07261; FaceNet, Schroff et al. 2015,
https://arxiv.org/abs/1503.03832).

    pixels 160² ── stem ──► 256 × 17² ── 5 × block35 ──► ── mixed_6a ──► 896 × 8² ── 10 × block17 ──►
           ── mixed_7a ──► 1792 × 3² ── 6 × block8 ──► mean ── last_linear, last_bn ──► 512 numbers of length 1

The modules have the names of the package facenet-pytorch, so that its files of weights fit as they are. It follows the
network of D. Sandberg's facenet: batch normalisation everywhere, and the branches of a block are scaled down.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["InceptionResnetV1"]

_EPS = 0.001
"""Of batch normalisation, as in TensorFlow."""
_Size = int | tuple[int, int]


def _conv(inputs: int, outputs: int, kernel: _Size, *, stride: int = 1, padding: _Size = 0) -> nn.Sequential:
    """A convolution with batch normalisation."""
    layers = {
        "conv": nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False),
        "bn": nn.BatchNorm2d(outputs, eps=_EPS),
        "relu": nn.ReLU(),
    }
    return nn.Sequential(OrderedDict(layers))


class _Branches(nn.Module):
    """Several ways from one map, side by side: `branch0`, `branch1`, …"""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self._names = [f"branch{number}" for number in range(len(branches))]
        for name, branch in zip(self._names, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, the sum of the branches' channels, h', w')"""
        return torch.cat([self.get_submodule(name)(maps) for name in self._names], dim=1)


class _Residual(_Branches):
    """Adds what the branches make of a map to it, scaled down: without that, training such networks diverges."""

    def __init__(self, channels: int, branches: tuple[nn.Module, ...], *, scale: float, relu: bool = True) -> None:
        super().__init__(*branches)
        widths = [layer.out_channels for layer in map(_last_conv, branches)]
        self.conv2d = nn.Conv2d(sum(widths), channels, 1)
        self.scale, self.activation = scale, nn.ReLU() if relu else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)"""
        added: Tensor = self.activation(maps + self.scale * self.conv2d(super().forward(maps)))
        return added


def _last_conv(branch: nn.Module) -> nn.Conv2d:
    return [module for module in branch.modules() if isinstance(module, nn.Conv2d)][-1]


def _block35() -> _Residual:
    middle = nn.Sequential(_conv(256, 32, 1), _conv(32, 32, 3, padding=1))
    deep = nn.Sequential(_conv(256, 32, 1), _conv(32, 32, 3, padding=1), _conv(32, 32, 3, padding=1))
    return _Residual(256, (_conv(256, 32, 1), middle, deep), scale=0.17)


def _mixed_6a() -> _Branches:
    deep = nn.Sequential(_conv(256, 192, 1), _conv(192, 192, 3, padding=1), _conv(192, 256, 3, stride=2))
    return _Branches(_conv(256, 384, 3, stride=2), deep, nn.MaxPool2d(3, 2))


def _block17() -> _Residual:
    deep = nn.Sequential(
        _conv(896, 128, 1), _conv(128, 128, (1, 7), padding=(0, 3)), _conv(128, 128, (7, 1), padding=(3, 0))
    )
    return _Residual(896, (_conv(896, 128, 1), deep), scale=0.1)


def _mixed_7a() -> _Branches:
    first = nn.Sequential(_conv(896, 256, 1), _conv(256, 384, 3, stride=2))
    second = nn.Sequential(_conv(896, 256, 1), _conv(256, 256, 3, stride=2))
    third = nn.Sequential(_conv(896, 256, 1), _conv(256, 256, 3, padding=1), _conv(256, 256, 3, stride=2))
    return _Branches(first, second, third, nn.MaxPool2d(3, 2))


def _block8(*, scale: float = 0.2, relu: bool = True) -> _Residual:
    deep = nn.Sequential(
        _conv(1792, 192, 1), _conv(192, 192, (1, 3), padding=(0, 1)), _conv(192, 192, (3, 1), padding=(1, 0))
    )
    return _Residual(1792, (_conv(1792, 192, 1), deep), scale=scale, relu=relu)


class InceptionResnetV1(nn.Module):
    """Pictures of faces -> vectors of length 1, which are near each other where the faces are of one person."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _conv(3, 32, 3, stride=2)
        self.conv2d_2a = _conv(32, 32, 3)
        self.conv2d_2b = _conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = _conv(64, 80, 1)
        self.conv2d_4a = _conv(80, 192, 3)
        self.conv2d_4b = _conv(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _mixed_6a()
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _mixed_7a()
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(scale=1.0, relu=False)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, 160, 160) normalised RGB -> (N, 512)"""
        maps = pixels
        for name, module in self.named_children():
            if name not in ("last_linear", "last_bn"):
                maps = module(maps)
        vectors: Tensor = self.last_bn(self.last_linear(maps.flatten(1)))  # (N, 1792, 1, 1) -> (N, 512)
        return normalize(vectors, dim=1)
