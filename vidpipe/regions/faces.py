"""The faces of a video: who they are of, where they are, and the regions that a backbone sees of them.

faces  ──► boxes three times as large ──► linked like people ──► tracks ──► a region where the face was found
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import FACE, PERSON, Detections
from vidpipe.regions.linking import LINK_SETTINGS, Track, link_people, select_people
from vidpipe.regions.spec import DetectorSpec

__all__ = ["FACE_SETTINGS", "HEAD_SETTINGS", "face_regions_at", "faces_of", "heads_of", "link_faces"]

MARGIN = 14 / (160 - 14)
"""Of both sides of a box together, as a share of it: what facenet-pytorch has in its evaluation on LFW."""
LINK_SCALE = 3.0
"""Boxes are enlarged by this before they are linked: the filter's speeds are in heights of people."""
MIN_POINT_SCORE = 0.3
"""Of the nose and an eye, where a head is known by its key points."""
MIN_SIDE = 20.0
"""Pixels of the width of a face that is known by its key points: these are also found where a head has few pixels."""
_NOSE, _EYES, _EARS = 0, [1, 2], [3, 4]
"""Places in COCO's key points."""
_EYES_TO_WIDTH, _EARS_TO_WIDTH, _NOSE_TO_EAR_TO_WIDTH = 2.0, 0.9, 1.4
"""The width of MTCNN's box, in distances of key points. The largest counts: from the side the others are short."""
_HEIGHT, _DOWN = 1.24, 0.06
"""In widths: the height of MTCNN's box, and how far its centre is below the mean of the key points."""

FACE_SETTINGS = LINK_SETTINGS | {
    "margin": round(MARGIN, 6),
    "link_scale": LINK_SCALE,
}
"""What changes a region, for a store's key."""
HEAD_SETTINGS = {"min_point_score": MIN_POINT_SCORE, "min_side": MIN_SIDE, "heads": "points-1"}
"""The same, where faces are known by key points."""


def faces_of(found: Detections, spec: DetectorSpec) -> Detections:
    """Return the faces in what a detector finds in a frame.

    Args:
        found: what it finds.
        spec: the detector; without faces of its own, it has key points.

    Returns:
        The faces: boxes and scores.
    """
    if found.key_points is None:
        kept = np.flatnonzero(found.classes == FACE)
        boxes = found.boxes[kept]
    else:
        points = found.key_points.astype(np.float32)  # (K, 17, 3)
        if spec.has_logits:
            points[..., 2] = 1 / (1 + np.exp(-points[..., 2]))
        boxes, is_seen = heads_of(points)
        kept = np.flatnonzero(is_seen & (found.classes == PERSON))
        boxes = boxes[kept]
    return Detections(found.height, found.width, boxes, found.scores[kept], np.full(len(kept), FACE))


def heads_of(key_points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return boxes around faces as MTCNN would draw them, from the key points of heads.

    Args:
        key_points: (K, 17, 3) COCO's: x and y in pixels, and the score, 0 to 1.

    Returns:
        (K, 4) boxes, and (K,) whether the face is seen: the nose, an eye and a third point, at a width of 20 pixels.
    """
    points, seen = key_points[:, :5, :2], key_points[:, :5, 2] >= MIN_POINT_SCORE  # (K, 5, 2), (K, 5)
    is_seen = seen[:, _NOSE] & seen[:, _EYES].any(axis=1) & (seen.sum(axis=1) >= 3)
    pairs = [
        (_EYES, _EYES_TO_WIDTH),
        (_EARS, _EARS_TO_WIDTH),
        *(([_NOSE, ear], _NOSE_TO_EAR_TO_WIDTH) for ear in _EARS),
    ]
    widths = [
        np.where(seen[:, pair].all(axis=1), np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=1) * factor, 0)
        for pair, factor in pairs
    ]
    width = np.max(widths, axis=0)[:, None]  # (K, 1)
    count = seen.sum(axis=1, keepdims=True).clip(1)
    is_seen &= width[:, 0] >= MIN_SIDE
    centres = (points * seen[..., None]).sum(axis=1) / count + width * [0, _DOWN]
    half = width * [0.5, 0.5 * _HEIGHT]
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32), is_seen


def link_faces(
    frames: Sequence[Detections], pts_seconds: NDArray[np.float64], *, min_score: float
) -> tuple[Track, ...]:
    """Link faces into tracks, and drop those that `select_people` drops.

    Args:
        frames: the faces in the G frames of the grid.
        pts_seconds: (G,) their presentation times, increasing.
        min_score: of a face that starts a track.

    Returns:
        A track for each person, in the order of appearance.
    """
    people = [
        replace(found, boxes=_scaled(found.boxes, LINK_SCALE), classes=np.full(len(found), PERSON)) for found in frames
    ]
    tracks = select_people(link_people(people, pts_seconds, min_score=min_score), pts_seconds)
    return tuple(replace(track, boxes=_scaled(track.boxes, 1 / LINK_SCALE)) for track in tracks)


def face_regions_at(
    track: Track, grid_seconds: NDArray[np.float64], seconds: NDArray[np.float64], picture: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the regions of a face at some times: its box with a margin, where the face is seen in the nearest frame.

    Args:
        track: the face.
        grid_seconds: (G,) the presentation times of the grid.
        seconds: (T,) the times, in order.
        picture: width and height of a frame in pixels.

    Returns:
        (n,) at which of the times the face is seen, and (n, 4) x, y, width and height of the regions then, as fractions
        of the picture.
    """
    is_found = np.zeros(len(grid_seconds), np.bool_)
    is_found[track.first : track.stop] = track.is_found
    nearest = np.searchsorted((grid_seconds[1:] + grid_seconds[:-1]) / 2, seconds)
    there = np.flatnonzero(is_found[nearest])
    its_seconds = grid_seconds[track.first : track.stop]
    boxes = np.stack([np.interp(seconds[there], its_seconds, edge) for edge in track.boxes.T], axis=1)
    whole = np.array(picture, np.float64)
    grown = _scaled(boxes, 1 + MARGIN) / np.tile(whole, 2)
    start = grown[:, :2].clip(0, 1 - 1 / whole).astype(np.float32)
    size = (grown[:, 2:].clip(0, 1) - start).clip(1 / whole).astype(np.float32)
    return there, np.concatenate([start, np.minimum(size, 1 - start)], axis=1)


def _scaled(boxes: NDArray[np.floating[Any]], factor: float) -> NDArray[Any]:
    """(K, 4) -> (K, 4) the boxes, larger or smaller around their centres"""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * factor
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(boxes.dtype)
