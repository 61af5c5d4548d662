"""Class probabilities over time -> segments.

viterbi     one label at a time: the labels of highest probability, less a cost for each change that is not at a cut
threshold   each class for itself: from where its probability exceeds `high` as far as it stays above `low`; of segments
            that overlap too much, the most probable
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Segment
from vidpipe.timeline.classifier import RowCurve

__all__ = ["METHODS", "MIN_PROBABILITY", "Decoding", "decode_segments", "viterbi", "viterbi_step"]

MIN_PROBABILITY = 1e-6
"""Bounds the evidence of one row."""


@dataclass(frozen=True)
class Decoding:
    """How segments are read off a curve."""

    method: str = "viterbi"
    """One of `METHODS`."""
    change_cost: float = 0.5
    """What a change of label within a shot costs, in nats of evidence of a whole window (viterbi)."""
    high: float = 0.5
    """A segment has this probability somewhere (threshold)."""
    low: float = 0.3
    """A segment lasts while its class has this probability (threshold)."""
    max_overlap: float = 0.5
    """Of two segments whose temporal IoU exceeds this, only the more probable one is kept (threshold)."""
    min_seconds: float = 0.0
    """Shorter segments are left out."""
    min_confidence: float = 0.0
    """Segments with a lower probability are left out: none of the classes."""


def decode_segments(
    curve: RowCurve,
    class_names: Sequence[str],
    decoding: Decoding,
    *,
    background: str = "",
) -> tuple[Segment, ...]:
    """Read segments off a curve.

    Args:
        curve: the probabilities of T rows; the evidence of as many rows as a window has counts as one.
        class_names: K names.
        decoding: the settings.
        background: the class of time without any other; it gives no segments.

    Returns:
        The segments in order of start, each with the mean probability of its class over its rows.
    """
    probabilities, edges_seconds = curve.probabilities, curve.grid.edges_seconds
    found = []
    for index, first, stop in METHODS[decoding.method](curve, decoding):
        probability = float(probabilities[first:stop, index].mean())
        segment = Segment(float(edges_seconds[first]), float(edges_seconds[stop]), class_names[index], probability)
        is_long = segment.duration_seconds >= decoding.min_seconds
        if class_names[index] != background and is_long and probability >= decoding.min_confidence:
            found.append(segment)
    kept = _suppress(found, decoding.max_overlap) if decoding.method == "threshold" else found
    return tuple(sorted(kept, key=lambda segment: (segment.start_seconds, segment.stop_seconds)))


def _suppress(segments: Sequence[Segment], max_overlap: float) -> list[Segment]:
    """Non-maximum suppression: the more probable segment first, without those that overlap it too much."""
    kept: list[Segment] = []
    for one in sorted(segments, key=lambda segment: -(segment.probability or 0)):
        if all(_tiou(one, other) <= max_overlap for other in kept):
            kept.append(one)
    return kept


def _tiou(one: Segment, other: Segment) -> float:
    """The intersection of two segments over their union, in time."""
    shared = min(one.stop_seconds, other.stop_seconds) - max(one.start_seconds, other.start_seconds)
    return max(0.0, shared) / (one.duration_seconds + other.duration_seconds - max(0.0, shared))


Run = tuple[int, int, int]
"""A class, its first row, and the row after its last one."""


def _by_viterbi(curve: RowCurve, decoding: Decoding) -> Iterator[Run]:
    logs = np.log(np.maximum(curve.probabilities, MIN_PROBABILITY))
    costs = np.full(len(logs), decoding.change_cost)
    costs[curve.cuts] = 0.0
    path = viterbi(logs / curve.grid.rows_per_window, costs)
    changes = np.flatnonzero(np.diff(path)) + 1
    for first, stop in zip([0, *changes.tolist()], [*changes.tolist(), len(path)], strict=True):
        yield int(path[first]), first, stop


def viterbi(scores: NDArray[np.float64], change_costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the sequence of classes with the highest sum of scores, less a cost for each change.

    As all changes into a row cost the same, a step takes O(K): the best class before it either stays or is left.

    Args:
        scores: (T, K), additive.
        change_costs: (T,) of a change from the row before; not negative.

    Returns:
        (T,) class indices. Viterbi, IEEE Transactions on Information Theory 1967.
    """
    num_rows = len(scores)
    came_from = np.zeros(scores.shape, np.int32)
    best = scores[0].copy()
    for row in range(1, num_rows):
        best, came_from[row] = viterbi_step(best, scores[row], float(change_costs[row]))
    path = np.empty(num_rows, np.int64)
    path[-1] = best.argmax()
    for row in range(num_rows - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path


def viterbi_step(
    best: NDArray[np.float64], scores: NDArray[np.float64], change_cost: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Go on by one row.

    Args:
        best: (K,) the sum of the best sequence that ends in each class.
        scores: (K,) of the row.
        change_cost: of a change before the row.

    Returns:
        (K,) the same with the row, and (K,) the class before it.
    """
    leader = int(best.argmax())
    after_change = best[leader] - change_cost
    is_left = after_change > best
    return np.where(is_left, after_change, best) + scores, np.where(is_left, leader, np.arange(len(best)))


def _by_threshold(curve: RowCurve, decoding: Decoding) -> Iterator[Run]:
    for index, values in enumerate(curve.probabilities.T):
        padded = np.concatenate([[False], values >= decoding.low, [False]])
        for first, stop in np.flatnonzero(np.diff(padded)).reshape(-1, 2).tolist():
            if values[first:stop].max() >= decoding.high:
                yield index, first, stop


METHODS: Mapping[str, Callable[[RowCurve, Decoding], Iterator[Run]]] = {
    "viterbi": _by_viterbi,
    "threshold": _by_threshold,
}
