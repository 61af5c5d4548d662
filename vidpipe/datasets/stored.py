"""The labelled videos of a feature store."""

from pathlib import Path

from vidpipe.datasets.labels import labels_from_folders, read_labels
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

__all__ = ["label_store"]


def label_store(
    store: FeatureStore, labels: Path | None = None, *, official_split: int = 1, skip_missing: bool = False
) -> list[LabeledVideo]:
    """The label of each video of a store, from a labels file or else from the name of its folder.

    Args:
        store: the features.
        labels: a CSV or official lists, see `vidpipe.datasets.labels.read_labels`; None takes the folders' names.
        official_split: which split of official lists.
        skip_missing: leave out labels whose video is not in the store, rather than fail.

    Raises:
        LabelsError: the labels cannot be read, or do not fit the store's videos.
        UsageError: there is no such labels file.
    """
    if labels is None:
        return labels_from_folders(store.ids)
    return read_labels(
        labels,
        video_ids=store.ids,
        official_split=official_split,
        skip_missing=skip_missing,
        failed_ids=[failure.video_id for failure in store.failures],
    )
