"""Settings of `vidpipe search`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidpipe.config.setting import Config, setting
from vidpipe.errors import UsageError

__all__ = ["DUPLICATE_THRESHOLD", "ClustersConfig", "EmbeddingConfig"]

DUPLICATE_THRESHOLD = 13.0
"""Score from which on a pair of videos counts as duplicates, in standard deviations of chance; see docs/search.md."""


@dataclass(frozen=True)
class EmbeddingConfig(Config):
    """Settings of `vidpipe search train`."""

    streams: str | None = setting(
        None, "Streams to use, one or more names of stores. [default: all; image models first]", several=True
    )
    loss: str = setting(
        "triplet",
        "triplet: a video is nearer to those of its label than to others, by --margin. contrastive: videos of one "
        "label are pulled together, others pushed apart up to --margin.",
        choices=("triplet", "contrastive"),
    )
    dim: int = setting(128, "Numbers of an embedding.", low=2, high=1024)
    margin: float | None = setting(
        None,
        "triplet: of squared distances, which are at most 4. contrastive: of distances, which are at most 2. [default: "
        "0.2 for triplet, 1 for contrastive]",
        low=0,
        high=4,
        above=True,
    )
    epochs: int = setting(60, "Passes over the videos.", low=1)
    folds: int = setting(5, "Folds over groups that measure the embedding before it is trained on all videos.", low=2)
    seed: int = setting(0, "Seed of the batches and of the noise.", low=0)


@dataclass(frozen=True)
class ClustersConfig(Config):
    """Settings of `vidpipe search clusters`."""

    streams: str | None = setting(
        None, "Streams to use, one or more names of stores. [default: all; image models first]", several=True
    )
    method: str = setting(
        "hdbscan",
        "hdbscan finds the number of clusters, and leaves out videos that are in none. kmeans puts each video into one "
        "of --num-clusters.",
        choices=("hdbscan", "kmeans"),
    )
    num_clusters: int | None = setting(None, "kmeans: number of clusters.", low=2)
    min_size: int = setting(5, "hdbscan: videos of the smallest cluster.", low=2)
    components: int = setting(
        8, "Principal components of the videos' vectors that are clustered; more for more kinds of videos.", low=1
    )
    seed: int = setting(0, "Seed of kmeans and of the map.", low=0)

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        is_kmeans = values.get("method", "hdbscan") == "kmeans"
        if is_kmeans and values.get("num_clusters") is None:
            raise UsageError("--method kmeans needs --num-clusters; --method hdbscan finds the number itself")
        if not is_kmeans and values.get("num_clusters") is not None:
            raise UsageError("--num-clusters goes with --method kmeans; --method hdbscan finds the number itself")
