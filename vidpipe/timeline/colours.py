"""The colour of each class, the same on the page, in the strip and in the annotated copy."""

import colorsys
from collections.abc import Iterable, Mapping

from vidpipe.records import Timeline

__all__ = ["class_colours", "labels_of"]

_PALETTE = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#edc948"),
    *("#76b7b2", "#9c755f", "#ff9da7", "#86bc86", "#8c8cc8", "#a0a0a0"),
)
"""Tableau 10 and two more: distinguishable on white and on black."""
_GOLDEN_ANGLE = 0.61803398875


def labels_of(timelines: Iterable[Timeline]) -> list[str]:
    """Return all classes and labels of timelines: those of curves first, then others in order of appearance."""
    timelines = list(timelines)
    of_curves = (name for timeline in timelines if timeline.curve for name in timeline.curve.class_names)
    of_segments = (segment.label for timeline in timelines for segment in timeline.segments)
    return list(dict.fromkeys([*of_curves, *of_segments]))


def class_colours(labels: Iterable[str]) -> Mapping[str, str]:
    """Return a colour `#rrggbb` for each label, by its place in the list."""
    return {label: _colour(number) for number, label in enumerate(dict.fromkeys(labels))}


def _colour(number: int) -> str:
    if number < len(_PALETTE):
        return _PALETTE[number]
    lightness = (0.45, 0.6, 0.7)[number % 3]
    rgb = colorsys.hls_to_rgb(number * _GOLDEN_ANGLE % 1, lightness, 0.5)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)
