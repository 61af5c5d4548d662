"""Pools a feature map over the cells of a grid, exactly, whether or not the cells divide the map evenly."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["area_weights", "max_of_cells"]


def area_weights(height: int, width: int, grid: int) -> NDArray[np.float32]:
    """Return the weights with which the positions of a map make the mean of each cell.

    A position counts by the share of its area that lies in the cell. Along one side of 5 positions, with a grid of 2:

        position   |  0  |  1  |  2  |  3  |  4  |
        cell       |      0       |      1       |     cell 0 = (2 · p0 + 2 · p1 + p2) / 5

    Args:
        height: positions along the map's height.
        width: positions along its width.
        grid: cells along each side.

    Returns:
        (grid², height · width); each row sums to 1. The cells and the positions are in order row by row.
    """
    return np.kron(_along(height, grid), _along(width, grid)).astype(np.float32)


def _along(size: int, grid: int) -> NDArray[np.float64]:
    """(G, size) the weights along one side."""
    edges = np.linspace(0, size, grid + 1)
    first = np.maximum(edges[:-1, None], np.arange(size))
    last = np.minimum(edges[1:, None], np.arange(size) + 1)
    return (last - first).clip(min=0) * grid / size


def max_of_cells(maps: Tensor, grid: int) -> Tensor:
    """Return the maximum over all positions that lie in each cell, wholly or in part.

    Args:
        maps: (N, D, h, w)
        grid: cells along each side.

    Returns:
        (N, grid², D), the cells row by row.
    """
    height, width = maps.shape[2:]
    # Slices, since the pooling layer that does this cannot be exported to ONNX.
    cells = [
        maps[:, :, rows, columns].amax(dim=(2, 3))
        for rows in _overlap(height, grid)
        for columns in _overlap(width, grid)
    ]
    return torch.stack(cells, dim=1)


def _overlap(size: int, grid: int) -> list[slice]:
    """The positions along one side that lie in each cell, wholly or in part."""
    return [slice(cell * size // grid, -(-(cell + 1) * size // grid)) for cell in range(grid)]
