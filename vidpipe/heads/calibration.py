"""Temperature scaling, which turns a head's scores into calibrated probabilities. Guo et al. 2017."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["MIN_CALIBRATION_VIDEOS", "fit_temperature"]

TEMPERATURES = (0.05, 20.0)
"""Range of the search. Without it, a small validation set that is all correct would drive the temperature to 0."""
MIN_CALIBRATION_VIDEOS = 20
"""With fewer videos, a temperature says more about these videos than about the head."""


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """Find the temperature that gives the lowest cross-entropy.

    Args:
        logits: (N, K) of videos that the head has not learned from.
        truth: (N,) class indices.

    Returns:
        The number to divide the logits by, within `TEMPERATURES`.
    """
    from scipy.optimize import minimize_scalar

    lowest, highest = (math.log(temperature) for temperature in TEMPERATURES)
    found = minimize_scalar(
        lambda log: float(cross_entropy(logits / math.exp(log), truth)), bounds=(lowest, highest), method="bounded"
    )
    return math.exp(found.x)
