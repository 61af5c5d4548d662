"""Which splits a training uses: the run's own, and those of cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vidpipe.config import TrainConfig
from vidpipe.datasets.splits import Split, make_folds, make_split
from vidpipe.errors import UsageError
from vidpipe.records import LabeledVideo

__all__ = ["Protocol", "draw_protocol"]


@dataclass(frozen=True)
class Protocol:
    """The splits of one training."""

    split: Split
    """The run's own."""
    crossed: tuple[tuple[int, Split], ...] = ()
    """The splits to cross-validate over, each with its seed; empty without cross-validation."""


def draw_protocol(
    videos: Sequence[LabeledVideo], config: TrainConfig, more_labels: Sequence[Sequence[LabeledVideo]] = ()
) -> Protocol:
    """Draw the splits that a config asks for.

    Args:
        videos: labelled videos.
        config: `folds`, `leave_one_group_out`, `repeats`, `val_fraction`, `test_fraction` and `seed`.
        more_labels: the same videos with other given splits, to cross-validate over; others among them are ignored.

    Returns:
        The splits.

    Raises:
        LabelsError: the videos cannot be split so.
        UsageError: the config or the fractions ask for a test set that the videos cannot fill.
    """
    split = _draw_split(videos, config)
    ids = {video.video_id for video in videos}
    labellings = [videos, *([video for video in labels if video.video_id in ids] for labels in more_labels)]
    return Protocol(split, tuple(_crossed_splits(split, labellings, config)))


def _draw_split(videos: Sequence[LabeledVideo], config: TrainConfig) -> Split:
    """Draw one split: without a test set in cross-validation, where each video is in the test set of a fold."""
    test_fraction = 0.0 if _uses_folds(config) else config.test_fraction
    return make_split(videos, val_fraction=config.val_fraction or 0.0, test_fraction=test_fraction, seed=config.seed)


def _uses_folds(config: TrainConfig) -> bool:
    return config.folds is not None or config.leave_one_group_out


def _crossed_splits(
    split: Split, labellings: Sequence[Sequence[LabeledVideo]], config: TrainConfig
) -> list[tuple[int, Split]]:
    videos = labellings[0]
    if not _uses_folds(config) and config.repeats == 1 and len(labellings) == 1:
        return []
    if not _uses_folds(config) and not split.test:
        raise UsageError(_describe_missing_test_set(videos, config))
    splits: list[tuple[int, Split]] = []
    for seed in range(config.seed, config.seed + config.repeats):
        if _uses_folds(config):
            kept = [video for video in videos if video.split != "test"]
            splits += [(seed, fold) for fold in make_folds(kept, config.folds, config.val_fraction or 0.0, seed=seed)]
        else:
            splits += [(seed, _draw_split(labels, replace(config, seed=seed))) for labels in labellings]
    return splits


def _describe_missing_test_set(videos: Sequence[LabeledVideo], config: TrainConfig) -> str:
    what = f"--repeats {config.repeats} tests once with each seed, but there is no test set"
    if any(video.split for video in videos):
        return f"{what}: the labels' split has none; give some videos the split test, or cross-validate with --folds 5"
    if config.test_fraction == 0:
        return f"{what} with --test-fraction 0; give a greater fraction, or cross-validate with --folds 5"
    return f"{what}: there are too few videos, or too few groups; add videos, or omit --repeats"
