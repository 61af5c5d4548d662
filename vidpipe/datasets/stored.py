"""The labelled videos of a feature store."""

from pathlib import Path

from vidpipe.datasets.groups import group_by_pattern
from vidpipe.datasets.labels import csv_columns, labels_from_folders, read_labels
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

__all__ = ["label_store"]


def label_store(
    store: FeatureStore,
    labels: Path | None = None,
    *,
    official_split: int = 1,
    skip_missing: bool = False,
    group_by: str | None = None,
) -> list[LabeledVideo]:
    """The label of each video of a store, from a labels file or else from the name of its folder.

    Args:
        store: the features.
        labels: a CSV or official lists, see `vidpipe.datasets.labels.read_labels`; None takes the folders' names.
        official_split: which split of official lists.
        skip_missing: leave out labels whose video is not in the store, rather than fail.
        group_by: a column of the CSV that names the groups, or else a regular expression over the videos' ids.

    Raises:
        LabelsError: the labels cannot be read, or do not fit the store's videos.
        UsageError: there is no such labels file.
    """
    if labels is None:
        videos = labels_from_folders(store.ids)
        return videos if group_by is None else group_by_pattern(videos, group_by)
    is_column = group_by is not None and group_by in csv_columns(labels)
    videos = read_labels(
        labels,
        video_ids=store.ids,
        official_split=official_split,
        skip_missing=skip_missing,
        failed_ids=[failure.video_id for failure in store.failures],
        group_column=group_by if is_column and group_by else "group",
    )
    return videos if group_by is None or is_column else group_by_pattern(videos, group_by)
