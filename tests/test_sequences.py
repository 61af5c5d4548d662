from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_store import make_sequence, make_store
from vidpipe.datasets.sequences import SequenceDataset, pad
from vidpipe.errors import StoreError
from vidpipe.records import LabeledVideo

VIDEOS = [LabeledVideo(f"{name}.mp4", label) for name, label in (("ddd", "x"), ("a", "y"), ("cc", "x"))]


def test_each_video_keeps_its_own_rows_and_class(tmp_path: Path) -> None:
    sequences = {video.video_id: make_sequence(video.video_id, 2 + i) for i, video in enumerate(VIDEOS)}
    store = make_store(tmp_path / "s", [*sequences.values(), make_sequence("unused.mp4")])
    dataset = SequenceDataset(store, VIDEOS, ["x", "y"])
    assert dataset.rows.shape == (2 + 3 + 4, 4)
    assert dataset.class_index.tolist() == [0, 1, 0]
    for number, video in enumerate(VIDEOS):
        assert np.array_equal(dataset.sequence(number).numpy(), sequences[video.video_id].features)


def test_batches_cover_every_video_once_padded_with_zeros(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence(video.video_id, 2 + i) for i, video in enumerate(VIDEOS)])
    dataset = SequenceDataset(store, VIDEOS, ["x", "y"])
    first, second = dataset.batches(2, order=[2, 0, 1])
    assert (first.features.shape, second.features.shape) == ((2, 4, 4), (1, 3, 4))
    assert (first.lengths.tolist(), second.lengths.tolist()) == ([4, 2], [3])
    assert torch.equal(first.features[1, :2], dataset.sequence(0))
    assert not first.features[1, 2:].any()
    assert first.class_index.tolist() == [0, 0]


def test_a_feature_that_is_not_finite_is_told_with_its_video(tmp_path: Path) -> None:
    sequence = make_sequence("a.mp4")
    sequence.features[1, 1] = np.nan
    with pytest.raises(StoreError, match=r"a\.mp4 are not finite"):
        SequenceDataset(make_store(tmp_path / "s", [sequence]), [LabeledVideo("a.mp4", "x")], ["x"])


def test_padding_goes_to_the_longest() -> None:
    features, lengths = pad([torch.ones(2, 3), torch.ones(5, 3)])
    assert features.shape == (2, 5, 3)
    assert lengths.tolist() == [2, 5]
    assert features.sum() == 21
