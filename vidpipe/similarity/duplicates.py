"""Pairs of videos that show the same footage, and groups of them."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from vidpipe.config import DUPLICATE_THRESHOLD
from vidpipe.similarity.alignment import Alignment, align
from vidpipe.similarity.extension import extend
from vidpipe.similarity.sequences import MAX_KEPT, SequenceIndex
from vidpipe.similarity.shortlist import nearest

__all__ = ["DuplicatePair", "find_pairs", "group_pairs"]

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
BLOCK_VIDEOS = MAX_KEPT // 3
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


def find_pairs(
    index: SequenceIndex,
    *,
    threshold: float = DUPLICATE_THRESHOLD,
    num_nearest: int = NUM_NEAREST,
    is_wanted: Callable[[int, int], bool] = lambda one, other: True,
    on_progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[DuplicatePair]:
    """Find all pairs of videos with the same footage.

    Args:
        index: the sequences.
        threshold: the score from which on a pair counts.
        num_nearest: pieces that each piece is aligned with, at most.
        is_wanted: returns whether a pair of numbers is looked at.
        on_progress: called with the step (`shortlisting`, `comparing`), and how much of it is done of how much.

    Returns:
        The pairs, the highest score first.
    """
    candidates = _candidates(index, num_nearest, is_wanted, on_progress)
    found: dict[tuple[int, int], DuplicatePair] = {}
    for done, (pair, pieces) in enumerate(sorted(candidates.items(), key=_block), 1):
        alignment = _align_pieces(index, *pair, pieces)
        if alignment is not None and alignment.evidence >= min(threshold, WEAK_THRESHOLD) * index.chance:
            found[pair] = DuplicatePair(*pair, alignment, alignment.evidence / index.chance)
        on_progress("comparing", done, len(candidates))
    strong = {pair: one for pair, one in found.items() if _is_strong(index, one, threshold)}
    strong |= _closed(index, strong, found, is_wanted)
    return sorted((_extended(index, one) for one in strong.values()), key=lambda one: (-one.score, one.one, one.other))


def _is_strong(index: SequenceIndex, pair: DuplicatePair, threshold: float) -> bool:
    return pair.score >= threshold and pair.alignment.correlation >= MIN_CORRELATION * index.chance


def _candidates(
    index: SequenceIndex,
    num_nearest: int,
    is_wanted: Callable[[int, int], bool],
    on_progress: Callable[[str, int, int], None],
) -> dict[tuple[int, int], list[tuple[float, int, int]]]:
    """The pairs of pieces to align, with their cosines, by pair of videos."""
    videos = index.video_of_piece
    min_cosine = MIN_COSINE if len(videos) > NUM_WITHOUT_MIN else -1.0
    candidates: dict[tuple[int, int], list[tuple[float, int, int]]] = defaultdict(list)
    for start, numbers, cosines in nearest(index.vectors, index.vectors, num_nearest + 1):
        on_progress("shortlisting", start, len(index.vectors))
        for row, column in np.argwhere(cosines >= min_cosine).tolist():
            piece, other = start + row, int(numbers[row, column])
            if videos[piece] > videos[other]:
                piece, other = other, piece
            one_video, other_video = int(videos[piece]), int(videos[other])
            if one_video != other_video and is_wanted(one_video, other_video):
                candidates[one_video, other_video].append((float(cosines[row, column]), piece, other))
    return candidates


def _block(candidate: tuple[tuple[int, int], object]) -> tuple[int, int, int, int]:
    """A sort key that brings pairs of the same videos together, which are kept in memory."""
    one, other = candidate[0]
    return one // BLOCK_VIDEOS, other // BLOCK_VIDEOS, one, other


def _align_pieces(
    index: SequenceIndex, one: int, other: int, pieces: Iterable[tuple[float, int, int]]
) -> Alignment | None:
    """The best alignment of some pairs of pieces of two videos."""
    likely = sorted(set(pieces), reverse=True)[:MAX_PIECES]
    found = [
        align(index.changes(one, piece), index.changes(other, piece_of_other)) for _, piece, piece_of_other in likely
    ]
    return max((one for one in found if one is not None), key=lambda one: one.evidence, default=None)


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
            pair = weak.get((one, other)) or _aligned_pair(index, one, other)
            if pair is not None and pair.score >= WEAK_THRESHOLD:
                spacing = max(index.changes(number).spacing_seconds for number in (one, other))
                if any(_agree(pair.alignment, lines[one][third], lines[third][other], spacing) for third in common):
                    confirmed[one, other] = pair
    return confirmed


def _aligned_pair(index: SequenceIndex, one: int, other: int) -> DuplicatePair | None:
    pieces = [np.flatnonzero(index.video_of_piece == number) for number in (one, other)]
    cosines = index.vectors[pieces[0]] @ index.vectors[pieces[1]].T
    likely = [(float(cosines[i, j]), int(pieces[0][i]), int(pieces[1][j])) for i, j in np.ndindex(cosines.shape)]
    alignment = _align_pieces(index, one, other, likely)
    return None if alignment is None else DuplicatePair(one, other, alignment, alignment.evidence / index.chance)


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
