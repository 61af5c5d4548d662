"""The quality of predictions: scikit-learn's metrics over logits, and the records that metrics.json holds."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_CLASSES_WITHOUT_TOP5",
    "MIN_GROUPS_FOR_INTERVAL",
    "ClassMetrics",
    "Estimate",
    "Evaluation",
    "FoldScore",
    "FoldScores",
    "ReliabilityBin",
    "bootstrap_interval",
    "evaluate_logits",
    "mean_and_deviation",
]

NUM_BINS = 10
MIN_GROUPS_FOR_INTERVAL = 5
MAX_CLASSES_WITHOUT_TOP5 = 5
"""With so few classes, the correct one is always among the five most probable."""


@dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class; the first four are None for a class without videos."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    """Area under the precision-recall curve, this class against all others."""
    num_videos: int
    """Videos with this label."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the metrics of a class from metrics.json; early versions wrote 0 for a class without videos."""
        if values["num_videos"]:
            return cls(**values)
        return cls(values["label"], None, None, None, None, 0)


@dataclass(frozen=True)
class ReliabilityBin:
    """The videos whose confidence (their greatest probability) lies in one tenth of 0 to 1."""

    confidence: float
    """Mean confidence of these videos."""
    top1: float
    """Share of them that is predicted correctly."""
    num_videos: int


@dataclass(frozen=True)
class Evaluation:
    """Metrics of predictions."""

    top1: float
    """Share of videos whose most probable class is correct."""
    top1_interval: tuple[float, float] | None
    """95 % confidence interval of top-1 (bootstrap over groups); None with fewer than 5 groups."""
    top5: float | None
    """Share of videos whose class is among the five most probable; None with five classes or fewer."""
    macro_f1: float
    """Mean F1 over the classes that have videos here: scikit-learn's `f1_score` with those classes as `labels`.

    By default, `f1_score` counts a class that is predicted but has no video as an F1 of 0. Here, such a prediction
    only lowers the recall, and so the F1, of the class that the video belongs to.
    """
    balanced_accuracy: float
    """Mean recall over the classes that have videos here."""
    mean_average_precision: float
    """Mean over the classes that have videos here."""
    log_loss: float
    """Mean of -log(probability of the correct class)."""
    calibration_error: float
    """Expected calibration error (ECE): mean difference of confidence and top-1, over ten bins. Guo et al. 2017."""
    num_videos: int
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    """(K, K) numbers of videos: row is the class, column the predicted class."""
    reliability: tuple[ReliabilityBin, ...]
    """The bins that hold videos, least confident first."""

    @property
    def num_classes_tested(self) -> int:
        """The number of classes that have videos here; means over classes are over these."""
        return sum(row.num_videos > 0 for row in self.per_class)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for metrics.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the evaluation that `as_dict` wrote.

        Args:
            values: the fields by name; other keys are ignored.

        Returns:
            The evaluation. Its top-5 is None with five classes or fewer, for which early versions wrote 1.

        Raises:
            KeyError: a field is missing.
            TypeError: a value is of another type.
        """
        own = {field.name: values[field.name] for field in fields(cls)}
        own["per_class"] = tuple(map(ClassMetrics.from_dict, values["per_class"]))
        own["top5"] = None if len(own["per_class"]) <= MAX_CLASSES_WITHOUT_TOP5 else values["top5"]
        own["reliability"] = tuple(ReliabilityBin(**bin_) for bin_ in values["reliability"])
        return cls(**own)


def evaluate_logits(
    logits: NDArray[np.floating[Any]],
    class_index: NDArray[np.int64],
    class_names: Sequence[str],
    groups: Sequence[str],
) -> Evaluation:
    """Compute the metrics of logits.

    Args:
        logits: (N, K), N at least 1.
        class_index: (N,) the correct classes.
        class_names: K names.
        groups: N names; see `bootstrap_interval`.

    Returns:
        The metrics.
    """
    # scikit-learn warns about classes that are predicted but do not occur, and about many classes with few videos each
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
    is_correct = predicted == class_index
    reliability = _reliability(probabilities.max(axis=1), is_correct)
    return Evaluation(
        top1=float(is_correct.mean()),
        top1_interval=bootstrap_interval(is_correct.astype(float), groups, seed=0)
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


def _reliability(confidence: NDArray[np.float64], is_correct: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    number = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)  # (N,)
    members = [number == index for index in np.unique(number)]
    return tuple(
        ReliabilityBin(float(confidence[members_].mean()), float(is_correct[members_].mean()), int(members_.sum()))
        for members_ in members
    )


@dataclass(frozen=True)
class Estimate:
    """A mean over folds and seeds, with its uncertainty."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1) between the folds or seeds; None with a single one."""
    low: float
    high: float
    """95 % confidence interval of the mean, from `low` to `high` (bootstrap over groups)."""

    def __str__(self) -> str:
        return f"{self.short} (95 % CI {self.low:.3f} to {self.high:.3f})"

    @property
    def short(self) -> str:
        """`0.705 ± 0.092`, or the mean alone without a deviation."""
        return f"{self.mean:.3f}" + (f" ± {self.deviation:.3f}" if self.deviation is not None else "")


@dataclass(frozen=True)
class FoldScore:
    """Top-1 on the test set of one fold."""

    fold: int
    seed: int
    top1: float
    num_videos: int


@dataclass(frozen=True)
class FoldScores:
    """Top-1 of a head in cross-validation."""

    estimate: Estimate
    """Over all videos."""
    folds: tuple[FoldScore, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the scores from the values that metrics.json has for a head under `folds`.

        Args:
            values: `estimate` and `folds`; other keys are ignored.

        Returns:
            The scores.

        Raises:
            KeyError: a value is missing.
            TypeError: a value is of another type.
        """
        names = [field.name for field in fields(FoldScore)]
        folds = tuple(FoldScore(**{name: fold[name] for name in names}) for fold in values["folds"])
        return cls(Estimate(**values["estimate"]), folds)


def mean_and_deviation(values: NDArray[np.float64], units: Sequence[str]) -> tuple[float, float]:
    """Return the mean of values, and the standard deviation of that mean where whole groups vary.

    Args:
        values: (N,) numbers.
        units: N names; values of the same name vary together.

    Returns:
        The mean and its deviation.
    """
    _, unit_of = np.unique(np.asarray(units), return_inverse=True)
    sums, counts = np.bincount(unit_of, values), np.bincount(unit_of)
    mean = sums.sum() / len(values)
    unbiased = len(sums) / max(len(sums) - 1, 1)
    return float(mean), float(np.sqrt(unbiased * np.square(sums - mean * counts).sum()) / len(values))


def bootstrap_interval(
    values: NDArray[np.floating[Any]], groups: Sequence[str], *, seed: int, num_draws: int = 2000
) -> tuple[float, float]:
    """Estimate the 95 % confidence interval of a mean over videos by a bootstrap over groups. Efron 1979.

    Args:
        values: (N,) a value per video, such as 1.0 for a correct prediction.
        groups: N names; the videos of a group are drawn together.
        seed: the seed of the draws.
        num_draws: the number of draws.

    Returns:
        The lower and the upper end of the interval.
    """
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(number, weights=values), np.bincount(number)  # (G,), (G,)
    random = np.random.default_rng(seed)
    draws = (random.integers(len(counts), size=len(counts)) for _ in range(num_draws))
    means = [sums[drawn].sum() / counts[drawn].sum() for drawn in draws]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
