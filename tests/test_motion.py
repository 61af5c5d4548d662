"""The transforms against numpy, one sequence at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidpipe.datasets.sequences import pad
from vidpipe.heads.motion import TRANSFORMS, Motion

Array = NDArray[np.float32]


def differences(sequence: Array) -> Array:
    steps = np.diff(sequence, axis=0)
    return np.concatenate([steps[:1], steps]) if len(steps) else np.zeros_like(sequence)


EXPECTED: dict[str, Callable[[Array], Array]] = {
    "raw": lambda sequence: sequence,
    "centred": lambda sequence: sequence - sequence.mean(axis=0),
    "difference": differences,
    "magnitude": lambda sequence: np.abs(differences(sequence)),
}


def make_sequences(offset: float = 0.0, size: float = 1.0) -> list[Array]:
    random = np.random.default_rng(0)
    return [(offset + size * random.standard_normal((length, 4))).astype(np.float32) for length in (6, 1, 3, 9, 2)]


def fitted(sequences: list[Array], **settings: object) -> Motion:
    settings = {"transforms": ["raw", "magnitude"], "unit_frames": False, "scale_sharing": 0.0, **settings}
    motion = Motion(4, **settings)  # type: ignore[arg-type]
    motion.fit([pad([torch.from_numpy(sequence)]) for sequence in sequences])
    return motion


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_computed_from_each_sequence_alone(name: str) -> None:
    sequences = make_sequences()
    motion = Motion(4, transforms=[name], unit_frames=False, scale_sharing=0.5)
    seen = motion(*pad([torch.from_numpy(sequence) for sequence in sequences])).numpy()
    for sequence, row in zip(sequences, seen, strict=True):
        assert np.allclose(row[: len(sequence)], EXPECTED[name](sequence), atol=1e-6)
        assert not row[len(sequence) :].any()


def test_without_raw_a_clip_in_another_light_or_place_looks_the_same() -> None:
    sequences = make_sequences()
    motion = fitted(sequences, transforms=["centred", "difference", "magnitude"])
    sequence = torch.from_numpy(sequences[0])[None]
    elsewhere = sequence + torch.tensor([5.0, -3.0, 2.0, 9.0])
    assert torch.allclose(motion(sequence, torch.tensor([6])), motion(elsewhere, torch.tensor([6])), atol=1e-4)


def test_unit_frames_do_not_change_with_contrast() -> None:
    sequences = make_sequences()
    motion = fitted(sequences, unit_frames=True)
    sequence = torch.from_numpy(sequences[0])[None]
    assert torch.allclose(motion(sequence, torch.tensor([6])), motion(3 * sequence, torch.tensor([6])), atol=1e-5)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1000, 0.01)])
def test_the_training_set_has_mean_0_and_deviation_1(offset: float, size: float) -> None:
    sequences = make_sequences(offset, size)
    motion = fitted(sequences)
    rows = np.concatenate([np.hstack([s, EXPECTED["magnitude"](s)]) for s in sequences]).astype(np.float64)
    assert np.allclose(motion.mean.numpy(), rows.mean(axis=0), rtol=1e-5)
    assert np.allclose(motion.scale.numpy(), rows.std(axis=0), rtol=1e-3)


def test_a_shared_scale_is_one_number_for_each_transform() -> None:
    sequences = make_sequences()
    rows = np.concatenate(sequences)
    scale = fitted(sequences, transforms=["raw"], scale_sharing=1.0).scale.numpy()
    assert np.allclose(scale, np.sqrt(rows.var(axis=0).mean()), rtol=1e-5)
    half = fitted(sequences, transforms=["raw"], scale_sharing=0.5).scale.numpy()
    assert np.allclose(half**2, (rows.var(axis=0) + rows.var(axis=0).mean()) / 2, rtol=1e-5)


def test_a_feature_that_never_varied_in_training_is_not_amplified_elsewhere() -> None:
    motion = fitted([np.ones((3, 4), np.float32)] * 2)
    seen = motion(torch.full((1, 3, 4), 1.5), torch.tensor([3]))
    assert seen.abs().max() <= 0.5
