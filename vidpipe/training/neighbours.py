"""Fit the head `neighbours`: no training, only the labelled videos as they are compared with others."""

import numpy as np
import torch

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.heads.heads import NeighboursHead
from vidpipe.training.linear import block_scales

__all__ = ["fit_neighbours"]

POOLED_AT_ONCE = 64
MAX_FITTED_VIDEOS = 4000
"""Whose statistics give the scales and the components."""


@torch.no_grad()
def fit_neighbours(head: NeighboursHead, training: SequenceDataset) -> None:
    """Fit the scales and the components of a head whose `motion` is fitted already, and keep the videos.

    Args:
        head: the head to fit.
        training: the labelled videos.
    """
    order = torch.randperm(len(training))[:MAX_FITTED_VIDEOS]
    pooled = torch.cat(
        [
            head.pool(head.motion(batch.features, batch.lengths), batch.lengths)
            for batch in training.batches(POOLED_AT_ONCE, order=order)
        ]
    )  # (n, F)
    head.centre = pooled.mean(dim=0)
    head.scale = torch.from_numpy(np.asarray(block_scales(pooled.numpy(), training.dim), np.float32))
    head.components.fit((pooled - head.centre) / head.scale)
    head.examples = torch.cat(
        [
            head.embed(head.pool(head.motion(batch.features, batch.lengths), batch.lengths))
            for batch in training.batches(POOLED_AT_ONCE)
        ]
    )
    head.example_class = training.class_index.clone()
