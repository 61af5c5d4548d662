"""Pairs of videos that show the same footage, and groups of them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import DUPLICATE_THRESHOLD
from vidpipe.features.store import FeatureStore
from vidpipe.similarity.alignment import Alignment, align
from vidpipe.similarity.extension import extend
from vidpipe.similarity.sequences import MAX_KEPT_ROWS, SequenceIndex
from vidpipe.similarity.shortlist import nearest

__all__ = [
    "Candidates",
    "Compare",
    "DuplicatePair",
    "compare_all",
    "compare_block",
    "cut_candidates",
    "find_pairs",
    "group_pairs",
]

Floats = NDArray[np.float32]

WEAK_THRESHOLD = 6.0
"""Score of a pair that is reported where a third video, a duplicate of both, has them at the same times."""
MIN_CORRELATION = 2.0
"""Times the deviation of chance: of long videos, a lower one may be a slow change that both have."""
MIN_COSINE, NUM_WITHOUT_MIN = 0.5, 512
"""Between the mean features of two pieces that are aligned at all: altered copies have 0.63 or more. Among few pieces,
whose common mean is near to each of them, a cosine says little, and all are aligned."""
NUM_NEAREST = 40
"""Pieces that each piece is aligned with, at most, by default."""
MAX_PIECES = 4
"""Pairs of pieces of two videos that are aligned, at most: those with the nearest means."""
BLOCK_VIDEOS = MAX_KEPT_ROWS // 48
"""Videos that are compared with each other before others are read: of 16 rows, those of two blocks are in memory."""
PAIRS_AT_ONCE = 256
MAX_CLOSED = 64
"""Videos of a group whose pairs are all compared, at most."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two videos with the same footage."""

    one: int
    other: int
    """Numbers of the videos in the index; `one` is smaller."""
    alignment: Alignment
    """Of the first video's time with the other's."""

    score: float
    """The evidence of the alignment, in standard deviations of what chance gives in this store."""

    is_same: bool = False
    """Whether all features are equal, as of two copies of one file: then the pair counts whatever its score."""


