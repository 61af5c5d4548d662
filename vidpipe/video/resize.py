"""Pictures at a backbone's input size: uint8 with antialiasing, exactly as torchvision's transforms make them."""

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.records import Preprocessing
from vidpipe.video.crop import plan_crop

__all__ = ["crop_to_region", "paint_over", "resize", "resize_and_crop"]


def crop_to_region(frame: NDArray[np.uint8], region: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a region of a frame, at least one pixel wide and high; a view, not a copy.

    Args:
        frame: (H, W, 3)
        region: (4,) x, y, width and height as fractions of the frame, 0 to 1. Its edges are rounded to whole pixels.

    Returns:
        (H', W', 3)
    """
    x, y, width, height = region.tolist()
    columns, rows = _pixels(x, width, frame.shape[1]), _pixels(y, height, frame.shape[0])
    return frame[rows, columns]


def _pixels(start: float, length: float, num_pixels: int) -> slice:
    first = min(round(start * num_pixels), num_pixels - 1)
    return slice(first, max(first + 1, round((start + length) * num_pixels)))


def paint_over(frames: NDArray[np.uint8], hidden: NDArray[np.bool_], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return frames whose hidden pixels have the mean colour that the preprocessing subtracts.

    Args:
        frames: (N, H, W, 3)
        hidden: (N, H, W)
        preprocessing: of the backbone.

    Returns:
        (N, H, W, 3), a copy.
    """
    colour = np.rint(255 * np.array(preprocessing.mean)).astype(np.uint8)
    return np.where(hidden[..., None], colour, frames)


def resize_and_crop(frames: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize as the preprocessing says, then crop the centre: (N, H, W, 3) -> (N, 3, *preprocessing.size)."""
    crop = plan_crop(frames.shape[1], frames.shape[2], preprocessing)
    kept = frames[(slice(None), *(slice(cut, -cut or None) for cut in crop.margin))]
    resized = resize(kept, crop.size, preprocessing.interpolation, antialias=preprocessing.antialias)
    (top, left), (height, width) = crop.start, preprocessing.size
    return resized[:, :, top : top + height, left : left + width]


def resize(
    frames: NDArray[np.uint8], size: tuple[int, int], interpolation: str, *, antialias: bool = True
) -> NDArray[np.uint8]:
    """Resize pictures to `size`, (height, width): (N, H, W, 3) -> (N, 3, *size)."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    if size == tuple(pixels.shape[2:]):
        return pixels.numpy()
    if antialias:
        return torch.nn.functional.interpolate(pixels, size, mode=interpolation, antialias=True).numpy()
    # Without antialiasing, torch rounds uint8 down; torchvision computes in float32 and rounds to the nearest.
    resized = torch.nn.functional.interpolate(pixels.float(), size, mode=interpolation, align_corners=False)
    return resized.round_().clamp_(0, 255).byte().numpy()
