"""Frames of any form in a square picture: resized, centred, and grey beside it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.video.resize import resize

__all__ = ["Letterbox"]

_GREY = 127
"""0.5, as in Darknet."""


@dataclass(frozen=True)
class Letterbox:
    """Where the frames of a video lie in a square picture, all in pixels."""

    height: int
    """Of the frame."""
    width: int
    """Of the frame."""
    size: int
    """The side of the square."""
    inner_height: int
    """Of the resized frame."""
    inner_width: int
    """Of the resized frame."""

    @classmethod
    def of(cls, height: int, width: int, size: int) -> Self:
        """Fit a frame of this height and width into a square of side `size`."""
        scale = size / max(height, width)
        return cls(height, width, size, max(1, round(height * scale)), max(1, round(width * scale)))

    @property
    def top(self) -> int:
        """The rows above the frame."""
        return (self.size - self.inner_height) // 2

    @property
    def left(self) -> int:
        """The columns left of the frame."""
        return (self.size - self.inner_width) // 2

    def pictures(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return frames as square pictures: (N, 3, H, W) -> (N, 3, size, size)."""
        found = np.full((len(frames), 3, self.size, self.size), _GREY, np.uint8)
        inner = resize(frames.transpose(0, 2, 3, 1), (self.inner_height, self.inner_width), "bilinear")
        found[:, :, self.top : self.top + self.inner_height, self.left : self.left + self.inner_width] = inner
        return found

    def to_square(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes of the frame in the square: (K, 4) -> (K, 4), left, top, right and bottom."""
        return boxes * self._scale() + self._offset()

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return boxes of the square in the frame, clipped to it: (K, 4) -> (K, 4)."""
        limits = np.array([self.width, self.height] * 2, np.float32)
        return ((boxes - self._offset()) / self._scale()).clip(0, limits)

    def _scale(self) -> NDArray[np.float32]:
        return np.array([self.inner_width / self.width, self.inner_height / self.height] * 2, np.float32)

    def _offset(self) -> NDArray[np.float32]:
        return np.array([self.left, self.top] * 2, np.float32)
