"""Drawing over the planes of a yuv420p frame: pictures with transparency, and boxes with a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

__all__ = ["LabelledBox", "Overlay", "draw_box", "font_path", "make_overlays"]

_BT709 = 1
_LINE_SHARE, _TEXT_SHARE = 0.006, 0.045
"""Of the picture's height."""
_MIN_TEXT_PIXELS, _MAX_TEXT_PIXELS = 12, 40


@dataclass(frozen=True)
class LabelledBox:
    """A box to draw over a frame, with a text above the middle of its upper edge."""

    region: tuple[float, float, float, float]
    """x, y, width and height, as fractions of the picture."""
    colour: str
    """`#rrggbb`"""
    text: str


@dataclass(frozen=True)
class Overlay:
    """What is drawn over a plane: `plane * kept + added`."""

    kept: NDArray[np.floating[Any]]
    """(h, w) 0 where the drawing hides the picture, 1 where there is nothing drawn."""
    added: NDArray[np.floating[Any]]
    """(h, w)"""

    def over(self, plane: NDArray[Any]) -> None:
        """Draw over the last rows of a plane (H, w)."""
        self.at(plane, len(plane) - len(self.kept), 0)

    def at(self, plane: NDArray[Any], top: int, left: int) -> None:
        """Draw over a part of a plane (H, W); what lies outside is left out."""
        part = plane[top : top + self.kept.shape[0], left : left + self.kept.shape[1]]
        rows, columns = part.shape
        part[:] = np.rint(part * self.kept[:rows, :columns] + self.added[:rows, :columns])


def font_path() -> str:
    """Return the file of DejaVu Sans, which comes with matplotlib and knows more scripts than Pillow's own font."""
    return str(files("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


def make_overlays(picture: Image.Image, matrix: int) -> tuple[Overlay, ...]:
    """Return what a picture draws over Y, U and V.

    Args:
        picture: RGBA, its width and height even.
        matrix: of the colours, as FFmpeg numbers them: 1 for BT.709, others for BT.601.

    Returns:
        The overlay of each plane.
    """
    drawing = np.asarray(picture, np.float32) / 255  # (h, w, 4)
    height, width = drawing.shape[:2]
    small = drawing.reshape(height // 2, 2, width // 2, 2, 4)
    weighted = np.concatenate([small[..., :3] * small[..., 3:], small[..., 3:]], axis=-1).mean(axis=(1, 3))
    luma, _, _ = _to_yuv(drawing[..., :3], matrix)
    alpha, half_alpha = drawing[..., 3], weighted[..., 3]
    colours = weighted[..., :3] / np.maximum(half_alpha, 1e-6)[..., None]
    _, blue, red = _to_yuv(colours, matrix)
    return (
        Overlay(1 - alpha, luma * alpha),
        *(Overlay(1 - half_alpha, plane * half_alpha) for plane in (blue, red)),
    )


def draw_box(planes: Sequence[NDArray[Any]], box: LabelledBox, matrix: int) -> None:
    """Draw the outline of a box, and its text.

    Args:
        planes: Y (H, W), and U and V (H / 2, W / 2); H and W are even.
        box: the box.
        matrix: as for `make_overlays`.
    """
    height, width = planes[0].shape
    x, y, box_width, box_height = box.region
    left, top = (_even(share * size, size - 2) for share, size in ((x, width), (y, height)))
    right = max(left + 2, _even((x + box_width) * width, width))
    bottom = max(top + 2, _even((y + box_height) * height, height))
    line = max(2, _even(_LINE_SHARE * height, height))
    colour = np.array(ImageColor.getrgb(box.colour)[:3], np.float32) / 255
    for plane, value, scale in zip(planes, _to_yuv(colour, matrix), (1, 2, 2), strict=True):
        inside = plane[top // scale : bottom // scale, left // scale : right // scale]
        for edge in (inside[: line // scale], inside[-line // scale :]):
            edge[:] = np.rint(value)
        for edge in (inside[:, : line // scale], inside[:, -line // scale :]):
            edge[:] = np.rint(value)
    text_pixels = int(np.clip(_TEXT_SHARE * height, _MIN_TEXT_PIXELS, _MAX_TEXT_PIXELS))
    overlays = _text_overlays(box.text, box.colour, text_pixels, matrix)
    text_height, text_width = overlays[0].kept.shape
    text_top, text_left = max(0, top - text_height), _even((left + right - text_width) / 2, width)
    for plane, overlay, scale in zip(planes, overlays, (1, 2, 2), strict=True):
        overlay.at(plane, text_top // scale, text_left // scale)


def _even(pixels: float, largest: int) -> int:
    return int(np.clip(round(pixels / 2) * 2, 0, largest // 2 * 2))


@lru_cache(maxsize=64)
def _text_overlays(text: str, colour: str, pixels: int, matrix: int) -> tuple[Overlay, ...]:
    """A text on a field of a colour."""
    font = ImageFont.truetype(font_path(), pixels)
    width, height = round(font.getlength(text)) + pixels // 2, round(1.4 * pixels)
    tag = Image.new("RGBA", (width // 2 * 2 + 2, height // 2 * 2 + 2), colour)
    ImageDraw.Draw(tag).text((pixels // 4, tag.height / 2), text, font=font, fill="#ffffff", anchor="lm")
    return make_overlays(tag, matrix)


def _to_yuv(
    rgb: NDArray[np.floating[Any]], matrix: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return Y, U and V in 0 to 255, of limited range, for RGB (…, 3) in 0 to 1 (ITU-R BT.601 and BT.709)."""
    weight_red, weight_blue = (0.2126, 0.0722) if matrix == _BT709 else (0.299, 0.114)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = weight_red * red + (1 - weight_red - weight_blue) * green + weight_blue * blue
    return (
        16 + 219 * luma,
        128 + 112 * (blue - luma) / (1 - weight_blue),
        128 + 112 * (red - luma) / (1 - weight_red),
    )
