"""`--head auto`: compares a short list of heads by cross-validation on the training part, and says why it took one."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vidpipe.config import LINEAR_HEADS, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import Split, make_folds
from vidpipe.errors import UsageError, count_of
from vidpipe.records import LabeledVideo
from vidpipe.training.cross_validation import CrossValidation, cross_validate

__all__ = ["CANDIDATES", "choose_head"]

logger = logging.getLogger(__name__)

CANDIDATES = ("statistics", "gru", "lstm", "tcn", "attention")
"""In the order in which they are tried: a later one has to win by more than the deviation of its lead."""
NUM_FOLDS = 3


def choose_head(
    dataset: SequenceDataset, videos: Sequence[LabeledVideo], class_names: Sequence[str], config: TrainConfig
) -> tuple[str, str]:
    """Choose a head by videos that are not in the test part.

    Args:
        dataset: holds these videos.
        videos: of the training part.
        class_names: K names.
        config: the settings; `budget` is in seconds.

    Returns:
        The head's name, and why, in a sentence.

    Raises:
        UsageError: the videos are of fewer groups than there are folds.
    """
    if (num_groups := len({video.unit for video in videos})) < NUM_FOLDS:
        raise UsageError(
            f"--head auto compares heads by {NUM_FOLDS} folds over the groups, and the training part has "
            f"{count_of(num_groups, 'group')}; choose a head with --head, such as {CANDIDATES[0]}"
        )
    end = time.monotonic() + config.budget
    folds = [(config.seed, split) for split in make_folds(videos, NUM_FOLDS, config.val_fraction, seed=config.seed)]
    candidates = [name for name in CANDIDATES if config.ensemble == 1 or name not in LINEAR_HEADS]
    best, tried = candidates[0], dict[str, CrossValidation]()
    for name in candidates:
        # The first one is compared whatever it takes: something has to be chosen.
        found = _within(
            end if tried else math.inf, dataset, folds, class_names, replace(config, head=name, calibrate=False)
        )
        if found is None:
            break
        tried[name] = found
        logger.info("comparing heads: %s, top-1 %s", name, _told(found, name))
        if _wins(name, found, best, tried[best]):
            best = name
    return best, _why(best, tried, [name for name in candidates if name not in tried], len(videos))


def _within(
    end: float,
    dataset: SequenceDataset,
    folds: Sequence[tuple[int, Split]],
    class_names: Sequence[str],
    config: TrainConfig,
) -> CrossValidation | None:
    """One head over all folds; None where the time is up before."""
    results = []
    for number, fold in enumerate(folds):
        if time.monotonic() >= end:
            return None
        (result,) = cross_validate(dataset, [fold], class_names, config, [config.head]).results
        results.append(replace(result, fold=number))
    return CrossValidation(tuple(results), tuple(class_names))


def _wins(name: str, found: CrossValidation, leader: str, best: CrossValidation) -> bool:
    """Whether a head leads by more than one deviation of the mean lead over the groups."""
    rights, others = found.is_right(name), best.is_right(leader)
    by_group: dict[str, list[float]] = {}
    for video, right in rights.items():
        by_group.setdefault(video.unit, []).append(right - others[video])
    sums = np.array([sum(leads) for leads in by_group.values()])
    mean = sums.sum() / len(rights)
    counts = np.array([len(leads) for leads in by_group.values()])
    unbiased = len(sums) / max(len(sums) - 1, 1)
    deviation = np.sqrt(unbiased * np.square(sums - mean * counts).sum()) / len(rights)
    return bool(mean > deviation)


def _why(best: str, tried: Mapping[str, CrossValidation], left: Sequence[str], num_videos: int) -> str:
    told = ", ".join(f"{name} {_told(found, name)}" for name, found in tried.items())
    return (
        f"{best}, by {NUM_FOLDS} folds over the groups of {num_videos} training videos: top-1 {told}; "
        "a later head has to lead by more than the deviation of its lead"
        + (f"; not tried within --budget: {', '.join(left)}" if left else "")
    )


def _told(found: CrossValidation, name: str) -> str:
    return found.estimate(name).short
