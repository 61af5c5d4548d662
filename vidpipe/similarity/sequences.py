"""The sequences of a store, ready to be compared: times in memory, features mapped, and a mean vector of each piece.

A piece is some consecutive rows of a video, few enough to be compared at once. A short video is one piece.

    rows    0 ······· 16 ······· 32 ······· 48 ······· 64
    piece 0 [───────────────────)
    piece 1           [────────────────────)
    piece 2                      [────────────────────)
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import StoreError
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence
from vidpipe.similarity.alignment import Changes, chance
from vidpipe.similarity.whitening import Whitening, WhiteningFit

__all__ = [
    "HOP_ROWS",
    "MAX_KEPT",
    "PIECE_ROWS",
    "SequenceIndex",
    "TimedFeatures",
    "pieces_of",
    "read_index",
    "timed_features",
]

PIECE_ROWS, HOP_ROWS = 32, 16
VIDEOS_AT_ONCE = 1024
NUM_DRAWN, WITHIN_DEVIATION, MIN_CHANCE = 200, 0.6827, 0.02
MAX_FITTED = 2048
"""Videos whose changes the whitening is computed from, about."""
MAX_KEPT = 3072
"""Sequences of changes in memory: 100 MB of 16 rows."""


@dataclass(frozen=True)
class TimedFeatures:
    """A feature sequence with a row for each picture."""

    features: NDArray[np.float32]
    """(T, D)."""
    pts_seconds: NDArray[np.float64]
    """(T,), increasing."""

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, start: int, stop: int | None = None) -> "TimedFeatures":
        """Return the rows [start, stop)."""
        return TimedFeatures(self.features[start:stop], self.pts_seconds[start:stop])


@dataclass(frozen=True)
class SequenceIndex:
    """The sequences of N videos, or of N people of videos, cut into P pieces."""

    store: FeatureStore
    ids: tuple[str, ...]
    """The video of each sequence."""
    people: tuple[int, ...]
    """The person of each sequence; 0 for a whole video."""
    pts_seconds: tuple[NDArray[np.float64], ...]
    """For each video, (T,)."""
    first_rows: tuple[NDArray[np.int64] | None, ...]
    """For each video, the stored row of each of its T pictures; None where each stored row is a picture."""
    features: tuple[NDArray[np.floating[Any]], ...]
    """For each video, its stored rows, mapped: the disk is read where they are used."""
    video_of_piece: NDArray[np.int64]
    """(P,)"""
    start_of_piece: NDArray[np.int64]
    """(P,) its first picture; it has up to `PIECE_ROWS`."""
    vectors: NDArray[np.float32]
    """(P, D) the mean feature of each piece, minus the mean of all, of length 1."""
    centre: NDArray[np.float32]
    """(D,) that mean."""
    whitening: Whitening
    """What makes changes comparable."""
    _kept: OrderedDict[tuple[int, int | None], Changes] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def chance(self) -> float:
        """The standard deviation of the evidence that chance gives, from lines of pairs of videos drawn at random.

        Two thirds of the values lie within it: a few pairs with the same footage do not change it.
        """
        random = np.random.default_rng(0)
        drawn = random.integers(0, len(self.video_of_piece), (NUM_DRAWN, 2)).tolist()
        pieces = [pair for pair in drawn if self.video_of_piece[pair[0]] != self.video_of_piece[pair[1]]]
        values = [chance(*(self.changes(int(self.video_of_piece[one]), one) for one in pair)) for pair in pieces]
        joined = np.abs(np.concatenate([np.zeros(0, np.float32), *values]))
        return max(float(np.quantile(joined, WITHIN_DEVIATION)), MIN_CHANCE) if len(joined) else MIN_CHANCE

    def changes(self, number: int, piece: int | None = None) -> Changes:
        """Return how a video, or one of its pieces, changes. Those of the last few thousand calls are kept."""
        if (number, piece) not in self._kept:
            self._kept[number, piece] = self.changes_of(self.timed(number, piece))
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return self._kept[number, piece]

    def changes_of(self, sequence: TimedFeatures) -> Changes:
        """Return how another sequence changes."""
        times = (sequence.pts_seconds[1:] + sequence.pts_seconds[:-1]) / 2
        return Changes(self.whitening.apply(np.diff(sequence.features, axis=0)), times)

    def timed(self, number: int, piece: int | None = None) -> TimedFeatures:
        """Return the sequence of a video, or of one of its pieces."""
        start = 0 if piece is None else int(self.start_of_piece[piece])
        rows = slice(start, None if piece is None else start + PIECE_ROWS)
        its_rows = self.first_rows[number]
        stored = self.features[number][rows] if its_rows is None else self.features[number][its_rows[rows]]
        return TimedFeatures(np.asarray(stored, np.float32), self.pts_seconds[number][rows])

    def unit_vectors(self, sequence: TimedFeatures) -> NDArray[np.float32]:
        """Return the vectors of the pieces of another sequence, (P, D)."""
        means = [sequence.features[start : start + PIECE_ROWS].mean(axis=0) for start in pieces_of(len(sequence))]
        return _unit(np.stack(means) - self.centre)


def timed_features(sequence: FeatureSequence) -> TimedFeatures:
    """Return a stored sequence with one row for each picture, that of the whole picture."""
    return _timed(sequence, _first_rows(sequence))


def _timed(sequence: FeatureSequence, rows: NDArray[np.int64] | None) -> TimedFeatures:
    features = sequence.features if rows is None else sequence.features[rows]
    times = sequence.pts_seconds if rows is None else sequence.pts_seconds[rows]
    return TimedFeatures(np.asarray(features, np.float32), times)


def pieces_of(num_rows: int) -> range:
    """Return the first row of each piece of a sequence."""
    return range(0, max(num_rows - PIECE_ROWS + HOP_ROWS, 1), HOP_ROWS)


def read_index(
    store: FeatureStore,
    video_ids: Sequence[str] | None = None,
    *,
    by_person: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SequenceIndex:
    """Read the sequences of a store once, and keep their times and the mean vectors of their pieces.

    Args:
        store: the features.
        video_ids: which videos; None for all. A video without rows is left out.
        by_person: make a sequence of each person, and none of a video in which nobody was found.
        on_progress: called with the numbers of videos that are read and to read.

    Returns:
        The index. Of 100,000 videos of one piece each and D = 1280 it takes about 0.7 GB.

    Raises:
        StoreError: a feature is not finite, or too large to compute with; or nobody was found in any video.
    """
    wanted = [video_id for video_id in (store.ids if video_ids is None else video_ids) if store.length(video_id)]
    times: dict[tuple[str, int], NDArray[np.float64]] = {}
    first_rows: dict[tuple[str, int], NDArray[np.int64] | None] = {}
    means: dict[tuple[str, int], NDArray[np.float32]] = {}
    total, num_rows = np.float64(0), 0
    fit = WhiteningFit()
    stride = max(1, len(wanted) // MAX_FITTED)
    for done, sequence in enumerate(store.sequences(wanted), 1):
        for person, its_rows in _rows_of_people(sequence).items() if by_person else [(0, _first_rows(sequence))]:
            timed, place = _timed(sequence, its_rows), (sequence.video_id, person)
            first_rows[place], times[place] = its_rows, timed.pts_seconds
            its_means = [timed.features[start : start + PIECE_ROWS].mean(axis=0) for start in pieces_of(len(timed))]
            means[place] = np.stack(its_means)
            if done % stride == 0 or len(wanted) < MAX_FITTED:
                fit.add(np.diff(timed.features, axis=0))
            total, num_rows = total + timed.features.sum(axis=0, dtype=np.float64), num_rows + len(timed)
        if done % VIDEOS_AT_ONCE == 0 or done == len(wanted):
            on_progress(done, len(wanted))
    places = sorted(times, key=_place_in(wanted))
    if by_person and not places:
        raise StoreError(f"{store.path}: nobody was found in any of its videos, so there is nobody to compare")
    starts = [np.array(pieces_of(len(times[place]))) for place in places]
    ids = [video_id for video_id, _ in places]
    if not np.isfinite(total).all():
        store.features(wanted)  # names the video
    centre = np.asarray(total / max(num_rows, 1), np.float32)
    vectors = np.concatenate([means.pop(place) for place in places])
    vectors -= centre
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return SequenceIndex(
        store,
        tuple(ids),
        tuple(person for _, person in places),
        tuple(times[place] for place in places),
        tuple(first_rows[place] for place in places),
        tuple(store.features(ids, check=False)),
        np.repeat(np.arange(len(places)), [len(of_sequence) for of_sequence in starts]),
        np.concatenate(starts),
        vectors,
        centre,
        fit.finish(vectors.shape[1]),
    )


def _first_rows(sequence: FeatureSequence) -> NDArray[np.int64] | None:
    """The first row of each picture, where pictures have several rows: that of the whole picture."""
    is_first = np.diff(sequence.rows.frame_index, prepend=-1) > 0
    return None if is_first.all() else np.flatnonzero(is_first)


def _rows_of_people(sequence: FeatureSequence) -> dict[int, NDArray[np.int64]]:
    """The rows of each person, by number; none where nobody was found."""
    return {number: np.flatnonzero(sequence.rows.track == number) for number in sequence.rows.track_numbers}


def _place_in(video_ids: Sequence[str]) -> Callable[[tuple[str, int]], tuple[int, int]]:
    """A key that sorts people by the order of their videos, then by number."""
    order = {video_id: number for number, video_id in enumerate(video_ids)}
    return lambda place: (order[place[0]], place[1])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
