"""Clusters of videos: which videos look alike, found without labels."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from vidpipe.config import ClustersConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import InputError, count_of
from vidpipe.search.embedding import Embedding
from vidpipe.search.statistics import VideoStatistics, compute_vectors

__all__ = ["Cluster", "Clustering", "check_enough_videos", "cluster_vectors", "cluster_videos"]

logger = logging.getLogger(__name__)

MIN_VIDEOS = 4
"""Two clusters of two videos."""
MAX_TSNE_VIDEOS = 5000
"""The map of more videos is their first two principal components, which take less time."""
MAX_PERPLEXITY = 30.0
MIN_DEVIATION = 1e-6
"""t-SNE has no start for videos that are all the same."""
NOISE = -1
MANY_VIDEOS = 20_000
"""From which on clustering itself takes a minute or more."""


@dataclass(frozen=True)
class Cluster:
    """Some videos that look alike."""

    number: int
    """From 1, the largest first."""
    video_ids: tuple[str, ...]
    """The most typical first: by their distance from the mean of all."""
    label: str | None = None
    """The most frequent label of its labelled videos."""
    share: float | None = None
    """Of the labelled videos, those with this label."""

    @property
    def medoid(self) -> str:
        """The video with the least mean squared distance from the others."""
        return self.video_ids[0]

    @property
    def name(self) -> str:
        """The label, or `cluster 3`."""
        return self.label or f"cluster {self.number}"


@dataclass(frozen=True)
class Clustering:
    """The clusters of some videos."""

    clusters: tuple[Cluster, ...]
    unclustered: tuple[str, ...]
    """The videos that are in no cluster."""
    labels: Mapping[str, str]
    """By video, what is known before."""
    points: Mapping[str, tuple[float, float]]
    """By video, its place on a map in which near videos look alike."""
    is_tsne: bool
    """Whether the map is t-SNE's; else it is the first two principal components."""

    @property
    def num_videos(self) -> int:
        """In clusters and in none."""
        return len(self.points)


def cluster_videos(
    dataset: SequenceDataset,
    config: ClustersConfig,
    *,
    labels: Mapping[str, str],
    embedding: Embedding | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Clustering:
    """Find clusters of the videos of a dataset.

    Args:
        dataset: the videos, with all streams; their labels are not looked at.
        config: the settings.
        labels: by video id, labels that name the clusters; videos may be missing.
        embedding: its vectors are clustered, instead of the statistics of the streams.
        on_progress: called with the numbers of videos that are read and to read.

    Returns:
        The clusters.

    Raises:
        InputError: there are too few videos.
    """
    check_enough_videos(len(dataset), config)
    module = VideoStatistics.of(dataset, config.components) if embedding is None else embedding.network
    vectors = compute_vectors(module, dataset, on_videos=lambda done: on_progress(done, len(dataset)))
    if len(dataset) >= MANY_VIDEOS:
        faster = "; --method kmeans and fewer --components take less" if config.method == "hdbscan" else ""
        logger.info("clustering %s, which takes minutes%s", count_of(len(dataset), "video"), faster)
    return cluster_vectors(dataset.video_ids, vectors, config, labels=labels)


def check_enough_videos(num_videos: int, config: ClustersConfig, *, owner: str = "") -> None:
    """Check that there are enough videos for two clusters.

    Args:
        num_videos: N.
        config: the settings.
        owner: the stores, for the message.

    Raises:
        InputError: there are too few.
    """
    if config.method == "kmeans":
        needed, remedy = max(MIN_VIDEOS, 2 * (config.num_clusters or 2)), "give a smaller --num-clusters"
    else:
        needed, remedy = max(MIN_VIDEOS, 2 * config.min_size), "give a smaller --min-size"
    if num_videos < needed:
        instead = f", or {remedy}" if num_videos >= MIN_VIDEOS else ""
        raise InputError(
            f"{owner and f'{owner}: '}{count_of(num_videos, 'video')}, and these clusters need {needed} or more; "
            f"extract more videos{instead}"
        )


def cluster_vectors(
    video_ids: Sequence[str], vectors: Tensor, config: ClustersConfig, *, labels: Mapping[str, str]
) -> Clustering:
    """Find clusters of vectors: of their direction in the space of their first principal components.

    Args:
        video_ids: N ids.
        vectors: (N, P).
        config: the settings.
        labels: by video id.

    Returns:
        The clusters.
    """
    directions = normalize(_principal(vectors, config.components), dim=1).numpy()  # (N, C)
    found = _assign(directions, config)
    points, is_tsne = _map(directions, config.seed)
    clusters = []
    for number, index in enumerate(_by_size(found), start=1):
        members = np.flatnonzero(found == index)
        distances = np.square(directions[members] - directions[members].mean(axis=0)).sum(axis=1)
        ids = tuple(video_ids[member] for member in members[np.argsort(distances, kind="stable")].tolist())
        clusters.append(Cluster(number, ids, *_majority(ids, labels)))
    return Clustering(
        tuple(clusters),
        tuple(video_ids[member] for member in np.flatnonzero(found == NOISE).tolist()),
        {video_id: labels[video_id] for video_id in video_ids if video_id in labels},
        {video_id: (float(x), float(y)) for video_id, (x, y) in zip(video_ids, points, strict=True)},
        is_tsne,
    )


def _principal(vectors: Tensor, num_components: int) -> Tensor:
    """The first principal components of vectors, (N, P) -> (N, C)"""
    centred = vectors - vectors.mean(dim=0)
    _, basis = torch.linalg.eigh((centred.T @ centred).double())  # (P, P), the largest last
    principal: Tensor = centred @ basis.flip(1)[:, :num_components].float()
    return principal


def _assign(directions: NDArray[np.float32], config: ClustersConfig) -> NDArray[np.int64]:
    """The cluster of each direction, (N, C) -> (N,); −1 for none."""
    from sklearn.cluster import HDBSCAN, KMeans

    if config.method == "kmeans":
        method = KMeans(config.num_clusters, n_init=10, random_state=config.seed)
    else:
        method = HDBSCAN(min_cluster_size=config.min_size, min_samples=1, copy=True)
    found: NDArray[np.int64] = method.fit_predict(directions).astype(np.int64)
    return found


def _by_size(found: NDArray[np.int64]) -> list[int]:
    """The numbers of the clusters, the largest cluster first."""
    counts = Counter(found[found != NOISE].tolist())
    return sorted(counts, key=lambda index: (-counts[index], index))


def _majority(video_ids: Sequence[str], labels: Mapping[str, str]) -> tuple[str | None, float | None]:
    """The most frequent label of some videos, and its share of those that have one."""
    counts = Counter(labels[video_id] for video_id in video_ids if video_id in labels)
    if not counts:
        return None, None
    label, count = max(sorted(counts.items()), key=lambda item: item[1])
    return label, count / counts.total()


def _map(directions: NDArray[np.float32], seed: int) -> tuple[NDArray[np.floating], bool]:
    """Places (N, 2) of the directions (N, C), and whether they are t-SNE's."""
    from sklearn.manifold import TSNE

    flat = np.pad(directions, ((0, 0), (0, max(0, 2 - directions.shape[1]))))
    if len(directions) > MAX_TSNE_VIDEOS or directions.shape[1] < 2 or directions[:, 0].std() < MIN_DEVIATION:
        return flat[:, :2], False
    perplexity = min(MAX_PERPLEXITY, (len(directions) - 1) / 3)
    places: NDArray[np.floating] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(directions)
    return places, True
