"""The temperature that makes probabilities mean what they say. Guo et al. 2017."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["MIN_CALIBRATION_VIDEOS", "temperature_of_least_loss"]

TEMPERATURES = (0.05, 20.0)
"""Within which it is looked for: a small validation part that is all right would have it vanish."""
MIN_CALIBRATION_VIDEOS = 20
"""Videos, below which a temperature says more about them than about the head."""


def temperature_of_least_loss(logits: Tensor, truth: Tensor) -> float:
    """By what (N, K) logits have to be divided for the least loss on the classes (N,)."""
    from scipy.optimize import minimize_scalar

    lowest, highest = (math.log(temperature) for temperature in TEMPERATURES)
    found = minimize_scalar(
        lambda log: float(cross_entropy(logits / math.exp(log), truth)), bounds=(lowest, highest), method="bounded"
    )
    return math.exp(found.x)
