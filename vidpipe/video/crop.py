"""Where in a picture lies what a backbone sees: sizes and places in pixels and fractions, without any pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Preprocessing

__all__ = ["MAX_ASPECT_RATIO", "Crop", "cell_regions", "plan_crop"]

MAX_ASPECT_RATIO = 10
"""Longer side by shorter side. Of a more elongated picture only the middle is resized: a whole picture of 10000 × 2
pixels would become one of 1,280,000 × 256."""


@dataclass(frozen=True)
class Crop:
    """How a picture becomes one at a backbone's input size. Each pair is of the vertical, then of the horizontal axis.

    ├─margin─┼──────── kept ────────┼─margin─┤    pixels of the picture
             ├──start──┼─crop─┼──────┤            pixels after resizing what is kept to `size`
    """

    margin: tuple[int, int]
    """Pixels that are left out on both sides, because the picture is too elongated."""
    size: tuple[int, int]
    """What is kept is resized to this height and width."""
    start: tuple[int, int]
    """Where the crop starts, in pixels of the resized picture."""


def plan_crop(height: int, width: int, preprocessing: Preprocessing) -> Crop:
    """Compute how a preprocessing resizes and crops pictures.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        preprocessing: of the backbone.

    Returns:
        The crop.
    """
    margin = (0, 0)
    if isinstance(preprocessing.resize, int):
        margin = _margin(height, width), _margin(width, height)
        size = _shorter_side_to(preprocessing.resize, height - 2 * margin[0], width - 2 * margin[1])
    else:
        size = preprocessing.resize
    top, left = (round((side - cropped) / 2.0) for side, cropped in zip(size, preprocessing.size, strict=True))
    return Crop(margin, size, (top, left))


def _margin(side: int, other_side: int) -> int:
    """Pixels to leave out at both ends of a side that is too long; the crop needs less than what is left."""
    return max(0, side - MAX_ASPECT_RATIO * other_side) // 2


def _shorter_side_to(side: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a picture whose shorter side becomes `side`."""
    shorter, longer = sorted((height, width))
    long_side = int(side * longer / shorter)
    return (side, long_side) if height <= width else (long_side, side)


def cell_regions(height: int, width: int, preprocessing: Preprocessing, grid: int) -> NDArray[np.float32]:
    """Return the regions of what a backbone pools of each picture: the whole picture, then grid × grid cells.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        preprocessing: of the backbone; cells divide what is left after its crop.
        grid: cells along each side.

    Returns:
        (1 + grid², 4) x, y, width and height as fractions of the picture; the cells row by row.
    """
    crop = plan_crop(height, width, preprocessing)
    y, x = (
        _edges(side, crop.margin[axis], crop.size[axis], crop.start[axis], preprocessing.size[axis], grid)
        for axis, side in enumerate((height, width))
    )
    whole = np.array([[0, 0, 1, 1]], np.float32)
    corner = np.stack([np.tile(x[:-1], grid), y[:-1].repeat(grid)], axis=1)  # (G², 2)
    stop = np.stack([np.tile(x[1:], grid), y[1:].repeat(grid)], axis=1)
    size = np.minimum((stop - corner).astype(np.float32), 1 - corner.astype(np.float32))
    return np.concatenate([whole, np.concatenate([corner, size], axis=1, dtype=np.float32)])


def _edges(side: int, margin: int, resized: int, start: int, cropped: int, grid: int) -> NDArray[np.float64]:
    """(G + 1,) the edges of the cells along a side, as fractions of the side."""
    kept = side - 2 * margin
    edges = (start + np.linspace(0, cropped, grid + 1)) / resized  # of what is kept
    return (margin + edges * kept) / side
