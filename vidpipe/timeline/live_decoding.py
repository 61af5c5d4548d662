"""Class probabilities that come row by row -> segments, each as soon as it is certain.

viterbi     certain up to the row at which the best sequences to all classes of the last row come together
threshold   certain once the class's probability is below `low`
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Segment
from vidpipe.timeline.decoding import MIN_PROBABILITY, Decoding, viterbi_step

__all__ = ["LiveDecoder"]


@dataclass
class _Open:
    """A run of rows of one class that has not ended."""

    start_seconds: float
    num_rows: int = 0
    sum_probability: float = 0.0
    max_probability: float = 0.0

    def add(self, probability: float) -> None:
        """Add a row."""
        self.num_rows += 1
        self.sum_probability += probability
        self.max_probability = max(self.max_probability, probability)


class LiveDecoder:
    """Reads segments off a curve that grows; together they are those of `decode_segments`.

    Args:
        class_names: K names.
        decoding: the settings.
        background: the class that gives no segments.
        rows_per_window: rows whose evidence counts as one (viterbi).
    """

    def __init__(
        self, class_names: Sequence[str], decoding: Decoding, *, background: str = "", rows_per_window: int = 1
    ) -> None:
        self._class_names, self._decoding, self._background = class_names, decoding, background
        self._runs = (
            _ViterbiRuns(decoding, rows_per_window) if decoding.method == "viterbi" else _ThresholdRuns(decoding)
        )

    def add(
        self, probabilities: NDArray[np.float64], start_seconds: NDArray[np.float64], is_cut: NDArray[np.bool_]
    ) -> Iterator[Segment]:
        """Take the next rows.

        Args:
            probabilities: (T, K)
            start_seconds: (T,) of the rows; a row ends where the next one starts.
            is_cut: (T,) whether a shot begins with the row.

        Yields:
            The segments that are now certain, in the order of their ends.
        """
        for row, seconds, cut in zip(probabilities, start_seconds.tolist(), is_cut.tolist(), strict=True):
            yield from self._segments(self._runs.add(row, seconds, is_cut=cut))
        yield from self._segments(self._runs.settle())

    def finish(self, stop_seconds: float) -> Iterator[Segment]:
        """End the video.

        Args:
            stop_seconds: its end.

        Yields:
            The segments that are left.
        """
        yield from self._segments(self._runs.finish(stop_seconds))

    def _segments(self, runs: "Iterator[tuple[int, _Open, float]]") -> Iterator[Segment]:
        for index, run, stop_seconds in runs:
            label, probability = self._class_names[index], run.sum_probability / run.num_rows
            is_long = stop_seconds - run.start_seconds >= self._decoding.min_seconds
            if label != self._background and is_long and probability >= self._decoding.min_confidence:
                yield Segment(run.start_seconds, stop_seconds, label, probability)


class _ViterbiRuns:
    """Runs of the best sequence."""

    def __init__(self, decoding: Decoding, rows_per_window: int) -> None:
        self._decoding, self._rows_per_window = decoding, rows_per_window
        self._best: NDArray[np.float64] | None = None
        """(K,) sums of the best sequences to the last row."""
        self._waiting: list[tuple[float, NDArray[np.float64], NDArray[np.int64]]] = []
        """Start, probabilities (K,) and classes before (K,) of the rows that are not certain."""
        self._class, self._open = -1, _Open(0.0)

    def add(
        self, probabilities: NDArray[np.float64], start_seconds: float, *, is_cut: bool
    ) -> Iterator[tuple[int, _Open, float]]:
        """Take the next row."""
        scores = np.log(np.maximum(probabilities, MIN_PROBABILITY)) / self._rows_per_window
        came_from = np.arange(len(scores))
        if self._best is None:
            self._best = scores
        else:
            cost = 0.0 if is_cut else self._decoding.change_cost
            self._best, came_from = viterbi_step(self._best, scores, cost)
        self._waiting.append((start_seconds, probabilities, came_from))
        yield from ()

    def settle(self) -> Iterator[tuple[int, _Open, float]]:
        """Yield the runs that have ended, however the video goes on."""
        if not self._waiting:
            return
        classes = np.arange(len(self._waiting[-1][1]))
        for row in range(len(self._waiting) - 1, -1, -1):
            if len(classes) == 1:
                yield from self._follow(row, int(classes[0]))
                return
            classes = np.unique(self._waiting[row][2][classes])

    def finish(self, stop_seconds: float) -> Iterator[tuple[int, _Open, float]]:
        """Yield the runs that are left."""
        if self._best is not None and self._waiting:
            yield from self._follow(len(self._waiting) - 1, int(self._best.argmax()))
        if self._open.num_rows:
            yield self._class, self._open, stop_seconds

    def _follow(self, row: int, index: int) -> Iterator[tuple[int, _Open, float]]:
        """Take the rows up to one, which has this class, as certain."""
        path = [index]
        for _, _, came_from in self._waiting[row:0:-1]:
            path.append(int(came_from[path[-1]]))
        certain, self._waiting = self._waiting[: row + 1], self._waiting[row + 1 :]
        for (start_seconds, probabilities, _), chosen in zip(certain, reversed(path), strict=True):
            if chosen != self._class:
                if self._open.num_rows:
                    yield self._class, self._open, start_seconds
                self._class, self._open = chosen, _Open(start_seconds)
            self._open.add(float(probabilities[chosen]))


class _ThresholdRuns:
    """Runs of rows in which a class has some probability."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._open: dict[int, _Open] = {}

    def add(
        self, probabilities: NDArray[np.float64], start_seconds: float, *, is_cut: bool
    ) -> Iterator[tuple[int, _Open, float]]:
        """Take the next row, and yield the runs that end before it."""
        is_in = probabilities >= self._decoding.low
        for index in [index for index in self._open if not is_in[index]]:
            yield from self._ended(index, start_seconds)
        for index in np.flatnonzero(is_in).tolist():
            self._open.setdefault(index, _Open(start_seconds)).add(float(probabilities[index]))

    def settle(self) -> Iterator[tuple[int, _Open, float]]:
        """Yield nothing: a run that ended is certain."""
        yield from ()

    def finish(self, stop_seconds: float) -> Iterator[tuple[int, _Open, float]]:
        """Yield the runs that are left."""
        for index in sorted(self._open):
            yield from self._ended(index, stop_seconds)

    def _ended(self, index: int, stop_seconds: float) -> Iterator[tuple[int, _Open, float]]:
        run = self._open.pop(index)
        if run.max_probability >= self._decoding.high:
            yield index, run, stop_seconds
