"""What a head predicts for labelled videos, and how correct it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.heads import Head
from vidpipe.runs.metrics import Evaluation, evaluate_logits
from vidpipe.training.fit import compute_logits

__all__ = ["Scores"]


@dataclass(frozen=True)
class Scores:
    """A head's logits for labelled videos: predicted classes, correctness, table rows and metrics follow from them."""

    head: str
    """The head's name."""
    dataset: SequenceDataset
    """The N videos."""
    logits: NDArray[np.float32]
    """(N, K)"""

    @classmethod
    def compute(cls, name: str, head: Head, dataset: SequenceDataset) -> Self:
        """Apply a head to each video of a dataset."""
        return cls(name, dataset, compute_logits(head, dataset).numpy())

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
