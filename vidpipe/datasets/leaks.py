"""Videos that are the same, or nearly the same.

In two subsets of a split, they are leaks: a test on them measures memory. Under two labels, they are conflicts: one of
the labels is wrong.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.errors import LabelsError, count_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.similarity.duplicates import find_pairs
from vidpipe.similarity.sequences import read_index

__all__ = ["Leak", "exclude_conflicts", "find_conflicts", "find_leaks"]

logger = logging.getLogger(__name__)

MIN_COSINE = 0.95
"""Cosine from which on two videos count as nearly the same. It compares the mean features of a video's thirds, minus
their mean over all videos. Of 260 real clips, no two of one camera exceed 0.91, no two of different cameras 0.59."""
MAX_PAIRS = 3
"""Pairs of conflicting videos that a message names."""
NUM_NEAREST = 12
"""Videos that each one is compared with for the same footage, at most: training does not wait for more."""
ROWS_AT_ONCE = 1024
NUM_PROJECTED, MARGIN = 256, 0.1
"""All pairs are first compared by random projections, whose cosines near 0.95 have an error of 0.006. Only pairs within
the margin are compared in full. Johnson & Lindenstrauss 1984."""


@dataclass(frozen=True)
class Leak:
    """Two videos of different subsets that look alike."""

    video: str
    split: str
    other: str
    other_split: str
    cosine: float
    same: bool
    """Whether all features are equal, as those of two copies of one file."""
    duplicate_score: float = 0.0
    """Of the same footage in both, see `vidpipe.similarity.duplicates`; 0 where only the pictures look alike."""


_Places = Mapping[str, tuple[str, SequenceDataset, int]]
"""By video, its subset, and where its sequence is."""


def find_leaks(subsets: Subsets, store: FeatureStore | None = None, *, min_cosine: float = MIN_COSINE) -> list[Leak]:
    """Find all pairs of videos in different subsets that are the same, or nearly.

    Args:
        subsets: `train`, `val` and `test`.
        store: the features with their times, to find the same footage where it was altered; None to look for videos
            whose pictures look alike all the time.
        min_cosine: the cosine from which on a pair is reported.

    Returns:
        The pairs, those with the same footage first, then most alike first.
    """
    places = {
        video_id: (name, dataset, number)
        for name, dataset in subsets.items()
        for number, video_id in enumerate(dataset.video_ids)
    }
    centre = _centre(subsets)
    alike = {(leak.video, leak.other): leak for leak in _find_alike(subsets, places, centre, min_cosine)}
    for (one, other), score in ({} if store is None else _find_duplicates(places, store)).items():
        leak = alike.get((one, other)) or alike.get((other, one)) or _leak(places, one, other, centre)
        alike[leak.video, leak.other] = replace(leak, duplicate_score=round(score, 3))
    return sorted(alike.values(), key=lambda leak: (-leak.duplicate_score, -leak.cosine))


def _find_duplicates(places: _Places, store: FeatureStore) -> dict[tuple[str, str], float]:
    """The scores of pairs in different subsets with the same footage."""
    index = read_index(store, sorted(places))
    names = [places[video_id][0] for video_id in index.ids]
    pairs = find_pairs(index, num_nearest=NUM_NEAREST, is_wanted=lambda one, other: names[one] != names[other])
    return {(index.ids[pair.one], index.ids[pair.other]): pair.score for pair in pairs}


def _centre(subsets: Subsets) -> NDArray[np.float32]:
    """The mean over all videos, (3 · D,)."""
    total = sum(rows.sum(axis=0) for dataset in subsets.values() if len(dataset) for rows in _thirds(dataset))
    return np.asarray(total / sum(map(len, subsets.values())), np.float32)


def _find_alike(subsets: Subsets, places: _Places, centre: NDArray[np.float32], min_cosine: float) -> Iterator[Leak]:
    filled = {name: dataset for name, dataset in subsets.items() if len(dataset)}
    projection = np.random.default_rng(0).standard_normal((len(centre), NUM_PROJECTED), np.float32)
    projected = {
        name: _unit(np.concatenate([(rows - centre) @ projection for rows in _thirds(dataset)]))
        for name, dataset in filled.items()
    }
    for one, other in combinations(filled, 2):
        for i, j in _alike(projected[one], projected[other], min_cosine - MARGIN):
            leak = _leak(places, filled[one].videos[i].video_id, filled[other].videos[j].video_id, centre)
            if leak.cosine >= min_cosine:
                yield leak


def _leak(places: _Places, video: str, other: str, centre: NDArray[np.float32]) -> Leak:
    (split, dataset, number), (other_split, other_dataset, other_number) = places[video], places[other]
    pair = dataset.sequence(number), other_dataset.sequence(other_number)
    first, second = _unit(np.stack([_thirds_of(sequence.float().numpy()) for sequence in pair]) - centre)
    return Leak(video, split, other, other_split, round(min(float(first @ second), 1.0), 4), torch.equal(*pair))


def _alike(rows: NDArray[np.float32], others: NDArray[np.float32], min_cosine: float) -> Iterator[tuple[int, int]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        cosines = rows[start : start + ROWS_AT_ONCE] @ others.T
        for i, j in np.argwhere(cosines >= min_cosine):
            yield start + int(i), int(j)


def _thirds(dataset: SequenceDataset) -> Iterator[NDArray[np.float32]]:
    """Yield the mean features of each video's thirds, (up to ROWS_AT_ONCE, 3 · D) at a time."""
    for start in range(0, len(dataset), ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, len(dataset)))
        yield np.stack([_thirds_of(dataset.sequence(number).float().numpy()) for number in numbers])


