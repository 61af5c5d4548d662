"""Fully convolutional networks on VGG-16: FCN-32s, -16s and -8s (Long, Shelhamer & Darrell 2015, arXiv 1411.4038).

    pixels ── VGG-16 ──► pool3 (1/8) ──► pool4 (1/16) ──► pool5 (1/32) ── fc6, fc7 ──► scores of classes (1/32)
    FCN-32s   scores ── 32 × ──► (H, W)
    FCN-16s   scores ── 2 × ──► + score of pool4 ── 16 × ──► (H, W)
    FCN-8s    scores ── 2 × ──► + score of pool4 ── 2 × ──► + score of pool3 ── 8 × ──► (H, W)

The paper pads the picture by 100 pixels and crops the scores. Here H and W are multiples of 32 and fc6 pads its input,
so that maps of neighbouring strides fit without a crop.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models.vgg import cfgs, make_layers

__all__ = ["STRIDES", "BilinearUpsampling", "Fcn", "convolutional"]

STRIDES: Mapping[str, int] = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
"""By name of the network, the stride of its finest scores in pixels."""


class BilinearUpsampling(nn.ConvTranspose2d):
    """A transposed convolution that begins as bilinear interpolation, also at the edges.

    Args:
        channels: of the maps. Each has a kernel of its own.
        factor: an even number.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(
            channels, channels, 2 * factor, stride=factor, padding=3 * factor // 2, groups=channels, bias=False
        )
        places = torch.arange(2 * factor) - (factor - 0.5)
        weights = 1 - places.abs() / factor  # (2 · factor,), factor 2: 1/4 3/4 3/4 1/4
        with torch.no_grad():
            self.weight.copy_(weights[:, None] * weights)  # (C, 1, 2 · factor, 2 · factor)

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return (N, C, factor · h, factor · w); the border cells are repeated outside of the (N, C, h, w) maps."""
        return super().forward(pad(maps, (1, 1, 1, 1), mode="replicate"), output_size)


class Fcn(nn.Module):
    """VGG-16 as a fully convolutional network, its layers named as in torchvision's vgg16.

    The score layers are zero at first, and the last upsampling stays bilinear, as in the paper.

    Args:
        stride: 32, 16 or 8.
        num_classes: C, the background included.
        width: scales the number of channels of all layers: 1 is VGG-16.
        batch_norm: as in VGG-16-BN; the paper has none. A network that learns from random weights needs it.
    """

    def __init__(self, stride: int, num_classes: int, *, width: float = 1.0, batch_norm: bool = False) -> None:
        super().__init__()
        self.stride = stride
        scaled = [layer if isinstance(layer, str) else _scaled(layer, width) for layer in cfgs["D"]]
        channels = [_scaled(number, width) for number in (256, 512, 512, 4096)]  # pool3, pool4, pool5, fc6 and fc7
        self.features = make_layers(scaled, batch_norm)
        self.fc6 = _block(channels[2], channels[3], 7, batch_norm)
        self.fc7 = _block(channels[3], channels[3], 1, batch_norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.score = _score(channels[3], num_classes)
        if stride <= 16:
            self.score_pool4 = _score(channels[1], num_classes)
            self.upsample_score = BilinearUpsampling(num_classes, 2)
        if stride == 8:
            self.score_pool3 = _score(channels[0], num_classes)
            self.upsample_pool4 = BilinearUpsampling(num_classes, 2)
        self.upsample = BilinearUpsampling(num_classes, stride).requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the scores of the classes.

        Args:
            pixels: (N, 3, H, W), normalised with ImageNet's mean and deviation; H and W are multiples of 32.

        Returns:
            (N, C, H, W) logits.
        """
        pools = self._pools(pixels)
        scores: Tensor = self.score(self.fc7(self.fc6(pools[4])))  # (N, C, H / 32, W / 32)
        if self.stride <= 16:
            scores = self.upsample_score(scores) + self.score_pool4(pools[3])
        if self.stride == 8:
            scores = self.upsample_pool4(scores) + self.score_pool3(pools[2])
        upsampled: Tensor = self.upsample(scores)
        return upsampled

    def _pools(self, pixels: Tensor) -> list[Tensor]:
        """pool1 to pool5"""
        pools = []
        for layer in self.features:
            pixels = layer(pixels)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(pixels)
        return pools


def _scaled(num_channels: int, width: float) -> int:
    return max(1, round(num_channels * width))


def _block(inputs: int, outputs: int, kernel: int, batch_norm: bool) -> nn.Sequential:
    norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), *norm, nn.ReLU(), nn.Dropout())


def _score(inputs: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, num_classes, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def convolutional(vgg16: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of torchvision's vgg16 as those of an `Fcn`: fully connected layers become convolutions.

    Args:
        vgg16: the state dict of a classifier of 224 × 224 pixels.

    Returns:
        The features, fc6 and fc7. The last layer is dropped: it has ImageNet's classes.
    """
    fc6, fc7 = vgg16["classifier.0.weight"], vgg16["classifier.3.weight"]
    return {name: tensor for name, tensor in vgg16.items() if name.startswith("features.")} | {
        "fc6.0.weight": fc6.reshape(len(fc6), -1, 7, 7),
        "fc6.0.bias": vgg16["classifier.0.bias"],
        "fc7.0.weight": fc7[..., None, None],
        "fc7.0.bias": vgg16["classifier.3.bias"],
    }
