"""What heads see of the stream `pose`: two people, each in a frame of reference that looks at the other.

    key points (T, 336) ─► tracks ─► the two main people ─► gaps filled ─► relative to the body, towards the other
                       ─► mean and difference of the two people, and what is between them (T, 68)

It depends neither on where the people are in the picture, nor on their size, nor on who stands on the left: a clip and
its mirror image have the same description. Nothing is learned, and a sequence is described as a whole, so the two
people of a window of a timeline are those of the window.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import POSE_NUMBERS, POSE_PEOPLE, POSE_POINTS

__all__ = ["POSE_DIM", "describe_people"]

_Float = NDArray[np.float64]

MIN_PERSON_SCORE = 0.05
"""A person who is blurred or half hidden has a low score; a track of them counts less than one of high scores."""
MIN_POINT_SCORE = 0.1
MAX_STEP = 1.0
"""How far the key points of a person move on average between two frames, in heights of the person."""
MIN_HEIGHT = 0.02
"""Of a person, as a share of the picture's longer side."""
NOSE, WRISTS, ANKLES = 0, (9, 10), (15, 16)
LEFT, RIGHT = (5, 7, 9, 11, 13, 15), (6, 8, 10, 12, 14, 16)
"""Shoulders, elbows, wrists, hips, knees and ankles."""
TORSO = (5, 6, 11, 12)
_BODY_DIM = 2 * (1 + len(LEFT) + len(RIGHT))
_PERSON_DIM = _BODY_DIM + 2 + 4
"""Of each person: x and y of the key points, how well they are seen, and four distances to the other one."""
_PAIR_DIM = 4
POSE_DIM = 2 * _PERSON_DIM + _PAIR_DIM
"""P, the numbers of a row."""


@dataclass(frozen=True)
class _Pair:
    """The two main people of a sequence, without gaps."""

    points: _Float
    """(2, T, 17, 2) x and y; zeros of a person who is not there at all."""
    scores: _Float
    """(2, T, 17) of the key points; 0 where the person is not found."""
    found: NDArray[np.bool_]
    """(2, T)"""
    height: float
    """The mean of the two, each the median over time; 1 where there is nobody."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """(2,) who is found in some frame."""
        return np.asarray(self.found.any(axis=1))


def describe_people(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Describe what two people do.

    Args:
        rows: (T, 336) key points of up to six people in each frame; see `vidpipe.records.POSE_NUMBERS`.

    Returns:
        (T, 68), of a person who is not found zeros.
    """
    pair = _main_pair(np.asarray(rows, np.float64).reshape(-1, POSE_PEOPLE, POSE_NUMBERS))
    forward = _directions(pair)  # (2,) 1 where the other one is on the right, else -1
    bodies = _bodies(pair, forward)  # (2, T, _BODY_DIM)
    seen = np.stack([pair.found, pair.scores.mean(axis=2)], axis=2)  # (2, T, 2)
    reach, between = _relations(pair, forward)
    one, other = np.concatenate([bodies, seen, reach], axis=2)  # (T, _PERSON_DIM) each
    return np.concatenate([(one + other) / 2, np.abs(one - other), between], axis=1).astype(np.float32)


# Who is who


def _main_pair(people: _Float) -> _Pair:
    """Follow people (T, 6, 56) over time, and keep the two that are largest, surest and longest there."""
    num_frames = len(people)
    tracks = sorted(_tracks(people), key=_weight, reverse=True)[:2]
    points = np.zeros((2, num_frames, POSE_POINTS, 2))
    scores, found = np.zeros((2, num_frames, POSE_POINTS)), np.zeros((2, num_frames), np.bool_)
    heights = []
    for number, track in enumerate(tracks):
        at, its = np.array(list(track)), np.stack(list(track.values()))
        its_points = its[:, : 3 * POSE_POINTS].reshape(-1, POSE_POINTS, 3)
        found[number, at], scores[number, at] = True, its_points[..., 2]
        points[number] = _without_gaps(its_points, at, num_frames)
        heights.append(max(float(np.median(its[:, -2] - its[:, -4])), MIN_HEIGHT))
    return _Pair(points, scores, found, float(np.mean(heights)) if heights else 1.0)


def _tracks(people: _Float) -> list[dict[int, _Float]]:
    """Link the people of neighbouring frames: tracks that have a row (56,) of each frame in which the person is found.

    A person who is lost is looked for where they were last.
    """
    from scipy.optimize import linear_sum_assignment

    tracks: list[dict[int, _Float]] = []
    for frame, rows in enumerate(people):
        rows = rows[rows[:, -1] >= MIN_PERSON_SCORE]
        is_new = np.ones(len(rows), np.bool_)
        if tracks and len(rows):
            steps = _steps(np.stack([list(track.values())[-1] for track in tracks]), rows)
            for track, row in zip(*linear_sum_assignment(steps.clip(max=MAX_STEP)), strict=True):
                if steps[track, row] < MAX_STEP:
                    tracks[track][frame] = rows[row]
                    is_new[row] = False
        tracks += [{frame: row} for row in rows[is_new]]
    return tracks


