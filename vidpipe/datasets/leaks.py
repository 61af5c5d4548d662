"""Videos on two sides of a split that are the same, or nearly: a test on them measures memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.datasets.sequences import SequenceDataset

__all__ = ["LEAST_COSINE", "Leak", "find_leaks"]

LEAST_COSINE = 0.95
"""Of the features of three thirds of a video, less the mean over all videos, to call two videos nearly the same. Of the
real clips in ../shared, no two of one camera come over 0.91, and no two of different cameras over 0.59."""
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


def find_leaks(parts: Mapping[str, SequenceDataset], *, least_cosine: float = LEAST_COSINE) -> list[Leak]:
    """All pairs of videos of different parts that are the same or nearly so, most alike first.

    Args:
        parts: `train`, `val` and `test`.
        least_cosine: from which on two videos are reported.
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
        for i, j in _alike(projected[one], projected[other], least_cosine - MARGIN):
            pair = (filled[one].sequence(i), filled[other].sequence(j))
            first, second = _unit(np.stack([_thirds_of(sequence.float().numpy()) for sequence in pair]) - centre)
            if (cosine := float(first @ second)) >= least_cosine:
                names = (filled[one].video_ids[i], one, filled[other].video_ids[j], other)
                leaks.append(Leak(*names, round(min(cosine, 1.0), 4), torch.equal(*pair)))
    return sorted(leaks, key=lambda leak: -leak.cosine)


def _alike(rows: NDArray[np.float32], others: NDArray[np.float32], least_cosine: float) -> Iterator[tuple[int, int]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        cosines = rows[start : start + ROWS_AT_ONCE] @ others.T
        for i, j in np.argwhere(cosines >= least_cosine):
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
