"""Masks of people: from a network's output, and as the pixels of a frame."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import PERSON, Detections

__all__ = ["MASK_THRESHOLD", "detections_of_mask", "detections_of_masks", "people_mask", "people_probability"]

MASK_THRESHOLD = 0.5
"""From here on a pixel belongs to an object."""


def detections_of_masks(masks: Mapping[int, NDArray[np.float32]], height: int, width: int) -> Detections:
    """Return one mask of each class as detections.

    Args:
        masks: by class, (h, w) how much each pixel belongs to it, 0 to 1. At least one class.
        height: of the frame, in pixels.
        width: of the frame, in pixels.

    Returns:
        One object for each class that some pixel belongs to.
    """
    found = [detections_of_mask(mask, height, width, class_id=class_id) for class_id, mask in masks.items()]
    return Detections(
        height,
        width,
        boxes=np.concatenate([one.boxes for one in found]),
        scores=np.concatenate([one.scores for one in found]),
        classes=np.concatenate([one.classes for one in found]),
        masks=np.concatenate([one.masks for one in found if one.masks is not None]),
    )


def detections_of_mask(mask: NDArray[np.float32], height: int, width: int, *, class_id: int = PERSON) -> Detections:
    """Return one mask of all objects of a class as detections.

    Args:
        mask: (h, w) how much each pixel belongs to the class, 0 to 1. It is resized to the frame.
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        class_id: the class.

    Returns:
        One object with the box around its pixels, or none where no pixel belongs to the class.
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
        classes=np.full(num_found, class_id),
        masks=resized[:num_found],
    )


def people_probability(detections: Detections, min_score: float) -> NDArray[np.float32]:
    """Return how much each pixel belongs to some person.

    Args:
        detections: with masks.
        min_score: of the people to count.

    Returns:
        (H, W) 0 to 1; 0 everywhere where nobody is found.
    """
    assert detections.masks is not None
    masks = detections.masks[detections.people(min_score)]  # (K, H, W)
    return np.asarray(masks.max(axis=0, initial=0))


def people_mask(detections: Detections, min_score: float) -> NDArray[np.bool_]:
    """Return which pixels belong to some person.

    Args:
        detections: with masks.
        min_score: of the people to count.

    Returns:
        (H, W)
    """
    return people_probability(detections, min_score) >= MASK_THRESHOLD
