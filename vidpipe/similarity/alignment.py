"""Where in time two feature sequences show the same footage.

other's time                    other = speed · one + offset
  │      ╱
  │    ╱     Along a line, the changes of two sequences are compared: the differences of neighbouring rows. What
  │  ╱       stays the same – the place, a logo, a border, the brightness – does not count. Two clips of one fixed
  │╱         camera have the place in common. Only the same footage changes in the same way at the same times.
  └──────── one's time
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_ROWS", "Alignment", "Changes", "align", "chance", "realign"]

Floats = NDArray[np.float32]
Times = NDArray[np.float64]

MAX_SPEED = 1.12
"""The fastest copy that is found; the slowest is 1 / MAX_SPEED."""
MIN_ROWS = 4
"""Changes that an alignment compares at least: fewer may be alike by chance."""
STEPS_A_ROW = 2
"""Offsets are tried at every half row, then refined."""
REFINEMENTS = 2
"""How often the steps around the best line are divided by three."""
MIN_EVIDENCE = 0.15
"""A line with less is not refined."""
MIN_SHARE_AT_SPEED_1 = 0.96
"""Of the best evidence: a line of speed 1 that reaches this share of it is preferred."""
EPSILON = 1e-12
_FIVE, _SAME_SPEED = np.arange(-2.0, 3.0), np.zeros(1)
"""Steps of a refinement."""


@dataclass(frozen=True)
class Changes:
    """How a feature sequence changes over time."""

    features: Floats
    """(T, D) the differences of neighbouring rows, as they are compared."""
    pts_seconds: Times
    """(T,) half-way between these rows, increasing."""

    def __len__(self) -> int:
        return len(self.features)

    def between(self, start_seconds: float, stop_seconds: float) -> "Changes":
        """Return the changes in [start_seconds, stop_seconds)."""
        first, stop = np.searchsorted(self.pts_seconds, [start_seconds, stop_seconds])
        return Changes(self.features[first:stop], self.pts_seconds[first:stop])

    @cached_property
    def spacing_seconds(self) -> float:
        """The time between neighbouring rows."""
        return float(np.median(np.diff(self.pts_seconds)))

    @cached_property
    def extent(self) -> tuple[float, float]:
        """The time that the rows stand for: from half a row before the first to half a row after the last."""
        spacing = self.spacing_seconds
        return float(self.pts_seconds[0]) - spacing, float(self.pts_seconds[-1]) + spacing


@dataclass(frozen=True)
class Alignment:
    """The line between the times of two sequences along which they change most alike."""

    correlation: float
    """The mean cosine of the changes along the line, -1 to 1; larger changes count more."""
    num_rows: int
    """Changes that were compared."""
    speed: float
    """Seconds of the other in one second of the one."""
    offset_seconds: float
    """The other's time at the one's time 0."""
    start_seconds: float
    stop_seconds: float
    """The stretch [start, stop) of the one that both show."""

    @property
    def evidence(self) -> float:
        """The correlation, times the root of the number of changes."""
        return self.correlation * math.sqrt(self.num_rows)

    @property
    def stretch(self) -> tuple[float, float]:
        """The stretch [start, stop) of the one."""
        return self.start_seconds, self.stop_seconds

    @property
    def other_stretch(self) -> tuple[float, float]:
        """The stretch [start, stop) of the other."""
        return self.other_time(self.start_seconds), self.other_time(self.stop_seconds)

    def other_time(self, seconds: float) -> float:
        """Return the other's time at a time of the one."""
        return self.speed * seconds + self.offset_seconds

    def reversed(self) -> "Alignment":
        """Return the same line, seen from the other."""
        return replace(
            self,
            speed=1 / self.speed,
            offset_seconds=-self.offset_seconds / self.speed,
            start_seconds=self.other_time(self.start_seconds),
            stop_seconds=self.other_time(self.stop_seconds),
        )


