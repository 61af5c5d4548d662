"""Fit linear heads by logistic regression, and their temperature by folds over the groups."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS
from vidpipe.heads.heads import LinearHead

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["MAX_CROSS_FITTED_VIDEOS", "block_scales", "fit_joined", "fit_linear", "quiet_about_few_videos"]

MAX_CROSS_FITTED_VIDEOS = 2000
"""With more videos, the other folds would only take longer."""
CALIBRATION_FOLDS = 5
POOLED_AT_ONCE = 64
NEVER = -30.0
"""The logit of a class without training videos."""


def fit_linear(head: LinearHead, training: SequenceDataset, config: TrainConfig) -> None:
    """Fit a linear head, whose `motion` is fitted already, and its temperature.

    The fit is scikit-learn's logistic regression on the pooled statistics; one number scales each block of D of them.

    Args:
        head: the head to fit.
        training: the training set.
        config: `C`, `balance` and `calibrate`.
    """
    fit_joined([head], [training], config)


def fit_joined(heads: Sequence[LinearHead], trainings: Sequence[SequenceDataset], config: TrainConfig) -> None:
    """Fit one linear classifier to the joined statistics of several streams: each head gets its share of the weights.

    The sum of the heads' logits is the classifier's. The scaled statistics of each stream have the same length.

    Args:
        heads: one for each stream; its `motion` is fitted already.
        trainings: the training set in each stream.
        config: `C`, `balance` and `calibrate`.
    """
    pooled, centre, scale = _joined_statistics(heads, trainings)
    model = _logistic_regression(config)
    with quiet_about_few_videos():
        model.fit(pooled, trainings[0].class_index.numpy())
        if config.calibrate and len(set(trainings[0].video_ids)) >= MIN_CALIBRATION_VIDEOS:
            _calibrate(heads, model, pooled, trainings[0])
    weight = model.coef_ / scale  # (K, F), or (1, F) for two classes
    bias = model.intercept_ - weight @ centre
    if len(weight) == 1:
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2
    present = torch.from_numpy(model.classes_)
    stops = np.cumsum([head.classifier.in_features for head in heads])
    with torch.no_grad():
        for number, (head, part) in enumerate(zip(heads, np.split(weight, stops[:-1], axis=1), strict=True)):
            head.classifier.weight.zero_()[present] = torch.from_numpy(part).float()
            head.classifier.bias.zero_()
            if number == 0:
                head.classifier.bias.fill_(NEVER)[present] = torch.from_numpy(bias).float()


def _logistic_regression(config: TrainConfig) -> "LogisticRegression":
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=config.C, class_weight=None if config.balance == "none" else "balanced", max_iter=2000)


@contextmanager
def quiet_about_few_videos() -> Iterator[None]:
    """Ignore scikit-learn's warnings about many classes with few videos."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # is large compared with the videos
        warnings.filterwarnings("ignore", "The least populated class")  # has fewer videos than there are folds
        yield


def _joined_statistics(
    heads: Sequence[LinearHead], trainings: Sequence[SequenceDataset]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The statistics of all streams (N, ΣF), centred and scaled, and the centre and scale (ΣF,)."""
    columns = []
    for head, training in zip(heads, trainings, strict=True):
        pooled = _pooled(head, training)  # (N, F)
        centre, scale = pooled.mean(axis=0), block_scales(pooled, training.dim)
        if len(heads) > 1:
            scale = scale * np.float32(math.sqrt(len(heads)))
        pooled -= centre
        pooled /= scale
        columns.append((pooled, centre, scale))
    if len(columns) == 1:
        return columns[0]
    rows, centres, scales = zip(*columns, strict=True)
    return np.concatenate(rows, axis=1), np.concatenate(centres), np.concatenate(scales)


def _calibrate(
    heads: Sequence[LinearHead], model: "LogisticRegression", pooled: NDArray[np.float32], training: SequenceDataset
) -> None:
    """Calibrate heads on the folds of the training set, by group, each predicted by a model fitted to the others.

    A validation set of a few groups says less: on fight clips its temperature was 1.6 to 7.1, depending on the draw,
    and this one 1.5 to 2.3 (`python -m benchmarks.heads calibration`).
    """
    folds: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    for fold in _cross_fitted(model, pooled, training):
        folds.append(fold)
        if sum(len(truth) for _, truth in folds) >= MAX_CROSS_FITTED_VIDEOS:
            break
    if folds:
        logits, truth = (torch.from_numpy(np.concatenate(columns)) for columns in zip(*folds, strict=True))
        for head in heads:
            head.calibrate(logits, truth)


def _cross_fitted(
    model: "LogisticRegression", pooled: NDArray[np.float32], training: SequenceDataset
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Yield logits (n, K) and classes (n,) of each fold's videos, except those whose class is in no other fold.

    Of several people in a video, the logits are the mean.

    scikit-learn's `cross_val_predict` cannot leave such videos out, nor stop early.
    """
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
            numbers = torch.from_numpy(fold)
            logits = torch.from_numpy(_fold_logits(model, pooled, training, others, fold))
            classes = training.mean_by_video(training.class_index[numbers, None], numbers)[:, 0]
            yield training.mean_by_video(logits, numbers).numpy(), classes.long().numpy()


def _fold_logits(
    model: "LogisticRegression",
    pooled: NDArray[np.float32],
    training: SequenceDataset,
    others: NDArray[np.int64],
    own: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Logits (n, K) of a fold's videos, by a model fitted to the others."""
    from sklearn.base import clone

    truth = training.class_index.numpy()
    logits = np.full((len(own), training.num_classes), NEVER)
    fitted = clone(model).fit(pooled[others], truth[others])
    logits[:, np.unique(truth[others])] = fitted.predict_log_proba(pooled[own])
    return logits


@torch.inference_mode()
def _pooled(head: LinearHead, dataset: SequenceDataset) -> NDArray[np.float32]:
    """(N, F) the classifier's inputs."""
    rows = np.empty((len(dataset), head.classifier.in_features), np.float32)
    for number, batch in enumerate(dataset.batches(POOLED_AT_ONCE)):
        pooled = head.pool(head.motion(batch.features, batch.lengths), batch.lengths)
        rows[number * POOLED_AT_ONCE :][: len(pooled)] = pooled
    return rows


def block_scales(pooled: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return the deviation of each block of `dim` columns, times √F, (F,): scaled rows have lengths of about 1."""
    blocks = np.split(pooled, pooled.shape[1] // dim, axis=1)  # F / D views, (N, D)
    deviation = np.sqrt([block.var(axis=0).mean() for block in blocks]).repeat(dim)  # (F,)
    return np.where(deviation > 0, deviation, 1) * np.float32(math.sqrt(pooled.shape[1]))
