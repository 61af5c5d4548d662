"""The boxes, masks and key points of the demo's figures, as COCO JSON: they are drawn, so they are known exactly."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.demo.figures import ACTIONS, Figure, Joints, Scene, draw_mask, place_joints
from vidpipe.demo.videos import demo_groups
from vidpipe.regions.detections import NUM_KEY_POINTS, PERSON, Detections
from vidpipe.regions.training.coco import KEY_POINTS, FrameName, as_coco, write_coco

__all__ = ["EVERY", "annotate_figure", "write_demo_annotations"]

EVERY = 4
"""Each frame whose number is a multiple of this is annotated."""


def write_demo_annotations(path: Path, *, num_groups: int, seed: int = 0) -> None:
    """Write the boxes, masks and key points in every fourth frame of the demo's videos.

    Args:
        path: the file.
        num_groups: as for `write_demo_videos`.
        seed: as for `write_demo_videos`.

    Raises:
        UsageError: fewer than 3 groups, or pycocotools is not installed.
        VidpipeError: the file cannot be written.
    """
    write_coco(path, as_coco(_frames(num_groups, seed), {PERSON: "person"}, scores=False))


def _frames(num_groups: int, seed: int) -> Iterator[tuple[FrameName, Detections]]:
    for group in demo_groups(num_groups, seed):
        annotate = cache(partial(annotate_figure, group.figure, group.scene))
        for action in ACTIONS:
            for index, joints in enumerate(group.joints(action)):
                if index % EVERY == 0:
                    yield FrameName(group.video(action), index), annotate(joints)


def annotate_figure(figure: Figure, scene: Scene, joints: Joints) -> Detections:
    """Return what a perfect detector finds in `draw`'s picture.

    Returns:
        One figure: its mask without its shadow, the box around the mask, and those of COCO's key points that it has,
        all but the nose and the ears. Their third value is 2 where the figure is seen, 1 where something hides it.
    """
    mask = draw_mask(figure, scene, joints)
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return Detections(
        height,
        width,
        boxes=np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32),
        scores=np.ones(1, np.float32),
        classes=np.array([PERSON]),
        key_points=_key_points(figure, scene, joints, mask),
        masks=mask[None].astype(np.float32),
    )


def _key_points(figure: Figure, scene: Scene, joints: Joints, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(1, 17, 3)"""
    points = np.zeros((1, NUM_KEY_POINTS, 3), np.float32)
    for name, (x, y) in place_joints(figure, scene, joints).items():
        if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]:
            points[0, KEY_POINTS.index(name)] = x, y, 2 if mask[int(y), int(x)] else 1
    return points
