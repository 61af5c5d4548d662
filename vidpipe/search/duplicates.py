"""Duplicates in a store, by id: pairs, groups, and which videos of a group to keep."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidpipe.config import DUPLICATE_THRESHOLD
from vidpipe.errors import StoreError, count_of
from vidpipe.features.store import FeatureStore
from vidpipe.search.embedded import EmbeddedVideos
from vidpipe.similarity.duplicates import Compare, DuplicatePair, compare_all, find_pairs, group_pairs
from vidpipe.similarity.sequences import SequenceIndex, read_index

__all__ = ["Duplicate", "DuplicateGroup", "GroupMember", "find_duplicates"]

COVERED_SHARE = 0.9
"""A video need not be kept if a kept one shows this share of it, or more."""
DOUBT_FACTOR = 1.5
"""A pair is doubtful whose score is below this multiple of the threshold."""


@dataclass(frozen=True)
class Duplicate:
    """Two videos with the same footage."""

    video: str
    other: str
    score: float
    """How far the agreement of the changes is above chance, in standard deviations."""
    correlation: float
    """Of the changes along the stretch, up to 1."""
    num_rows: int
    start_seconds: float
    stop_seconds: float
    """The stretch [start, stop) of the video that the other one shows too."""
    other_start_seconds: float
    other_stop_seconds: float
    speed: float
    """Seconds of the other in one second of the video."""
    is_doubtful: bool
    """Whether the score is little above the threshold, so that a person should look."""

    @property
    def matched_seconds(self) -> float:
        """The length of the stretch in the video."""
        return self.stop_seconds - self.start_seconds

    @property
    def offset_seconds(self) -> float:
        """When the other one's stretch starts, minus when the video's does."""
        return self.other_start_seconds - self.start_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return what the commands print, with times to the millisecond."""
        values = {**asdict(self), "matched_seconds": self.matched_seconds, "offset_seconds": self.offset_seconds}
        return {name: _rounded(value) for name, value in values.items()}


@dataclass(frozen=True)
class GroupMember:
    """A video of a group of duplicates."""

    video: str
    duration_seconds: float
    width: int
    height: int
    keep: bool
    covered_by: str | None
    """The kept video that shows it all, so that this one can go; None for a kept one."""


@dataclass(frozen=True)
class DuplicateGroup:
    """Videos that share footage, directly or over others."""

    members: tuple[GroupMember, ...]
    """The kept ones first, then by id."""
    pairs: tuple[Duplicate, ...]
    """The highest score first."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the commands print."""
        members = [asdict(member) | {"duration_seconds": _rounded(member.duration_seconds)} for member in self.members]
        return {"videos": members, "pairs": [pair.as_dict() for pair in self.pairs]}


def find_duplicates(
    store: FeatureStore,
    *,
    threshold: float = DUPLICATE_THRESHOLD,
    embedded: EmbeddedVideos | None = None,
    compare: Compare = compare_all,
    on_progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> list[DuplicateGroup]:
    """Find the videos of a store that show the same footage.

    Args:
        store: the features.
        threshold: the score from which on a pair counts.
        embedded: each video is compared with those nearest by a learned embedding, instead of by the mean feature;
            `store` is its first stream. The score is the same.
        compare: what compares pairs of videos.
        on_progress: called with the step (`reading`, `shortlisting`, `comparing`), and how much of it is done of
            how much.

    Returns:
        The groups, those with the most videos first.

    Raises:
        StoreError: the store has fewer than two videos, or cannot be read.
    """
    ids, vectors = (None, None) if embedded is None else (embedded.ids, embedded.vectors.numpy())
    index = read_index(store, ids, on_progress=lambda done, total: on_progress("reading", done, total))
    if len(index) < 2:
        raise StoreError(
            f"{store.path}: {count_of(len(index), 'video')} with features, and duplicates are looked for among two or "
            "more; extract more videos into the store"
        )
    pairs = find_pairs(index, threshold=threshold, vectors=vectors, compare=compare, on_progress=on_progress)
    groups = group_pairs([(pair.one, pair.other) for pair in pairs])
    number_of = {video: number for number, group in enumerate(groups) for video in group}
    of_group: list[list[DuplicatePair]] = [[] for _ in groups]
    for pair in pairs:
        of_group[number_of[pair.one]].append(pair)
    found = [
        DuplicateGroup(
            _members(index, group, its_pairs), tuple(_duplicate(index, pair, threshold) for pair in its_pairs)
        )
        for group, its_pairs in zip(groups, of_group, strict=True)
    ]
    return sorted(found, key=lambda group: (-len(group.members), group.members[0].video))


def _duplicate(index: SequenceIndex, pair: DuplicatePair, threshold: float) -> Duplicate:
    line = pair.alignment
    return Duplicate(
        index.ids[pair.one],
        index.ids[pair.other],
        pair.score,
        line.correlation,
        line.num_rows,
        *_inside(index, pair.one, *line.stretch),
        *_inside(index, pair.other, *line.other_stretch),
        line.speed,
        not pair.is_same and pair.score < DOUBT_FACTOR * threshold,
    )


def _inside(index: SequenceIndex, number: int, start_seconds: float, stop_seconds: float) -> tuple[float, float]:
    """A stretch without what lies before the video's first row by less than half a row: time that it does not have."""
    last = max(_duration(index, number), float(index.pts_seconds[number][-1]))
    return max(0.0, start_seconds), min(last, stop_seconds)


def _duration(index: SequenceIndex, number: int) -> float:
    return index.store.info(index.ids[number]).duration_seconds


def _members(index: SequenceIndex, group: Sequence[int], pairs: Sequence[DuplicatePair]) -> tuple[GroupMember, ...]:
    """The videos of a group: longest first, a video is kept unless a kept one shows it."""
    stretches = {}
    for pair in pairs:
        line = pair.alignment
        stretches[pair.one, pair.other] = line.stop_seconds - line.start_seconds
        stretches[pair.other, pair.one] = (line.stop_seconds - line.start_seconds) * line.speed
    kept: list[int] = []
    covered_by: dict[int, int] = {}
    longest = max(_duration(index, number) for number in group)
    for number in sorted(group, key=lambda number: _worth(index, number, longest)):
        needed = COVERED_SHARE * _duration(index, number)
        covering = [other for other in kept if stretches.get((number, other), 0) >= needed]
        if covering:
            covered_by[number] = covering[0]
        else:
            kept.append(number)
    ordered = [*kept, *sorted(covered_by)]
    return tuple(_member(index, number, covered_by.get(number)) for number in ordered)


def _worth(index: SequenceIndex, number: int, longest_seconds: float) -> tuple[float, int, int, float, str]:
    """The sort key of what to keep: the longest, of these that with the largest picture, then file, then by id.

    All that are nearly as long as the longest count as long.
    """
    info = index.store.info(index.ids[number])
    seconds = _duration(index, number)
    counted = longest_seconds if seconds >= COVERED_SHARE * longest_seconds else seconds
    return -counted, -info.width * info.height, -info.size_bytes, -seconds, index.ids[number]


def _member(index: SequenceIndex, number: int, covered_by: int | None) -> GroupMember:
    info = index.store.info(index.ids[number])
    return GroupMember(
        index.ids[number],
        info.duration_seconds,
        info.width,
        info.height,
        keep=covered_by is None,
        covered_by=None if covered_by is None else index.ids[covered_by],
    )


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
