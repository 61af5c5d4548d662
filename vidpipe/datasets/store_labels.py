"""The labels of the videos of one or more feature stores."""

import logging
from collections.abc import Sequence
from pathlib import Path

from vidpipe.config import LabelsConfig
from vidpipe.datasets.duplicate_groups import group_by_duplicates
from vidpipe.datasets.groups import BY_DUPLICATES, group_by_pattern
from vidpipe.datasets.intervals import has_intervals
from vidpipe.datasets.labels import labels_from_folders, labels_table, read_labels
from vidpipe.datasets.streams import Stores, keep_common, name_stores
from vidpipe.errors import UsageError, count_of, first_few
from vidpipe.features.inventory import find_gone_in_place
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

__all__ = ["label_store", "label_store_splits"]

logger = logging.getLogger(__name__)

OFFICIAL_SPLITS = (1, 2, 3)


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
    """Label the videos of a store, from a labels file or else from their folders' names.

    Where folders give the labels, a video whose file is gone from its folder is left out with a warning.

    Args:
        store: the features.
        labels: a CSV file or official lists, see `vidpipe.datasets.labels.read_labels`; None uses the folders' names.
        official_split: 1, 2 or 3: which split of official lists.
        skip_missing: leave out labels whose video is not in the store; without it, they are an error.
        group_by: a column of the CSV that names the groups; or else `duplicates`, for groups of videos with the same
            footage; or else a regular expression over the videos' ids.
        video_column: the column of the CSV that names the videos; None finds it by its usual names.
        label_column: the column of the CSV that holds the labels; None finds it by its usual names.

    Returns:
        A record for each video that has a label and features.

    Raises:
        LabelsError: the labels cannot be read, or do not fit the store's videos.
        UsageError: there is no such labels file.
    """
    return _label_stores(
        [store],
        labels,
        official_split=official_split,
        skip_missing=skip_missing,
        group_by=group_by,
        video_column=video_column,
        label_column=label_column,
    )


def _label_stores(
    stores: Sequence[FeatureStore],
    labels: Path | str | None,
    *,
    official_split: int,
    skip_missing: bool,
    group_by: str | None,
    video_column: str | None,
    label_column: str | None,
) -> list[LabeledVideo]:
    """Label the videos that at least one of the stores holds."""
    video_ids = sorted({video_id for store in stores for video_id in store.ids})
    if labels is None:
        return _labels_from_folders(stores, video_ids, group_by)
    table = labels_table(labels)
    group_column = table.named(group_by) if table is not None and group_by is not None else None
    videos = read_labels(
        labels,
        video_ids=video_ids,
        official_split=official_split,
        skip_missing=skip_missing,
        failed_ids=sorted({failure.video_id for store in stores for failure in store.failures} - set(video_ids)),
        group_column=group_column or "group",
        video_column=video_column,
        label_column=label_column,
    )
    if group_by is None or group_column is not None:
        return videos
    if group_by == BY_DUPLICATES:
        return group_by_duplicates(stores[0], videos)
    no_column = f"{labels} has no such column" if table is not None else "official lists have no columns"
    return group_by_pattern(videos, group_by, no_column=no_column)


def _labels_from_folders(
    stores: Sequence[FeatureStore], video_ids: Sequence[str], group_by: str | None
) -> list[LabeledVideo]:
    if gone := {video_id for store in stores for video_id in find_gone_in_place(store)}:
        logger.warning(
            "%s left out: the file is no longer where it was extracted from: %s (`vidpipe store prune STORE INPUT…` "
            "drops it from the store)",
            count_of(len(gone), "video"),
            first_few(sorted(gone)),
        )
    videos = labels_from_folders(video_id for video_id in video_ids if video_id not in gone)
    if group_by is None:
        return videos
    if group_by == BY_DUPLICATES:
        return group_by_duplicates(stores[0], videos)
    return group_by_pattern(videos, group_by, no_column="labels from folders have no columns")


def label_store_splits(stores: Stores, config: LabelsConfig) -> list[list[LabeledVideo]]:
    """Label the videos of one or more streams as the settings ask for, once for each official split.

    Args:
        stores: the features; every stream holds the labelled videos, unless `skip_missing` leaves them out.
        config: `labels` and how to read them; `split` is 1, 2, 3 or all.

    Returns:
        The labelled videos of each split: three lists for the split `all`, else one.

    Raises:
        LabelsError: the labels cannot be read or do not fit the videos, or the streams hold different videos.
        UsageError: there is no such labels file, it is of intervals, or it gives no splits for `all`.
    """
    if config.labels is not None and has_intervals(config.labels):
        raise UsageError(
            f"{config.labels}: labels of intervals say what happens when, and this command compares one label for each "
            "video; score segments with `vidpipe predict --timeline` and `vidpipe timeline score`"
        )
    named = name_stores(stores)
    splits = [
        _label_stores(
            list(named.values()),
            config.labels,
            official_split=number,
            skip_missing=config.skip_missing,
            group_by=config.group_by,
            video_column=config.video_column,
            label_column=config.label_column,
        )
        for number in (OFFICIAL_SPLITS if config.split == "all" else [int(config.split)])
    ]
    if len(splits) > 1 and not any(video.split for video in splits[0]):
        raise UsageError(
            "--split all goes with the official lists of UCF101 or HMDB51; give their folder with --labels"
        )
    return [keep_common(named, videos, skip_missing=config.skip_missing) for videos in splits]
