"""Three drawn figures who cross each other, and their true boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidpipe.demo.figures import Figure, Joints, Scene, draw, pose, random_figure

WIDTH, HEIGHT, FPS = 640, 360, 25
_FINER = 2
"""`draw` makes pictures smaller by this."""
_LAWN, _SHADE, _DARKEST = (150, 176, 130), 40, 60
"""The picture behind; how much darker a figure's shadow is, and how differently its colours are."""


def crossing_figures(
    seed: int, num_frames: int, *, only: Sequence[int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Yield frames (H, W, 3), all or some, and the boxes (3, 4) of the figures in pixels.

    Two figures walk to the right, one to the left.
    """
    random = np.random.default_rng(seed)
    figures = [replace(random_figure(random), height=float(random.uniform(0.5, 0.62))) for _ in range(3)]
    ends = [((-0.78, 0.86), (0.74, 0.9)), ((-0.7, 0.92), (0.78, 0.88)), ((-0.3, 0.95), (0.55, 0.96))]
    actions = ["walk_right", "walk_left", "walk_right"]
    for frame in range(num_frames) if only is None else only:
        phase = frame / (num_frames - 1)
        people = [
            (figure, end, pose(action, phase)) for figure, end, action in zip(figures, ends, actions, strict=True)
        ]
        picture = Image.new("RGB", (WIDTH, HEIGHT), _LAWN)
        for figure, end, joints in people:
            picture = _drawn(figure, end, joints, picture)
        yield np.array(picture), np.stack([_box(*one) for one in people])


def _drawn(figure: Figure, ends: tuple[tuple[float, float], ...], joints: Joints, behind: Image.Image) -> Image.Image:
    size = (WIDTH * _FINER, HEIGHT * _FINER)
    scene = Scene(behind.resize(size, Image.Resampling.NEAREST), Image.new("RGBA", size), *ends)
    return draw(figure, scene, joints)


def _box(figure: Figure, ends: tuple[tuple[float, float], ...], joints: Joints) -> NDArray[np.float64]:
    """The box around the pixels of a figure that stands alone, without its shadow."""
    alone = np.asarray(_drawn(figure, ends, joints, Image.new("RGB", (WIDTH, HEIGHT), _LAWN)), np.int64)
    change = np.array(_LAWN) - alone
    most, least = change.max(axis=2), change.min(axis=2)
    is_shadow = (least >= 0) & (most <= _SHADE + least) & (most < _DARKEST)
    rows, columns = np.nonzero((np.abs(change).max(axis=2) > 12) & ~is_shadow)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
