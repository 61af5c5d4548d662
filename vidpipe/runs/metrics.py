"""How good predictions are: scikit-learn's metrics over logits."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_CLASSES_WITHOUT_TOP5",
    "ClassMetrics",
    "Estimate",
    "Evaluation",
    "ReliabilityBin",
    "bootstrap_interval",
    "evaluate_logits",
]

NUM_BINS = 10
MIN_GROUPS_FOR_INTERVAL = 5
MAX_CLASSES_WITHOUT_TOP5 = 5
"""Of so few classes, the right one is always among the five most probable."""


@dataclass(frozen=True)
class ClassMetrics:
    """One class's share of an evaluation."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    """Area under the precision-recall curve, this class against all others."""
    num_videos: int
    """Videos with this label; without any, there is nothing to measure, and the four metrics are None."""


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
    top5: float | None
    """Share of videos whose class is among the five most probable; None of five classes or fewer, where all are."""
    macro_f1: float
    """Mean F1 over the classes that have videos here: scikit-learn's `f1_score` with those classes as `labels`.

    Its default counts a class that is predicted and has no video as an F1 of 0. Here, such a prediction lowers the
    recall, and so the F1, of the class that the video belongs to.
    """
    balanced_accuracy: float
    """Mean recall over the classes that have videos here."""
    mean_average_precision: float
    """Mean over the classes that have videos here."""
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

    @property
    def num_classes_tested(self) -> int:
        """How many classes have videos here: those that the means over classes are of."""
        return sum(row.num_videos > 0 for row in self.per_class)

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
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, log_loss

    classes = np.arange(len(class_names))
    probabilities = softmax(logits.astype(np.float64), axis=1)  # (N, K)
    predicted = logits.argmax(axis=1)
    per_class = _per_class(class_index, predicted, probabilities, class_names)
    areas = [row.average_precision for row in per_class if row.average_precision is not None]
    is_right = predicted == class_index
    reliability = _reliability(probabilities.max(axis=1), is_right)
    return Evaluation(
        top1=float(is_right.mean()),
        top1_interval=bootstrap_interval(is_right.astype(float), groups, seed=0)
        if len(set(groups)) >= MIN_GROUPS_FOR_INTERVAL
        else None,
        top5=_top5(logits, class_index),
        macro_f1=float(
            f1_score(class_index, predicted, labels=np.unique(class_index), average="macro", zero_division=0)
        ),
        balanced_accuracy=float(balanced_accuracy_score(class_index, predicted)),
        mean_average_precision=float(np.mean(areas)),
        log_loss=float(log_loss(class_index, probabilities, labels=classes)),
        calibration_error=sum(abs(b.confidence - b.top1) * b.num_videos for b in reliability) / len(class_index),
        num_videos=len(class_index),
        per_class=per_class,
        confusion=tuple(tuple(map(int, row)) for row in confusion_matrix(class_index, predicted, labels=classes)),
        reliability=reliability,
    )


def _top5(logits: NDArray[np.floating[Any]], class_index: NDArray[np.int64]) -> float | None:
    if logits.shape[1] <= MAX_CLASSES_WITHOUT_TOP5:
        return None
    five_best = np.argsort(-logits, axis=1, kind="stable")[:, :5]  # (N, 5)
    return float((five_best == class_index[:, None]).any(axis=1).mean())


def _per_class(
    class_index: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    class_names: Sequence[str],
) -> tuple[ClassMetrics, ...]:
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        class_index, predicted, labels=np.arange(len(class_names)), zero_division=0
    )
    rows = []
    for index, (name, precision, recall, f1, num_videos) in enumerate(zip(class_names, *columns, strict=True)):
        if num_videos:
            area = float(average_precision_score(class_index == index, probabilities[:, index]))
            rows.append(ClassMetrics(name, float(precision), float(recall), float(f1), area, int(num_videos)))
        else:
            rows.append(ClassMetrics(name, None, None, None, None, 0))
    return tuple(rows)


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
    deviation: float | None
    """Sample standard deviation (n - 1) between the folds or seeds; None of a single one."""
    low: float
    high: float
    """95 % confidence interval of the mean, by drawing groups anew."""

    def __str__(self) -> str:
        return f"{self.short} (95 % by group {self.low:.3f} to {self.high:.3f})"

    @property
    def short(self) -> str:
        """`0.705 ± 0.092`, or the mean alone where there is no deviation."""
        return f"{self.mean:.3f}" + (f" ± {self.deviation:.3f}" if self.deviation is not None else "")


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
