"""Anchors from one's own boxes."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_anchors"]

_NUM_STARTS = 10
_NUM_STEPS = 100


def fit_anchors(sizes: NDArray[np.floating], num_anchors: int = 9, *, seed: int = 0) -> tuple[tuple[float, float], ...]:
    """Cluster the sizes of boxes by k-means with the distance 1 − IoU (Redmon & Farhadi 2017, YOLO9000, section 2).

    scikit-learn's and scipy's k-means have the Euclidean distance alone, by which large boxes count more.

    Args:
        sizes: (K, 2) width and height in pixels of the network's picture, above 0.
        num_anchors: the clusters.
        seed: of the starts; the best of ten counts.

    Returns:
        Widths and heights in pixels, by area.

    Raises:
        ValueError: there are fewer different sizes than anchors.
    """
    different = np.unique(sizes, axis=0)
    if len(different) < num_anchors:
        raise ValueError(f"{num_anchors} anchors need as many different sizes of boxes, got {len(different)}")
    random = np.random.default_rng(seed)
    starts = (different[random.choice(len(different), num_anchors, replace=False)] for _ in range(_NUM_STARTS))
    best = max((_converged(sizes, start) for start in starts), key=lambda found: _iou(sizes, found).max(1).mean())
    return tuple((float(width), float(height)) for width, height in best[best.prod(axis=1).argsort()])


def _converged(sizes: NDArray[np.floating], centres: NDArray[np.floating]) -> NDArray[np.floating]:
    """Lloyd's algorithm; a cluster that loses all its boxes keeps its centre."""
    for _ in range(_NUM_STEPS):
        nearest = _iou(sizes, centres).argmax(axis=1)
        moved = np.stack(
            [sizes[nearest == i].mean(axis=0) if (nearest == i).any() else centre for i, centre in enumerate(centres)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def _iou(sizes: NDArray[np.floating], centres: NDArray[np.floating]) -> NDArray[np.floating]:
    """(K, anchors) of boxes with a common centre"""
    common = np.minimum(sizes[:, None], centres[None]).prod(axis=2)
    return np.asarray(common / (sizes.prod(axis=1)[:, None] + centres.prod(axis=1)[None] - common))
