"""Labels -> the videos to train on: whole videos, or windows of long ones."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vidpipe.config import LabelsConfig, TrainConfig
from vidpipe.datasets.interval_labels import label_windows, read_interval_labels
from vidpipe.datasets.intervals import has_intervals
from vidpipe.datasets.store_labels import label_store_splits
from vidpipe.errors import UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.training.controls import MaskedStores
from vidpipe.training.timelines import TimelineExam

__all__ = ["TrainingVideos", "label_training_videos"]


class TrainingVideos(NamedTuple):
    """The labelled videos of a training, and their features."""

    stores: Mapping[str, FeatureStore]
    """By stream."""
    videos: Sequence[LabeledVideo]
    more_splits: Sequence[Sequence[LabeledVideo]] = ()
    """The same videos with other official splits."""
    exam: TimelineExam | None = None
    """Where the videos are windows of long videos, scores the timelines of these."""


def label_training_videos(
    stores: Mapping[str, FeatureStore], labels: LabelsConfig, config: TrainConfig, masked: MaskedStores
) -> TrainingVideos:
    """Label the videos of one or more streams, or the windows of long videos where the labels are of intervals.

    Args:
        stores: by stream.
        labels: `labels` and how to read them.
        config: `window`, `background`, and the settings of the training.
        masked: goes with labels of whole videos alone.

    Returns:
        The labelled videos.

    Raises:
        LabelsError: the labels cannot be read or do not fit the videos.
        UsageError: a setting does not go with labels of this kind.
    """
    if labels.labels is None or not has_intervals(labels.labels):
        if config.window is not None:
            raise UsageError("--window goes with --labels of intervals; these labels are of whole videos")
        videos, *more_splits = label_store_splits(stores, labels)
        return TrainingVideos(stores, videos, more_splits)
    if masked.without_people or masked.only_people:
        raise UsageError("--without-people and --only-people go with labels of whole videos, not of intervals")
    truth = read_interval_labels(stores, labels)
    windows = label_windows(stores, truth, window_seconds=config.window, background=config.background)
    return TrainingVideos(windows.stores, windows.videos, exam=TimelineExam(windows, config))
