"""Learned embeddings: how often the nearest videos have the same label, and what clusters agree with.

    python -m benchmarks.embeddings

Retrieval: each video of the interaction clips is a query among the videos of the other sequences. The embedding has
learned from these only. Clusters: of the demo's videos and of the interaction clips, without labels, compared with
their labels.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from benchmarks.clips import SHARED_DATA
from vidpipe.config import ClustersConfig, EmbeddingConfig, ExtractConfig, LabelsConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.store_labels import label_store_splits
from vidpipe.datasets.streams import choose_streams, open_streams
from vidpipe.demo.videos import write_demo_videos
from vidpipe.search.clusters import Clustering, cluster_videos
from vidpipe.search.embedding_training import measure_folds
from vidpipe.search.retrieval import Retrieval
from vidpipe.stages.extract import extract
from vidpipe.training.threads import use_threads
from vidpipe.video.files import find_videos

BACKBONES = "efficientnet_lite0,flow"
STREAMS: Mapping[str, tuple[str, ...]] = {
    "efficientnet_lite0": ("efficientnet_lite0",),
    "flow": ("flow",),
    "both": (),
}
SEEDS = range(3)
PROTOCOL = (
    "efficientnet_lite0 and flow, uniform 16. Retrieval: each of the 60 interaction clips asks among the clips of the "
    "other nine sequences, which alone the embedding has learned from; means over 3 seeds (lowest to highest). "
    "Clusters: adjusted mutual information with the labels; k-means has the number of labels, means over 3 seeds."
)


def make_stores(videos: Path, folder: Path) -> Path:
    """Extract both streams of a folder of videos."""
    extract(find_videos([videos]), folder, config=ExtractConfig(backbone=BACKBONES, device="cpu"))
    return folder


def read(stores: Path, labels: Path, streams: Sequence[str]) -> SequenceDataset:
    """Read the labelled videos of some streams."""
    opened = choose_streams(open_streams([stores], usage="STORE"), streams)
    (videos,) = label_store_splits(opened, LabelsConfig(labels=str(labels)))
    return SequenceDataset(opened, videos, sorted({video.label for video in videos}))


def retrieval_rows(stores: Path, labels: Path) -> list[str]:
    """Leave each group out, with each loss and without learning."""
    rows = []
    for name, streams in STREAMS.items():
        dataset = read(stores, labels, streams)
        groups = dict.fromkeys(dataset.units)
        folds = [[number for number, unit in enumerate(dataset.units) if unit == group] for group in groups]
        for loss in ("triplet", "contrastive"):
            found = [measure_folds(dataset, folds, EmbeddingConfig(loss=loss, seed=seed)) for seed in SEEDS]
            if loss == "triplet":
                rows.append(f"| {name} | not learned | {_figures([found[0][1]])} |")
            rows.append(f"| {name} | {loss} | {_figures([learned for learned, _ in found])} |")
    return rows


def _figures(found: Sequence[Retrieval | None]) -> str:
    columns = []
    for metric in ("recall_at_1", "recall_at_5", "map_at_r"):
        values = [getattr(one, metric) for one in found]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        columns.append(f"{np.mean(values):.3f}{spread}")
    return " | ".join(columns)


def cluster_rows(title: str, stores: Path, labels: Path) -> list[str]:
    """Compare clusters with labels."""
    rows = []
    for name, streams in STREAMS.items():
        dataset = read(stores, labels, streams)
        truth, num_labels = dataset.class_index, dataset.num_classes
        means = _mean_features(dataset)
        plain, kmeans = [], []
        for seed in SEEDS:
            found = KMeans(num_labels, n_init=10, random_state=seed).fit_predict(means)
            plain.append(adjusted_mutual_info_score(truth, found))
            config = ClustersConfig(method="kmeans", num_clusters=num_labels, seed=seed)
            kmeans.append(_agreement(cluster_videos(dataset, config, labels={}), dataset))
        hdbscan = cluster_videos(dataset, ClustersConfig(), labels={})
        counts = f"{len(hdbscan.clusters)} for {num_labels} labels, {len(hdbscan.unclustered)} videos in none"
        figures = f"{np.mean(plain):.3f} | {np.mean(kmeans):.3f} | {_agreement(hdbscan, dataset):.3f}"
        rows.append(f"| {title} | {name} | {figures} | {counts} |")
    return rows


def _mean_features(dataset: SequenceDataset) -> Tensor:
    """The mean features of all streams side by side, (N, ΣD)"""
    streams = [dataset.stream(name).averaged() for name in dataset.streams]
    return torch.cat([torch.cat([one.sequence(number) for number in range(len(one))]) for one in streams], dim=1)


def _agreement(found: Clustering, dataset: SequenceDataset) -> float:
    """The adjusted mutual information of clusters and labels; the videos in no cluster count as one."""
    cluster_of = {one: cluster.number for cluster in found.clusters for one in cluster.video_ids}
    return float(adjusted_mutual_info_score(dataset.class_index, [cluster_of.get(one, 0) for one in dataset.video_ids]))


def run() -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch, use_threads(1):
        folder = Path(scratch)
        demo_labels = write_demo_videos(folder / "demo")
        demo = make_stores(demo_labels.parent, folder / "demo_features")
        clusters = cluster_rows("demo", demo, demo_labels)
        retrieval = []
        if SHARED_DATA.is_dir():
            labels = SHARED_DATA / "clips" / "interaction" / "labels.csv"
            stores = make_stores(labels.parent, folder / "features")
            retrieval = retrieval_rows(stores, labels)
            clusters += cluster_rows("interaction", stores, labels)
    tables = [
        "| streams | loss | recall@1 | recall@5 | mAP@R |\n|---|---|---|---|---|",
        *retrieval,
        "\n| videos | streams | k-means on mean features | k-means | HDBSCAN | its clusters |",
        "|---|---|---|---|---|---|",
        *clusters,
    ]
    title = "## Embeddings and clusters (`benchmarks/embeddings.py`)"
    return f"{title}\n\n{PROTOCOL}\n\n" + "\n".join(tables)


if __name__ == "__main__":
    print(run())
