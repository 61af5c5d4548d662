"""How well heads do over several splits: k folds, one group left out at a time, repeated seeds, official splits."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import Split
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Estimate, Evaluation, bootstrap_interval, evaluate_logits
from vidpipe.runs.tables import FoldRow
from vidpipe.training.fit import fit_head
from vidpipe.training.scoring import evaluate_part, logits_of, prediction_values

__all__ = ["CrossValidation", "FoldResult", "cross_validate", "select_parts"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """A head on the test part of one split."""

    fold: int
    seed: int
    head: str
    videos: tuple[LabeledVideo, ...]
    logits: NDArray[np.float32]
    """(N, K)"""
    evaluation: Evaluation


@dataclass(frozen=True)
class CrossValidation:
    """All heads on all splits."""

    results: tuple[FoldResult, ...]
    class_names: tuple[str, ...]

    def of(self, head: str) -> list[FoldResult]:
        """One head's results, in the order of the splits."""
        return [result for result in self.results if result.head == head]

    def is_right(self, head: str) -> dict[LabeledVideo, float]:
        """Of each video, how often it was told rightly while it was in a test part."""
        told: dict[LabeledVideo, list[bool]] = defaultdict(list)
        for result in self.of(head):
            for video, index in zip(result.videos, result.logits.argmax(axis=1), strict=True):
                told[replace(video, split=None)].append(self.class_names[index] == video.label)
        return {video: float(np.mean(rights)) for video, rights in told.items()}

    def estimate(self, head: str) -> Estimate:
        """Top-1 over all videos, its sample deviation between the splits, and its interval by group."""
        rights = self.is_right(head)
        units = [video.unit for video in rights]
        values = np.array(list(rights.values()))
        tops = [result.evaluation.top1 for result in self.of(head)]
        deviation = float(np.std(tops, ddof=1)) if len(tops) > 1 else None
        return Estimate(float(values.mean()), deviation, *bootstrap_interval(values, units, seed=0))

    def pooled(self, head: str) -> Evaluation:
        """All test parts held against their labels at once."""
        results = self.of(head)
        class_of = {name: index for index, name in enumerate(self.class_names)}
        videos = [video for result in results for video in result.videos]
        truth = np.array([class_of[video.label] for video in videos])
        logits = np.concatenate([result.logits for result in results])
        return evaluate_logits(logits, truth, self.class_names, [video.unit for video in videos])

    def as_dict(self) -> dict[str, Any]:
        """For metrics.json: of each head, the estimate, the splits' own figures, and the pooled evaluation."""
        heads = dict.fromkeys(result.head for result in self.results)
        return {
            head: {
                **self.pooled(head).as_dict(),
                "estimate": vars(self.estimate(head)),
                "folds": [
                    {"fold": r.fold, "seed": r.seed, "top1": r.evaluation.top1, "num_videos": len(r.videos)}
                    for r in self.of(head)
                ],
            }
            for head in heads
        }

    def rows(self) -> Iterator[FoldRow]:
        """Lines of folds.csv."""
        for result in self.results:
            for values in prediction_values(result.head, result.videos, result.logits, self.class_names):
                yield FoldRow(fold=result.fold, seed=result.seed, **values)


def cross_validate(
    dataset: SequenceDataset,
    splits: Sequence[tuple[int, Split]],
    class_names: Sequence[str],
    config: TrainConfig,
    heads: Sequence[str],
) -> CrossValidation:
    """Train each head on each split's training part, and test it on the split's own test part.

    Args:
        dataset: holds the videos of all splits.
        splits: each with its seed.
        class_names: K names.
        config: the settings.
        heads: names of `HEADS`.
    """
    results = []
    for fold, (seed, split) in enumerate(splits):
        parts = select_parts(dataset, split)
        for name in heads:
            head, _ = fit_head(name, parts, len(class_names), replace(config, seed=seed))
            logits = logits_of(name, head, parts["test"])
            evaluation = evaluate_part(logits, parts["test"], class_names)
            results.append(FoldResult(fold, seed, name, split.test, logits, evaluation))
            level = logging.INFO if len(splits) > 1 else logging.DEBUG
            logger.log(level, "split %d of %d, %s: top-1 %.3f", fold + 1, len(splits), name, evaluation.top1)
    return CrossValidation(tuple(results), tuple(class_names))


def select_parts(dataset: SequenceDataset, split: Split) -> dict[str, SequenceDataset]:
    """The parts of a split, over one array of features."""
    number_of = {video_id: number for number, video_id in enumerate(dataset.video_ids)}
    parts = {"train": split.train, "val": split.val, "test": split.test}
    return {name: dataset.part([number_of[video.video_id] for video in videos]) for name, videos in parts.items()}
