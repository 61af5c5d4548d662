"""The most similar videos of a store: a shortlist by mean features, ordered by their frames, with the stretch alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import DUPLICATE_THRESHOLD
from vidpipe.errors import StoreError, count_of
from vidpipe.similarity.alignment import align
from vidpipe.similarity.extension import extend
from vidpipe.similarity.local_path import best_path
from vidpipe.similarity.sequences import PIECE_ROWS, SequenceIndex, TimedFeatures, pieces_of
from vidpipe.similarity.shortlist import nearest

__all__ = ["SimilarResult", "SimilarSearch", "SimilarVideo"]

NUM_SHORTLISTED = 100
"""Pieces whose frames are compared with a query's, at least."""
NUM_RANDOM = 64
"""Videos that say how similar a query is to any video."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SimilarVideo:
    """A video that is like a query."""

    rank: int
    """From 1."""
    video: str
    score: float
    """Mean cosine of each frame and the most similar one of the other video, or of learned vectors, up to 1."""
    start_seconds: float
    stop_seconds: float
    """The stretch [start, stop) of the query that is most alike."""
    video_start_seconds: float
    video_stop_seconds: float
    """The stretch of the video."""
    is_duplicate: bool
    """Whether the stretches show the same footage; see `vidpipe search duplicates`."""
    is_doubtful: bool
    """Whether the score is nearer to that of a random video than to 1; of learned vectors, little above it."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the commands print, rounded."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SimilarResult:
    """The videos that are like one query."""

    query: str
    """The query's id in the store, or its file."""
    path: Path | None = None
    """The query's file, where it is not a video of the store."""
    videos: tuple[SimilarVideo, ...] = ()
    """The most similar first."""
    error: str | None = None
    """Why the query cannot be read; None if it can."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the command prints."""
        status = "ok" if self.error is None else "failed"
        videos = [video.as_dict() for video in self.videos]
        return {"query": self.query, "status": status, "videos": videos, "error": self.error}


