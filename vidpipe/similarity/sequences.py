"""The sequences of a store, ready to be compared: times in memory, features mapped, and a mean vector of each piece.

A piece is some consecutive rows of a video, few enough to be compared at once. A short video is one piece.

    rows    0 ······· 16 ······· 32 ······· 48 ······· 64
    piece 0 [───────────────────)
    piece 1           [────────────────────)
    piece 2                      [────────────────────)
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """The sequences of N videos, cut into P pieces."""

    store: FeatureStore
    ids: tuple[str, ...]
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

    def part(self, numbers: NDArray[np.int64]) -> "SequenceIndex":
        """Return the index of some of the videos, to be compared in another process.

        Args:
            numbers: (n,) which videos, increasing.

        Returns:
            The index without features, which `opened` maps there, and without the vectors of pieces.
        """
        is_in = np.isin(self.video_of_piece, numbers)
        part = replace(
            self,
            store=FeatureStore(self.store.path, self.store.key),
            ids=tuple(self.ids[number] for number in numbers),
            pts_seconds=tuple(self.pts_seconds[number] for number in numbers),
            first_rows=tuple(self.first_rows[number] for number in numbers),
            features=(),
            video_of_piece=np.searchsorted(numbers, self.video_of_piece[is_in]),
            start_of_piece=self.start_of_piece[is_in],
            vectors=self.vectors[:0],
            _kept=OrderedDict(),
        )
        part.__dict__["chance"] = self.chance
        return part

    def opened(self, store: FeatureStore) -> "SequenceIndex":
        """Return a `part` with its features, mapped.

        Args:
            store: the part's store, opened in this process.

        Returns:
            The part.
        """
        part = replace(self, store=store, features=tuple(store.features(self.ids, check=False)), _kept=OrderedDict())
        part.__dict__["chance"] = self.chance
        return part

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
    rows = _first_rows(sequence)
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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SequenceIndex:
    """Read the sequences of a store once, and keep their times and the mean vectors of their pieces.

    Args:
        store: the features.
        video_ids: which videos; None for all. A video without rows is left out.
        on_progress: called with the numbers of videos that are read and to read.

    Returns:
        The index. Of 100,000 videos of one piece each and D = 1280 it takes about 0.7 GB.

    Raises:
        StoreError: a feature is not finite, or too large to compute with.
    """
    wanted = [video_id for video_id in (store.ids if video_ids is None else video_ids) if store.length(video_id)]
    times: dict[str, NDArray[np.float64]] = {}
    first_rows: dict[str, NDArray[np.int64] | None] = {}
    means: dict[str, NDArray[np.float32]] = {}
    total, num_rows = np.float64(0), 0
    fit = WhiteningFit()
    stride = max(1, len(wanted) // MAX_FITTED)
    for done, sequence in enumerate(store.sequences(wanted), 1):
        timed = timed_features(sequence)
        first_rows[sequence.video_id], times[sequence.video_id] = _first_rows(sequence), timed.pts_seconds
        its_means = [timed.features[start : start + PIECE_ROWS].mean(axis=0) for start in pieces_of(len(timed))]
        means[sequence.video_id] = np.stack(its_means)
        if done % stride == 0 or len(wanted) < MAX_FITTED:
            fit.add(np.diff(timed.features, axis=0))
        total, num_rows = total + timed.features.sum(axis=0, dtype=np.float64), num_rows + len(timed)
        if done % VIDEOS_AT_ONCE == 0 or done == len(wanted):
            on_progress(done, len(wanted))
    starts = [np.array(pieces_of(len(times[video_id]))) for video_id in wanted]
    if not np.isfinite(total).all():
        store.features(wanted)  # names the video
    centre = np.asarray(total / max(num_rows, 1), np.float32)
    vectors = np.concatenate([means.pop(video_id) for video_id in wanted])
    vectors -= centre
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return SequenceIndex(
        store,
        tuple(wanted),
        tuple(times[video_id] for video_id in wanted),
        tuple(first_rows[video_id] for video_id in wanted),
        tuple(store.features(wanted, check=False)),
        np.repeat(np.arange(len(wanted)), [len(of_video) for of_video in starts]),
        np.concatenate(starts),
        vectors,
        centre,
        fit.finish(vectors.shape[1]),
    )


def _first_rows(sequence: FeatureSequence) -> NDArray[np.int64] | None:
    """The first row of each picture, where pictures have several rows: that of the whole picture."""
    is_first = np.diff(sequence.rows.frame_index, prepend=-1) > 0
    return None if is_first.all() else np.flatnonzero(is_first)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