def _thirds_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, D) -> (3 · D,); with fewer than three frames, some count twice."""
    repeated = features if len(features) >= 3 else features[[0, len(features) // 2, -1]]
    return np.concatenate([third.mean(axis=0) for third in np.array_split(repeated, 3)])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def exclude_conflicts(store: FeatureStore, videos: Sequence[LabeledVideo], *, skip: bool = False) -> list[LabeledVideo]:
    """Exclude videos that have identical features but different labels.

    Args:
        store: the features.
        videos: labelled videos, each in the store.
        skip: exclude such videos with a warning; without it, they are an error.

    Returns:
        The other videos, in the order given.

    Raises:
        LabelsError: there are such videos, and `skip` is off; the message names the first pairs.
    """
    groups = find_conflicts(store, videos)
    if not groups:
        return list(videos)
    num_pairs = sum(map(_num_conflicts, groups))
    what = (
        f"{count_of(num_pairs, 'pair')} of videos with identical features but different labels: {_first_pairs(groups)}"
    )
    if not skip:
        raise LabelsError(
            f"{what}. Correct one of the two labels, or remove one of the two videos; "
            "--skip-conflicts excludes all such videos"
        )
    logger.warning("%s; excluded %s", what, count_of(sum(map(len, groups)), "video"))
    excluded = {video.video_id for group in groups for video in group}
    return [video for video in videos if video.video_id not in excluded]


def find_conflicts(store: FeatureStore, videos: Sequence[LabeledVideo]) -> list[list[LabeledVideo]]:
    """Find videos that have identical features but different labels.

    Only videos with the same first feature are read completely, once each.

    Args:
        store: the features.
        videos: labelled videos, each in the store.

    Returns:
        Groups of two or more videos: the same features, and at least two labels in each group.
    """
    rows = dict(zip(videos, store.features([video.video_id for video in videos], check=False), strict=True))

    def alike(candidates: Iterable[LabeledVideo], by: Callable[[LabeledVideo], Hashable]) -> list[list[LabeledVideo]]:
        groups: dict[Hashable, list[LabeledVideo]] = defaultdict(list)
        for video in candidates:
            groups[by(video)].append(video)
        return [group for group in groups.values() if len({video.label for video in group}) > 1]

    likely = alike(videos, lambda video: (rows[video].shape, rows[video].dtype.str, rows[video][:1].tobytes()))
    return [group for some in likely for group in alike(some, lambda video: sha256(rows[video].tobytes()).digest())]


def _num_conflicts(group: Sequence[LabeledVideo]) -> int:
    """The number of pairs in a group whose labels differ: 2 for the labels a, a, b."""
    of_label = Counter(video.label for video in group)
    return (len(group) ** 2 - sum(number**2 for number in of_label.values())) // 2


def _first_pairs(groups: Sequence[Sequence[LabeledVideo]]) -> str:
    """`walk/a.mp4 (walk) and run/b.mp4 (run), …`: one pair of each group."""
    pairs = []
    for one, *others in groups[:MAX_PAIRS]:
        other = next(video for video in others if video.label != one.label)
        pairs.append(f"{one.video_id} ({one.label}) and {other.video_id} ({other.label})")
    return ", ".join(pairs) + ", …" * (sum(map(_num_conflicts, groups)) > len(pairs))
