"""The box around all people of a clip, steady through the clip."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import Detections

__all__ = ["WHOLE_PICTURE", "people_region", "squares_in_picture"]

WHOLE_PICTURE = np.array([0, 0, 1, 1], np.float32)
"""x, y, width and height."""


def people_region(frames: Sequence[Detections], *, min_score: float, margin: float) -> NDArray[np.float32]:
    """Return a square around all people that are found in some frames of a clip.

        ┌───────────┐   the square: the longer side of the box, and a margin on both sides of it
        │  ┌─────┐  │
        │  │ box │  │   where the picture ends, the square is moved inward, or cut to the picture's height or width
        │  └─────┘  │
        └───────────┘

    Args:
        frames: what is found in each frame; all have the same size.
        min_score: people with a lower score do not count.
        margin: on each side, as a share of the box's longer side.

    Returns:
        (4,) x, y, width and height as fractions of the picture; the whole picture where nobody is found.
    """
    boxes = np.concatenate([one.boxes[one.people(min_score)] for one in frames])  # (K, 4)
    if not len(boxes):
        return WHOLE_PICTURE
    picture = np.array([frames[0].width, frames[0].height], np.float64)
    corner, stop = boxes[:, :2].min(axis=0).clip(0, picture), boxes[:, 2:].max(axis=0).clip(0, picture)
    if (stop <= corner).any():
        return WHOLE_PICTURE
    sides = np.array([(stop - corner).max() * (1 + 2 * margin)])
    region: NDArray[np.float32]
    (region,) = squares_in_picture((corner + stop)[None] / 2, sides, (frames[0].width, frames[0].height))
    return region


def squares_in_picture(
    centres: NDArray[np.float64], sides: NDArray[np.float64], picture: tuple[int, int]
) -> NDArray[np.float32]:
    """Return squares as regions: moved inward where the picture ends, or cut to its height or width.

    Args:
        centres: (N, 2) x and y in pixels.
        sides: (N,) pixels.
        picture: width and height in pixels.

    Returns:
        (N, 4) x, y, width and height as fractions of the picture.
    """
    whole = np.array(picture, np.float64)
    size = np.clip(sides[:, None], 1, whole)  # (N, 2)
    start = np.clip(centres - size / 2, 0, whole - size)
    fractions = (start / whole).astype(np.float32)
    return np.concatenate([fractions, np.minimum((size / whole).astype(np.float32), 1 - fractions)], axis=1)
