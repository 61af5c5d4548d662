"""The weights of late fusion, found on videos that the members have not learned from.

fused = scale · Σ weight · log-probabilities        the weights have a mean of 1

Calibration is most of it: a member that knows nothing gets a high temperature, and its weight hardly matters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS, fit_temperature
from vidpipe.heads.members import Member
from vidpipe.runs.metrics import mean_and_deviation

__all__ = ["SINGLE", "CrossFitted", "FusionWeights", "find_weights"]

PRIOR_OF_LINEAR, PRIOR_OF_NEURAL = 1.0, 0.5
"""The weights that hold over several sets: a neural member of a few dozen videos errs more in new scenes."""
SHRINKAGE = 0.1
"""Penalty on the squared logarithm of weight / prior, in nats a video."""
MAX_LOG_RATIO = 3.0
NUM_PARTS = 3
"""Where there is one fold, its groups are divided into this number of parts to judge the weights."""


@dataclass(frozen=True)
class CrossFitted:
    """What members say about videos that they have not learned from."""

    logits: Tensor
    """(N, M, K), not calibrated."""
    truth: Tensor
    """(N,) class indices."""
    units: Sequence[str]
    """N names of groups."""
    folds: Tensor
    """(N,) the number of each video's fold."""


@dataclass(frozen=True)
class FusionWeights:
    """How the log-probabilities of members are added."""

    values: tuple[float, ...]
    """(M,) positive, with a mean of 1."""
    scale: float
    """Of the sum, from 1 / M to 1; it calibrates the fused probabilities."""
    temperatures: tuple[float, ...]
    """(M,) what each member's logits are divided by."""
    is_found: bool = False
    """Whether the weights were found on the folds; otherwise they are the prior's."""


SINGLE = FusionWeights((1.0,), 1.0, (1.0,))
"""Of a single member."""


def find_weights(cross_fitted: CrossFitted, *, members: Sequence[Member]) -> FusionWeights:
    """Calibrate members, and find their weights.

    The weights are the prior's unless others, found on the other folds, have a higher likelihood by more than the
    deviation of their lead over the groups.

    Args:
        cross_fitted: what the members say; with fewer than 20 videos, nothing is fitted.
        members: M members.

    Returns:
        The weights.
    """
    prior = torch.tensor([PRIOR_OF_LINEAR if member.is_linear else PRIOR_OF_NEURAL for member in members]).double()
    prior *= len(prior) / prior.sum()
    if len(cross_fitted.truth) < MIN_CALIBRATION_VIDEOS:
        return FusionWeights(tuple(prior.tolist()), 1 / len(prior), (1.0,) * len(prior))
    logits, truth = cross_fitted.logits, cross_fitted.truth
    temperatures = [fit_temperature(logits[:, member], truth) for member in range(len(prior))]
    each = (logits / torch.tensor(temperatures)[:, None]).log_softmax(dim=2).double()  # (N, M, K)
    lead, deviation = _lead(each, cross_fitted, prior)
    weights = _fit_weights(each, truth, prior) if lead > deviation else prior
    scale = _fit_scale(_add(each, weights), truth, len(prior))
    return FusionWeights(tuple(weights.tolist()), scale, tuple(temperatures), is_found=lead > deviation)


def _add(each: Tensor, weights: Tensor) -> Tensor:
    """(N, M, K), (M,) -> (N, K)"""
    return torch.einsum("nmk,m->nk", each, weights)


def _fit_scale(fused: Tensor, truth: Tensor, num_members: int) -> float:
    """The number that calibrates a sum of M log-probabilities.

    It is 1 / M where the members always agree, and 1 where they err independently. Without these bounds, a few folds
    without an error would drive it far up.
    """
    return min(1.0, max(1 / num_members, 1 / fit_temperature(fused, truth)))


def _fit_weights(each: Tensor, truth: Tensor, prior: Tensor) -> Tensor:
    """(M,) the weights of least cross-entropy, shrunk towards the prior; the scale of the sum is free."""
    from scipy.optimize import minimize

    def objective(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logs = torch.tensor(values, requires_grad=True)  # (1 + M,): log of the scale, logs of weight / prior
        fused = _add(each, prior * (logs[1:] + logs[0]).exp())
        loss = cross_entropy(fused, truth) + SHRINKAGE * logs[1:].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert logs.grad is not None
        return loss.item(), logs.grad.numpy()

    lowest = -math.log(len(prior))
    bounds = [(lowest, 0.0), *[(-MAX_LOG_RATIO, MAX_LOG_RATIO)] * len(prior)]
    start = np.array([lowest / 2, *[0.0] * len(prior)])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights = prior * torch.from_numpy(found.x[1:]).exp()
    return weights * len(weights) / weights.sum()


def _lead(each: Tensor, cross_fitted: CrossFitted, prior: Tensor) -> tuple[float, float]:
    """The mean lead in log-likelihood of weights found on the other folds, and its deviation over the groups."""
    truth, folds = cross_fitted.truth, _at_least_two(cross_fitted)
    gain = torch.zeros(len(truth), dtype=torch.float64)
    for fold in set(folds.tolist()):
        inside, others = folds == fold, folds != fold
        losses = []
        for weights in (prior, _fit_weights(each[others], truth[others], prior)):
            scale = _fit_scale(_add(each[others], weights), truth[others], len(prior))
            losses.append(cross_entropy(_add(each[inside], weights) * scale, truth[inside], reduction="none"))
        gain[inside] = losses[0] - losses[1]
    return mean_and_deviation(gain.numpy(), cross_fitted.units)


def _at_least_two(cross_fitted: CrossFitted) -> Tensor:
    """(N,) the folds; a single one is divided by group."""
    if len(set(cross_fitted.folds.tolist())) > 1:
        return cross_fitted.folds
    number_of = {unit: number % NUM_PARTS for number, unit in enumerate(dict.fromkeys(cross_fitted.units))}
    return torch.tensor([number_of[unit] for unit in cross_fitted.units])
