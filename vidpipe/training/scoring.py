"""What a classifier predicts for labelled videos, and how correct it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.fusion import Fusion
from vidpipe.runs.metrics import Evaluation, evaluate_logits
from vidpipe.training.fusion import compute_member_logits

__all__ = ["Scores", "score_classifiers"]


@dataclass(frozen=True)
class Scores:
    """Logits for labelled videos: predicted classes, correctness, table rows and metrics follow from them."""

    head: str
    """The name of the classifier or of a part of it; see `vidpipe.heads.fusion.Fusion.parts`."""
    dataset: SequenceDataset
    """The N videos."""
    logits: NDArray[np.float32]
    """(N, K)"""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the most probable classes."""
        predicted: NDArray[np.int64] = self.logits.argmax(axis=1)
        return predicted

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the most probable class is the video's own."""
        correct: NDArray[np.bool_] = self.predicted == self.dataset.class_index.numpy()
        return correct

    @cached_property
    def evaluation(self) -> Evaluation:
        """All metrics; needs at least one video."""
        return evaluate_logits(
            self.logits, self.dataset.class_index.numpy(), self.dataset.class_names, self.dataset.units
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the values that `PredictionRow` and `FoldRow` have in common, for each video."""
        from scipy.special import softmax

        probabilities = softmax(self.logits, axis=1).max(axis=1)  # (N,)
        columns = zip(self.dataset.videos, self.predicted, probabilities, self.correct, strict=True)
        for video, predicted, probability, correct in columns:
            yield {
                "head": self.head,
                "video": video.video_id,
                "group": video.group or "",
                "label": video.label,
                "predicted": self.dataset.class_names[predicted],
                "probability": float(probability),
                "right": bool(correct),
            }


def score_classifiers(classifiers: Sequence[Fusion], dataset: SequenceDataset) -> dict[str, Scores]:
    """Apply classifiers and their parts to each video of a dataset.

    Args:
        classifiers: the run's own, then the baseline.
        dataset: N videos, at least 1, with all streams.

    Returns:
        The scores by name: the run's classifier first; its members and other parts; the baseline.
    """
    found: dict[str, Scores] = {}
    for fusion in classifiers:
        logits_of = {name: compute_member_logits(member, dataset) for name, member in fusion.fitted.items()}
        for name, part in fusion.parts().items():
            logits = torch.stack([logits_of[member.name] for member in part.members])  # (M, N, K)
            found.setdefault(name, Scores(name, dataset, part.fuse(logits).numpy()))
    return found
