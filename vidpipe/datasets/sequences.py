"""Feature sequences in memory, padded into batches.

All rows stand in one array; a batch is cut out by index. At 16 × 2048 float32 a video takes 128 KiB, 100,000 videos
12.5 GiB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vidpipe.errors import StoreError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

__all__ = ["PaddedBatch", "SequenceDataset", "pad"]


@dataclass(frozen=True)
class PaddedBatch:
    """Some sequences, padded to the longest."""

    features: Tensor
    """(N, T, D) float32, zeros after a sequence's end."""
    lengths: Tensor
    """(N,) int64, on the CPU."""
    class_index: Tensor
    """(N,) int64"""

    def to(self, device: torch.device) -> "PaddedBatch":
        """The batch on a device; the lengths stay on the CPU, where packing wants them."""
        return PaddedBatch(self.features.to(device), self.lengths, self.class_index.to(device))


def pad(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[(T_i, D), …] -> (N, T, D) with T the longest, and the lengths (N,)"""
    return pad_sequence(list(sequences), batch_first=True), torch.tensor([len(sequence) for sequence in sequences])


class SequenceDataset:
    """The sequences of some labelled videos.

    Args:
        store: where their features lie.
        videos: which; each must be in the store.
        class_names: the classes, in the order of `class_index`.

    Raises:
        StoreError: a feature is not finite.
    """

    def __init__(self, store: FeatureStore, videos: Sequence[LabeledVideo], class_names: Sequence[str]) -> None:
        self.videos = tuple(videos)
        class_of = {name: index for index, name in enumerate(class_names)}
        self.class_index = torch.tensor([class_of[video.label] for video in videos], dtype=torch.int64)
        self.lengths = torch.tensor([store.length(video.video_id) for video in videos], dtype=torch.int64)
        ends = self.lengths.cumsum(0)
        self._starts = ends - self.lengths
        self.rows = torch.from_numpy(self._read(store))
        """(ΣT, D) float32"""

    def _read(self, store: FeatureStore) -> NDArray[np.float32]:
        place = {video.video_id: number for number, video in enumerate(self.videos)}
        rows: NDArray[np.float32] | None = None
        for sequence in store.sequences(place):
            if rows is None:
                rows = np.empty((int(self.lengths.sum()), sequence.features.shape[1]), np.float32)
            if not np.isfinite(sequence.features).all():
                raise StoreError(
                    f"{store.path}: the features of {sequence.video_id} are not finite; extract it again with --force"
                )
            start = int(self._starts[place[sequence.video_id]])
            rows[start : start + len(sequence)] = sequence.features
        return np.empty((0, 0), np.float32) if rows is None else rows

    def __len__(self) -> int:
        return len(self.videos)

    def sequence(self, number: int) -> Tensor:
        """(T, D) the features of one video."""
        start = int(self._starts[number])
        return self.rows[start : start + int(self.lengths[number])]

    def batches(self, batch_size: int, *, order: Sequence[int] | None = None) -> Iterator[PaddedBatch]:
        """All videos, `batch_size` at a time, in the order given."""
        numbers = list(order) if order is not None else list(range(len(self)))
        for start in range(0, len(numbers), batch_size):
            chosen = numbers[start : start + batch_size]
            features, lengths = pad([self.sequence(number) for number in chosen])
            yield PaddedBatch(features, lengths, self.class_index[chosen])