def _steps(before: _Float, after: _Float) -> _Float:
    """(A, 56), (B, 56) -> (A, B) the mean distance of key points, in heights of the larger of the two people."""
    ours, theirs = (one[:, : 3 * POSE_POINTS].reshape(-1, POSE_POINTS, 3)[..., :2] for one in (before, after))
    distance: _Float = np.linalg.norm(ours[:, None] - theirs[None], axis=3).mean(axis=2)
    sides = np.maximum(_sides(before)[:, None], _sides(after)[None])
    return np.asarray(distance / sides.clip(min=MIN_HEIGHT))


def _sides(rows: _Float) -> _Float:
    """(N, 56) -> (N,) the longer side of each box."""
    left, top, right, bottom = rows[:, -5:-1].T
    return np.asarray(np.maximum(right - left, bottom - top))


def _weight(track: dict[int, _Float]) -> float:
    rows = np.stack(list(track.values()))
    return float((_sides(rows) * rows[:, -1]).sum())


def _without_gaps(points: _Float, at: NDArray[np.int64], num_frames: int) -> _Float:
    """Interpolate key points (n, 17, 3) of the frames `at` (n,) over all frames: (T, 17, 2).

    A key point is taken from the frames where it is sure; the detector's guess stands for one that never is.
    """
    filled = np.empty((num_frames, POSE_POINTS, 2))
    for number in range(POSE_POINTS):
        sure = points[:, number, 2] >= MIN_POINT_SCORE
        sure = sure if sure.any() else np.ones_like(sure)
        for axis in range(2):
            filled[:, number, axis] = np.interp(np.arange(num_frames), at[sure], points[sure, number, axis])
    return filled


# What they do


def _centres(pair: _Pair) -> _Float:
    """(2, T, 2) of the torsos."""
    return np.asarray(pair.points[:, :, TORSO].mean(axis=2))


def _directions(pair: _Pair) -> _Float:
    """(2,) where each one's partner is on average: 1 on the right, -1 on the left."""
    left, right = _centres(pair)[..., 0].mean(axis=1)
    return np.array([1.0, -1.0]) if not pair.present.all() or right >= left else np.array([-1.0, 1.0])


def _bodies(pair: _Pair, forward: _Float) -> _Float:
    """The key points of each person from the torso's centre, in heights: (2, T, _BODY_DIM).

    x grows towards the other one. Of two limbs, the one in front stands first, whether it is left or right.
    """
    points = (pair.points - _centres(pair)[:, :, None]) / pair.height  # (2, T, 17, 2)
    points[..., 0] *= forward[:, None, None]
    points[~pair.present] = 0
    left, right = points[:, :, LEFT], points[:, :, RIGHT]
    left_is_behind = (left[..., 0] < right[..., 0])[..., None]
    front, behind = np.where(left_is_behind, right, left), np.where(left_is_behind, left, right)
    return np.concatenate([points[:, :, [NOSE]], front, behind], axis=2).reshape(2, len(points[0]), -1)


def _relations(pair: _Pair, forward: _Float) -> tuple[_Float, _Float]:
    """What is between the people, in heights: of each one (2, T, 4), and of both (T, 4).

    Of each: how near the wrists and ankles come to the other's body, the nearer of the two first. Of both: the distance
    of the centres along x, along y and in the plane, and that of the nearest key points.
    """
    num_frames = pair.points.shape[1]
    if not pair.present.all():
        return np.zeros((2, num_frames, _PERSON_DIM - _BODY_DIM - 2)), np.zeros((num_frames, _PAIR_DIM))
    one, other = pair.points
    distances = np.linalg.norm(one[:, :, None] - other[:, None], axis=3) / pair.height  # (T, 17, 17)
    nearest = np.stack([distances.min(axis=2), distances.min(axis=1)])  # (2, T, 17) of each key point to the other body
    reach = np.concatenate([np.sort(nearest[:, :, limbs], axis=2) for limbs in (WRISTS, ANKLES)], axis=2)
    apart = np.subtract(*_centres(pair)[::-1]) / pair.height  # (T, 2)
    along, across = apart[:, 0] * forward[0], np.abs(apart[:, 1])
    return reach, np.stack([along, across, np.linalg.norm(apart, axis=1), distances.min(axis=(1, 2))], axis=1)
