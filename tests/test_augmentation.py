"""Augmentation of clips whose steps carry their own number."""

from dataclasses import replace

import pytest
import torch

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import PaddedBatch
from vidpipe.training.augmentation import augment, mix, selected_steps

NONE = TrainConfig(subsequence=1.0)
LENGTHS = torch.tensor([9, 1, 4, 12] * 50)


def numbered() -> PaddedBatch:
    """Step t of clip n is (n, t)."""
    steps = torch.stack(torch.meshgrid(torch.arange(200), torch.arange(12), indexing="ij"), dim=2).float()
    return PaddedBatch(steps.masked_fill((torch.arange(12) >= LENGTHS[:, None])[:, :, None], 0), LENGTHS, LENGTHS % 2)


def test_without_augmentation_a_batch_is_unchanged() -> None:
    batch = numbered()
    assert augment(batch, NONE) is batch


@pytest.mark.parametrize(
    "config",
    [
        replace(NONE, subsequence=0.5),
        replace(NONE, drop_frames=0.6),
        replace(NONE, shift_frames=3),
        replace(NONE, reverse=True),
        replace(NONE, subsequence=0.5, drop_frames=0.3, shift_frames=2, reverse=True),
    ],
)
def test_an_augmented_clip_holds_steps_of_its_own_once_and_in_order(config: TrainConfig) -> None:
    torch.manual_seed(0)
    augmented = augment(numbered(), config)
    assert (augmented.lengths >= 1).all()
    assert (augmented.lengths <= LENGTHS).all()
    changed = 0
    for number, length in enumerate(augmented.lengths.tolist()):
        rows = augmented.features[number]
        assert (rows[:length, 0] == number).all()
        assert not rows[length:].any()
        steps = rows[:length, 1].int().tolist()
        assert len(set(steps)) == length
        assert max(steps) < LENGTHS[number]
        assert steps == sorted(steps) or (config.reverse and steps == sorted(steps, reverse=True))
        changed += steps != list(range(int(LENGTHS[number])))
    assert changed > 20


def test_a_subsequence_is_contiguous_and_no_shorter_than_asked() -> None:
    torch.manual_seed(0)
    selected = selected_steps(LENGTHS, replace(NONE, subsequence=0.5))
    for row, length in zip(selected.tolist(), LENGTHS.tolist(), strict=True):
        steps = [step for step in row if step >= 0]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        assert len(steps) >= length / 2


def test_mixup_mixes_features_and_labels_by_the_same_share() -> None:
    torch.manual_seed(0)
    batch = numbered()
    targets = torch.nn.functional.one_hot(torch.arange(200), 200).float()
    mixed, shares = mix(batch, targets, 0.4)
    assert torch.allclose(shares.sum(dim=1), torch.ones(200), atol=1e-6)
    for number in range(200):
        length = int(mixed.lengths[number])
        expected = shares[number] @ batch.features[:, 0, 0]  # of the clips' own numbers
        assert torch.allclose(mixed.features[number, :length, 0], expected.expand(length), rtol=1e-4, atol=1e-3)
