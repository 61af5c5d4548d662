"""Stage 3: how well a run does on labelled videos that it has not seen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vidpipe.backbones.image import choose_device
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.streams import Stores
from vidpipe.errors import LabelsError, RunError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.run import Run, stores_of
from vidpipe.training.scoring import Scores, score_classifiers

__all__ = ["EvaluationReport", "evaluate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """A run's classifier, its parts and the baseline on the same videos."""

    scores: dict[str, Scores]
    """By name: the run's classifier first, its parts, the baseline."""
    num_excluded: int
    """Videos excluded because they were used for training or model selection."""

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The metrics by name, in the same order."""
        return {name: scores.evaluation for name, scores in self.scores.items()}


def evaluate(run: Run, stores: Stores, videos: Sequence[LabeledVideo], *, device: str = "auto") -> EvaluationReport:
    """Evaluate a run on labelled videos, excluding those used for training or model selection.

    Args:
        run: from `Run.open`.
        stores: features made with the run's own settings, by the run's streams; or one store.
        videos: labelled videos, each in every store.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The predictions and metrics of the run's classifier, its parts and the baseline.

    Raises:
        RunError: the store's features are not those that the run was trained on, or all videos are excluded.
        LabelsError: a label is not a class of the run.
    """
    named = stores_of(run, stores)
    _check_labels(run, videos)
    unseen = _exclude_seen(run, next(iter(named.values())), videos)
    dataset = SequenceDataset(named, unseen, run.class_names)
    scores = score_classifiers(run.load_classifiers(choose_device(device)), dataset)
    return EvaluationReport(scores, num_excluded=len(videos) - len(unseen))


def _check_labels(run: Run, videos: Sequence[LabeledVideo]) -> None:
    unknown = sorted({video.label for video in videos} - set(run.class_names))
    if unknown:
        raise LabelsError(
            f"{', '.join(map(repr, unknown[:3]))}: not a class of this run; its classes are "
            f"{', '.join(run.class_names[:10])}{', …' * (len(run.class_names) > 10)}. "
            "Correct these labels, or leave their rows out"
        )


def _exclude_seen(run: Run, store: FeatureStore, videos: Sequence[LabeledVideo]) -> list[LabeledVideo]:
    """The videos that the run has neither learned from nor been selected by: another id, or another file size."""
    seen = {(row.video, row.size_bytes) for row in run.splits if row.split in {*run.learned_subsets, "val"}}
    unseen = [video for video in videos if (video.video_id, store.info(video.video_id).size_bytes) not in seen]
    if not unseen:
        given = f"all of these {len(videos)} videos" if len(videos) > 1 else "the one video given"
        raise RunError(
            f"{run.path}: {given} {'were' if len(videos) > 1 else 'was'} used for training or model selection; give "
            f"others. `vidpipe info {run.path}` shows the metrics of the run's own test set; "
            "train --no-refit keeps that set unseen"
        )
    return unseen
