"""The learning curves of a run, as numbers: `vidpipe.runs.plots` and `vidpipe.report.page` draw them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vidpipe.runs.tables import Epoch

__all__ = ["Curve", "learning_curves"]

QUANTITIES = ("loss", "top1")
SUBSETS = ("train", "val")


@dataclass(frozen=True)
class Curve:
    """A quantity by epoch, on one subset, of one member of an ensemble."""

    quantity: str
    """`loss` or `top1`."""
    subset: str
    """`train` or `val`."""
    member: int
    points: tuple[tuple[int, float], ...]
    """At least one (epoch, value); the values are finite."""


def learning_curves(history: Sequence[Epoch]) -> tuple[Curve, ...]:
    """Return the curves of a history: loss before top-1, training before validation, then by member."""
    return tuple(_curves(history))


def _curves(history: Sequence[Epoch]) -> Iterator[Curve]:
    members = sorted({epoch.member for epoch in history})
    for quantity in QUANTITIES:
        for subset in SUBSETS:
            for member in members:
                values = [
                    (epoch.epoch, getattr(epoch, f"{subset}_{quantity}")) for epoch in history if epoch.member == member
                ]
                points = tuple((epoch, value) for epoch, value in values if value is not None and math.isfinite(value))
                if points:
                    yield Curve(quantity, subset, member, points)
