"""Stage 3: how well a run does on labelled videos that it has not seen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vidpipe.backbones.image import choose_device
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import LabelsError, RunError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.run import Run, check_key
from vidpipe.training.scoring import evaluate_part, logits_of

__all__ = ["EvaluationReport", "evaluate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """A run's heads on the same videos."""

    evaluations: dict[str, Evaluation]
    """By head: the run's own first, then the baseline."""
    num_seen: int
    """Videos excluded because they were used for training or model selection."""


def evaluate(
    run: Run, store: FeatureStore, videos: Sequence[LabeledVideo], *, device: str = "auto"
) -> EvaluationReport:
    """Evaluate a run on the labelled videos that it has neither learned from nor been chosen by.

    Args:
        run: from `Run.open`.
        store: features made with the run's own settings.
        videos: labelled videos, each in the store.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        RunError: the store's features are not those that the run was trained on, or the run has seen every video.
        LabelsError: a label is none of the run's classes.
    """
    check_key(run, store)
    unknown = sorted({video.label for video in videos} - set(run.class_names))
    if unknown:
        raise LabelsError(
            f"{', '.join(map(repr, unknown[:3]))}: no class of this run; it knows {', '.join(run.class_names[:10])}"
            f"{', …' * (len(run.class_names) > 10)}. Correct these labels, or leave their rows out"
        )
    seen = {(row.video, row.size_bytes) for row in run.splits if row.split in {*run.learned_subsets, "val"}}
    unseen = [video for video in videos if (video.video_id, store.info(video.video_id).size_bytes) not in seen]
    if not unseen:
        given = f"every one of these {len(videos)} videos" if len(videos) > 1 else "the one video given"
        raise RunError(
            f"{run.path}: the run learned from {given}; give others. "
            f"`vidpipe info {run.path}` shows the metrics of its own test part; train --no-refit keeps that part unseen"
        )
    dataset = SequenceDataset(store, unseen, run.class_names)
    heads = run.load_heads(choose_device(device))
    return EvaluationReport(
        {name: evaluate_part(logits_of(name, head, dataset), dataset, run.class_names) for name, head in heads.items()},
        num_seen=len(videos) - len(unseen),
    )
