"""Linking the detections of frames into tracks: who is who from frame to frame.

    frames of a regular grid   ·     ·     ·     ·     ·     ·
    detections                 a b   b a   a b   (a)   b a   a b       (a): the detector found one of two
    tracks                     1 2   2 1   1 2   1 ·   2 1   1 2       a gap is filled

This is SORT (Bewley et al., "Simple online and realtime tracking", ICIP 2016): a Kalman filter predicts each person's
box, and the Hungarian method assigns detections to predictions, by the filter's own distance where the boxes overlap:
at a crossing, the overlaps of both people are alike, and their places and speeds are not. As in ByteTrack (Zhang et
al., ECCV 2022), detections of low score continue tracks and start none. As in C-BIoU (Yang et al., WACV 2023), boxes
are enlarged before they are compared, because at 8 frames a second a person may have left the old box.

SciPy has the assignment, so this is smaller than the package `trackers`, which needs nine others, a second build of
OpenCV among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.regions.detections import Detections

__all__ = ["LINK_SETTINGS", "MAX_PEOPLE", "PER_SECOND", "Track", "detection_grid", "link_people", "select_people"]

PER_SECOND = 8.0
"""Frames in which people are looked for; all frames of a video that has fewer."""
MAX_PEOPLE = 4
"""At one time; those that are found in most frames."""
MAX_GAP_SECONDS = 2.0
"""A person who is not found for longer gets a new number."""
MIN_SECONDS, MIN_SHARE, MIN_FOUND = 0.75, 0.25, 3
"""Shorter tracks, or in a short video those shorter than a share of it, and those with fewer detections are dropped."""
LOW_SCORE = 0.5
"""Of the detector's least score: enough to continue a track, not to start one."""

LINK_SETTINGS = {
    "per_second": PER_SECOND,
    "max_people": MAX_PEOPLE,
    "max_gap_seconds": MAX_GAP_SECONDS,
    "min_seconds": MIN_SECONDS,
    "min_share": MIN_SHARE,
    "low_score": LOW_SCORE,
    "linking": "sort-1",
}
"""What changes a track, for a store's key."""

_BUFFER = 0.3
"""Boxes are enlarged by this share of their sides, on each side, before they are compared."""
_MIN_IOU = 0.2
"""Of a prediction and a detection, both enlarged."""
_FAR, _NEVER = 100.0, 1e6
"""The largest squared distance of a detection that overlaps a prediction, and the cost of any other pair."""
_MEASUREMENT, _ACCELERATION, _FIRST_SPEED = 0.05, 0.5, 0.7
"""Deviations of the filter, in heights of the person (and seconds)."""


@dataclass(frozen=True)
class Track:
    """One person through a video."""

    first: int
    """The place of the first detection in the grid."""
    boxes: NDArray[np.float64]
    """(n, 4) left, top, right and bottom in pixels, for each place of the grid from `first` on; gaps are filled."""
    is_found: NDArray[np.bool_]
    """(n,) whether the detector found the person there."""

    @property
    def num_found(self) -> int:
        """Places at which the detector found the person."""
        return int(self.is_found.sum())

    @property
    def stop(self) -> int:
        """The place after the last detection."""
        return self.first + len(self.boxes)


