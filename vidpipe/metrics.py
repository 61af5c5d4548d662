"""How good predictions are: scikit-learn's metrics over logits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassMetrics", "Evaluation", "evaluate_logits"]


@dataclass(frozen=True)
class ClassMetrics:
    """One class's share of an evaluation."""

    label: str
    precision: float
    recall: float
    f1: float
    num_videos: int


@dataclass(frozen=True)
class Evaluation:
    """Predictions held against labels."""

    top1: float
    """Share of videos whose most probable class is right."""
    top5: float
    """Share of videos whose class is among the five most probable (all of them, where there are fewer)."""
    macro_f1: float
    """Mean F1 over the classes that occur."""
    num_videos: int
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Videos of class row that were predicted as class column."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def evaluate_logits(
    logits: NDArray[np.floating[Any]], class_index: NDArray[np.int64], class_names: Sequence[str]
) -> Evaluation:
    """Hold logits against the right classes.

    Args:
        logits: (N, K), N at least 1.
        class_index: (N,) the right classes.
        class_names: K names.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = np.arange(len(class_names))
    predicted = logits.argmax(axis=1)
    five_best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    precision, recall, f1, support = precision_recall_fscore_support(
        class_index, predicted, labels=classes, zero_division=0
    )
    rows = zip(class_names, precision, recall, f1, support, strict=True)
    return Evaluation(
        top1=float((predicted == class_index).mean()),
        top5=float((five_best == class_index[:, None]).any(axis=1).mean()),
        macro_f1=float(f1[support > 0].mean()),
        num_videos=len(class_index),
        per_class=tuple(ClassMetrics(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in rows),
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(class_index, predicted, labels=classes)),
    )
