"""Feature sequences in memory, padded into batches.

They are mapped from the store's shards: a video of 16 × 2048 float32 takes 128 KiB of the system's cache, and what does
not fit into memory is read again when a batch asks for it.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
        StoreError: a feature is not finite, or too large to compute with.
    """

    def __init__(self, store: FeatureStore, videos: Sequence[LabeledVideo], class_names: Sequence[str]) -> None:
        self.video_ids = tuple(video.video_id for video in videos)
        self.units = tuple(video.unit for video in videos)
        """What stays together where they are divided; see `LabeledVideo.unit`."""
        self.num_classes = len(class_names)
        class_of = {name: index for index, name in enumerate(class_names)}
        self.class_index = torch.tensor([class_of[video.label] for video in videos], dtype=torch.int64)
        self._sequences = [torch.from_numpy(rows) for rows in store.features([video.video_id for video in videos])]
        """(T, D) float32 or float16 each, as stored."""

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def dim(self) -> int:
        """D; 0 where there are no videos."""
        return self._sequences[0].shape[1] if self._sequences else 0

    @property
    def lengths(self) -> Tensor:
        """(N,) int64"""
        return torch.tensor([len(sequence) for sequence in self._sequences], dtype=torch.int64)

    def part(self, numbers: Sequence[int] | range) -> Self:
        """Some of the videos, by number, over the same rows."""
        chosen = torch.tensor(numbers, dtype=torch.int64)
        part = copy.copy(self)
        part.video_ids = tuple(self.video_ids[number] for number in numbers)
        part.units = tuple(self.units[number] for number in numbers)
        part.class_index = self.class_index[chosen]
        part._sequences = [self._sequences[number] for number in numbers]
        return part

    def sequence(self, number: int) -> Tensor:
        """(T, D) the features of one video."""
        return self._sequences[number]

    def batches(self, batch_size: int, *, order: Tensor | None = None) -> Iterator[PaddedBatch]:
        """All videos, `batch_size` at a time, in the order given: (N,) int64, by number."""
        order = torch.arange(len(self)) if order is None else order
        for start in range(0, len(order), batch_size):
            yield self._batch(order[start : start + batch_size])

    def _batch(self, chosen: Tensor) -> PaddedBatch:
        features, lengths = pad([self._sequences[number] for number in chosen.tolist()])  # (N, T, D), (N,)
        return PaddedBatch(features.float(), lengths, self.class_index[chosen])

    def by_length(self) -> Tensor:
        """(N,) the videos' numbers, the longest sequences first: an order that pads least."""
        return self.lengths.argsort(stable=True, descending=True)

    def class_weights(self) -> Tensor:
        """(K,) float: so much that all classes with videos weigh the same, and a video weighs 1 on average."""
        counts = self.class_index.bincount(minlength=self.num_classes)
        return len(self) / ((counts > 0).sum() * counts.clamp_min(1)).float()

    def averaged(self) -> Self:
        """The same videos, each with the mean of its features as its only row."""
        averaged = copy.copy(self)
        averaged._sequences = [sequence.float().mean(dim=0, keepdim=True) for sequence in self._sequences]
        return averaged
