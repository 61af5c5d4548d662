"""Learn an embedding from labelled videos of stores: measure it, train it on all of them, and write it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vidpipe.config import EmbeddingConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs.run_folder import check_apart_from_store
from vidpipe.search.embedding import Embedding, check_embedding_folder, save_embedding
from vidpipe.search.embedding_training import cross_validate_embedding, train_embedding
from vidpipe.training.threads import DEFAULT_NUM_THREADS, use_threads

__all__ = ["learn_embedding"]


def learn_embedding(
    stores: Mapping[str, FeatureStore],
    videos: Sequence[LabeledVideo],
    path: Path,
    *,
    config: EmbeddingConfig,
    overwrite: bool = False,
) -> Embedding:
    """Train an embedding on labelled videos and write it into a folder.

    Args:
        stores: by stream, the features.
        videos: each must be in every store.
        path: the embedding's folder.
        config: the settings.
        overwrite: replace an embedding that is there.

    Returns:
        The embedding, trained on all videos; its metrics are those of folds over groups.

    Raises:
        UsageError: the folder holds something else, or a store.
        RunError: there is an embedding already, or it cannot be written.
        LabelsError: there are fewer than two labels, or no label has two videos.
        StoreError: a feature is not finite.
        TrainingError: a loss is not finite.
    """
    check_embedding_folder(path, overwrite=overwrite)
    for store in stores.values():
        check_apart_from_store(path, store.path)
    class_names = sorted({video.label for video in videos})
    dataset = SequenceDataset(stores, videos, class_names)
    with use_threads(DEFAULT_NUM_THREADS):
        measured = cross_validate_embedding(dataset, config)
        network = train_embedding(dataset, config)
    names = ("learned", "not_learned")
    about = {
        "dim": config.dim,
        "class_names": class_names,
        "num_videos": len(dataset),
        "num_groups": len(set(dataset.units)),
        "config": vars(config),
        "metrics": {name: one and one.as_dict() for name, one in zip(names, measured, strict=True)},
    }
    embedding = Embedding(network, {name: store.key for name, store in stores.items()}, about, path)
    save_embedding(embedding, path)
    return embedding
