"""The labelled videos of a feature store."""

from pathlib import Path

from vidpipe.datasets.groups import group_by_pattern
from vidpipe.datasets.labels import labels_from_folders, labels_table, read_labels, warn
from vidpipe.errors import count_of, first_few
from vidpipe.features.inventory import find_gone_in_place
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

__all__ = ["label_store"]


def label_store(
    store: FeatureStore,
    labels: Path | str | None = None,
    *,
    official_split: int = 1,
    skip_missing: bool = False,
    group_by: str | None = None,
    video_column: str | None = None,
    label_column: str | None = None,
) -> list[LabeledVideo]:
    """The label of each video of a store, from a labels file or else from the name of its folder.

    Where folders give the labels, a video whose file is gone from its folder is left out, with a warning.

    Args:
        store: the features.
        labels: a CSV or official lists, see `vidpipe.datasets.labels.read_labels`; None takes the folders' names.
        official_split: which split of official lists.
        skip_missing: leave out labels whose video is not in the store, rather than fail.
        group_by: a column of the CSV that names the groups, or else a regular expression over the videos' ids.
        video_column: the column of the CSV that names the videos; None finds it by its usual names.
        label_column: the column of the CSV that holds the labels; None finds it by its usual names.

    Returns:
        a record for each video that has a label and features.

    Raises:
        LabelsError: the labels cannot be read, or do not fit the store's videos.
        UsageError: there is no such labels file.
    """
    if labels is None:
        gone = set(find_gone_in_place(store))
        if gone:
            warn(
                f"{count_of(len(gone), 'video')} left out: the file is no longer where it was extracted from: "
                f"{first_few(sorted(gone))} (`vidpipe store prune STORE INPUT…` drops it from the store)"
            )
        videos = labels_from_folders(video_id for video_id in store.ids if video_id not in gone)
        no_column = "labels from folders have no columns"
        return videos if group_by is None else group_by_pattern(videos, group_by, no_column=no_column)
    table = labels_table(labels)
    column = table.named(group_by) if table is not None and group_by is not None else None
    videos = read_labels(
        labels,
        video_ids=store.ids,
        official_split=official_split,
        skip_missing=skip_missing,
        failed_ids=[failure.video_id for failure in store.failures],
        group_column=column or "group",
        video_column=video_column,
        label_column=label_column,
    )
    if group_by is None or column is not None:
        return videos
    no_column = f"{labels} has no such column" if table is not None else "official lists have no columns"
    return group_by_pattern(videos, group_by, no_column=no_column)
