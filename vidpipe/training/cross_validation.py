"""Test a classifier over several splits: k folds, one group left out at a time, repeated seeds, official splits."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, Subsets, select_subsets
from vidpipe.datasets.splits import Split
from vidpipe.heads.fusion import Fusion
from vidpipe.heads.members import baseline_members, plan_members
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Estimate, Evaluation, bootstrap_interval
from vidpipe.runs.tables import FoldRow
from vidpipe.training.fusion import fit_classifier
from vidpipe.training.scoring import Scores, score_classifiers

__all__ = ["CrossValidation", "FoldScores", "cross_validate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldScores:
    """A classifier, or a part of it, on the test set of one split."""

    fold: int
    seed: int
    scores: Scores

    @property
    def head(self) -> str:
        """The name of the classifier or of the part."""
        return self.scores.head


@dataclass(frozen=True)
class CrossValidation:
    """A classifier, its parts and the baseline on the test sets of all splits."""

    results: tuple[FoldScores, ...]

    @property
    def heads(self) -> list[str]:
        """The names: the classifier itself first."""
        return list(dict.fromkeys(result.head for result in self.results))

    def of(self, head: str) -> list[FoldScores]:
        """Return one head's results, in the order of the splits."""
        return [result for result in self.results if result.head == head]

    def accuracy_by_video(self, head: str) -> dict[LabeledVideo, float]:
        """Return how often each video was classified correctly, from 0 to 1, over the test sets that held it."""
        correct_of: dict[LabeledVideo, list[bool]] = defaultdict(list)
        for result in self.of(head):
            for video, correct in zip(result.scores.dataset.videos, result.scores.correct, strict=True):
                correct_of[video].append(bool(correct))
        return {video: float(np.mean(correct)) for video, correct in correct_of.items()}

    def estimate(self, head: str) -> Estimate:
        """Return the top-1 over all videos, its sample deviation between the splits, and its interval by group."""
        accuracy = self.accuracy_by_video(head)
        values = np.array(list(accuracy.values()))
        tops = [result.scores.evaluation.top1 for result in self.of(head)]
        deviation = float(np.std(tops, ddof=1)) if len(tops) > 1 else None
        interval = bootstrap_interval(values, [video.unit for video in accuracy], seed=0)
        return Estimate(float(values.mean()), deviation, *interval)

    def pooled(self, head: str) -> Evaluation:
        """Evaluate one head on all test sets together."""
        first, *others = [result.scores for result in self.of(head)]
        dataset = first.dataset.concatenate(*(scores.dataset for scores in others))
        return Scores(head, dataset, np.concatenate([first.logits, *(scores.logits for scores in others)])).evaluation

    def as_dict(self) -> dict[str, Any]:
        """Return the section of metrics.json: of each head, the pooled metrics, the estimate and each split's top-1."""
        return {
            head: {
                **self.pooled(head).as_dict(),
                "estimate": vars(self.estimate(head)),
                "folds": [
                    {
                        "fold": result.fold,
                        "seed": result.seed,
                        "top1": result.scores.evaluation.top1,
                        "num_videos": len(result.scores.dataset),
                    }
                    for result in self.of(head)
                ],
            }
            for head in self.heads
        }

    def rows(self, names: Collection[str]) -> Iterator[FoldRow]:
        """Yield the lines of folds.csv for the classifiers and parts with these names."""
        for result in self.results:
            for values in result.scores.rows() if result.head in names else ():
                yield FoldRow(fold=result.fold, seed=result.seed, **values)


def cross_validate(
    dataset: SequenceDataset,
    splits: Sequence[tuple[int, Split]],
    config: TrainConfig,
    *,
    with_baseline: bool = False,
    on_fitted: Callable[[Fusion, Subsets], None] | None = None,
) -> CrossValidation:
    """Train the classifier on each split's training set, and test it and its parts on the split's test set.

    Args:
        dataset: holds the videos of all splits, with all streams.
        splits: each with its seed.
        config: the settings.
        with_baseline: train the baseline, too.
        on_fitted: called with the classifier of each split and its subsets.

    Returns:
        The results, by split; the classifier itself is the first of `heads`.
    """
    results = []
    members = plan_members(dataset.streams, config)
    for fold, (seed, split) in enumerate(splits):
        subsets, seeded = select_subsets(dataset, split), replace(config, seed=seed)
        classifiers = [fit_classifier(members, subsets, seeded).fusion]
        if on_fitted is not None:
            on_fitted(classifiers[0], subsets)
        if with_baseline:
            classifiers.append(fit_classifier(baseline_members(dataset.streams), subsets, seeded).fusion)
        scores = score_classifiers(classifiers, subsets["test"])
        results += [FoldScores(fold, seed, its_scores) for its_scores in scores.values()]
        level = logging.INFO if len(splits) > 1 else logging.DEBUG
        for name in {classifier.name: None for classifier in classifiers}:
            top1 = scores[name].evaluation.top1
            logger.log(level, "split %d of %d, %s: top-1 %.3f", fold + 1, len(splits), name, top1)
    return CrossValidation(tuple(results))
