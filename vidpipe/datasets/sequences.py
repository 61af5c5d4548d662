"""Labelled videos with their feature sequences in memory, padded into batches.

The sequences are mapped from the store's shards: a video of 16 × 2048 float32 takes 128 KiB of the system's cache, and
what does not fit into memory is read again when a batch needs it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vidpipe.datasets.people import PersonRows, common_people, has_tracks
from vidpipe.datasets.pose import describe_people
from vidpipe.datasets.splits import SUBSETS, Split
from vidpipe.datasets.streams import Stores, kind_of, name_stores
from vidpipe.errors import StoreError
from vidpipe.features.key import FeatureKey
from vidpipe.records import LabeledVideo

__all__ = [
    "PaddedBatch",
    "SequenceDataset",
    "Subsets",
    "input_rows",
    "join_cells",
    "pad",
    "read_subsets",
    "select_subsets",
]


@dataclass(frozen=True)
class PaddedBatch:
    """Some sequences, padded to the longest."""

    features: Tensor
    """(N, T, D) float32, zeros after a sequence's end; (N, T, C · D) where pictures have cells."""
    lengths: Tensor
    """(N,) int64, on the CPU."""
    class_index: Tensor
    """(N,) int64"""

    def to(self, device: torch.device) -> "PaddedBatch":
        """Return the batch on a device; the lengths stay on the CPU, as packing needs them there."""
        return PaddedBatch(self.features.to(device), self.lengths, self.class_index.to(device))


