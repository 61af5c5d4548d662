"""Where the deformable convolutions of a network sample a picture (Dai et al. 2017; Zhu et al. 2019)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from vidpipe.backbones.image import WholeNetwork

if TYPE_CHECKING:
    from vidpipe.backbones.deformable import DeformableConv2d

__all__ = ["SamplingPoints", "draw_points", "find_sampling_points"]

PLACES = 2
"""Output places along each side whose samples are shown: in the middle of 2 × 2 equal parts."""
MIN_SIDE = 448
"""Pixels of the shorter side of a drawing, so that arrows are seen."""
_COLOURS = ((255, 150, 40), (80, 200, 255), (255, 90, 160), (150, 230, 80))
_PLAIN = (235, 235, 235)


@dataclass(frozen=True)
class SamplingPoints:
    """What a deformable convolution samples for P of its output places, S samples each."""

    layer: str
    plain: NDArray[np.float32]
    """(P, S, 2) x and y in pixels of the picture, where a plain convolution would sample."""
    learned: NDArray[np.float32]
    """(P, S, 2) where this one samples."""
    weights: NDArray[np.float32]
    """(P, S) from 0 to 2; 1 in a plain convolution."""
    mean_offset: float
    """The mean length of an offset over all output places and samples, in places of the layer's input."""


def find_sampling_points(network: WholeNetwork, frames: Tensor) -> tuple[SamplingPoints, ...]:
    """Find where the deformable convolutions of a network sample a picture.

    Args:
        network: the network.
        frames: (1, 3, H, W) uint8 RGB.

    Returns:
        Its deformable convolutions, in the order in which the network computes them; none of a plain network.
    """
    from vidpipe.backbones.deformable import DeformableConv2d

    layers = {name: one for name, one in network.features.named_modules() if isinstance(one, DeformableConv2d)}
    inputs: dict[str, Tensor] = {}

    def keep(name: str, seen: Tensor) -> None:
        inputs[name] = seen.clone()

    hooks = [
        layer.register_forward_pre_hook(lambda module, seen, name=name: keep(name, seen[0]))
        for name, layer in layers.items()
    ]
    try:
        with torch.inference_mode():
            network.run(frames)
            height, width = frames.shape[-2:]
            return tuple(_points(name, layers[name], maps, height, width) for name, maps in inputs.items())
    finally:
        for hook in hooks:
            hook.remove()


def _points(name: str, layer: "DeformableConv2d", maps: Tensor, height: int, width: int) -> SamplingPoints:
    """The samples of a layer whose input is (1, C, h, w)."""
    offsets, weights = (one[0].float().cpu().numpy() for one in layer.sampling(maps))
    rows, columns = (_middles(side) for side in weights.shape[1:])
    by_sample = offsets.reshape(-1, 2, *offsets.shape[1:])  # (S, 2, h', w'), down and to the right
    places = [(row, column) for row in rows for column in columns]
    plain = np.stack([_plain_samples(layer, row, column) for row, column in places])  # (P, S, 2), y and x
    learned = plain + np.stack([by_sample[:, :, row, column] for row, column in places])
    scale = np.array([height / maps.shape[2], width / maps.shape[3]])
    in_pixels = [((one + 0.5) * scale)[..., ::-1].astype(np.float32) for one in (plain, learned)]
    return SamplingPoints(
        name,
        plain=in_pixels[0],
        learned=in_pixels[1],
        weights=np.stack([weights[:, row, column] for row, column in places]),
        mean_offset=float(np.hypot(by_sample[:, 0], by_sample[:, 1]).mean()),
    )


def _middles(side: int) -> list[int]:
    """4 of 14, and 10: the middle of each of two halves; one where there is a single place."""
    count = min(PLACES, side)
    return [int((number + 0.5) * side / count) for number in range(count)]


def _plain_samples(layer: "DeformableConv2d", row: int, column: int) -> NDArray[np.float64]:
    """(S, 2) y and x in places of the input, row by row of the window"""
    (height, width), stride = layer.kernel_size, layer.stride
    padding, dilation = layer.padding, layer.dilation
    return np.array(
        [
            (
                row * stride[0] - padding[0] + down * dilation[0],
                column * stride[1] - padding[1] + right * dilation[1],
            )
            for down in range(height)
            for right in range(width)
        ],
        np.float64,
    )


def draw_points(picture: NDArray[np.uint8], points: SamplingPoints) -> NDArray[np.uint8]:
    """Draw a line from each plain sample to the learned one, whose dot is as large as its weight.

    Args:
        picture: (H, W, 3) RGB, which the network has seen.
        points: of one layer.

    Returns:
        (H', W', 3) RGB: the picture, darkened, enlarged where it is small, in one colour for each output place.
    """
    scale = max(1, -(-MIN_SIDE // min(picture.shape[:2])))
    drawn = Image.fromarray(picture).point(lambda value: value * 0.55)
    drawn = drawn.resize((picture.shape[1] * scale, picture.shape[0] * scale), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(drawn)
    for number in range(len(points.plain)):
        colour = _COLOURS[number % len(_COLOURS)]
        samples = zip(points.plain[number] * scale, points.learned[number] * scale, points.weights[number], strict=True)
        for (x, y), (to_x, to_y), weight in samples:
            draw.line((x, y, to_x, to_y), fill=colour, width=2)
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), outline=_PLAIN)
            radius = 5 * float(weight) ** 0.5
            draw.ellipse((to_x - radius, to_y - radius, to_x + radius, to_y + radius), fill=colour)
    return np.asarray(drawn)
