"""`--head auto`: compare a short list of heads by cross-validation on the training set, and choose one."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vidpipe.config import DEFAULT_HEAD, LINEAR_HEADS, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import Split, make_folds
from vidpipe.errors import UsageError, count_of
from vidpipe.heads.members import plan_members, resolve_val_fraction, with_heads
from vidpipe.runs.metrics import mean_and_deviation
from vidpipe.training.cross_validation import CrossValidation, cross_validate

__all__ = ["CANDIDATES", "HeadChoice", "choose_head"]

logger = logging.getLogger(__name__)

CANDIDATES = (DEFAULT_HEAD, "statistics", "gru", "lstm", "tcn", "attention")
"""In the order of comparison. A later head has to lead by more than the deviation of its lead."""
NUM_FOLDS = 3


@dataclass(frozen=True)
class HeadChoice:
    """The head of a training, and the reason for it."""

    head: str
    reason: str = ""
    """A sentence; empty where the user named the head."""


def choose_head(training: SequenceDataset, config: TrainConfig) -> HeadChoice:
    """Choose a head by cross-validation on the training set.

    Args:
        training: the training set.
        config: the settings; `budget` in seconds limits the comparison.

    Returns:
        The head's name, and the reason.

    Raises:
        UsageError: the training set has fewer groups than there are folds.
    """
    if (num_groups := len(set(training.units))) < NUM_FOLDS:
        raise UsageError(
            f"--head auto compares heads by {NUM_FOLDS} folds over the groups, and the training set has "
            f"{count_of(num_groups, 'group')}; choose a head with --head, such as {LINEAR_HEADS[-1]}"
        )
    end = time.monotonic() + config.budget
    val_fraction = resolve_val_fraction(config, len(training.streams)).val_fraction or 0.0
    folds = make_folds(training.videos, NUM_FOLDS, val_fraction, seed=config.seed)
    candidates = [name for name in CANDIDATES if config.ensemble == 1 or name not in LINEAR_HEADS]
    best, compared = candidates[0], dict[str, CrossValidation]()
    for name in candidates:
        # The first one always gets the time it needs: one head has to be chosen.
        settings = with_heads(config, name, len(training.streams))
        is_fused = len(plan_members(training.streams, settings)) > 1
        settings = replace(settings, calibrate=config.calibrate and is_fused)
        found = _cross_validate_until(end if compared else math.inf, training, folds, settings)
        if found is None:
            break
        compared[name] = found
        logger.info("comparing heads: %s, top-1 %s", name, _top1(found))
        if _wins(found, compared[best]):
            best = name
    skipped = [name for name in candidates if name not in compared]
    return HeadChoice(best, _describe_choice(best, compared, skipped, len(training)))


def _cross_validate_until(
    end: float, training: SequenceDataset, folds: Sequence[Split], config: TrainConfig
) -> CrossValidation | None:
    """Cross-validate one head; None where the time is up before all folds are done."""
    results = []
    for number, fold in enumerate(folds):
        if time.monotonic() >= end:
            return None
        found = cross_validate(training, [(config.seed, fold)], config)
        results += [replace(result, fold=number) for result in found.of(found.heads[0])]
    return CrossValidation(tuple(results))


def _wins(found: CrossValidation, best: CrossValidation) -> bool:
    """Whether a head leads the best one so far by more than one deviation of the mean lead over the groups."""
    accuracy, accuracy_of_best = (one.accuracy_by_video(one.heads[0]) for one in (found, best))
    leads = np.array([share - accuracy_of_best[video] for video, share in accuracy.items()])
    mean, deviation = mean_and_deviation(leads, [video.unit for video in accuracy])
    return mean > deviation


def _top1(found: CrossValidation) -> str:
    return found.estimate(found.heads[0]).short


def _describe_choice(
    best: str, compared: Mapping[str, CrossValidation], skipped: Sequence[str], num_videos: int
) -> str:
    tops = ", ".join(f"{name} {_top1(found)}" for name, found in compared.items())
    return (
        f"{best}, by {NUM_FOLDS} folds over the groups of {num_videos} training videos: top-1 {tops}; "
        "a later head has to lead by more than the deviation of its lead"
        + (f"; not tried within --budget: {', '.join(skipped)}" if skipped else "")
    )
