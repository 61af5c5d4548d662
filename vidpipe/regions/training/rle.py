"""Masks in COCO JSON: run lengths, or polygons."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import UsageError

__all__ = ["NEEDED", "decode_mask", "encode_mask", "pycocotools"]

NEEDED = "needs a package: pip install 'vidpipe[detectors]'"


def pycocotools(module: str) -> Any:
    """Return a module of pycocotools.

    Args:
        module: `mask`, `coco` or `cocoeval`.

    Returns:
        The module.

    Raises:
        UsageError: the package is not installed.
    """
    try:
        return import_module(f"pycocotools.{module}")
    except ImportError:
        raise UsageError(f"COCO JSON {NEEDED}") from None


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask (H, W) as compressed run lengths: `{"size": [H, W], "counts": text}`."""
    encoded = pycocotools("mask").encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(length) for length in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of an annotation.

    Args:
        segmentation: run lengths (compressed or a list), or polygons.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns:
        (H, W)

    Raises:
        ValueError: it is neither, or of another size.
    """
    tools = pycocotools("mask")
    try:
        if isinstance(segmentation, Mapping):
            compressed = segmentation
            if isinstance(segmentation["counts"], list):
                compressed = tools.frPyObjects(dict(segmentation), height, width)
        else:
            compressed = tools.merge(tools.frPyObjects(segmentation, height, width))
        mask = tools.decode(compressed).astype(bool)
    except Exception as error:  # pycocotools raises whatever its C code meets
        raise ValueError(f"neither run lengths nor polygons ({error})") from error
    if mask.shape != (height, width):
        raise ValueError(f"a mask of {mask.shape[1]} × {mask.shape[0]} in a picture of {width} × {height}")
    return np.asarray(mask)