@dataclass(frozen=True)
class Candidates:
    """P pairs of videos that may show the same footage, and the pieces of each to align."""

    videos: NDArray[np.int64]
    """(P, 2) numbers of videos, `one` smaller than `other`; pairs of the same videos are near to each other."""
    pieces: NDArray[np.int64]
    """(C, 2) numbers of pieces, pair by pair of videos, the likeliest of each first."""
    bounds: NDArray[np.int64]
    """(P + 1,) those of pair p are [bounds[p], bounds[p + 1])."""
    min_score: float
    """Of a pair that counts."""

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Yield the two videos of each pair, and its pieces."""
        for (one, other), (start, stop) in zip(self.videos.tolist(), pairwise(self.bounds.tolist()), strict=True):
            yield one, other, self.pieces[start:stop]

    def blocks(self, num_pairs: int) -> Iterator["Candidates"]:
        """Yield them in blocks of at most `num_pairs`."""
        for start in range(0, len(self), num_pairs):
            bounds = self.bounds[start : start + num_pairs + 1]
            pieces = self.pieces[bounds[0] : bounds[-1]]
            yield replace(self, videos=self.videos[start : start + num_pairs], pieces=pieces, bounds=bounds - bounds[0])


Compare = Callable[[SequenceIndex, Candidates], Iterator[tuple[int, list[DuplicatePair]]]]
"""Compares candidates: yields how many were compared, and the pairs found among them."""


def compare_all(index: SequenceIndex, candidates: Candidates) -> Iterator[tuple[int, list[DuplicatePair]]]:
    """Compare pairs of videos in this process.

    Args:
        index: the sequences.
        candidates: the pairs.

    Yields:
        The number of pairs of each block, and those of them that count.
    """
    for block in candidates.blocks(PAIRS_AT_ONCE):
        index.prepare(block.pieces.ravel().tolist())
        pairs = (_compared(index, *pair) for pair in block)
        yield (
            len(block),
            [pair for pair in pairs if pair is not None and (pair.is_same or pair.score >= candidates.min_score)],
        )


def cut_candidates(
    index: SequenceIndex, candidates: Candidates, num_pairs: int
) -> Iterator[tuple[NDArray[np.int64], SequenceIndex, Candidates]]:
    """Cut candidates into blocks that other processes can compare.

    Args:
        index: the sequences.
        candidates: the pairs.
        num_pairs: the most pairs of a block.

    Yields:
        The numbers of a block's videos, increasing; the part of the index with them; the block's pairs, with the
        numbers in that part.
    """
    for block in candidates.blocks(num_pairs):
        numbers = np.unique(block.videos)
        first = np.flatnonzero(np.isin(index.video_of_piece, numbers))
        videos, pieces = np.searchsorted(numbers, block.videos), np.searchsorted(first, block.pieces)
        yield numbers, index.part(numbers), replace(block, videos=videos, pieces=pieces)


def compare_block(part: SequenceIndex, candidates: Candidates) -> list[DuplicatePair]:
    """Compare a block of `cut_candidates`, in any process that sees the store.

    Args:
        part: the videos of the block.
        candidates: its pairs.

    Returns:
        The pairs found, with the numbers in the part.
    """
    opened = part.opened(_opened_once(part.store.path))
    return [pair for _, found in compare_all(opened, candidates) for pair in found]


@lru_cache(maxsize=1)
def _opened_once(path: Path) -> FeatureStore:
    """A store whose list of videos is read once by each process."""
    return FeatureStore.open(path)


def find_pairs(
    index: SequenceIndex,
    *,
    threshold: float = DUPLICATE_THRESHOLD,
    num_nearest: int = NUM_NEAREST,
    vectors: Floats | None = None,
    is_wanted: Callable[[int, int], bool] = lambda one, other: True,
    compare: Compare = compare_all,
    on_progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[DuplicatePair]:
    """Find all pairs of videos with the same footage.

    Args:
        index: the sequences.
        threshold: the score from which on a pair counts.
        num_nearest: pieces that each piece is aligned with, at most.
        vectors: (N, E) of length 1, to align each video with those that are nearest in them, instead of each piece with
            those with the nearest mean feature.
        is_wanted: returns whether a pair of numbers is looked at.
        compare: what compares the candidates.
        on_progress: called with the step (`shortlisting`, `comparing`), and how much of it is done of how much.

    Returns:
        The pairs, the highest score first.
    """
    if len(index) < 2:
        return []
    pieces = _pieces_to_align(index, num_nearest, vectors, on_progress)
    candidates = _candidates(index, pieces, is_wanted, min(threshold, WEAK_THRESHOLD))
    found: dict[tuple[int, int], DuplicatePair] = {}
    done = 0
    for num_compared, pairs in compare(index, candidates):
        done += num_compared
        found |= {(pair.one, pair.other): pair for pair in pairs}
        on_progress("comparing", done, len(candidates))
    strong = {pair: one for pair, one in found.items() if _is_strong(index, one, threshold)}
    strong |= _closed(index, strong, found, is_wanted)
    return sorted((_extended(index, one) for one in strong.values()), key=lambda one: (-one.score, one.one, one.other))


def _is_strong(index: SequenceIndex, pair: DuplicatePair, threshold: float) -> bool:
    is_likely = pair.score >= threshold and pair.alignment.correlation >= MIN_CORRELATION * index.chance
    return pair.is_same or is_likely


def _candidates(
    index: SequenceIndex, pieces: NDArray[np.int64], is_wanted: Callable[[int, int], bool], min_score: float
) -> Candidates:
    """The pairs of videos to compare, from the pairs of pieces to align, (C, 2)."""
    videos = index.video_of_piece[pieces]
    starts = np.flatnonzero(np.any(np.diff(videos, axis=0, prepend=-1), axis=1))
    counts = np.diff(np.append(starts, len(pieces)))
    is_wanted_pair = np.array([is_wanted(*pair) for pair in videos[starts].tolist()], bool)
    is_likely = np.arange(len(pieces)) - np.repeat(starts, counts) < MAX_PIECES
    kept = np.minimum(counts[is_wanted_pair], MAX_PIECES)
    return Candidates(
        videos[starts][is_wanted_pair],
        pieces[is_likely & np.repeat(is_wanted_pair, counts)],
        np.append(0, np.cumsum(kept)),
        min_score,
    )


def _pieces_to_align(
    index: SequenceIndex,
    num_nearest: int,
    vectors: Floats | None,
    on_progress: Callable[[str, int, int], None],
) -> NDArray[np.int64]:
    """The pairs of pieces to align, (C, 2), pair by pair of videos, those with the nearest means first.

    Pairs of the same videos, which are kept in memory, are near to each other.
    """
    if vectors is None:
        min_cosine = MIN_COSINE if len(index.vectors) > NUM_WITHOUT_MIN else -1.0
        pieces, nearness = _near(index.vectors, num_nearest, min_cosine, on_progress)
        differ = np.diff(index.video_of_piece[pieces], axis=1)[:, 0] != 0
        pieces, nearness = pieces[differ], nearness[differ]
    else:
        pairs, _ = _near(vectors, num_nearest, -1.0, on_progress)
        none = np.zeros((0, 2), np.int64)
        pieces = np.concatenate([none, *(_nearest_pieces(index, one, other) for one, other in pairs.tolist())])
        nearness = np.zeros(len(pieces), np.float32)  # the order of the pieces of two videos stays
    one, other = index.video_of_piece[pieces].T
    return pieces[np.lexsort([-nearness, other, one, other // BLOCK_VIDEOS, one // BLOCK_VIDEOS])]


def _near(
    vectors: Floats, num_nearest: int, min_cosine: float, on_progress: Callable[[str, int, int], None]
) -> tuple[NDArray[np.int64], Floats]:
    """Each vector with its nearest ones: pairs of numbers (C, 2), the smaller first, and their products (C,)."""
    found, found_cosines = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for start, numbers, cosines in nearest(vectors, vectors, num_nearest + 1):
        on_progress("shortlisting", start, len(vectors))
        row, column = np.nonzero(cosines >= min_cosine)
        pairs = np.sort(np.stack([start + row, numbers[row, column]], axis=1), axis=1)
        differ = pairs[:, 0] != pairs[:, 1]
        found.append(pairs[differ])
        found_cosines.append(cosines[row, column][differ])
    one, other = np.concatenate(found).T
    codes, first = np.unique(one * len(vectors) + other, return_index=True)  # a number for each pair
    return np.stack(np.divmod(codes, len(vectors)), axis=1), np.concatenate(found_cosines)[first]


def _nearest_pieces(index: SequenceIndex, one: int, other: int) -> NDArray[np.int64]:
    """The pairs of pieces of two videos with the nearest means, (up to `MAX_PIECES`, 2)."""
    first, stop = np.searchsorted(index.video_of_piece, [one, one + 1])
    its_first, its_stop = np.searchsorted(index.video_of_piece, [other, other + 1])
    cosines = index.vectors[first:stop] @ index.vectors[its_first:its_stop].T
    rows, columns = np.unravel_index(np.argsort(-cosines, axis=None)[:MAX_PIECES], cosines.shape)
    return np.stack([first + rows, its_first + columns], axis=1)


def _compared(index: SequenceIndex, one: int, other: int, pieces: NDArray[np.int64]) -> DuplicatePair | None:
    """The best alignment of some pairs of pieces of two videos, the likeliest first."""
    alignment = _identical(index, one, other)
    is_same = alignment is not None
    for piece, its_piece in () if is_same else pieces.tolist():
        found = align(index.changes(one, piece), index.changes(other, its_piece))
        if found is not None and (alignment is None or found.evidence > alignment.evidence):
            alignment = found
    if alignment is None:
        return None
    return DuplicatePair(one, other, alignment, alignment.evidence / index.chance, is_same)


def _identical(index: SequenceIndex, one: int, other: int) -> Alignment | None:
    """The alignment of two videos with equal features, as of two copies of one file, of any length."""
    first, second = index.features[one], index.features[other]
    if first.shape != second.shape or not np.array_equal(first[0], second[0]) or not np.array_equal(first, second):
        return None
    offset = float(index.pts_seconds[other][0] - index.pts_seconds[one][0])
    return Alignment(1.0, len(first), 1.0, offset, 0.0, index.store.info(index.ids[one]).duration_seconds)


def _closed(
    index: SequenceIndex,
    strong: Mapping[tuple[int, int], DuplicatePair],
    weak: Mapping[tuple[int, int], DuplicatePair],
    is_wanted: Callable[[int, int], bool],
) -> dict[tuple[int, int], DuplicatePair]:
    """The weak pairs of a group that a third video confirms: the lines over it and the pair's own agree."""
    lines: dict[int, dict[int, Alignment]] = defaultdict(dict)
    for (one, other), pair in strong.items():
        lines[one][other], lines[other][one] = pair.alignment, pair.alignment.reversed()
    confirmed = {}
    for group in group_pairs(strong):
        for one, other in combinations(group[:MAX_CLOSED], 2):
            common = lines[one].keys() & lines[other].keys()
            if (one, other) in strong or not common or not is_wanted(one, other):
                continue
            maybe = weak.get((one, other)) or _compared(index, one, other, _nearest_pieces(index, one, other))
            if maybe is not None and maybe.score >= WEAK_THRESHOLD:
                both = [index.changes(number) for number in (one, other)]
                spacing = max((its.spacing_seconds for its in both if len(its) > 1), default=0.0)
                if any(_agree(maybe.alignment, lines[one][third], lines[third][other], spacing) for third in common):
                    confirmed[one, other] = maybe
    return confirmed


