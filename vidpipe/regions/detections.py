"""What a detector finds in a frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COCO_IDS", "FACE", "NUM_KEY_POINTS", "PERSON", "Detections"]

PERSON = 1
"""The class of people; classes are COCO's category ids, 1 to 90."""
FACE = 91
"""The class of faces, which COCO does not have."""
COCO_IDS = tuple(number for number in range(1, 91) if number not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""The category ids of COCO's 80 classes, in order; ten ids from 1 to 90 have no objects."""
NUM_KEY_POINTS = 17
"""COCO's: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right."""


@dataclass(frozen=True)
class Detections:
    """What a detector finds in one frame: K objects, in the detector's order, also those of low score.

    Raises:
        ValueError: the shapes do not fit.
    """

    height: int
    """H of the frame in pixels."""
    width: int
    """W of the frame in pixels."""
    boxes: NDArray[np.float32]
    """(K, 4) left, top, right and bottom, in pixels."""
    scores: NDArray[np.float32]
    """(K,) 0 to 1."""
    classes: NDArray[np.int64]
    """(K,) COCO's category ids, or `FACE`."""
    key_points: NDArray[np.float32] | None = None
    """(K, 17, 3) x and y in pixels, and the score that the detector gives; None where it finds no key points."""
    masks: NDArray[np.float32] | None = None
    """(K, H, W) how much each pixel belongs to the object, 0 to 1; None where it finds no masks."""

    def __post_init__(self) -> None:
        shapes = {"boxes": (len(self), 4), "scores": (len(self),), "classes": (len(self),)}
        if self.key_points is not None:
            shapes["key_points"] = (len(self), NUM_KEY_POINTS, 3)
        if self.masks is not None:
            shapes["masks"] = (len(self), self.height, self.width)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} of {self!r} are {shape}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"Detections(K={len(self)}, H={self.height}, W={self.width})"

    def people(self, min_score: float) -> NDArray[np.bool_]:
        """Return which of the objects are people of at least this score, (K,)."""
        found: NDArray[np.bool_] = (self.classes == PERSON) & (self.scores >= min_score)
        return found