def align(one: Changes, other: Changes, *, min_share: float = 0.5) -> Alignment | None:
    """Find where two sequences show the same footage, if they do.

    All lines are tried whose speed is that of a copy, and on which the sequences overlap long enough.

    Args:
        one: the changes of a sequence of some dozen rows.
        other: those of another one, of the same D.
        min_share: share of the shorter one that the stretch covers at least.

    Returns:
        The alignment with the most evidence; None where no line compares `MIN_ROWS` rows.
    """
    if min(len(one), len(other)) < MIN_ROWS:
        return None
    if one.spacing_seconds < other.spacing_seconds:
        found = _align(other, one, min_share)
        return None if found is None else found.reversed()
    return _align(one, other, min_share)


def chance(one: Changes, other: Changes, *, min_share: float = 0.5) -> Floats:
    """Return the evidence of all lines that `align` tries: of unrelated sequences, what chance gives.

    Args:
        one: the changes of a sequence of some dozen rows.
        other: those of another one, of the same D.
        min_share: as for `align`.

    Returns:
        The evidence, (H,); empty where no line compares `MIN_ROWS` changes.
    """
    if min(len(one), len(other)) < MIN_ROWS:
        return np.zeros(0, np.float32)
    sparse, dense = (other, one) if one.spacing_seconds < other.spacing_seconds else (one, other)
    correlations, num_rows = _Comparison(sparse, dense).correlations(_lines_of(sparse, dense, min_share))
    return np.asarray((correlations * np.sqrt(num_rows))[num_rows >= MIN_ROWS], np.float32)


def realign(one: Changes, other: Changes, line: Alignment) -> Alignment | None:
    """Find the best line near a known one.

    Args:
        one: the changes of a sequence of some dozen rows.
        other: those of another one, of the same D.
        line: only its speed and offset are used.

    Returns:
        The alignment with the most evidence; None where no line near it compares `MIN_ROWS` rows.
    """
    if min(len(one), len(other)) < MIN_ROWS:
        return None
    if one.spacing_seconds < other.spacing_seconds:
        found = realign(other, one, line.reversed())
        return None if found is None else found.reversed()
    return _Comparison(one, other).best(np.array([[line.speed, line.offset_seconds]]))


def _align(sparse: Changes, dense: Changes, min_share: float) -> Alignment | None:
    lines = _lines_of(sparse, dense, min_share)
    comparison = _Comparison(sparse, dense)
    best = comparison.best(lines)
    if best is None or best.evidence < MIN_EVIDENCE:
        return best
    plain = comparison.best(lines[lines[:, 0] == 1], turns=_SAME_SPEED)
    return plain if plain is not None and plain.evidence >= MIN_SHARE_AT_SPEED_1 * best.evidence else best


def _lines_of(sparse: Changes, dense: Changes, min_share: float) -> Times:
    """(H, 2) speed and offset of each line on which the stretch has at least some share of the shorter sequence."""
    min_seconds = min_share * min(stop - start for start, stop in (sparse.extent, dense.extent))
    number = math.ceil(math.log(MAX_SPEED) * min(len(sparse), len(dense)))  # the ends are off by half a row at most
    lines = []
    for speed in np.exp(np.linspace(-1, 1, 2 * number + 1) * math.log(MAX_SPEED)):
        (start, stop), (other_start, other_stop) = sparse.extent, dense.extent
        first, last = other_start + speed * (min_seconds - stop), other_stop - speed * (min_seconds + start)
        step = speed * sparse.spacing_seconds / STEPS_A_ROW
        offsets = (first + last) / 2 + _symmetric((last - first) / 2, step)
        lines.append(np.stack([np.full(len(offsets), speed), offsets], axis=1))
    return np.concatenate(lines)


def _symmetric(limit: float, step: float) -> Times:
    """Multiples of a step from -limit to limit."""
    number = max(0, math.floor(limit / step + 1e-6))
    return np.asarray(np.arange(-number, number + 1) * step, np.float64)


def _lines_around(line: Times, turns: Times, shifts: Times, middle: float) -> Times:
    """(H, 2) lines with some other speeds, as logarithms, and then shifted by some seconds.

    They turn around the sparse sequence's time `middle`.
    """
    speed, offset = line
    turned = np.clip(speed * np.exp(turns), 1 / MAX_SPEED, MAX_SPEED)
    offsets = offset + (speed - turned)[:, None] * middle + shifts
    return np.stack([np.repeat(turned, len(shifts)), offsets.ravel()], axis=1)


