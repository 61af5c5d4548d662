"""Motion features without weights: histograms of optical flow and of its boundaries, by direction and place.

    window ──DIS flow──► (u, v) ──minus its median──► directions of (u, v)      histogram of flow
                                                  └─► directions of ∂u and ∂v   histograms of motion boundaries

Each cell of a grid gets three histograms, with a bin for each direction and one for the share of still pixels. Dalal,
Triggs & Schmid 2006; Wang et al. 2013; the flow: Kroeger et al. 2016, as OpenCV has it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_HISTOGRAMS", "FlowParameters", "compute_flow", "describe", "draw_flow"]

NUM_HISTOGRAMS = 3
"""Of flow, and of the boundaries of its horizontal and of its vertical part."""
MIN_SIDE_PIXELS = 16
"""DIS flow divides a picture into patches of 8 pixels at half the size."""
ROOT_OFFSET = 1e-3
"""Keeps the square root from magnifying the tiny differences between processors in almost empty bins."""

_Float = NDArray[np.float32]


@dataclass(frozen=True)
class FlowParameters:
    """All that changes a motion feature, apart from the size of the pictures.

    Raises:
        ValueError: a parameter is out of its range.
    """

    finest_scale: int = 1
    """Halvings of the picture at which DIS flow stops: its flow of the half picture is enlarged."""
    patch_stride: int = 4
    """Pixels between the patches that DIS flow matches."""
    iterations: int = 12
    """Steps of gradient descent for each patch."""
    grid: int = 3
    """Cells along each side of the picture."""
    num_directions: int = 8
    """Directions of a histogram, the first to the right, then clockwise in the picture."""
    still_pixels: float = 0.25
    """A pixel of this speed, in pixels a frame, counts as half still; at half of it fully, at 1.5 times not at all."""
    still_gradient: float = 0.1
    """The same for the boundaries of motion, in pixels a frame and pixel."""

    def __post_init__(self) -> None:
        if self.finest_scale < 0 or self.patch_stride < 1 or self.iterations < 1:
            raise ValueError(f"{self}: needs a finest scale of 0 or more, a stride and iterations of 1 or more")
        if self.grid < 1 or self.num_directions < 2:
            raise ValueError(f"{self}: needs a grid of 1 or more and 2 directions or more")
        if self.still_pixels <= 0 or self.still_gradient <= 0:
            raise ValueError(f"{self}: the speeds that count as half still must be above 0")

    @property
    def dim(self) -> int:
        """D, the size of a feature."""
        return NUM_HISTOGRAMS * self.grid**2 * (self.num_directions + 1)

    def as_dict(self) -> Mapping[str, Any]:
        """Return the parameters as they stand in a feature store's key."""
        return asdict(self)


DEFAULT = FlowParameters()


def compute_flow(first: NDArray[np.uint8], second: NDArray[np.uint8], parameters: FlowParameters = DEFAULT) -> _Float:
    """Compute the optical flow from one picture to the next.

    Args:
        first: (3, H, W) RGB, at least 16 pixels high and wide.
        second: the same at a later time.
        parameters: of DIS flow.

    Returns:
        (H, W, 2) how many pixels each pixel moves, to the right and down.

    Raises:
        ValueError: the pictures are too small, or differ in size.
    """
    return _flow_between(_dis(parameters), _gray(first), _gray(second))


def describe(windows: NDArray[np.uint8], parameters: FlowParameters = DEFAULT) -> _Float:
    """Describe the motion in windows of frames: the mean over each window's neighbouring frames.

    Speeds are in pixels from one frame to the next, so those of videos of different frame rates differ.

    The median of the flow is taken out first, for a camera that pans or shakes moves most pixels alike. What remains
    of a camera that zooms or turns, or passes close things, counts as motion; and if most of the picture moves, what
    stands still counts as moving the other way.

    Args:
        windows: (N, W, 3, H, W) uint8 RGB, W of 2 or more.
        parameters: what to compute.

    Returns:
        (N, D) float32: by histogram, row of cells, column of cells, and bin; each the square root of a share of pixels.

    Raises:
        ValueError: a window has a single frame, or its pictures are too small.
    """
    if windows.ndim != 5 or windows.shape[1] < 2 or windows.shape[2] != 3:
        raise ValueError(f"windows must have the shape (N, W, 3, H, W) with W of 2 or more, not {windows.shape}")
    dis = _dis(parameters)
    cell = _cells(windows.shape[3], windows.shape[4], parameters.grid)
    features = np.empty((len(windows), parameters.dim), np.float32)
    for feature, window in zip(features, windows, strict=True):
        frames = [_gray(frame) for frame in window]
        shares = [_shares(_flow_between(dis, *pair), cell, parameters) for pair in pairwise(frames)]
        feature[:] = _rooted(np.mean(shares, axis=0))
    return features


