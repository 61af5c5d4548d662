"""The sequences of a store, ready to be compared: times in memory, features mapped, and a mean vector of each piece.

A piece is some consecutive rows of a video, few enough to be compared at once. A short video is one piece.

    rows    0 ······· 16 ······· 32 ······· 48 ······· 64
    piece 0 [───────────────────)
    piece 1           [────────────────────)
    piece 2                      [────────────────────)
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
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
    "MAX_KEPT_ROWS",
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
MAX_FITTED, MAX_FITTED_ROWS = 1024, 2**15
"""Videos whose changes the whitening is computed from, and rows of these videos, about."""
MAX_KEPT_ROWS = 3 * 2**16
"""Rows of changes in memory: 400 MB of 512 directions."""


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
    _kept: "_Kept" = field(default_factory=lambda: _Kept(), repr=False)

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
        self.prepare(piece for pair in pieces for piece in pair)
        values = [chance(*(self.changes(int(self.video_of_piece[one]), one) for one in pair)) for pair in pieces]
        joined = np.abs(np.concatenate([np.zeros(0, np.float32), *values]))
        return max(float(np.quantile(joined, WITHIN_DEVIATION)), MIN_CHANCE) if len(joined) else MIN_CHANCE

    def prepare(self, pieces: Iterable[int]) -> None:
        """Compute and keep the changes of some pieces: one product takes less time than many small ones.

        Args:
            pieces: their numbers; less than `MAX_KEPT_ROWS` rows.
        """
        keys = [(int(self.video_of_piece[piece]), piece) for piece in dict.fromkeys(pieces)]
        missing = [key for key in keys if key not in self._kept]
        if not missing:
            return
        timed = [self.timed(*key) for key in missing]
        differences = [np.diff(one.features, axis=0) for one in timed]
        stops = np.cumsum([len(its) for its in differences])
        whitened = np.split(self.whitening.apply(np.concatenate(differences)), stops[:-1])
        for key, one, its in zip(missing, timed, whitened, strict=True):
            self._kept.add(key, Changes(its, _between(one.pts_seconds)))

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
            people=tuple(self.people[number] for number in numbers),
            pts_seconds=tuple(self.pts_seconds[number] for number in numbers),
            first_rows=tuple(self.first_rows[number] for number in numbers),
            features=(),
            video_of_piece=np.searchsorted(numbers, self.video_of_piece[is_in]),
            start_of_piece=self.start_of_piece[is_in],
            vectors=self.vectors[:0],
            _kept=_Kept(),
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
        part = replace(self, store=store, features=tuple(store.features(self.ids, check=False)), _kept=_Kept())
        part.__dict__["chance"] = self.chance
        return part

    def changes(self, number: int, piece: int | None = None) -> Changes:
        """Return how a video, or one of its pieces, changes. The latest are kept."""
        found = self._kept.get((number, piece))
        if found is None:
            found = self.changes_of(self.timed(number, piece))
            self._kept.add((number, piece), found)
        return found

    def changes_of(self, sequence: TimedFeatures) -> Changes:
        """Return how another sequence changes."""
        whitened = self.whitening.apply(np.diff(sequence.features, axis=0))
        return Changes(whitened, _between(sequence.pts_seconds))

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


class _Kept:
    """The latest changes that were computed, up to `MAX_KEPT_ROWS`, by video and piece."""

    def __init__(self) -> None:
        self._changes: OrderedDict[tuple[int, int | None], Changes] = OrderedDict()
        self._num_rows = 0

    def __contains__(self, key: object) -> bool:
        return key in self._changes

    def get(self, key: tuple[int, int | None]) -> Changes | None:
        """Return the changes, if they are kept."""
        return self._changes.get(key)

    def add(self, key: tuple[int, int | None], changes: Changes) -> None:
        """Keep changes, and drop the oldest where there are too many."""
        self._changes[key] = changes
        self._num_rows += len(changes)
        while self._num_rows > MAX_KEPT_ROWS:
            self._num_rows -= len(self._changes.popitem(last=False)[1])


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
    tracks = _tracks(store, wanted) if by_person else [(video_id, 0, store.length(video_id)) for video_id in wanted]
    if by_person and not tracks:
        raise StoreError(f"{store.path}: nobody was found in any of its videos, so there is nobody to compare")
    mapped = dict(zip(wanted, store.features(wanted, check=False), strict=True))
    features = tuple(mapped[video_id] for video_id, _, _ in tracks)
    reading = _Reading([length for _, _, length in tracks], features[0].shape[1] if features else 0)
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (video_id, person, _) in enumerate(tracks):
        places[video_id].append((number, person))
    for done, sequence in enumerate(store.sequences(wanted), 1):
        for number, person in places[sequence.video_id]:
            rows = np.flatnonzero(sequence.rows.track == person) if person else _first_rows(sequence)
            reading.add(number, _timed(sequence, rows), rows)
        if done % VIDEOS_AT_ONCE == 0 or done == len(wanted):
            on_progress(done, len(wanted))
    if not np.isfinite(reading.total).all():
        store.features(wanted)  # names the video
    centre = reading.centre()
    video_of_piece, start_of_piece, vectors = reading.pieces(centre)
    return SequenceIndex(
        store,
        tuple(video_id for video_id, _, _ in tracks),
        tuple(person for _, person, _ in tracks),
        tuple(reading.pts_seconds),
        tuple(reading.first_rows),
        features,
        video_of_piece,
        start_of_piece,
        vectors,
        centre,
        reading.fit.finish(len(centre)),
    )


class _Reading:
    """What is kept of N sequences that are read once, in any order.

    Args:
        lengths: N, the stored rows of each; it has as many pictures, or fewer.
        dim: D.
    """

    def __init__(self, lengths: Sequence[int], dim: int) -> None:
        places = np.array([len(pieces_of(length)) for length in lengths], np.int64)
        self._first_place = np.cumsum(places) - places
        self._means = np.empty((int(places.sum()), dim), np.float32)  # the system gives memory to what is written
        self.pts_seconds: list[NDArray[np.float64]] = [np.empty(0)] * len(lengths)
        self.first_rows: list[NDArray[np.int64] | None] = [None] * len(lengths)
        self.total = np.zeros(dim)
        self.fit = WhiteningFit()
        self._video_step = max(1, len(lengths) // MAX_FITTED)
        self._row_step = max(1, sum(lengths) // self._video_step // MAX_FITTED_ROWS)

    def add(self, number: int, timed: TimedFeatures, first_rows: NDArray[np.int64] | None) -> None:
        """Add the sequence of a video."""
        self.pts_seconds[number], self.first_rows[number] = timed.pts_seconds, first_rows
        for place, start in enumerate(pieces_of(len(timed)), self._first_place[number]):
            timed.features[start : start + PIECE_ROWS].mean(axis=0, out=self._means[place])
        self.total += timed.features.sum(axis=0, dtype=np.float64)
        if number % self._video_step == 0:
            rows = np.arange(0, len(timed) - 1, self._row_step)
            self.fit.add(timed.features[rows + 1] - timed.features[rows])

    def centre(self) -> NDArray[np.float32]:
        """Return the mean of all rows, (D,)."""
        return np.asarray(self.total / max(sum(map(len, self.pts_seconds)), 1), np.float32)

    def pieces(self, centre: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the video (P,) and the start (P,) of all pieces, and their vectors (P, D), which use up the means."""
        starts = [np.array(pieces_of(len(times)), np.int64) for times in self.pts_seconds]
        counts = np.array(list(map(len, starts)), np.int64)
        vectors = self._means
        if counts.sum() < len(vectors):
            places = zip(self._first_place.tolist(), counts.tolist(), strict=True)
            vectors = vectors[np.concatenate([np.arange(first, first + count) for first, count in places])]
        for first in range(0, len(vectors), VIDEOS_AT_ONCE):
            block = vectors[first : first + VIDEOS_AT_ONCE]
            block[:] = _unit(block - centre)
        return np.repeat(np.arange(len(starts)), counts), np.concatenate([np.empty(0, np.int64), *starts]), vectors


def _first_rows(sequence: FeatureSequence) -> NDArray[np.int64] | None:
    """The first row of each picture, where pictures have several rows: that of the whole picture."""
    if sequence.rows.region is None:
        return None
    is_first = np.diff(sequence.rows.frame_index, prepend=-1) > 0
    return None if is_first.all() else np.flatnonzero(is_first)


def _between(pts_seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The times half-way between neighbouring rows, (T,) -> (T - 1,)."""
    return np.asarray((pts_seconds[1:] + pts_seconds[:-1]) / 2)


def _tracks(store: FeatureStore, video_ids: Sequence[str]) -> list[tuple[str, int, int]]:
    """The video, the number and the count of rows of each person of some videos."""
    found = []
    for video_id, track in zip(video_ids, store.tracks(video_ids), strict=True):
        if track is not None:
            numbers, counts = np.unique(track, return_counts=True)
            found += [(video_id, *one) for one in zip(numbers.tolist(), counts.tolist(), strict=True)]
    return found


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), np.float32)