def _agree(direct: Alignment, first: Alignment, second: Alignment, spacing_seconds: float) -> bool:
    """Whether a line, and the way over a third video, lead to the same time: at the middle of the stretch."""
    middle = (direct.start_seconds + direct.stop_seconds) / 2
    return abs(second.other_time(first.other_time(middle)) - direct.other_time(middle)) <= spacing_seconds


def _extended(index: SequenceIndex, pair: DuplicatePair) -> DuplicatePair:
    """The pair with the stretch over all rows, where it was found in pieces of longer videos."""
    one, other = index.changes(pair.one), index.changes(pair.other)
    return replace(pair, alignment=extend(one, other, pair.alignment))


def group_pairs(pairs: Collection[tuple[int, int]]) -> list[list[int]]:
    """Join pairs into groups: the connected components.

    Args:
        pairs: of numbers.

    Returns:
        The groups, each sorted, the first number of each in order.
    """
    root: dict[int, int] = {}

    def find(number: int) -> int:
        while root.setdefault(number, number) != number:
            number = root[number]
        return number

    for one, other in sorted(pairs):
        first, second = sorted((find(one), find(other)))
        root[second] = first
    groups = defaultdict(list)
    for number in sorted(root):
        groups[find(number)].append(number)
    return [groups[first] for first in sorted(groups)]