def draw_flow(flow: _Float, *, full_speed: float | None = None) -> NDArray[np.uint8]:
    """Draw a flow: hue is direction, brightness is speed; red moves right, green down and left, cyan left, violet up.

    Args:
        flow: (H, W, 2) in pixels, to the right and down.
        full_speed: the speed in pixels that has full brightness; None: the highest speed in this flow.

    Returns:
        (H, W, 3) uint8 RGB; still pixels are black.
    """
    speed, degrees = _polar(flow[..., 0], flow[..., 1], degrees=True)
    full_speed = float(speed.max()) if full_speed is None else full_speed
    value = np.clip(speed / full_speed, 0, 1) if full_speed > 0 else np.zeros_like(speed)
    hsv = np.stack([degrees % 360, np.ones_like(value), value], axis=2)  # (H, W, 3)
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


# One pair of frames


def _dis(parameters: FlowParameters) -> cv2.DISOpticalFlow:
    """DIS flow without variational refinement, whose result differs between processors by 1e-3 of a pixel."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dis.setFinestScale(parameters.finest_scale)
    dis.setPatchStride(parameters.patch_stride)
    dis.setGradientDescentIterations(parameters.iterations)
    dis.setVariationalRefinementIterations(0)
    return dis


def _gray(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W) RGB -> (H, W)"""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame.transpose(1, 2, 0)), cv2.COLOR_RGB2GRAY), np.uint8)


def _flow_between(dis: cv2.DISOpticalFlow, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> _Float:
    """(H, W) each -> (H, W, 2)"""
    if first.shape != second.shape or min(first.shape) < MIN_SIDE_PIXELS:
        raise ValueError(
            f"cannot compute the flow from {first.shape} to {second.shape} pixels; "
            f"both need the same size, at least {MIN_SIDE_PIXELS} pixels high and wide"
        )
    flow = dis.calc(first, second, None)  # type: ignore[call-overload]  # without a flow to start from
    return np.asarray(flow, np.float32)


def _shares(flow: _Float, cell: NDArray[np.int64], parameters: FlowParameters) -> NDArray[np.float64]:
    """The histograms of a flow (H, W, 2): (D,) shares of the pixels of a cell."""
    flow = flow - np.median(flow, axis=(0, 1)).astype(np.float32)
    horizontal, vertical = flow[..., 0], flow[..., 1]
    still = parameters.still_gradient
    histograms = [_histogram(horizontal, vertical, cell, parameters.still_pixels, parameters)]
    histograms += [_histogram(*_gradient(part), cell, still, parameters) for part in (horizontal, vertical)]
    return np.concatenate(histograms)


def _histogram(
    x: _Float, y: _Float, cell: NDArray[np.int64], still: float, parameters: FlowParameters
) -> NDArray[np.float64]:
    """Count the directions of a field of vectors (H, W) in each cell: (grid² · (directions + 1),), the last one still.

    A vector between two directions counts for both, by its angles to them, as one near `still` counts for moving and
    for still: a tiny change of the flow changes a count by little.
    """
    num_directions, num_cells = parameters.num_directions, int(cell[-1] + 1)
    num_bins = num_directions + 2  # an angle of almost 2π lies between bins N and N + 1, which are 0 and 1 again
    length, angle = _polar(x, y)
    moving = np.clip(length / still - 0.5, 0, 1).ravel()
    position = (angle * np.float32(num_directions / (2 * np.pi))).ravel()
    below = position.astype(np.int64)
    after = (position - below) * moving  # the part of the next direction
    first = cell * num_bins + below
    counts = np.bincount(first, moving - after, num_cells * num_bins)
    counts += np.bincount(first + 1, after, num_cells * num_bins)
    bins = counts.reshape(num_cells, num_bins) / np.bincount(cell)[:, None]
    bins[:, :2] += bins[:, num_directions:]
    bins[:, num_directions] = 1 - bins[:, :num_directions].sum(axis=1)
    return np.clip(bins[:, : num_directions + 1], 0, 1).ravel()


def _cells(height: int, width: int, grid: int) -> NDArray[np.int64]:
    """(H · W,) the number of each pixel's cell, row by row."""
    row, column = (np.arange(side) * grid // side for side in (height, width))
    return (row[:, None] * grid + column).ravel()


def _polar(x: _Float, y: _Float, *, degrees: bool = False) -> tuple[_Float, _Float]:
    """The length and angle of vectors; the angle grows from the right downwards."""
    length, angle = cv2.cartToPolar(np.ascontiguousarray(x), np.ascontiguousarray(y), angleInDegrees=degrees)
    return cast(_Float, length), cast(_Float, angle)


def _gradient(part: _Float) -> tuple[_Float, _Float]:
    """Central differences along x and y."""
    down, right = np.gradient(part)
    return cast(_Float, right), cast(_Float, down)


def _rooted(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """√x, less steep at 0; 0 stays 0 and 1 stays about 1."""
    root: NDArray[np.float64] = np.sqrt(shares + ROOT_OFFSET) - np.sqrt(ROOT_OFFSET)
    return root
