"""Masks of people: from a network's output, and as the pixels of a frame."""

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import PERSON, Detections

__all__ = ["MASK_THRESHOLD", "detections_of_mask", "people_mask"]

MASK_THRESHOLD = 0.5
"""From here on a pixel belongs to an object."""


def detections_of_mask(mask: NDArray[np.float32], height: int, width: int) -> Detections:
    """Return one mask of all people as detections.

    Args:
        mask: (h, w) how much each pixel belongs to a person, 0 to 1. It is resized to the frame.
        height: of the frame, in pixels.
        width: of the frame, in pixels.

    Returns:
        One object with the box around its pixels, or none where no pixel belongs to a person.
    """
    import torch

    small = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    resized = torch.nn.functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0].numpy()
    rows, columns = np.nonzero(resized[0] >= MASK_THRESHOLD)
    num_found = min(1, len(rows))
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if num_found else []
    return Detections(
        height,
        width,
        boxes=np.array(box, np.float32).reshape(num_found, 4),
        scores=resized.max(axis=(1, 2))[:num_found],
        classes=np.full(num_found, PERSON),
        masks=resized[:num_found],
    )


def people_mask(detections: Detections, min_score: float) -> NDArray[np.bool_]:
    """Return which pixels belong to some person.

    Args:
        detections: with masks.
        min_score: of the people to count.

    Returns:
        (H, W)
    """
    assert detections.masks is not None
    masks = detections.masks[detections.people(min_score)]  # (K, H, W)
    return np.asarray((masks >= MASK_THRESHOLD).any(axis=0))