def detection_grid(pts_seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frames in which people are looked for.

    Args:
        pts_seconds: (F,) presentation times of all frames, increasing.

    Returns:
        (G,) frames, strictly increasing: those on screen at even distances, `PER_SECOND` a second.
    """
    ticks = np.arange(0, pts_seconds[-1] - pts_seconds[0] + 1e-6, 1 / PER_SECOND) + pts_seconds[0]
    return np.unique(np.searchsorted(pts_seconds, ticks + 1e-6, side="right") - 1)


def link_people(
    frames: Sequence[Detections], pts_seconds: NDArray[np.float64], *, min_score: float
) -> tuple[Track, ...]:
    """Link detections of people into tracks.

    Args:
        frames: what is found in the G frames of the grid.
        pts_seconds: (G,) their presentation times, increasing.
        min_score: of a detection that starts a track.

    Returns:
        All tracks, in the order of their starts; at one start from left to right.
    """
    linker = _Linker()
    for place, (found, seconds) in enumerate(zip(frames, pts_seconds.tolist(), strict=True)):
        kept = found.people(LOW_SCORE * min_score)
        linker.add(place, seconds, found.boxes[kept].astype(np.float64), found.scores[kept] >= min_score)
    tracks = [_filled(one) for one in linker.candidates]
    return tuple(sorted(tracks, key=lambda track: (track.first, track.boxes[0, 0])))


def select_people(tracks: Sequence[Track], pts_seconds: NDArray[np.float64]) -> tuple[Track, ...]:
    """Drop short tracks, and those of the people who are seen least where there are many at one time.

    Args:
        tracks: from `link_people`.
        pts_seconds: (G,) the presentation times of the grid.

    Returns:
        The others, in the same order.
    """
    seconds = float(pts_seconds[-1] - pts_seconds[0])
    shortest = min(MIN_SECONDS, MIN_SHARE * seconds)
    lasting = [
        track
        for track in tracks
        if track.num_found >= min(MIN_FOUND, len(pts_seconds))
        and pts_seconds[track.stop - 1] - pts_seconds[track.first] >= shortest
    ]
    num_people = np.zeros(len(pts_seconds), np.int64)
    chosen = set()
    for number in sorted(range(len(lasting)), key=lambda number: -lasting[number].num_found):
        span = slice(lasting[number].first, lasting[number].stop)
        if num_people[span].max() < MAX_PEOPLE:
            num_people[span] += 1
            chosen.add(number)
    return tuple(lasting[number] for number in sorted(chosen))


@dataclass(eq=False)
class _Candidate:
    """A person whose track is not finished: a Kalman filter over the box's centre, width and height.

    All four have the same covariance of place and speed, in heights of the person. Sizes have no speed.
    """

    places: list[int]
    boxes: list[NDArray[np.float64]]
    seconds: float
    """The time of `mean`."""
    found_seconds: float = field(init=False)
    """When the person was last found."""
    mean: NDArray[np.float64] = field(init=False)
    """(2, 4) place and speed of the centre's x and y, the width and the height."""
    covariance: NDArray[np.float64] = field(init=False)
    """(2, 2)"""

    def __post_init__(self) -> None:
        self.found_seconds = self.seconds
        self.mean = np.stack([_as_centre(self.boxes[0]), np.zeros(4)])
        self.covariance = np.diag([_MEASUREMENT**2, _FIRST_SPEED**2])

    def predict(self, seconds: float) -> None:
        """Move on to a time."""
        step = seconds - self.seconds
        move = np.array([[1, step], [0, 1]])
        gained = np.array([step**2 / 2, step]) * _ACCELERATION
        self.mean = move @ self.mean
        self.covariance = move @ self.covariance @ move.T + np.outer(gained, gained)
        self.seconds = seconds

    def update(self, place: int, seconds: float, box: NDArray[np.float64]) -> None:
        """Take a detection at the time of the last prediction."""
        self.found_seconds = seconds
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + _MEASUREMENT**2)
        self.mean = self.mean + np.outer(gain, _as_centre(box) - self.mean[0])
        self.mean[1, 2:] = 0
        self.covariance = self.covariance - np.outer(gain, self.covariance[0])
        self.places.append(place)
        self.boxes.append(box)

    def distances(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how unlikely boxes (n, 4) are the person's at the current time: squared Mahalanobis distances."""
        found = np.stack([_as_centre(box) for box in boxes])
        offset = (found - self.mean[0]) / self.mean[0, 3]
        variance = self.covariance[0, 0] + _MEASUREMENT**2
        return np.asarray((offset**2).sum(axis=1) / variance)

    @property
    def predicted(self) -> NDArray[np.float64]:
        """(4,) the box at the current time."""
        centre, size = self.mean[0, :2], self.mean[0, 2:]
        return np.concatenate([centre - size / 2, centre + size / 2])


class _Linker:
    """Takes the detections of one frame after the other."""

    def __init__(self) -> None:
        self.candidates: list[_Candidate] = []
        self._active: list[_Candidate] = []

    def add(self, place: int, seconds: float, boxes: NDArray[np.float64], is_sure: NDArray[np.bool_]) -> None:
        """Link the boxes (K, 4) of a frame; those that are not sure start no track."""
        self._active = [one for one in self._active if seconds - one.found_seconds <= MAX_GAP_SECONDS]
        for one in self._active:
            one.predict(seconds)
        sure = set(np.flatnonzero(is_sure).tolist())
        found = _assign(self._active, boxes, np.flatnonzero(is_sure))
        others = [one for one in self._active if one not in found]
        found |= _assign(others, boxes, np.flatnonzero(~is_sure))
        for person, number in found.items():
            person.update(place, seconds, boxes[number])
        for number in sorted(sure - set(found.values())):
            self.candidates.append(_Candidate([place], [boxes[number]], seconds))
            self._active.append(self.candidates[-1])


def _assign(
    people: Sequence[_Candidate], boxes: NDArray[np.float64], numbers: NDArray[np.int64]
) -> dict[_Candidate, int]:
    """The people who are found, and the numbers of their boxes: those with the largest sum of overlaps."""
    from scipy.optimize import linear_sum_assignment

    if not people or not len(numbers):
        return {}
    overlap = _iou(np.stack([one.predicted for one in people]), boxes[numbers])  # (P, n)
    distance = np.stack([one.distances(boxes[numbers]) for one in people])  # (P, n)
    cost = np.where(overlap >= _MIN_IOU, distance.clip(max=_FAR), _NEVER)
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return {people[row]: int(numbers[column]) for row, column in pairs if cost[row, column] < _NEVER}


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4), (M, 4) -> (N, M) intersection over union of the enlarged boxes"""
    one, other = _enlarged(one), _enlarged(other)
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    stop = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.prod((stop - corner).clip(0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    overlap: NDArray[np.float64] = common / (areas[0][:, None] + areas[1][None] - common).clip(1e-9)
    return overlap


def _enlarged(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    border = _BUFFER * (boxes[:, 2:] - boxes[:, :2]).clip(1e-3)
    return np.concatenate([boxes[:, :2] - border, boxes[:, 2:] + border], axis=1)


def _as_centre(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) left, top, right, bottom -> x, y, width, height"""
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def _filled(candidate: _Candidate) -> Track:
    places = np.arange(candidate.places[0], candidate.places[-1] + 1)
    columns: list[NDArray[Any]] = [np.interp(places, candidate.places, one) for one in np.stack(candidate.boxes).T]
    return Track(candidate.places[0], np.stack(columns, axis=1), np.isin(places, candidate.places))
