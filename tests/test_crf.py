"""Refinement of masks: mean field against plain loops, and masks of drawn figures against what was drawn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.masks import coarse, drawn_figure, iou, patchy
from vidpipe.regions.crf import Crf, refine_mask

CPU = torch.device("cpu")


def kernel_by_hand(frame: NDArray[np.uint8], crf: Crf) -> NDArray[np.float64]:
    """(N, N) pair by pair."""
    height, width, _ = frame.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    total = np.zeros((len(places), len(places)))
    for weight, has_color, distance in (
        (crf.appearance_weight, True, crf.appearance_distance),
        (crf.smoothness_weight, False, crf.smoothness_distance),
    ):
        one = np.zeros_like(total)
        for i, p in enumerate(places):
            for j, q in enumerate(places):
                squares = math.dist(p, q) ** 2 / (distance * max(height, width)) ** 2
                if has_color:
                    squares += math.dist(frame[p].astype(float), frame[q].astype(float)) ** 2 / crf.appearance_color**2
                one[i, j] = math.exp(-squares / 2) if i != j else 0
        sums = one.sum(axis=1)
        total += weight * one / np.sqrt(sums[:, None] * sums)
    return total


def mean_field_by_hand(mask: NDArray[np.float32], kernel: NDArray[np.float64], crf: Crf) -> list[float]:
    """The probability that each pixel belongs to the object: equation 1 and algorithm 1 of the paper, with Potts."""
    unary = [[-math.log(1 - p), -math.log(p)] for p in mask.ravel().clip(crf.min_probability, 1 - crf.min_probability)]
    labels = [[math.exp(-energy) for energy in pixel] for pixel in unary]
    for _ in range(crf.num_iterations + 1):
        updated = []
        for i, pixel in enumerate(unary):
            shares = []
            for label in (0, 1):
                disagreement = sum(kernel[i, j] * labels[j][1 - label] for j in range(len(labels)))
                shares.append(math.exp(-pixel[label] - disagreement))
            updated.append([share / sum(shares) for share in shares])
        labels = updated
    return [object_ for _, object_ in labels]


def test_a_small_frame_is_refined_by_exact_mean_field() -> None:
    random = np.random.default_rng(0)
    frame = random.integers(90, 130, (5, 7, 3), dtype=np.uint8)
    mask = random.uniform(0, 1, (5, 7)).astype(np.float32)
    crf = Crf(smoothness_distance=0.2)
    expected = mean_field_by_hand(mask, kernel_by_hand(frame, crf), crf)
    assert np.allclose(refine_mask(mask, frame, crf=crf, device=CPU).ravel(), expected, atol=1e-5)
    assert np.abs(mask.ravel() - expected).max() > 0.2


@pytest.mark.parametrize("spoil", [coarse, patchy])
def test_masks_of_drawn_figures_come_nearer_to_what_was_drawn(
    spoil: Callable[[NDArray[np.bool_]], NDArray[np.float32]],
) -> None:
    before, after = [], []
    for seed in range(4):
        frame, drawn = drawn_figure(seed)
        mask = spoil(drawn)
        before.append(iou(mask >= 0.5, drawn))
        after.append(iou(refine_mask(mask, frame, crf=Crf(), device=CPU) >= 0.5, drawn))
    assert np.mean(after) > np.mean(before) + 0.1


def test_an_even_picture_keeps_an_even_mask() -> None:
    grey = np.full((60, 90, 3), 128, np.uint8)
    for value in (0.0, 1.0):
        refined = refine_mask(np.full((60, 90), value, np.float32), grey, crf=Crf(), device=CPU)
        assert np.array_equal(refined >= 0.5, np.full((60, 90), value == 1))
