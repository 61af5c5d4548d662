"""The stretch in which two videos are most alike: the best path through the cosines of their frames.

      video ──►
query  .1 .2 .1 .1      A path goes right, down, or both, as in dynamic time warping. It gains what a cosine is
  │    .2 .8 .3 .1      above a level, and begins and ends where that makes the gain largest, as in the local
  ▼    .1 .4 .9 .2      alignment of Smith & Waterman 1981: here from (1, 1) to (2, 2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LocalPath", "best_path"]

WARP_COST = 0.5
"""What a step right or down costs, as a share of what the level is below the mean of the largest cosines."""


@dataclass(frozen=True)
class LocalPath:
    """The first and the last pair of frames on a path."""

    first_row: int
    first_column: int
    last_row: int
    last_column: int


def best_path(cosines: NDArray[np.float32]) -> LocalPath:
    """Find the stretch in which two videos are most alike.

    Args:
        cosines: (T, U) of the frames of two videos.

    Returns:
        The path with the largest gain. The level is half-way between the mean cosine and the mean of the largest ones.
    """
    largest = (cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2
    level = (cosines.mean() + largest) / 2
    cost = WARP_COST * (largest - level)
    num_rows, num_columns = cosines.shape
    totals = np.zeros((num_rows + 1, num_columns + 1))
    starts = np.zeros((num_rows + 1, num_columns + 1, 2), int)
    for row in range(1, num_rows + 1):
        for column in range(1, num_columns + 1):
            steps = (
                (0.0, (row - 1, column - 1)),
                (totals[row - 1, column - 1], starts[row - 1, column - 1]),
                (totals[row - 1, column] - cost, starts[row - 1, column]),
                (totals[row, column - 1] - cost, starts[row, column - 1]),
            )
            before, start = max(steps, key=lambda step: step[0])
            gain = before + float(cosines[row - 1, column - 1]) - level
            if gain > 0:
                totals[row, column], starts[row, column] = gain, start
    last_row, last_column = divmod(int(totals.argmax()), num_columns + 1)
    if totals[last_row, last_column] <= 0:  # all cosines are equal
        return LocalPath(0, 0, num_rows - 1, num_columns - 1)
    first_row, first_column = starts[last_row, last_column].tolist()
    return LocalPath(first_row, first_column, last_row - 1, last_column - 1)
