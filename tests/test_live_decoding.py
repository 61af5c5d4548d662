"""Segments read off a curve that grows, against those of the whole curve."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vidpipe.datasets.windows import RowGrid
from vidpipe.records import Segment
from vidpipe.timeline.classifier import RowCurve
from vidpipe.timeline.decoding import Decoding, decode_segments
from vidpipe.timeline.live_decoding import LiveDecoder

NAMES = ("a", "b", "none")


def smooth_curve(seed: int, num_rows: int = 300) -> NDArray[np.float64]:
    """(T, 3) probabilities of classes that take turns."""
    random = np.random.default_rng(seed)
    scores = np.cumsum(random.standard_normal((num_rows, 3)), axis=0) * 0.5
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def grown(
    probabilities: NDArray[np.float64], cuts: NDArray[np.int64], decoding: Decoding, rows_per_window: int, step: int
) -> tuple[list[Segment], list[Segment]]:
    """The segments that were certain before the end, and the others."""
    decoder = LiveDecoder(NAMES, decoding, background="none", rows_per_window=rows_per_window)
    starts, is_cut = np.arange(len(probabilities)) / 2, np.isin(np.arange(len(probabilities)), cuts)
    certain = []
    for first in range(0, len(probabilities), step):
        rows = slice(first, first + step)
        certain += list(decoder.add(probabilities[rows], starts[rows], is_cut[rows]))
    return certain, list(decoder.finish(len(probabilities) / 2))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(change_cost=0.5),
        Decoding(change_cost=0.0),
        Decoding(change_cost=3.0, min_confidence=0.5, min_seconds=2.0),
        Decoding("threshold", high=0.6, low=0.3),
    ],
)
def test_segments_of_a_growing_curve_are_those_of_the_whole(decoding: Decoding, seed: int) -> None:
    probabilities, cuts = smooth_curve(seed), np.array([40, 41, 150])
    curve = RowCurve(probabilities, RowGrid(np.arange(len(probabilities) + 1) / 2, 4), cuts)
    expected = decode_segments(curve, NAMES, decoding, background="none")
    certain, rest = grown(probabilities, cuts, decoding, rows_per_window=4, step=7)
    found = sorted([*certain, *rest], key=lambda one: (one.start_seconds, one.stop_seconds))
    assert [(one.start_seconds, one.stop_seconds, one.label) for one in found] == [
        (one.start_seconds, one.stop_seconds, one.label) for one in expected
    ]
    assert [one.probability for one in found] == pytest.approx([one.probability for one in expected])


def test_a_segment_is_given_once_another_label_has_outweighed_the_cost_of_a_change() -> None:
    probabilities = np.array([[0.98, 0.01, 0.01]] * 10 + [[0.01, 0.98, 0.01]] * 10)
    decoder = LiveDecoder(NAMES, Decoding(change_cost=1.0), background="none", rows_per_window=10)
    given_at = [
        row
        for row in range(20)
        for _ in decoder.add(probabilities[row : row + 1], np.array([row / 2]), np.array([False]))
    ]
    # a row of b outweighs one of a by log(0.98 / 0.01) / 10 = 0.46; three of them exceed a cost of 1, and a cost back
    assert 12 <= given_at[0] <= 16
    assert len(given_at) == 1


def test_rows_that_are_certain_are_dropped() -> None:
    probabilities = smooth_curve(0, num_rows=3000)
    decoder = LiveDecoder(NAMES, Decoding(), rows_per_window=4)
    for row in range(len(probabilities)):
        list(decoder.add(probabilities[row : row + 1], np.array([float(row)]), np.array([False])))
    assert len(decoder._runs._waiting) < 200  # type: ignore[union-attr]
