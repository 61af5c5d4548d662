"""One vector for each video: statistics over time of all its streams, on their principal components.

The statistics are those that the linear heads classify: means and deviations of centred, unit features and of their
changes, by the kind of the stream's backbone (`vidpipe.heads.inputs`).
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.fusion import Padded
from vidpipe.heads.heads import STATISTICS
from vidpipe.heads.inputs import HEAD_INPUTS, HeadInput
from vidpipe.heads.motion import Motion

__all__ = ["MAX_FITTED_VIDEOS", "StreamStatistics", "VideoStatistics", "compute_vectors"]

MAX_FITTED_VIDEOS = 2048
"""Scales and components are fitted to this number of videos, drawn at random."""
MAX_BATCH_SIZE, MAX_BATCH_ROWS = 64, 8192
"""Videos at a time, and their rows with padding: fewer of long videos."""
MIN_SHARE = 1e-6
"""Components with a smaller share of the first one's variance are left out."""


class StreamStatistics(nn.Module):
    """Statistics over time of one stream, (N, T, D) -> (N, F), centred and scaled to lengths of about 1.

    Args:
        dim: D.
        seen: the transforms and the statistics, as of the linear heads.
    """

    centre: Tensor
    """(F,)"""
    scale: Tensor
    """(F,)"""

    def __init__(self, dim: int, seen: HeadInput) -> None:
        super().__init__()
        transforms = seen.motion.split(",")
        self.motion = Motion(dim, transforms=transforms, unit_frames=seen.unit_frames, scale_sharing=seen.scale_sharing)
        self._statistics = [STATISTICS[name][1] for name in seen.statistics.split(",")]
        self.dim, self.seen = dim, seen
        self.size = self.motion.dim * sum(STATISTICS[name][0] for name in seen.statistics.split(","))
        """F"""
        self.register_buffer("centre", torch.zeros(self.size))
        self.register_buffer("scale", torch.ones(self.size))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Compute the statistics of padded sequences (N, T, D): (N, F)"""
        return (self._pool(features, lengths) - self.centre) / self.scale

    def fit(self, dataset: SequenceDataset) -> None:
        """Fit the transforms, then the centre and the scale of each block of D statistics, to one stream's videos."""
        self.motion.fit((batch.features, batch.lengths) for batch in dataset.batches(_batch_size(dataset)))
        batches = dataset.batches(_batch_size(dataset))
        pooled = torch.cat([self._pool(batch.features, batch.lengths) for batch in batches])  # (N, F)
        self.centre = pooled.mean(dim=0)
        deviation = pooled.var(dim=0, correction=0).view(-1, self.dim).mean(dim=1).sqrt()  # (F / D,)
        scale = torch.where(deviation > 0, deviation, 1) * math.sqrt(self.size)
        self.scale = scale.repeat_interleave(self.dim)

    def _pool(self, features: Tensor, lengths: Tensor) -> Tensor:
        seen = self.motion(features, lengths)
        return torch.cat([statistic(seen, lengths) for statistic in self._statistics], dim=1)


class VideoStatistics(nn.Module):
    """The statistics of several streams side by side, on P principal components.

    Args:
        streams: one module a stream, by its name.
        num_components: P; components beyond what the fitted videos have are zero.
    """

    components: Tensor
    """(ΣF, P)"""

    def __init__(self, streams: Mapping[str, StreamStatistics], num_components: int) -> None:
        super().__init__()
        self.names = tuple(streams)
        self.parts = nn.ModuleList(streams.values())
        self.register_buffer("components", torch.zeros(sum(part.size for part in streams.values()), num_components))

    @classmethod
    def of(cls, dataset: SequenceDataset, num_components: int) -> "VideoStatistics":
        """Build the statistics of a dataset's streams and fit them.

        Args:
            dataset: the videos; of more than `MAX_FITTED_VIDEOS`, some are drawn.
            num_components: P.

        Returns:
            The fitted module.
        """
        streams = {
            name: StreamStatistics(dataset.stream(name).dim, HEAD_INPUTS[kind]) for name, kind in dataset.kinds.items()
        }
        fitted = cls(streams, num_components)
        chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:MAX_FITTED_VIDEOS]
        ids = dataset.video_ids
        fitted.fit(dataset.select(ids[number] for number in sorted(chosen.tolist())))
        return fitted

    @property
    def num_components(self) -> int:
        """P."""
        return self.components.shape[1]

    @property
    def streams(self) -> dict[str, StreamStatistics]:
        """By stream, its statistics."""
        parts = [part for part in self.parts if isinstance(part, StreamStatistics)]
        return dict(zip(self.names, parts, strict=True))

    @torch.no_grad()
    def fit(self, dataset: SequenceDataset) -> None:
        """Fit the statistics and the components to the videos of a dataset."""
        for name, part in self.streams.items():
            part.fit(dataset.stream(name))
        pooled = torch.cat([self._pool(batch) for batch in _padded_batches(dataset)])  # (N, ΣF), mean 0
        size = min(self.num_components, len(pooled) - 1, pooled.shape[1])
        values, vectors = torch.linalg.eigh((pooled @ pooled.T).double())  # (N,), (N, N), the largest last
        scales = torch.where(values > MIN_SHARE * values[-1], values.rsqrt(), 0)  # none for what is only rounding
        weights = (vectors * scales).flip(1)[:, :size]  # (N, size)
        self.components.zero_()[:, :size] = pooled.T @ weights.float()

    def forward(self, sequences: Mapping[str, Padded]) -> Tensor:
        """Compute (N, P) of padded sequences by stream."""
        return self._pool(sequences) @ self.components  # (N, ΣF) -> (N, P)

    def _pool(self, sequences: Mapping[str, Padded]) -> Tensor:
        return torch.cat([part(*sequences[name]) for name, part in self.streams.items()], dim=1)


@torch.no_grad()
def compute_vectors(
    module: nn.Module, dataset: SequenceDataset, *, on_videos: Callable[[int], None] = lambda num_videos: None
) -> Tensor:
    """Compute a vector for each video of a dataset, some videos at a time.

    Args:
        module: a `VideoStatistics`, or another module of padded sequences by stream.
        dataset: N videos.
        on_videos: called with the number of videos done.

    Returns:
        (N, P) float32.
    """
    vectors = torch.empty(0)
    done = 0
    for batch in _padded_batches(dataset):
        found = module(batch)
        if not done:  # one block: small tensors that stay would keep the memory between them in pieces
            vectors = torch.empty(len(dataset), found.shape[1])
        vectors[done : done + len(found)] = found
        done += len(found)
        on_videos(done)
    return vectors


def _batch_size(dataset: SequenceDataset) -> int:
    longest = int(dataset.lengths.max())
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_ROWS // longest))


def _padded_batches(dataset: SequenceDataset) -> Iterator[dict[str, Padded]]:
    """Yield padded sequences (N, T, C · D) and their lengths (N,) by stream, some videos at a time."""
    size = min(_batch_size(dataset.stream(name)) for name in dataset.streams)
    streams = {name: dataset.stream(name).batches(size) for name in dataset.streams}
    for batches in zip(*streams.values(), strict=True):
        yield {name: (batch.features, batch.lengths) for name, batch in zip(streams, batches, strict=True)}
