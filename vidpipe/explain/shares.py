"""The parts of a head's margin: how much each row of a video, and each place in its pictures, spoke for a label.

Only the differences of logits matter: softmax stays the same when a number is added to all. So what is divided is a
margin: the logit of a label, less the mean logit of all labels or the logit of another one.

    margin = margin of an average video + Σ over rows and places of weights · what the head sees there

For a linear head, the weights are the gradient of the margin, and the sum is exact: its statistics are homogeneous
functions of what it sees (Euler's theorem). With average pooling this is the class activation map (Zhou et al. 2016).
For a neural head, they are the mean gradient on the way from an average video: integrated gradients (Sundararajan et
al. 2017), whose sum is as exact as the integration.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vidpipe.heads.heads import Head, LinearHead
from vidpipe.heads.motion import Motion

__all__ = ["HeadShares", "over_time", "share_out"]

_Margin = Callable[[Tensor], Tensor]
"""(N, T · C, M · D) of what a head sees -> (N,)"""
NUM_STEPS = 32
"""Of the integration; Gauss-Legendre."""


@dataclass(frozen=True)
class HeadShares:
    """The weights by which a head's margin for one video is divided."""

    motion: Motion
    margin: float
    """Of the video."""
    bias: float
    """The margin of a video whose rows are all the average row of the training set."""
    weights: Tensor
    """(T, C, M · D) of what the head sees."""

    def of_parts(self, parts: Tensor, whole: Tensor, *, cell: int = 0) -> Tensor:
        """Return the shares of parts of the rows.

        Args:
            parts: (P, T, D) whose sum is the whole.
            whole: (T, D) the features of the cell.
            cell: the number of the cell; 0 is the whole picture.

        Returns:
            (P, T); for a linear head, the sum over all parts, rows and cells is the margin less the bias.
        """
        return over_time(self.weights[:, cell], self.motion.split(parts, whole))


def over_time(weights: Tensor, values: Tensor) -> Tensor:
    """Multiply weights with values, and add up the features of each row.

    A weight that changes over time compares rows with each other: adding the same to all rows changes nothing. So its
    change is applied to what a row differs from the mean row. The sum over all rows stays the same.

    Args:
        weights: (…, T, F)
        values: (…, T, F)

    Returns:
        (…, T)
    """
    mean_weights, mean_values = weights.mean(dim=-2, keepdim=True), values.mean(dim=-2, keepdim=True)
    constant = values @ mean_weights.transpose(-1, -2)  # (…, T, F) @ (…, F, 1) -> (…, T, 1)
    return constant.squeeze(-1) + ((weights - mean_weights) * (values - mean_values)).sum(dim=-1)


def share_out(head: Head, features: Tensor, contrast: Tensor) -> HeadShares:
    """Find the weights of a head's margin for one video.

    Args:
        head: fitted, in evaluation mode.
        features: (T, C · D) the video's rows.
        contrast: (K,) the weights of the logits in the margin; their sum is 0.

    Returns:
        The weights, the margin and the bias.
    """
    lengths = torch.tensor([len(features)])
    with torch.no_grad():
        seen = head.motion(features[None], lengths)  # (1, T · C, M · D)

    def margin(rows: Tensor) -> Tensor:
        """(N, T · C, M · D) -> (N,)"""
        logits = head.classify(rows, lengths.expand(len(rows))) / head.temperature
        return logits @ contrast

    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no gradient in evaluation mode
        weights = _gradient(margin, seen) if isinstance(head, LinearHead) else _mean_gradient(margin, seen)
        with torch.no_grad():
            of_video, of_average = (float(margin(rows)) for rows in (seen, torch.zeros_like(seen)))
    by_cell = weights[0].reshape(len(features), head.motion.num_cells, -1)
    return HeadShares(head.motion, of_video, of_average, by_cell)


def _gradient(margin: _Margin, seen: Tensor) -> Tensor:
    """(1, T · C, M · D), of the margin at what the head sees."""
    rows = seen.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(margin(rows).sum(), rows)
    return gradient.nan_to_num()  # the deviation of a feature that never changes has none


def _mean_gradient(margin: _Margin, seen: Tensor) -> Tensor:
    """(1, T · C, M · D), on the straight way from an average video."""
    from captum.attr import IntegratedGradients

    mean: Tensor = IntegratedGradients(margin, multiply_by_inputs=False).attribute(seen, n_steps=NUM_STEPS)
    return mean.detach()
