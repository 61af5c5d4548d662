"""Probabilities of windows -> probabilities of each class over time."""

import numpy as np
from numpy.typing import NDArray

from vidpipe.datasets.windows import Windows

__all__ = ["join_windows", "thin", "window_weights"]


def join_windows(windows: Windows, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average the probabilities of the windows that see a row, those with the row near their middle most.

    A window's weight falls linearly from its middle to its ends, so that a curve changes smoothly.

    Args:
        windows: W windows of a video with T rows; each row is in one at least.
        probabilities: (W, K)

    Returns:
        (T, K) probabilities of each row.
    """
    lengths = windows.stop_row - windows.first_row
    total = np.zeros((len(windows.edges_seconds) - 1, probabilities.shape[1]))
    weight = np.zeros((len(total), 1))
    for length in np.unique(lengths):
        alike = lengths == length
        for position, share in enumerate(window_weights(int(length))):
            rows = windows.first_row[alike] + position  # those of different windows differ
            total[rows] += share * probabilities[alike]
            weight[rows] += share
    return total / weight


def window_weights(length: int) -> NDArray[np.float64]:
    """Return the weights of a window's rows: (length,), falling from the middle to the ends; none is 0."""
    return np.asarray(1 - np.abs((np.arange(length) + 0.5) / length * 2 - 1))


def thin(
    probabilities: NDArray[np.float64], edges_seconds: NDArray[np.float64], stride_seconds: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Average the probabilities over about a stride, which is as much as a curve can show.

    Args:
        probabilities: (T, K)
        edges_seconds: (T + 1,)
        stride_seconds: of the windows.

    Returns:
        (T',) the centres in seconds, and (T', K) the probabilities.
    """
    num_rows = len(probabilities)
    row_seconds = float(edges_seconds[-1] - edges_seconds[0]) / num_rows
    step = max(1, round(stride_seconds / row_seconds)) if row_seconds > 0 else 1
    starts = np.arange(0, num_rows, step)
    sizes = np.diff(np.append(starts, num_rows))
    means = np.add.reduceat(probabilities, starts) / sizes[:, None]
    centres = (edges_seconds[starts] + edges_seconds[np.append(starts[1:], num_rows)]) / 2
    return centres, means.astype(np.float32)
