"""How good predictions are: scikit-learn's metrics over logits."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassMetrics", "Estimate", "Evaluation", "ReliabilityBin", "bootstrap_interval", "evaluate_logits"]

NUM_BINS = 10
FEWEST_GROUPS = 5


@dataclass(frozen=True)
class ClassMetrics:
    """One class's share of an evaluation."""

    label: str
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    """Area under precision over recall, this class against all others; None where it does not occur."""
    num_videos: int


@dataclass(frozen=True)
class ReliabilityBin:
    """The videos whose greatest probability lies in one tenth of 0 to 1."""

    confidence: float
    """Mean of their greatest probabilities."""
    top1: float
    """Share of them that are right."""
    num_videos: int


@dataclass(frozen=True)
class Evaluation:
    """Predictions held against labels."""

    top1: float
    """Share of videos whose most probable class is right."""
    top1_interval: tuple[float, float] | None
    """95 % confidence interval of it, by drawing groups anew; None of so few groups that they say nothing of others."""
    top5: float
    """Share of videos whose class is among the five most probable (all of them, where there are fewer)."""
    macro_f1: float
    """Mean F1 over the classes that occur."""
    balanced_accuracy: float
    """Mean recall over the classes that occur."""
    mean_average_precision: float
    """Over the classes that occur."""
    log_loss: float
    """Mean of -log(probability of the right class)."""
    calibration_error: float
    """Expected calibration error: by how much confidence and top-1 differ, over ten bins. Guo et al. 2017."""
    num_videos: int
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Videos of class row that were predicted as class column."""
    reliability: tuple[ReliabilityBin, ...]
    """Bins that hold videos, least confident first."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def evaluate_logits(
    logits: NDArray[np.floating[Any]],
    class_index: NDArray[np.int64],
    class_names: Sequence[str],
    groups: Sequence[str],
) -> Evaluation:
    """Hold logits against the right classes.

    Args:
        logits: (N, K), N at least 1.
        class_index: (N,) the right classes.
        class_names: K names.
        groups: N names; see `bootstrap_interval`.
    """
    # scikit-learn warns of classes that are predicted but do not occur, and of many classes with few videos each.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return _evaluate(logits, class_index, class_names, groups)


def _evaluate(
    logits: NDArray[np.floating[Any]],
    class_index: NDArray[np.int64],
    class_names: Sequence[str],
    groups: Sequence[str],
) -> Evaluation:
    from scipy.special import softmax
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

    classes = np.arange(len(class_names))
    probabilities = softmax(logits.astype(np.float64), axis=1)  # (N, K)
    predicted = logits.argmax(axis=1)
    five_best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    precision, recall, f1, support = precision_recall_fscore_support(
        class_index, predicted, labels=classes, zero_division=0
    )
    areas = [_average_precision(class_index == index, probabilities[:, index]) for index in classes]
    is_right = predicted == class_index
    reliability = _reliability(probabilities.max(axis=1), is_right)
    balanced = balanced_accuracy_score(class_index, predicted)
    rows = zip(class_names, precision, recall, f1, areas, support, strict=True)
    return Evaluation(
        top1=float(is_right.mean()),
        top1_interval=bootstrap_interval(is_right.astype(float), groups, seed=0)
        if len(set(groups)) >= FEWEST_GROUPS
        else None,
        top5=float((five_best == class_index[:, None]).any(axis=1).mean()),
        macro_f1=float(f1[support > 0].mean()),
        balanced_accuracy=float(balanced),
        mean_average_precision=float(np.mean([area for area in areas if area is not None])),
        log_loss=float(log_loss(class_index, probabilities, labels=classes)),
        calibration_error=sum(abs(b.confidence - b.top1) * b.num_videos for b in reliability) / len(class_index),
        num_videos=len(class_index),
        per_class=tuple(ClassMetrics(name, float(p), float(r), float(f), a, int(n)) for name, p, r, f, a, n in rows),
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(class_index, predicted, labels=classes)),
        reliability=reliability,
    )


def _average_precision(is_class: NDArray[np.bool_], probability: NDArray[np.float64]) -> float | None:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(is_class, probability)) if is_class.any() else None


def _reliability(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    number = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)  # (N,)
    members = [number == index for index in np.unique(number)]
    return tuple(
        ReliabilityBin(float(confidence[members_].mean()), float(is_right[members_].mean()), int(members_.sum()))
        for members_ in members
    )


@dataclass(frozen=True)
class Estimate:
    """A figure over folds and seeds."""

    mean: float
    deviation: float
    """Between the folds (or seeds)."""
    low: float
    high: float
    """95 % confidence interval of the mean, by drawing groups anew."""

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f} (95 % by group {self.low:.3f} to {self.high:.3f})"


def bootstrap_interval(
    values: NDArray[np.floating[Any]], groups: Sequence[str], *, seed: int, num_draws: int = 2000
) -> tuple[float, float]:
    """The 95 % interval of a mean over videos, when whole groups are drawn with replacement. Efron 1979.

    Args:
        values: (N,) of each video, such as 1.0 where it is right.
        groups: N names; videos of a group are drawn together.
        seed: of the draws.
        num_draws: how many.
    """
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(number, weights=values), np.bincount(number)  # (G,), (G,)
    random = np.random.default_rng(seed)
    draws = (random.integers(len(counts), size=len(counts)) for _ in range(num_draws))
    means = [sums[drawn].sum() / counts[drawn].sum() for drawn in draws]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
