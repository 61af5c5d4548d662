"""Class probabilities over time -> segments.

viterbi     one label at a time: the sequence of labels of highest probability, less a cost for each change
threshold   each class for itself: from where its probability exceeds `high` as far as it stays above `low`
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Segment

__all__ = ["METHODS", "Decoding", "decode_segments", "viterbi"]

MIN_PROBABILITY = 1e-6
"""Bounds the evidence of one row."""


@dataclass(frozen=True)
class Decoding:
    """How segments are read off a curve."""

    method: str = "viterbi"
    """One of `METHODS`."""
    change_cost: float = 1.0
    """What a change of label costs, in nats of evidence of a whole window (viterbi)."""
    high: float = 0.5
    """A segment has this probability somewhere (threshold)."""
    low: float = 0.3
    """A segment lasts while its class has this probability (threshold)."""
    min_seconds: float = 0.0
    """Shorter segments are left out."""
    min_confidence: float = 0.0
    """Segments with a lower probability are left out: none of the classes."""


def decode_segments(
    probabilities: NDArray[np.float64],
    edges_seconds: NDArray[np.float64],
    class_names: Sequence[str],
    decoding: Decoding,
    *,
    rows_per_window: int,
    background: str = "",
) -> tuple[Segment, ...]:
    """Read segments off a curve.

    Args:
        probabilities: (T, K) of each row.
        edges_seconds: (T + 1,) the time of the rows.
        class_names: K names.
        decoding: the settings.
        rows_per_window: rows that one window sees; their evidence counts as one.
        background: the class of time without any other; it gives no segments.

    Returns:
        The segments in order of start, each with the mean probability of its class over its rows.
    """
    found = []
    for index, first, stop in METHODS[decoding.method](probabilities, decoding, rows_per_window):
        probability = float(probabilities[first:stop, index].mean())
        segment = Segment(float(edges_seconds[first]), float(edges_seconds[stop]), class_names[index], probability)
        is_long = segment.duration_seconds >= decoding.min_seconds
        if class_names[index] != background and is_long and probability >= decoding.min_confidence:
            found.append(segment)
    return tuple(sorted(found, key=lambda segment: (segment.start_seconds, segment.stop_seconds)))


Run = tuple[int, int, int]
"""A class, its first row, and the row after its last one."""


def _by_viterbi(probabilities: NDArray[np.float64], decoding: Decoding, rows_per_window: int) -> Iterator[Run]:
    logs = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    path = viterbi(logs / rows_per_window, decoding.change_cost)
    changes = np.flatnonzero(np.diff(path)) + 1
    for first, stop in zip([0, *changes.tolist()], [*changes.tolist(), len(path)], strict=True):
        yield int(path[first]), first, stop


def viterbi(scores: NDArray[np.float64], change_cost: float) -> NDArray[np.int64]:
    """Return the sequence of classes with the highest sum of scores, less a cost for each change.

    With equal costs of all changes a step takes O(K): the best class before it either stays or is left.

    Args:
        scores: (T, K), additive.
        change_cost: not negative.

    Returns:
        (T,) class indices. Viterbi, IEEE Transactions on Information Theory 1967.
    """
    num_rows, num_classes = scores.shape
    came_from = np.zeros((num_rows, num_classes), np.int32)
    best = scores[0].copy()
    stay = np.arange(num_classes)
    for row in range(1, num_rows):
        leader = int(best.argmax())
        is_left = best[leader] - change_cost > best
        came_from[row] = np.where(is_left, leader, stay)
        best = np.where(is_left, best[leader] - change_cost, best) + scores[row]
    path = np.empty(num_rows, np.int64)
    path[-1] = best.argmax()
    for row in range(num_rows - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path


def _by_threshold(probabilities: NDArray[np.float64], decoding: Decoding, rows_per_window: int) -> Iterator[Run]:
    for index, curve in enumerate(probabilities.T):
        padded = np.concatenate([[False], curve >= decoding.low, [False]])
        for first, stop in np.flatnonzero(np.diff(padded)).reshape(-1, 2).tolist():
            if curve[first:stop].max() >= decoding.high:
                yield index, first, stop


METHODS: Mapping[str, Callable[[NDArray[np.float64], Decoding, int], Iterator[Run]]] = {
    "viterbi": _by_viterbi,
    "threshold": _by_threshold,
}
