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
    pooled = {name: _thirds(dataset) for name, dataset in parts.items() if len(dataset)}
    centre = np.concatenate(list(pooled.values())).mean(axis=0)
    units = {name: _unit(rows - centre) for name, rows in pooled.items()}
    leaks = [
        Leak(
            parts[one].video_ids[i],
            one,
            parts[other].video_ids[j],
            other,
            round(min(cosine, 1.0), 4),
            torch.equal(parts[one].sequence(i), parts[other].sequence(j)),
        )
        for one, other in combinations(units, 2)
        for i, j, cosine in _alike(units[one], units[other], least_cosine)
    ]
    return sorted(leaks, key=lambda leak: -leak.cosine)


def _alike(
    rows: NDArray[np.float32], others: NDArray[np.float32], least_cosine: float
) -> Iterator[tuple[int, int, float]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        cosines = rows[start : start + ROWS_AT_ONCE] @ others.T
        for i, j in np.argwhere(cosines >= least_cosine):
            yield start + int(i), int(j), float(cosines[i, j])


def _thirds(dataset: SequenceDataset) -> NDArray[np.float32]:
    """(N, 3 · D) the mean features of the beginning, the middle and the end."""
    return np.stack([_thirds_of(dataset.sequence(number).float().numpy()) for number in range(len(dataset))])


def _thirds_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, D) -> (3 · D,); of fewer than three frames, some count twice."""
    repeated = features if len(features) >= 3 else features[[0, len(features) // 2, -1]]
    return np.concatenate([third.mean(axis=0) for third in np.array_split(repeated, 3)])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
