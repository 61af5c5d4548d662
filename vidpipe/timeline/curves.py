"""Probabilities of windows -> probabilities of each class over time."""

import numpy as np
from numpy.typing import NDArray

from vidpipe.timeline.windows import Windows

__all__ = ["join_windows", "thin"]

MIN_PROBABILITY = 1e-6


def join_windows(windows: Windows, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average the log-probabilities of the windows that see a row, those with the row near their middle most.

    A window's weight falls linearly from its middle to its ends, so that a curve changes smoothly.

    Args:
        windows: W windows of a video with T rows.
        probabilities: (W, K)

    Returns:
        (T, K) log-probabilities of each row.
    """
    logs = np.log(np.maximum(probabilities, MIN_PROBABILITY)).astype(np.float64)
    num_rows = len(windows.edges_seconds) - 1
    total, weight = np.zeros((num_rows, logs.shape[1])), np.zeros(num_rows)
    length = int((windows.stop_row - windows.first_row)[0])
    kernel = 1 - np.abs((np.arange(length) + 0.5) / length * 2 - 1)  # a triangle
    for position in range(length):
        rows = windows.first_row + position
        total[rows] += kernel[position] * logs  # rows of different windows differ
        weight[rows] += kernel[position]
    return _normalised(total / weight[:, None])


def _normalised(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, K) -> (T, K) whose exponentials sum to 1."""
    highest = logs.max(axis=1, keepdims=True)
    return np.asarray(logs - highest - np.log(np.exp(logs - highest).sum(axis=1, keepdims=True)))


def thin(
    log_probabilities: NDArray[np.float64], edges_seconds: NDArray[np.float64], stride_seconds: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Average the probabilities over about a stride, which is as much as a curve can show.

    Args:
        log_probabilities: (T, K)
        edges_seconds: (T + 1,)
        stride_seconds: of the windows.

    Returns:
        (T',) the centres in seconds, and (T', K) the probabilities.
    """
    num_rows = len(log_probabilities)
    row_seconds = float(edges_seconds[-1] - edges_seconds[0]) / num_rows
    step = max(1, round(stride_seconds / row_seconds)) if row_seconds > 0 else 1
    starts = np.arange(0, num_rows, step)
    sizes = np.diff(np.append(starts, num_rows))
    means = np.add.reduceat(np.exp(log_probabilities), starts) / sizes[:, None]
    centres = (edges_seconds[starts] + edges_seconds[np.append(starts[1:], num_rows)]) / 2
    return centres, means.astype(np.float32)
