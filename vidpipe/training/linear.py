"""Fitting the linear heads, by logistic regression; their temperature comes from folds over the groups."""

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.heads import LinearHead
from vidpipe.training.calibration import MIN_CALIBRATION_VIDEOS, temperature_of_least_loss

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["fit_linear"]

MAX_CROSS_FITTED_VIDEOS = 2000
"""Videos, above which more folds would only take longer."""
CALIBRATION_FOLDS = 5
POOLED_AT_ONCE = 64
NEVER = -30.0
"""The logit of a class without training videos."""


def fit_linear(head: LinearHead, training: SequenceDataset, config: TrainConfig) -> None:
    """Fit a linear head, whose motion is fitted already, and its temperature.

    scikit-learn's logistic regression on the pooled statistics, each block of D of them scaled by one number.
    """
    from sklearn.linear_model import LogisticRegression

    pooled = _pooled(head, training)  # (N, F)
    centre, scale = pooled.mean(axis=0), _block_scales(pooled, training.dim)
    pooled -= centre
    pooled /= scale
    model = LogisticRegression(C=config.C, class_weight=None if config.balance == "none" else "balanced", max_iter=2000)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # is large beside that of the videos
        warnings.filterwarnings("ignore", "The least populated class")  # has fewer videos than there are folds
        model.fit(pooled, training.class_index.numpy())
        if config.calibrate and len(training) >= MIN_CALIBRATION_VIDEOS:
            head.get_buffer("temperature").fill_(_cross_fitted_temperature(model, pooled, training))
    weight = model.coef_ / scale  # (K, F), or (1, F) for two classes
    bias = model.intercept_ - weight @ centre
    if len(weight) == 1:
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2
    present = torch.from_numpy(model.classes_)
    with torch.no_grad():
        head.classifier.weight.zero_()[present] = torch.from_numpy(weight).float()
        head.classifier.bias.fill_(NEVER)[present] = torch.from_numpy(bias).float()


def _cross_fitted_temperature(
    model: "LogisticRegression", pooled: NDArray[np.float32], training: SequenceDataset
) -> float:
    """The temperature of least loss where each fold, by group, is told by a model fitted to the others; 1 of too few.

    A validation part of a few groups says less: on fight clips its temperature was 1.6 to 7.1, by the draw, and this
    one 1.5 to 2.3 (`python -m benchmarks.heads calibration`).
    """
    told: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    num_told = 0
    for logits, truth in _cross_fitted(model, pooled, training):
        told.append((logits, truth))
        num_told += len(truth)
        if num_told >= MAX_CROSS_FITTED_VIDEOS:
            break
    if num_told < MIN_CALIBRATION_VIDEOS:
        return 1.0
    all_logits, all_truth = (torch.from_numpy(np.concatenate(columns)) for columns in zip(*told, strict=True))
    return temperature_of_least_loss(all_logits, all_truth)


def _cross_fitted(
    model: "LogisticRegression", pooled: NDArray[np.float32], training: SequenceDataset
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """(n, K) logits and (n,) classes of each fold's videos, but for those whose class the other folds do not have.

    scikit-learn's `cross_val_predict` cannot leave such videos out, nor stop once enough are told.
    """
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedGroupKFold

    truth = training.class_index.numpy()
    num_folds = min(CALIBRATION_FOLDS, len(set(training.units)))
    if num_folds < 2:
        return
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    for others, fold in splitter.split(pooled, truth, training.units):
        known = np.unique(truth[others])
        fold = fold[np.isin(truth[fold], known)]
        if len(known) > 1 and len(fold):
            logits = np.full((len(fold), training.num_classes), NEVER)
            logits[:, known] = clone(model).fit(pooled[others], truth[others]).predict_log_proba(pooled[fold])
            yield logits, truth[fold]


@torch.inference_mode()
def _pooled(head: LinearHead, dataset: SequenceDataset) -> NDArray[np.float32]:
    """(N, F) what the classifier is given."""
    rows = np.empty((len(dataset), head.classifier.in_features), np.float32)
    for number, batch in enumerate(dataset.batches(POOLED_AT_ONCE)):
        pooled = head.pool(head.motion(batch.features, batch.lengths), batch.lengths)
        rows[number * POOLED_AT_ONCE :][: len(pooled)] = pooled
    return rows


def _block_scales(pooled: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """(F,) the deviation of each block of `dim`, and √F, so that a clip is about as long as 1 whatever is pooled."""
    blocks = np.split(pooled, pooled.shape[1] // dim, axis=1)  # F / D views, (N, D)
    deviation = np.sqrt([block.var(axis=0).mean() for block in blocks]).repeat(dim)  # (F,)
    return np.where(deviation > 0, deviation, 1) * np.float32(math.sqrt(pooled.shape[1]))
