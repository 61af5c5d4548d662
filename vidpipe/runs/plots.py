"""Plots as PNG, by matplotlib: the learning curves, the confusion matrix, and frames of videos with predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.axes
import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from vidpipe.runs.confusion import ConfusionMatrix
from vidpipe.runs.curves import learning_curves
from vidpipe.runs.tables import Epoch
from vidpipe.version import __version__

__all__ = ["PNG_METADATA", "Filmstrip", "plot_confusion", "plot_filmstrips", "plot_history"]

PNG_METADATA = {"Software": f"vidpipe {__version__}"}
"""Marks a PNG file as written by vidpipe, which a command may overwrite."""
TITLES = {"loss": "loss", "top1": "top-1 accuracy"}
MAX_CLASSES_WITH_COUNTS = 30


def plot_history(path: Path, history: Sequence[Epoch]) -> None:
    """Plot loss and accuracy by epoch as PNG, of the first member of an ensemble; a single epoch is a point."""
    figure = matplotlib.figure.Figure(figsize=(8, 3.2), layout="constrained")
    curves = [curve for curve in learning_curves(history) if curve.member == 0]
    several = len({curve.name for curve in curves}) > 1
    for axes, (quantity, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        for curve in (curve for curve in curves if curve.quantity == quantity):
            marker = "o" if len(curve.points) == 1 else None
            label = f"{curve.name}, {curve.subset}" if several else curve.subset
            axes.plot(*zip(*curve.points, strict=True), label=label, marker=marker)
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150, metadata=PNG_METADATA)


def plot_confusion(path: Path, confusion: Sequence[Sequence[int]], class_names: Sequence[str], title: str) -> None:
    """Plot a confusion matrix as PNG: a row per label, a column per predicted class, shaded by the row's shares."""
    matrix = ConfusionMatrix.from_counts(confusion, class_names)
    num_classes = len(class_names)
    side = min(24.0, 2.5 + 0.45 * num_classes)
    figure = matplotlib.figure.Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix.shares, cmap="Blues", vmin=0, vmax=1)
    font_size = 9 if num_classes <= MAX_CLASSES_WITH_COUNTS else 5
    places = range(num_classes)
    axes.set_xticks(places, class_names, rotation=90 if num_classes > 6 else 30, fontsize=font_size, parse_math=False)
    axes.set_yticks(places, class_names, fontsize=font_size, parse_math=False)
    axes.set_title(title, parse_math=False)
    axes.set(xlabel="predicted", ylabel="label")
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        for row, column in np.argwhere(matrix.counts):
            colour = "white" if matrix.shares[row, column] > 0.5 else "black"
            count = str(matrix.counts[row, column])
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=font_size)
    figure.colorbar(image, shrink=0.8, label="share of the label's videos")
    figure.savefig(path, dpi=150, metadata=PNG_METADATA)


@dataclass(frozen=True)
class Filmstrip:
    """The frames of a video and what is predicted for it."""

    label: str
    frames: NDArray[np.uint8]
    """(T, H, W, 3)"""
    predicted: Sequence[str]
    """Most probable first."""
    probabilities: Sequence[float]


def plot_filmstrips(path: Path, filmstrips: Sequence[Filmstrip]) -> None:
    """Plot videos as PNG: a row of frames each, with the most probable classes as bars."""
    columns = max(len(strip.frames) for strip in filmstrips)
    figure = matplotlib.figure.Figure(figsize=(1.0 * columns + 3.4, 0.95 * len(filmstrips)), layout="constrained")
    grid = figure.subplots(
        len(filmstrips), columns + 1, squeeze=False, gridspec_kw={"width_ratios": [1] * columns + [2.2]}
    )
    for row, strip in zip(grid, filmstrips, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, frame in zip(row, strip.frames, strict=False):
            axes.imshow(_square(frame))
        row[0].text(-0.08, 0.5, strip.label, transform=row[0].transAxes, ha="right", va="center", parse_math=False)
        _plot_bars(row[-1], strip)
    figure.savefig(path, dpi=100, metadata=PNG_METADATA)


def _square(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle square of a frame, (H, W, 3) -> (S, S, 3)."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frame[top : top + side, left : left + side]


def _plot_bars(axes: matplotlib.axes.Axes, strip: Filmstrip) -> None:
    places = range(len(strip.predicted))
    colours = ["tab:green" if name == strip.label else "tab:gray" for name in strip.predicted]
    axes.barh(places, strip.probabilities, color=colours, alpha=0.45)
    axes.set(xlim=(0, 1), ylim=(2.7, -0.7))
    for place, name, probability in zip(places, strip.predicted, strip.probabilities, strict=True):
        axes.text(0.03, place, f"{name}  {probability:.0%}", va="center", fontsize=9, parse_math=False)
