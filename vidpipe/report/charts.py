"""Charts as numbers: places in a drawing of `WIDTH` × `HEIGHT` units; `templates/report.html` draws them as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HEIGHT", "WIDTH", "Axis", "Chart", "Line", "axis_over"]

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 40
"""Margins, for the numbers and names of the axes."""
MAX_STEPS = 5


@dataclass(frozen=True)
class Axis:
    """The range of a quantity, with the values to write beside it."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return the place of a value: 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """Points joined by a line."""

    name: str
    style: str
    """A class of `templates/report.css`."""
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Lines over two axes."""

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]

    def place_x(self, value: float) -> float:
        """Return the distance from the left side of the drawing."""
        return round(LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT), 1)

    def place_y(self, value: float) -> float:
        """Return the distance from the top of the drawing."""
        return round(HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM), 1)

    def path(self, line: Line) -> str:
        """Return the points of a line, as the `points` of an SVG `polyline`."""
        return " ".join(f"{self.place_x(x)},{self.place_y(y)}" for x, y in line.points)


def axis_over(label: str, values: Sequence[float], *, low: float | None = None, whole: bool = False) -> Axis:
    """Return an axis over all values, from a round number to a round number.

    Args:
        label: the name of the quantity.
        values: at least one; all finite.
        low: the start; None for the round number at or below the smallest value.
        whole: whether all ticks are whole numbers.

    Returns:
        The axis.
    """
    least, most = min(values) if low is None else low, max(values)
    step = _round_step((most - least) / MAX_STEPS or 1.0)
    step = max(1.0, step) if whole else step
    first, last = math.floor(least / step + 1e-9), max(math.ceil(most / step - 1e-9), math.floor(least / step) + 1)
    return Axis(label, first * step, last * step, tuple(round(n * step, 10) for n in range(first, last + 1)))


def _round_step(least: float) -> float:
    """Return the first of … 1, 2, 5, 10, 20 … that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
