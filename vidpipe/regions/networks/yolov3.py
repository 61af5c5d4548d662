"""YOLO v3 (Redmon & Farhadi 2018, https://arxiv.org/abs/1804.02767): Darknet-53 and a head at three scales.

    pixels ── Darknet-53 ─┬─ stride 8 ────────────────────────────────┐
                          ├─ stride 16 ──────────┐                    │
                          └─ stride 32 ─ scale ─ upsample ─ scale ─ upsample ─ scale
                                           │                  │                  │
    raw outputs                       13 × 13            26 × 26            52 × 52     of a picture of 416 × 416

The modules are in the order of Darknet's yolov3.cfg, so that `darknet_weights.py` fills them one after the other.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from vidpipe.regions.detections import COCO_IDS
from vidpipe.regions.networks.anchors import fit_anchors
from vidpipe.regions.networks.settings import NetworkSettings

__all__ = ["STRIDES", "YoloSettings", "YoloV3", "anchors_for", "build", "settings_for"]

STRIDES = (32, 16, 8)
"""Pixels for each cell of the three scales, in the order of the outputs."""
_ANCHORS_416 = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
"""Of the paper, section 2.3: from the boxes of COCO at 416 × 416."""
_EPSILON = 1e-6
"""Of batch normalisation, as in Darknet and in OpenCV."""
_OBJECTNESS_PRIOR = 0.01
"""The objectness of an untrained network; few places have an object (Lin et al. 2017, RetinaNet, section 4.1)."""


def anchors_for(size: int) -> tuple[tuple[float, float], ...]:
    """Return the anchors of the paper for pictures of another size.

    Args:
        size: the side of the picture in pixels.

    Returns:
        Nine widths and heights in pixels, by area.
    """
    return tuple((width * size / 416, height * size / 416) for width, height in _ANCHORS_416)


@dataclass(frozen=True)
class YoloSettings(NetworkSettings):
    """What a network needs to be built; the defaults are those of Darknet's yolov3.weights.

    Raises:
        ValueError: no network has these settings.
    """

    class_ids: tuple[int, ...] = COCO_IDS
    """The category id of each class, in the order of the network's outputs."""
    size: int = 416
    """The side of the square picture that the network sees, in pixels; a multiple of 32."""
    width: float = 1.0
    """A factor of the number of channels of every layer."""
    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)
    """The residual blocks of Darknet-53's five stages."""
    anchors: tuple[tuple[float, float], ...] = anchors_for(416)
    """Width and height in pixels, by area: the smallest third belongs to the finest scale."""

    def __post_init__(self) -> None:
        if self.size <= 0 or self.size % STRIDES[0]:
            raise ValueError(f"the size is a multiple of {STRIDES[0]} pixels, got {self.size}")
        if self.width <= 0 or len(self.blocks) != 5 or min(self.blocks) < 0:
            raise ValueError(f"the width is above 0 and there are 5 stages of blocks, got {self.width}, {self.blocks}")
        if not self.anchors or len(self.anchors) % len(STRIDES):
            raise ValueError(f"the number of anchors is a multiple of {len(STRIDES)}, got {len(self.anchors)}")
        if not self.class_ids or len(set(self.class_ids)) != len(self.class_ids):
            raise ValueError(f"there is at least one class, and each has an id of its own, got {self.class_ids}")

    @property
    def num_anchors(self) -> int:
        """A, the anchors of each scale."""
        return len(self.anchors) // len(STRIDES)


def settings_for(
    class_ids: tuple[int, ...], *, size: int, width: float, box_sizes: NDArray[np.floating]
) -> YoloSettings:
    """Choose the settings of a network that learns one's own boxes.

    Args:
        class_ids: the category ids.
        size: the side of the square pictures in pixels, a multiple of 32.
        width: a factor of the number of channels; a network below 1 has one residual block in each stage.
        box_sizes: (K, 2) width and height in pixels of the square pictures. The anchors are fitted to them; where there
            are fewer sizes than anchors, they are those of the paper.

    Returns:
        The settings.

    Raises:
        ValueError: no network has this size or width, or these classes.
    """
    enough = len(np.unique(box_sizes, axis=0)) >= len(_ANCHORS_416)
    return YoloSettings(
        class_ids=class_ids,
        size=size,
        width=width,
        blocks=YoloSettings.blocks if width >= 1 else (1, 1, 1, 1, 1),
        anchors=fit_anchors(box_sizes) if enough else anchors_for(size),
    )


