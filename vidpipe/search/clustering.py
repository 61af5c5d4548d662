"""Cluster the videos of stores and write the clusters into a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from vidpipe.config import ClustersConfig, LabelsConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.store_labels import label_store_splits
from vidpipe.datasets.streams import keep_common
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.search.cluster_folder import check_clusters_folder, write_clusters
from vidpipe.search.clusters import Clustering, check_enough_videos, cluster_videos
from vidpipe.search.embedding import Embedding
from vidpipe.training.threads import DEFAULT_NUM_THREADS, use_threads

__all__ = ["cluster_stores"]


def cluster_stores(
    stores: Mapping[str, FeatureStore],
    folder: Path,
    *,
    config: ClustersConfig,
    labels: LabelsConfig,
    embedding: Embedding | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Clustering, tuple[Path, ...]]:
    """Find clusters of the videos that all streams have, and write their page, map and table.

    Args:
        stores: by stream, the features.
        folder: where to write.
        config: the settings.
        labels: where `labels` is given, they name the clusters; videos may be missing.
        embedding: to use instead of the statistics of the streams.
        overwrite: replace clusters that are in the folder.
        on_progress: called with the numbers of videos that are read and to read.

    Returns:
        The clusters, and the files.

    Raises:
        UsageError: there are clusters in the folder already.
        InputError: there are too few videos.
        LabelsError: the labels cannot be read.
        StoreError: a feature is not finite.
        VidpipeError: a file cannot be written.
    """
    check_clusters_folder(folder, overwrite=overwrite)
    known = {}
    if labels.labels is not None:
        known = {video.video_id: video.label for video in label_store_splits(stores, labels)[0]}
    all_ids = sorted({video_id for store in stores.values() for video_id in store.ids})
    common = keep_common(stores, [LabeledVideo(video_id, "") for video_id in all_ids], skip_missing=True)
    videos = [video for video in common if all(store.length(video.video_id) for store in stores.values())]
    check_enough_videos(len(videos), config, owner=", ".join(str(store.path) for store in stores.values()))
    dataset = SequenceDataset(stores, videos, [""])
    with use_threads(DEFAULT_NUM_THREADS):
        found = cluster_videos(dataset, config, labels=known, embedding=embedding, on_progress=on_progress)
    return found, write_clusters(found, next(iter(stores.values())), folder)
