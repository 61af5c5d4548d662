"""The learning curves of a run, as numbers: `vidpipe.runs.plots` and `vidpipe.report.page` draw them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidpipe.runs.tables import Epoch

__all__ = ["Curve", "learning_curves"]

QUANTITIES = ("loss", "top1")
SUBSETS = ("train", "val")


@dataclass(frozen=True)
class Curve:
    """A quantity by epoch, on one subset, of one head."""

    quantity: str
    """`loss` or `top1`."""
    subset: str
    """`train` or `val`."""
    name: str
    """`flow/lstm`; the head's name alone, or nothing, in runs with one head."""
    member: int
    """Number of the head in an ensemble."""
    points: tuple[tuple[int, float], ...]
    """At least one (epoch, value); the values are finite."""


def learning_curves(history: Sequence[Epoch]) -> tuple[Curve, ...]:
    """Return the curves of a history: loss before top-1, training before validation, then by head.

    Where a head has several epochs, those that are fitted in one step have no curves.
    """
    by_head: dict[tuple[str, int], list[Epoch]] = {}
    for epoch in history:
        by_head.setdefault((epoch.name, epoch.member), []).append(epoch)
    most = max(map(len, by_head.values()), default=0)
    return tuple(_curves({key: epochs for key, epochs in by_head.items() if len(epochs) > 1 or most == 1}))


def _curves(by_head: Mapping[tuple[str, int], Sequence[Epoch]]) -> Iterator[Curve]:
    for quantity in QUANTITIES:
        for subset in SUBSETS:
            for (name, member), epochs in by_head.items():
                values = [(epoch.epoch, getattr(epoch, f"{subset}_{quantity}")) for epoch in epochs]
                points = tuple((epoch, value) for epoch, value in values if value is not None and math.isfinite(value))
                if points:
                    yield Curve(quantity, subset, name, member, points)