class SimilarSearch:
    """Finds videos of a store that are like a query.

    Args:
        index: the store's sequences.

    Raises:
        StoreError: there are fewer than two videos.
    """

    def __init__(self, index: SequenceIndex) -> None:
        if len(index) < 2:
            raise StoreError(
                f"{index.store.path}: {count_of(len(index), 'video')} with features to search in, and two are needed; "
                "extract more videos into the store"
            )
        self._index = index

    def query(self, sequence: TimedFeatures, *, number: int = 10, without: str | None = None) -> list[SimilarVideo]:
        """Find the videos that are most like a sequence.

        Args:
            sequence: of the query, with features of the store's key.
            number: how many to find, at most.
            without: id of a video to leave out: the query itself.

        Returns:
            The videos, the most similar first.
        """
        pieces = [self._frames(sequence, start) for start in pieces_of(len(sequence))]
        best: dict[int, _Match] = {}
        for query_piece, piece in self._shortlist(sequence, number + NUM_SHORTLISTED):
            video = int(self._index.video_of_piece[piece])
            if self._index.ids[video] != without:
                match = _Match(query_piece, piece, _chamfer(pieces[query_piece] @ self._piece(piece).T))
                best[video] = max(best.get(video, match), match, key=lambda one: one.score)
        ranked = sorted(best.items(), key=lambda one: (-one[1].score, self._index.ids[one[0]]))[:number]
        return self._describe(sequence, pieces, ranked, (1 + self._random_score(pieces[0])) / 2)

    def describe(
        self, sequence: TimedFeatures, cosines: Mapping[str, float], *, doubtful_below: float
    ) -> list[SimilarVideo]:
        """Describe videos that were ranked by a learned embedding: where each is most like a sequence.

        Args:
            sequence: of the query, with features of the store's key.
            cosines: by id, the scores of the videos, the most similar first.
            doubtful_below: videos with a lower score are doubtful.

        Returns:
            The videos in the order given.
        """
        pieces = [self._frames(sequence, start) for start in pieces_of(len(sequence))]
        numbers = {video_id: number for number, video_id in enumerate(self._index.ids)}
        ranked = [(numbers[one], self._best_match(pieces, numbers[one], score)) for one, score in cosines.items()]
        return self._describe(sequence, pieces, ranked, doubtful_below)

    def _describe(
        self,
        sequence: TimedFeatures,
        pieces: Sequence[Floats],
        ranked: Sequence[tuple[int, "_Match"]],
        doubtful_below: float,
    ) -> list[SimilarVideo]:
        return [
            self._found(rank, sequence, video, match, pieces[match.query_piece], doubtful_below)
            for rank, (video, match) in enumerate(ranked, 1)
        ]

    def _best_match(self, pieces: Sequence[Floats], video: int, score: float) -> "_Match":
        """The pieces of the query and of a video that are most alike, with a given score."""
        pairs = [
            (number, int(piece))
            for number in range(len(pieces))
            for piece in np.flatnonzero(self._index.video_of_piece == video)
        ]
        return _Match(*max(pairs, key=lambda pair: _chamfer(pieces[pair[0]] @ self._piece(pair[1]).T)), score)

    def _shortlist(self, sequence: TimedFeatures, number: int) -> list[tuple[int, int]]:
        """Pairs of a piece of the query and one of a video, whose means are nearest."""
        found = nearest(self._index.unit_vectors(sequence), self._index.vectors, number)
        return [
            (start + row, int(piece))
            for start, numbers, _ in found
            for row, of_row in enumerate(numbers)
            for piece in of_row
        ]

    def _random_score(self, frames: Floats) -> float:
        """The median similarity of the query with videos chosen at random."""
        return float(np.median([_chamfer(frames @ piece.T) for piece in self._random_pieces]))

    @cached_property
    def _random_pieces(self) -> list[Floats]:
        num_pieces = len(self._index.vectors)
        chosen = np.random.default_rng(0).choice(num_pieces, min(NUM_RANDOM, num_pieces), replace=False)
        return [self._piece(piece) for piece in chosen.tolist()]

    def _found(
        self, rank: int, sequence: TimedFeatures, video: int, match: "_Match", frames: Floats, doubtful_below: float
    ) -> SimilarVideo:
        start = pieces_of(len(sequence))[match.query_piece]
        piece = sequence.rows(start, start + PIECE_ROWS), self._index.timed(video, match.piece)
        line = align(*map(self._index.changes_of, piece))
        is_duplicate = line is not None and line.evidence >= DUPLICATE_THRESHOLD * self._index.chance
        if line is not None and is_duplicate:
            line = extend(self._index.changes_of(sequence), self._index.changes(video), line)
            stretches = line.stretch, line.other_stretch
        else:
            path = best_path(frames @ self._piece(match.piece).T)
            stretches = (
                _stretch(piece[0], path.first_row, path.last_row),
                _stretch(piece[1], path.first_column, path.last_column),
            )
        (start_seconds, stop_seconds), (video_start_seconds, video_stop_seconds) = stretches
        return SimilarVideo(
            rank,
            self._index.ids[video],
            match.score,
            max(0.0, start_seconds),
            stop_seconds,
            max(0.0, video_start_seconds),
            video_stop_seconds,
            is_duplicate,
            match.score < doubtful_below,
        )

    def _piece(self, piece: int) -> Floats:
        timed = self._index.timed(int(self._index.video_of_piece[piece]), piece)
        return self._unit(timed.features)

    def _frames(self, sequence: TimedFeatures, start: int) -> Floats:
        return self._unit(sequence.features[start : start + PIECE_ROWS])

    def _unit(self, features: Floats) -> Floats:
        """Features minus the mean of all frames of the store, of length 1."""
        centred = features - self._index.centre
        return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True)
class _Match:
    """How alike a piece of the query and one of a video are."""

    query_piece: int
    piece: int
    score: float


def _chamfer(cosines: Floats) -> float:
    """The symmetric chamfer similarity of two videos: the mean of the largest cosine of each frame, (T, U) -> one."""
    return float(cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2


def _stretch(sequence: TimedFeatures, first: int, last: int) -> tuple[float, float]:
    """The time that some rows stand for: half a row before the first to half a row after the last."""
    half = float(np.median(np.diff(sequence.pts_seconds))) / 2 if len(sequence) > 1 else 0.0
    return float(sequence.pts_seconds[first]) - half, float(sequence.pts_seconds[last]) + half