def pad(sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return sequences (T_i, D) padded to the longest, (N, T, D), and their lengths (N,)."""
    return pad_sequence(list(sequences), batch_first=True), torch.tensor([len(sequence) for sequence in sequences])


def join_cells(features: NDArray[np.floating[Any]], num_cells: int, *, owner: str) -> Tensor:
    """Return the rows of each picture as one: (T · C, D) -> (T, C · D).

    Args:
        features: the rows.
        num_cells: C, the rows of each picture.
        owner: the store and the video, for the message.

    Returns:
        The rows, over the same memory.

    Raises:
        StoreError: the rows are not a whole number of pictures.
    """
    if len(features) % num_cells:
        raise StoreError(
            f"{owner}: {len(features)} rows are not a whole number of pictures of {num_cells} cells; "
            "extract the videos into a new store"
        )
    return torch.from_numpy(features).reshape(-1, num_cells * features.shape[1])


def input_rows(rows: Tensor, key: FeatureKey) -> Tensor:
    """Return what heads are given of a sequence: of key points what people do, of all other features themselves.

    Args:
        rows: (T, C · D) of a video, or of a window of it.
        key: of the features.

    Returns:
        (T, P) for key points, else the rows.
    """
    return torch.from_numpy(describe_people(rows.numpy())) if kind_of(key) == "pose" else rows


@dataclass(frozen=True)
class _Resident:
    """The rows of all sequences in the memory of a device."""

    sequences: Sequence[Tensor]
    """Where they come from."""
    rows: Tensor
    """(ΣT, D)"""
    starts: Tensor
    """(N,) int64, on the CPU"""
    lengths: Tensor
    """(N,) int64, on the CPU"""

    def padded(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return some sequences padded to the longest, (n, T, D), and their lengths (n,)."""
        lengths = self.lengths[chosen]
        steps = torch.arange(int(lengths.max()))
        place = self.starts[chosen][:, None] + torch.minimum(steps, lengths[:, None] - 1)  # (n, T)
        is_padding = (steps >= lengths[:, None]).to(self.rows.device, non_blocking=True)
        features = self.rows[place.to(self.rows.device, non_blocking=True)]
        return features.masked_fill_(is_padding[:, :, None], 0), lengths


class SequenceDataset:
    """Labelled videos: their records, class indices, and a feature sequence in each stream.

    Where rows are of single people, a sequence has the rows of all people of its video. `by_person` makes a sequence
    of each person, which is what heads learn from, and `mean_by_video` joins what they say of one video.

    What concerns sequences (`dim`, `lengths`, `batches` and so on) is of the first stream; `stream` selects another.

    Args:
        stores: by stream, the features; or one store.
        videos: the videos; each must be in every store, and its label among the classes.
        class_names: K names, in the order of the class indices.

    Raises:
        StoreError: a feature is not finite, or too large to compute with.
    """

    def __init__(self, stores: Stores, videos: Sequence[LabeledVideo], class_names: Sequence[str]) -> None:
        self.videos, self.class_names = tuple(videos), tuple(class_names)
        index_of = {name: index for index, name in enumerate(class_names)}
        self.class_index = torch.tensor([index_of[video.label] for video in videos], dtype=torch.int64)
        """(N,) int64"""
        named = name_stores(stores)
        self.kinds = {name: kind_of(store.key) for name, store in named.items()}
        """By stream, the kind of its backbone: a key of `vidpipe.heads.inputs.HEAD_INPUTS`."""
        self._num_cells = {name: store.key.num_cells for name, store in named.items()}
        self._tracks = {name: store.tracks(self.video_ids) for name, store in named.items() if has_tracks(store.key)}
        """By stream with people, (T,) the number of the person in each row; None for a video in which nobody is."""
        self._people = [common_people(tracks) for tracks in zip(*self._tracks.values(), strict=True)]
        """N times the numbers of the people; empty without streams with people."""
        self._owner: Tensor | None = None
        """(S,) after `by_person`, the place of each person's video among the N videos."""
        self._resident: _Resident | None = None
        """After `resident_on`; of use as long as the sequences are those that it was made from."""
        self._by_stream: dict[str, Sequence[Tensor]] = {
            name: [
                input_rows(join_cells(rows, self._num_cells[name], owner=f"{store.path}: {video_id}"), store.key)
                for video_id, rows in zip(self.video_ids, store.features(self.video_ids), strict=True)
            ]
            for name, store in named.items()
        }
        """By stream, (T, C · D) float32 or float16 each, as stored; (T, P) of key points."""

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def streams(self) -> tuple[str, ...]:
        """The names of the streams."""
        return tuple(self._by_stream)

    def stream(self, name: str) -> Self:
        """Return the same videos with one of the streams, over the same memory."""
        selected = copy.copy(self)
        selected.kinds, selected._num_cells = {name: self.kinds[name]}, {name: self._num_cells[name]}
        selected._by_stream = {name: self._by_stream[name]}
        selected._tracks = {name: self._tracks[name]} if name in self._tracks else {}
        return selected

    @property
    def kind(self) -> str:
        """The kind of the first stream's backbone."""
        return next(iter(self.kinds.values()))

    @property
    def num_cells(self) -> int:
        """C, the features of each frame of the first stream: of the whole picture, then of its cells."""
        return next(iter(self._num_cells.values()))

    @property
    def _sequences(self) -> Sequence[Tensor]:
        return next(iter(self._by_stream.values()))

    @property
    def video_ids(self) -> list[str]:
        """N ids."""
        return [video.video_id for video in self.videos]

    @property
    def units(self) -> list[str]:
        """N names: videos of the same unit are never divided between subsets; see `LabeledVideo.unit`."""
        return [video.unit for video in self.videos]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def dim(self) -> int:
        """D; 0 where there are no videos."""
        return self._sequences[0].shape[1] // self.num_cells if self._sequences else 0

    @property
    def lengths(self) -> Tensor:
        """(N,) int64"""
        return torch.tensor([len(sequence) for sequence in self._sequences], dtype=torch.int64)

    def select(self, video_ids: Iterable[str]) -> Self:
        """Return some of the videos, in the order given, over the same memory."""
        number_of = {video_id: number for number, video_id in enumerate(self.video_ids)}
        numbers = [number_of[video_id] for video_id in video_ids]
        selected = copy.copy(self)
        selected.videos = tuple(self.videos[number] for number in numbers)
        selected.class_index = self.class_index[torch.tensor(numbers, dtype=torch.int64)]
        selected._by_stream = {
            name: [sequences[number] for number in numbers] for name, sequences in self._by_stream.items()
        }
        selected._tracks = {name: [tracks[number] for number in numbers] for name, tracks in self._tracks.items()}
        selected._people = [self._people[number] for number in numbers] if self._people else []
        return selected

    def concatenate(self, *others: Self) -> Self:
        """Return the videos of this dataset, then those of others with the same classes, over the same memory."""
        datasets = (self, *others)
        joined = copy.copy(self)
        joined.videos = tuple(chain.from_iterable(dataset.videos for dataset in datasets))
        joined.class_index = torch.cat([dataset.class_index for dataset in datasets])
        joined._by_stream = {
            name: list(chain.from_iterable(dataset._by_stream[name] for dataset in datasets)) for name in self.streams
        }
        joined._tracks = {
            name: list(chain.from_iterable(dataset._tracks[name] for dataset in datasets)) for name in self._tracks
        }
        joined._people = list(chain.from_iterable(dataset._people for dataset in datasets))
        return joined

    def by_person(self) -> Self:
        """Return a sequence for each person, over the same memory; without people, the same videos.

        A person has the label and the group of their video. A stream without people gives its sequence to each, and a
        video in which nobody is found is one sequence.
        """
        if not self._tracks:
            return self
        people = [(video, number) for video, numbers in enumerate(self._people) for number in numbers or (0,)]
        expanded = copy.copy(self)
        expanded.videos = tuple(self.videos[video] for video, _ in people)
        expanded._owner = torch.tensor([video for video, _ in people], dtype=torch.int64)
        expanded.class_index = self.class_index[expanded._owner]
        nobody: list[NDArray[np.int32] | None] = [None] * len(self)
        expanded._by_stream = {
            name: PersonRows(videos, self._tracks.get(name, nobody), people) for name, videos in self._by_stream.items()
        }
        expanded._tracks, expanded._people = {}, []
        return expanded

    def mean_by_video(self, values: Tensor, numbers: Tensor | None = None) -> Tensor:
        """Return the mean over the people of each video, in the order of the videos.

        Of logits it is the mean of the log-probabilities: what differs is the same for all classes.

        Args:
            values: (n, K) for sequences of this dataset.
            numbers: (n,) which sequences, all people of a video or none; None for all.

        Returns:
            (N, K) for each of their videos; the values themselves before `by_person`.
        """
        if self._owner is None:
            return values
        owner = self._owner if numbers is None else self._owner[numbers]
        _, place, counts = np.unique(owner.numpy(), return_inverse=True, return_counts=True)
        total = torch.zeros(len(counts), values.shape[1], dtype=values.dtype)
        mean: Tensor = total.index_add_(0, torch.from_numpy(place), values) / torch.from_numpy(counts)[:, None]
        return mean

    def averaged(self) -> Self:
        """Return the same videos with the first stream, each with the mean of its features as its only row."""
        averaged = self.stream(self.streams[0])
        averaged._by_stream = {
            name: [sequence.float().mean(dim=0, keepdim=True) for sequence in sequences]
            for name, sequences in averaged._by_stream.items()
        }
        return averaged

    def altered(self, alter: Callable[[str, LabeledVideo, Tensor], Tensor]) -> Self:
        """Return the same videos with other rows in each stream.

        Args:
            alter: a stream's name, a video and its rows (T, C · D) -> (T, C · D).

        Returns:
            The dataset.
        """
        altered = copy.copy(self)
        altered._by_stream = {
            name: [alter(name, *its) for its in zip(self.videos, sequences, strict=True)]
            for name, sequences in self._by_stream.items()
        }
        for name, tracks in self._tracks.items():
            pairs = [
                _altered_people(partial(alter, name, video), rows, track)
                for video, rows, track in zip(self.videos, self._by_stream[name], tracks, strict=True)
            ]
            altered._by_stream[name] = [rows for rows, _ in pairs]
            altered._tracks = altered._tracks | {name: [track for _, track in pairs]}
        return altered

    def mapped(self, compute: Callable[[Tensor, Tensor], Tensor], *, batch_size: int = 256) -> Self:
        """Return the same videos with other rows.

        Args:
            compute: padded sequences (N, T, C · D) and lengths (N,) -> (N, T, P).
            batch_size: videos at a time.

        Returns:
            The dataset with one stream, without cells.
        """
        sequences: list[Tensor] = []
        for batch in self.batches(batch_size):
            rows = compute(batch.features, batch.lengths)
            sequences += [its[:length].clone() for its, length in zip(rows, batch.lengths.tolist(), strict=True)]
        mapped, (name,) = copy.copy(self), self.streams
        mapped._by_stream, mapped._num_cells = {name: sequences}, {name: 1}
        return mapped

    def sequence(self, number: int) -> Tensor:
        """Return the features of one video's whole pictures, (T, D)."""
        return self._sequences[number][:, : self.dim]

    def batches(self, batch_size: int, *, order: Tensor | None = None) -> Iterator[PaddedBatch]:
        """Yield the videos in batches, in the order of their numbers in `order`, (N,) int64."""
        order = torch.arange(len(self)) if order is None else order
        for start in range(0, len(order), batch_size):
            yield self._batch(order[start : start + batch_size])

    def _batch(self, chosen: Tensor) -> PaddedBatch:
        if self._resident is not None and self._resident.sequences is self._sequences:
            features, lengths = self._resident.padded(chosen)
        else:
            features, lengths = pad([self._sequences[number] for number in chosen.tolist()])  # (N, T, D), (N,)
        return PaddedBatch(features.float(), lengths, self.class_index[chosen])

    @property
    def size_bytes(self) -> int:
        """Memory that the first stream's sequences take."""
        return sum(sequence.numel() * sequence.element_size() for sequence in self._sequences)

    def resident_on(self, device: torch.device) -> Self:
        """Return the same videos with the first stream's rows in the memory of a device, where batches are then made.

        Args:
            device: with room for `size_bytes`.

        Returns:
            The dataset; its batches have the same values.
        """
        resident, lengths = copy.copy(self), self.lengths
        rows = torch.cat(list(self._sequences)).to(device)
        resident._resident = _Resident(self._sequences, rows, lengths.cumsum(0) - lengths, lengths)
        return resident

    def by_length(self) -> Tensor:
        """Return the videos' numbers, (N,), the longest sequence first: the order with the least padding."""
        return self.lengths.argsort(stable=True, descending=True)

    def class_weights(self) -> Tensor:
        """Return (K,) float weights that balance the classes; the mean weight over the videos is 1."""
        counts = self.class_index.bincount(minlength=self.num_classes)
        return len(self) / ((counts > 0).sum() * counts.clamp_min(1)).float()


def _altered_people(
    alter: Callable[[Tensor], Tensor], rows: Tensor, track: NDArray[np.int32] | None
) -> tuple[Tensor, NDArray[np.int32] | None]:
    """The altered rows of each person, one person after the other, and whose they are."""
    if track is None:
        return alter(rows), None
    people = {int(number): alter(rows[torch.from_numpy(track == number)]) for number in np.unique(track)}
    numbers = np.repeat(np.array(list(people), np.int32), [len(its) for its in people.values()])
    return torch.cat(list(people.values())), numbers


Subsets = Mapping[str, SequenceDataset]
"""`train`, `val` and `test`, each with its videos; a subset may be empty."""


def read_subsets(stores: Stores, split: Split) -> dict[str, SequenceDataset]:
    """Read the features of a split's videos; the classes are those of its train and val, sorted.

    Args:
        stores: as for `SequenceDataset`; each holds the features of each video.
        split: the videos.

    Returns:
        The datasets of train, val and test.

    Raises:
        StoreError: a feature is not finite, or too large to compute with.
    """
    class_names = sorted({video.label for video in (*split.train, *split.val)})
    return {subset: SequenceDataset(stores, split[subset], class_names) for subset in SUBSETS}


def select_subsets(dataset: SequenceDataset, split: Split) -> dict[str, SequenceDataset]:
    """Return the datasets of train, val and test, over the memory of a dataset that holds the videos of all three."""
    return {subset: dataset.select(video.video_id for video in split[subset]) for subset in SUBSETS}
