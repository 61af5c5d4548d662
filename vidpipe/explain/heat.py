"""Heat maps in colour: warm where a place spoke for the label, cold where it spoke against it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidpipe.explain.explanation import StreamExplanation

__all__ = ["AGAINST", "FOR", "colour_heat", "heat_scale", "over_picture", "resize_places"]

FOR, AGAINST = (255, 96, 0), (0, 112, 255)
"""Orange and blue, which differ for colour-blind readers, too."""
MAX_ALPHA = 0.75
_FULL_HEAT_PERCENTILE = 99.0
"""Of all places of a video: the colour is full from this share on, so that one place does not make all others pale."""


def heat_scale(stream: StreamExplanation) -> float:
    """Return the share of a place from which on its colour is full; 0 where no place has a share.

    Args:
        stream: an explanation with places.

    Returns:
        The share.
    """
    assert stream.places is not None
    return float(np.percentile(np.abs(stream.places), _FULL_HEAT_PERCENTILE))


def resize_places(places: NDArray[np.float64], size: tuple[int, int], *, smooth: bool) -> NDArray[np.float32]:
    """Return the shares of places as a map with a number for each pixel.

    Args:
        places: (h, w) shares.
        size: width and height of the map.
        smooth: interpolate between the places; without it, they are seen as cells.

    Returns:
        (height, width)
    """
    resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(places.astype(np.float32)).resize(size, resampling), np.float32)


def colour_heat(heat: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """Return a heat map in colour, to lay over a picture.

    Args:
        heat: (H, W)
        scale: from where on the colour is full; 0 where there is no heat.

    Returns:
        (H, W, 4) RGBA.
    """
    colours = np.zeros((*heat.shape, 4), np.uint8)
    if scale > 0:
        colours[..., :3] = np.where(heat[..., None] >= 0, FOR, AGAINST)
        colours[..., 3] = np.rint(255 * MAX_ALPHA * np.clip(np.abs(heat) / scale, 0, 1))
    return colours


def over_picture(picture: NDArray[np.uint8], heat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a heat map over a picture.

    Args:
        picture: (H, W, 3) RGB; shown in grey, so that the colours are those of the heat.
        heat: (H, W, 4) from `colour_heat`.

    Returns:
        (H, W, 3) RGB.
    """
    grey = np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2)
    base = Image.fromarray(grey).convert("RGBA")
    return np.asarray(Image.alpha_composite(base, Image.fromarray(heat)).convert("RGB"))
