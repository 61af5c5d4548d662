"""Curves with as many points as a drawing can show."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["thin_curve"]


def thin_curve(
    pts_seconds: NDArray[np.float64], values: NDArray[np.floating], *, max_points: int
) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Choose points of a curve that look like all of them: the least and the greatest value of each short part.

    Args:
        pts_seconds: (T,) increasing.
        values: (T,)
        max_points: at least 4.

    Returns:
        Times and values, at most `max_points` of each, in order, with the first and the last point. A curve that is
        short enough is returned as it is.
    """
    num_points = len(pts_seconds)
    if num_points <= max_points:
        return pts_seconds, values
    edges = np.linspace(0, num_points, (max_points - 2) // 2 + 1).astype(int)
    parts = np.split(values, edges[1:-1])
    least = [start + int(np.argmin(part)) for start, part in zip(edges, parts, strict=False)]
    greatest = [start + int(np.argmax(part)) for start, part in zip(edges, parts, strict=False)]
    kept = np.unique([0, *least, *greatest, num_points - 1])
    return pts_seconds[kept], values[kept]
