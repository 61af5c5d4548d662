"""Videos that are the same, or nearly.

On two sides of a split, a test on them measures memory. Under two labels, one of the labels is wrong.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import LabelsError, count_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

__all__ = ["MIN_COSINE", "Leak", "find_leaks", "find_mislabeled", "refuse_mislabeled"]

logger = logging.getLogger(__name__)

MIN_COSINE = 0.95
"""Of the features of three thirds of a video, less the mean over all videos, to call two videos nearly the same. Of the
real clips in ../shared, no two of one camera come over 0.91, and no two of different cameras over 0.59."""
MAX_PAIRS = 3
"""Of mislabeled videos that a message names."""
ROWS_AT_ONCE = 1024
NUM_PROJECTED, MARGIN = 256, 0.1
"""All pairs are compared by so many random projections, whose cosines near 0.95 are 0.006 off; only those within the
margin are then compared in full. Johnson & Lindenstrauss 1984."""


@dataclass(frozen=True)
class Leak:
    """Two videos of two parts that look alike."""

    video: str
    split: str
    other: str
    other_split: str
    cosine: float
    same: bool
    """Whether every feature is the same, as of a file that is there twice."""


def find_leaks(parts: Mapping[str, SequenceDataset], *, min_cosine: float = MIN_COSINE) -> list[Leak]:
    """All pairs of videos of different parts that are the same or nearly so, most alike first.

    Args:
        parts: `train`, `val` and `test`.
        min_cosine: from which on two videos are reported.
    """
    filled = {name: dataset for name, dataset in parts.items() if len(dataset)}
    centre = sum(rows.sum(axis=0) for dataset in filled.values() for rows in _thirds(dataset))
    centre = np.asarray(centre / sum(map(len, filled.values())), np.float32)  # (3 · D,)
    projection = np.random.default_rng(0).standard_normal((len(centre), NUM_PROJECTED), np.float32)
    projected = {
        name: _unit(np.concatenate([(rows - centre) @ projection for rows in _thirds(dataset)]))
        for name, dataset in filled.items()
    }
    leaks = []
    for one, other in combinations(filled, 2):
        for i, j in _alike(projected[one], projected[other], min_cosine - MARGIN):
            pair = (filled[one].sequence(i), filled[other].sequence(j))
            first, second = _unit(np.stack([_thirds_of(sequence.float().numpy()) for sequence in pair]) - centre)
            if (cosine := float(first @ second)) >= min_cosine:
                names = (filled[one].video_ids[i], one, filled[other].video_ids[j], other)
                leaks.append(Leak(*names, round(min(cosine, 1.0), 4), torch.equal(*pair)))
    return sorted(leaks, key=lambda leak: -leak.cosine)


def _alike(rows: NDArray[np.float32], others: NDArray[np.float32], min_cosine: float) -> Iterator[tuple[int, int]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        cosines = rows[start : start + ROWS_AT_ONCE] @ others.T
        for i, j in np.argwhere(cosines >= min_cosine):
            yield start + int(i), int(j)


def _thirds(dataset: SequenceDataset) -> Iterator[NDArray[np.float32]]:
    """(up to ROWS_AT_ONCE, 3 · D) at a time, the mean features of the beginning, the middle and the end."""
    for start in range(0, len(dataset), ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, len(dataset)))
        yield np.stack([_thirds_of(dataset.sequence(number).float().numpy()) for number in numbers])


def _thirds_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, D) -> (3 · D,); of fewer than three frames, some count twice."""
    repeated = features if len(features) >= 3 else features[[0, len(features) // 2, -1]]
    return np.concatenate([third.mean(axis=0) for third in np.array_split(repeated, 3)])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def refuse_mislabeled(store: FeatureStore, videos: Sequence[LabeledVideo], *, skip: bool = False) -> list[LabeledVideo]:
    """Videos to learn from, none of which has the features of another one under another label.

    Args:
        store: the features.
        videos: labelled videos, each in the store.
        skip: leave out all such videos, with a warning, rather than fail.

    Returns:
        The videos, in the order given.

    Raises:
        LabelsError: there are such videos; the message names the first pairs.
    """
    groups = find_mislabeled(store, videos)
    if not groups:
        return list(videos)
    num_pairs = sum(map(_num_mislabeled_pairs, groups))
    what = (
        f"{count_of(num_pairs, 'pair')} of videos with identical features but different labels: {_first_pairs(groups)}"
    )
    if not skip:
        raise LabelsError(
            f"{what}. Correct one of the two labels, or remove one of the two videos; --skip-conflicts leaves all such "
            "videos out"
        )
    logger.warning("%s; %s left out", what, count_of(sum(map(len, groups)), "video"))
    unwanted = {video.video_id for group in groups for video in group}
    return [video for video in videos if video.video_id not in unwanted]


def find_mislabeled(store: FeatureStore, videos: Sequence[LabeledVideo]) -> list[list[LabeledVideo]]:
    """Videos with identical features of which some have different labels.

    Only videos of the same first feature are read whole, once each.

    Args:
        store: the features.
        videos: labelled videos, each in the store.

    Returns:
        Groups of two or more videos; those of one group have the same features, and two labels or more.
    """
    rows = dict(zip(videos, store.features([video.video_id for video in videos], check=False), strict=True))

    def alike(candidates: Iterable[LabeledVideo], by: Callable[[LabeledVideo], Hashable]) -> list[list[LabeledVideo]]:
        groups: dict[Hashable, list[LabeledVideo]] = defaultdict(list)
        for video in candidates:
            groups[by(video)].append(video)
        return [group for group in groups.values() if len({video.label for video in group}) > 1]

    likely = alike(videos, lambda video: (rows[video].shape, rows[video].dtype.str, rows[video][:1].tobytes()))
    return [group for some in likely for group in alike(some, lambda video: sha256(rows[video].tobytes()).digest())]


def _num_mislabeled_pairs(group: Sequence[LabeledVideo]) -> int:
    """How many pairs of a group differ in label: of labels a, a, b two."""
    of_label = Counter(video.label for video in group)
    return (len(group) ** 2 - sum(number**2 for number in of_label.values())) // 2


def _first_pairs(groups: Sequence[Sequence[LabeledVideo]]) -> str:
    """`walk/a.mp4 (walk) and run/b.mp4 (run), …`, one pair a group."""
    pairs = []
    for one, *others in groups[:MAX_PAIRS]:
        other = next(video for video in others if video.label != one.label)
        pairs.append(f"{one.video_id} ({one.label}) and {other.video_id} ({other.label})")
    return ", ".join(pairs) + ", …" * (sum(map(_num_mislabeled_pairs, groups)) > len(pairs))
