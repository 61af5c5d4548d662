"""What a head says of the videos of a data set, and how right it is."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.heads import Head
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Evaluation, evaluate_logits
from vidpipe.training.fit import compute_logits, seen_by

__all__ = ["evaluate_part", "logits_of", "prediction_values"]


def logits_of(name: str, head: Head, dataset: SequenceDataset) -> NDArray[np.float32]:
    """(N, K) of a head by its name."""
    logits: NDArray[np.float32] = compute_logits(head, seen_by(name, dataset)).numpy()
    return logits


def evaluate_part(logits: NDArray[np.float32], dataset: SequenceDataset, class_names: Sequence[str]) -> Evaluation:
    """A data set's logits (N, K) held against its labels."""
    return evaluate_logits(logits, dataset.class_index.numpy(), class_names, dataset.units)


def prediction_values(
    head: str, videos: Sequence[LabeledVideo], logits: NDArray[np.float32], class_names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """What a head says of each video, beside its label: what `PredictionRow` and `FoldRow` have in common."""
    from scipy.special import softmax

    for video, row in zip(videos, softmax(logits, axis=1), strict=True):
        predicted = class_names[row.argmax()]
        yield {
            "head": head,
            "video": video.video_id,
            "group": video.group or "",
            "label": video.label,
            "predicted": predicted,
            "probability": float(row.max()),
            "right": predicted == video.label,
        }
