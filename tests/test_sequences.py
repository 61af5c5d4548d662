from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.stores import KEY, make_sequence, make_store
from vidpipe.datasets.sequences import SequenceDataset, pad, read_subsets, select_subsets
from vidpipe.datasets.splits import Split
from vidpipe.errors import StoreError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo

VIDEOS = [LabeledVideo(f"{name}.mp4", label) for name, label in (("ddd", "x"), ("a", "y"), ("cc", "x"))]


def test_each_video_keeps_its_own_rows_and_class(tmp_path: Path) -> None:
    sequences = {video.video_id: make_sequence(video.video_id, 2 + i) for i, video in enumerate(VIDEOS)}
    store = make_store(tmp_path / "s", [*sequences.values(), make_sequence("unused.mp4")])
    dataset = SequenceDataset(store, VIDEOS, ["x", "y"])
    assert (len(dataset), dataset.dim) == (3, 4)
    assert dataset.class_index.tolist() == [0, 1, 0]
    for number, video in enumerate(VIDEOS):
        assert np.array_equal(dataset.sequence(number).numpy(), sequences[video.video_id].features)


def test_batches_cover_every_video_once_padded_with_zeros(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence(video.video_id, 2 + i) for i, video in enumerate(VIDEOS)])
    dataset = SequenceDataset(store, VIDEOS, ["x", "y"])
    first, second = dataset.batches(2, order=torch.tensor([2, 0, 1]))
    assert (first.features.shape, second.features.shape) == ((2, 4, 4), (1, 3, 4))
    assert (first.lengths.tolist(), second.lengths.tolist()) == ([4, 2], [3])
    assert torch.equal(first.features[1, :2], dataset.sequence(0))
    assert not first.features[1, 2:].any()
    assert first.class_index.tolist() == [0, 0]


@pytest.fixture
def ragged(tmp_path: Path) -> tuple[SequenceDataset, list[NDArray[np.float32]]]:
    """Forty videos of 1 to 9 rows in many shards, in another order than in the store; and their features."""
    sequences = [make_sequence(f"{number:02}.mp4", 1 + number * 7 % 9, seed=number) for number in range(40)]
    store = FeatureStore.create(tmp_path / "ragged", KEY)
    with store.writer(max_videos=6) as writer:
        for sequence in sequences:
            writer.add(sequence)
    order = np.random.default_rng(0).permutation(40).tolist()
    videos = [LabeledVideo(sequences[number].video_id, "xy"[number % 2]) for number in order]
    return SequenceDataset(store, videos, ["x", "y"]), [sequences[number].features for number in order]


Ragged = tuple[SequenceDataset, list[NDArray[np.float32]]]


def test_rows_are_read_from_many_shards_in_any_order(ragged: Ragged) -> None:
    dataset, expected = ragged
    assert dataset.lengths.tolist() == list(map(len, expected))
    for number, features in enumerate(expected):
        assert np.array_equal(dataset.sequence(number).numpy(), features)


def test_selected_videos_keep_their_records_and_share_the_memory(ragged: Ragged) -> None:
    dataset, expected = ragged
    numbers = (7, 3, 30)
    selected = dataset.select(dataset.video_ids[number] for number in numbers)
    assert selected.videos == tuple(dataset.videos[number] for number in numbers)
    assert selected.sequence(0).data_ptr() == dataset.sequence(7).data_ptr()
    assert np.array_equal(selected.sequence(2).numpy(), expected[30])
    assert selected.class_index.tolist() == [int(dataset.class_index[number]) for number in numbers]
    assert len(dataset.select([])) == 0
    assert list(dataset.select([]).batches(4)) == []


def test_concatenated_datasets_hold_the_videos_of_each_in_turn(ragged: Ragged) -> None:
    dataset, expected = ragged
    first, none, last = (dataset.select(ids) for ids in (dataset.video_ids[30:], [], dataset.video_ids[:5]))
    joined = first.concatenate(none, last)
    assert joined.videos == dataset.videos[30:] + dataset.videos[:5]
    assert joined.class_index.tolist() == dataset.class_index.tolist()[30:] + dataset.class_index.tolist()[:5]
    assert [joined.sequence(number).shape[0] for number in range(15)] == list(map(len, expected[30:] + expected[:5]))


def test_the_subsets_of_a_split_hold_its_videos_with_the_classes_of_train_and_val(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence(video.video_id) for video in VIDEOS])
    one, two, three = VIDEOS
    split = Split(train=(one,), val=(two,), test=(three,), grouping="")
    subsets = read_subsets(store, split)
    assert {subset: dataset.videos for subset, dataset in subsets.items()} == {
        "train": (one,),
        "val": (two,),
        "test": (three,),
    }
    assert [dataset.class_index.tolist() for dataset in subsets.values()] == [[0], [1], [0]]
    selected = select_subsets(SequenceDataset(store, VIDEOS, ["x", "y"]), split)
    for subset, dataset in subsets.items():
        assert selected[subset].videos == dataset.videos
        assert torch.equal(selected[subset].sequence(0), dataset.sequence(0))


def test_averaged_each_video_is_its_mean(ragged: Ragged) -> None:
    dataset, expected = ragged
    (batch,) = dataset.averaged().select(dataset.video_ids[4:]).batches(100)
    assert batch.lengths.tolist() == [1] * 36
    for features, mean in zip(expected[4:], batch.features[:, 0].numpy(), strict=True):
        assert np.allclose(mean, features.mean(axis=0), atol=1e-6)


def test_by_length_the_longest_come_first(ragged: Ragged) -> None:
    dataset, expected = ragged
    lengths = [len(expected[number]) for number in dataset.by_length()]
    assert lengths == sorted(map(len, expected), reverse=True)


def test_features_of_half_precision_stay_so_in_memory(tmp_path: Path) -> None:
    sequence = make_sequence("a.mp4", 5)
    sequence = replace(sequence, features=sequence.features.astype(np.float16))
    dataset = SequenceDataset(make_store(tmp_path / "s", [sequence]), [LabeledVideo("a.mp4", "x")], ["x"])
    assert dataset.sequence(0).dtype == torch.float16
    (batch,) = dataset.batches(1)
    assert batch.features.dtype == torch.float32
    assert np.array_equal(batch.features[0].numpy(), sequence.features.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3e38])
def test_a_feature_that_is_not_finite_is_reported_with_its_video(tmp_path: Path, value: float) -> None:
    sequences = [make_sequence(f"{name}.mp4") for name in "abc"]
    sequences[1].features[1, 1] = value
    store = make_store(tmp_path / "s", sequences)
    with pytest.raises(StoreError, match=r"b\.mp4 are not finite"):
        SequenceDataset(store, [LabeledVideo(name, "x") for name in ("c.mp4", "b.mp4", "a.mp4")], ["x"])
    assert len(SequenceDataset(store, [LabeledVideo("a.mp4", "x"), LabeledVideo("c.mp4", "x")], ["x"])) == 2


def test_padding_goes_to_the_longest() -> None:
    features, lengths = pad([torch.ones(2, 3), torch.ones(5, 3)])
    assert features.shape == (2, 5, 3)
    assert lengths.tolist() == [2, 5]
    assert features.sum() == 21