def build(settings: YoloSettings) -> "YoloV3":
    """Build a network with random weights.

    Args:
        settings: its classes, size, width and anchors.

    Returns:
        The network, in training mode.
    """
    return YoloV3(settings)


class YoloV3(nn.Module):
    """Darknet-53 with a head at three scales.

    Args:
        settings: its classes, size, width and anchors.
    """

    def __init__(self, settings: YoloSettings) -> None:
        super().__init__()
        self.settings = settings
        self.class_indices = {number: index for index, number in enumerate(settings.class_ids)}
        """By category id, the index of the class in the network's outputs."""
        num_outputs = settings.num_anchors * (5 + len(settings.class_ids))
        c128, c256, c512, c1024 = (_channels(base, settings.width) for base in (128, 256, 512, 1024))
        self.backbone = _Darknet53(settings)
        self.scales = nn.ModuleList(
            [
                _Scale(c1024, c512, None, num_outputs),
                _Scale(c512, c256, c512, num_outputs),
                _Scale(c256, c128, c256, num_outputs),
            ]
        )
        self._set_prior()

    def _set_prior(self) -> None:
        """Let an untrained network find nearly nothing, so that training does not begin with unlearning."""
        logit = torch.logit(torch.tensor(_OBJECTNESS_PRIOR))
        for name, parameter in self.scales.named_parameters():
            if name.endswith("output.1.bias"):
                parameter.data.view(self.settings.num_anchors, -1)[:, 4] = logit

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the raw outputs, before any activation.

        Args:
            pixels: (N, 3, H, W) float32, 0 to 1; H and W are multiples of 32.

        Returns:
            Of strides 32, 16 and 8: (N, A · (5 + K), H / stride, W / stride). An anchor's channels are x, y, width,
            height, objectness and the K classes.
        """
        outputs, coarser = [], None
        for scale, features in zip(self.scales, reversed(self.backbone(pixels)), strict=True):
            output, coarser = scale(features, coarser)
            outputs.append(output)
        return tuple(outputs)


def _channels(base: int, width: float) -> int:
    """An even number, as residual blocks halve it."""
    return max(2, 2 * round(base * width / 2))


def _convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """A convolution, batch normalisation and a leaky ReLU: Darknet's [convolutional]."""
    layers: nn.Sequential = Conv2dNormActivation(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        norm_layer=partial(nn.BatchNorm2d, eps=_EPSILON),
        activation_layer=partial(nn.LeakyReLU, negative_slope=0.1),
    )
    return layers


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolution(channels, channels // 2, 1), _convolution(channels // 2, channels, 3))

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.layers(features)
        return features + residual


class _Darknet53(nn.Module):
    """Five stages, each of half the resolution of the one before."""

    def __init__(self, settings: YoloSettings) -> None:
        super().__init__()
        channels = [_channels(32 * 2**stage, settings.width) for stage in range(6)]
        self.stem = _convolution(3, channels[0], 3)
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(before, after, 3, stride=2), *(_Residual(after) for _ in range(num_blocks)))
            for before, after, num_blocks in zip(channels, channels[1:], settings.blocks, strict=False)
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the features of strides 8, 16 and 32"""
        features, found = self.stem(pixels), []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found[-3:]


class _Scale(nn.Module):
    """The head at one scale, which sees the backbone's features and those of the coarser scale."""

    def __init__(self, in_channels: int, channels: int, coarser_channels: int | None, num_outputs: int) -> None:
        super().__init__()
        if coarser_channels is not None:
            self.lateral = _convolution(coarser_channels, channels, 1)
            in_channels += channels
        self.body = nn.Sequential(
            _convolution(in_channels, channels, 1),
            _convolution(channels, 2 * channels, 3),
            _convolution(2 * channels, channels, 1),
            _convolution(channels, 2 * channels, 3),
            _convolution(2 * channels, channels, 1),
        )
        self.output = nn.Sequential(_convolution(channels, 2 * channels, 3), nn.Conv2d(2 * channels, num_outputs, 1))

    def forward(self, features: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the raw output, and the features for the finer scale."""
        if coarser is not None:
            upsampled = nn.functional.interpolate(self.lateral(coarser), scale_factor=2)
            features = torch.cat([upsampled, features], dim=1)
        body: Tensor = self.body(features)
        output: Tensor = self.output(body)
        return output, body