class _Comparison:
    """The products of two sequences, from which the correlation along any line is found."""

    def __init__(self, sparse: Changes, dense: Changes) -> None:
        self._extent, self._dense_extent = sparse.extent, dense.extent
        self._spacing = sparse.spacing_seconds
        self._times, self._dense_times = sparse.pts_seconds, dense.pts_seconds
        self._products = sparse.features @ dense.features.T  # (Ts, Td)
        self._own = np.einsum("td,td->t", sparse.features, sparse.features)  # (Ts,) squared lengths
        self._dense = np.einsum("td,td->t", dense.features, dense.features)  # (Td,)
        self._neighbours = np.einsum("td,td->t", dense.features[:-1], dense.features[1:])  # (Td - 1,)
        self._slack = dense.spacing_seconds / 2

    def best(self, lines: Times, *, turns: Times = _FIVE) -> Alignment | None:
        """Return the best of some lines, refined; None where none compares `MIN_ROWS` rows.

        Args:
            lines: (H, 2) speed and offset.
            turns: how a refinement changes the speed, in steps.
        """
        turn, shift = 1 / min(len(self._times), len(self._dense_times)), self._spacing / STEPS_A_ROW
        middle = float(self._times[0] + self._times[-1]) / 2
        for _ in range(REFINEMENTS + 1):
            correlations, num_rows = self.correlations(lines)
            evidence = np.where(num_rows >= MIN_ROWS, correlations * np.sqrt(num_rows), -np.inf)
            chosen = int(np.argmax(evidence)) if len(evidence) else 0
            if not len(evidence) or num_rows[chosen] < MIN_ROWS:
                return None
            speed, offset = map(float, lines[chosen])
            if evidence[chosen] < MIN_EVIDENCE:
                break
            turn, shift = turn / 3, shift / 3
            lines = _lines_around(lines[chosen], turn * turns, shift * _FIVE, middle)
        start, stop = self._stretch(speed, offset)
        return Alignment(float(correlations[chosen]), int(num_rows[chosen]), speed, offset, start, stop)

    def _stretch(self, speed: float, offset: float) -> tuple[float, float]:
        """The stretch of the sparse sequence that lies in the dense one, on a line."""
        (start, stop), (dense_start, dense_stop) = self._extent, self._dense_extent
        return max(start, (dense_start - offset) / speed), min(stop, (dense_stop - offset) / speed)

    def correlations(self, lines: Times) -> tuple[Floats, NDArray[np.int64]]:
        """Return the correlation of the changes along each line, (H,), and how many were compared, (H,).

        The dense sequence is interpolated at the times of the sparse one.
        """
        times = lines[:, :1] * self._times + lines[:, 1:]  # (H, Ts) the dense sequence's time of each row
        first, last = self._dense_times[[0, -1]]
        valid = ((times >= first - self._slack) & (times <= last + self._slack)).astype(np.float32)
        left, share = self._places(times)
        rows = np.arange(len(self._times))
        products = (1 - share) * self._products[rows, left] + share * self._products[rows, left + 1]
        sizes = np.sqrt(np.maximum(self._own * self._squares(left, share), EPSILON))  # |one| · |other|, (H, Ts)
        weights = np.sqrt(sizes) * valid
        cosines = products / sizes
        total = np.maximum(weights.sum(axis=1), EPSILON)
        return (cosines * weights).sum(axis=1) / total, valid.sum(axis=1).astype(np.int64)

    def _places(self, times: Times) -> tuple[NDArray[np.int64], Floats]:
        """The dense row before each time, and the share of the way to the next one."""
        inside = np.clip(times, *self._dense_times[[0, -1]])
        left = np.searchsorted(self._dense_times, inside, side="right") - 1
        left = np.clip(left, 0, len(self._dense_times) - 2)
        gap = self._dense_times[left + 1] - self._dense_times[left]
        return left, ((inside - self._dense_times[left]) / np.maximum(gap, EPSILON)).astype(np.float32)

    def _squares(self, left: NDArray[np.int64], share: Floats) -> Floats:
        """The squared length of each interpolated change, (H, Ts)."""
        rest = 1 - share
        mixed = 2 * rest * share * self._neighbours[left]
        return np.asarray(rest**2 * self._dense[left] + mixed + share**2 * self._dense[left + 1], np.float32)
