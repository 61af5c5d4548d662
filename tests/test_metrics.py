"""Figures against scikit-learn's, and against loops."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from vidpipe.runs.metrics import bootstrap_interval, evaluate_logits

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 9, 200)
LOGITS = RANDOM.standard_normal((200, 9)) + 1.5 * np.eye(9)[TRUTH]
NAMES = [f"c{i}" for i in range(9)]
GROUPS = [f"g{i // 8}" for i in range(200)]


def test_metrics_are_scikit_learns() -> None:
    result = evaluate_logits(LOGITS, TRUTH, NAMES, GROUPS)
    probabilities, predicted = softmax(LOGITS, axis=1), LOGITS.argmax(1)
    assert result.top1 == pytest.approx(top_k_accuracy_score(TRUTH, LOGITS, k=1))
    assert result.top5 == pytest.approx(top_k_accuracy_score(TRUTH, LOGITS, k=5))
    assert result.macro_f1 == pytest.approx(f1_score(TRUTH, predicted, average="macro"))
    assert result.balanced_accuracy == pytest.approx(balanced_accuracy_score(TRUTH, predicted))
    assert result.log_loss == pytest.approx(log_loss(TRUTH, probabilities))
    expected = average_precision_score(np.eye(9)[TRUTH], probabilities, average="macro")
    assert result.mean_average_precision == pytest.approx(expected)
    recall = precision_recall_fscore_support(TRUTH, predicted)[1]
    assert [metrics.recall for metrics in result.per_class] == pytest.approx(recall.tolist())
    assert result.top1_interval == bootstrap_interval((predicted == TRUTH).astype(float), GROUPS, seed=0)
    assert np.sum(result.confusion) == 200
    assert np.trace(result.confusion) == round(result.top1 * 200)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy_bin_by_bin() -> None:
    result = evaluate_logits(LOGITS, TRUTH, NAMES, GROUPS)
    probabilities = softmax(LOGITS, axis=1)
    gaps = 0.0
    for tenth in range(10):
        inside = [i for i in range(200) if tenth / 10 <= probabilities[i].max() < (tenth + 1) / 10]
        confidence = sum(probabilities[i].max() for i in inside)
        right = sum(probabilities[i].argmax() == TRUTH[i] for i in inside)
        gaps += abs(confidence - right)
    assert result.calibration_error == pytest.approx(gaps / 200)
    assert sum(b.num_videos for b in result.reliability) == 200


def test_a_class_that_does_not_occur_has_no_average_precision_and_counts_for_no_mean() -> None:
    truth = TRUTH % 8
    result = evaluate_logits(LOGITS, truth, NAMES, GROUPS)
    assert result.per_class[8].average_precision is None
    expected = np.mean([metrics.average_precision for metrics in result.per_class[:8]])
    assert result.mean_average_precision == pytest.approx(expected)


def test_a_class_without_videos_has_no_figures_and_is_in_no_mean() -> None:
    truth, predicted, present = TRUTH % 8, LOGITS.argmax(1), range(8)
    assert 8 in predicted
    result = evaluate_logits(LOGITS, truth, NAMES, GROUPS)
    last = result.per_class[8]
    assert (last.precision, last.recall, last.f1, last.num_videos) == (None, None, None, 0)
    assert result.num_classes_tested == 8
    assert result.macro_f1 == pytest.approx(f1_score(truth, predicted, labels=present, average="macro"))
    assert result.macro_f1 > f1_score(truth, predicted, average="macro")  # counts class 8 as 0
    recalls = [np.mean(predicted[truth == index] == index) for index in present]
    assert result.balanced_accuracy == pytest.approx(np.mean(recalls))
    probabilities = softmax(LOGITS, axis=1)
    areas = [average_precision_score(truth == index, probabilities[:, index]) for index in present]
    assert result.mean_average_precision == pytest.approx(np.mean(areas))


@pytest.mark.parametrize(("num_classes", "has_top5"), [(2, False), (5, False), (6, True)])
def test_top5_is_given_where_there_are_more_than_five_classes(num_classes: int, has_top5: bool) -> None:
    truth = TRUTH % num_classes
    result = evaluate_logits(LOGITS[:, :num_classes], truth, NAMES[:num_classes], GROUPS)
    assert (result.top5 is not None) == has_top5


def test_an_interval_by_group_is_wider_where_videos_of_a_group_agree() -> None:
    groups = [f"g{i // 20}" for i in range(200)]
    agreeing = np.repeat(np.arange(10) % 2, 20).astype(float)
    low, high = bootstrap_interval(agreeing, groups, seed=0)
    alone = bootstrap_interval(agreeing, [str(i) for i in range(200)], seed=0)
    assert low < alone[0] < 0.5 < alone[1] < high
    # ten groups that are 0 or 1: the mean of ten coins, of which 95 % lie within 0.5 ± 1.96 · 0.5 / √10
    assert (low, high) == pytest.approx((0.19, 0.81), abs=0.03)
    assert bootstrap_interval(agreeing, groups, seed=0) == (low, high)


def test_a_few_groups_that_happen_to_agree_are_no_certainty() -> None:
    groups = [f"g{i % 4}" for i in range(200)]
    assert evaluate_logits(LOGITS, TRUTH, NAMES, groups).top1_interval is None


def test_many_classes_with_few_videos_each_are_no_reason_to_warn() -> None:
    truth = np.arange(24) % 20
    assert evaluate_logits(np.eye(20)[truth], truth, [f"c{i}" for i in range(20)], GROUPS[:24]).top1 == 1.0
