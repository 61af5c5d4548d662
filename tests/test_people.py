"""Rows of people in stores and data sets, against sequences that are cut by hand."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.stores import KEY, make_sequence
from vidpipe.config import TrainConfig
from vidpipe.datasets.people import check_same_tracks, person_in_time, split_people
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import UsageError
from vidpipe.features.export import export
from vidpipe.features.maintenance import compact, find_damage, merge
from vidpipe.features.siblings import find_siblings
from vidpipe.features.store import FeatureStore
from vidpipe.heads.members import Member
from vidpipe.records import FeatureSequence, LabeledVideo, Rows
from vidpipe.training.controls import freeze, shuffle
from vidpipe.training.fit import compute_logits, fit_head
from vidpipe.training.fusion import fit_classifier
from vidpipe.training.scoring import score_classifiers

TRACKS_KEY = replace(KEY, regions={"kind": "tracks", "detector": "movenet", "weights": "0" * 64, "min_score": 0.2})
PEOPLE = ((1, 1, 1, 2, 1, 2), (), (1, 2, 3, 1, 2, 3), (3, 3))
"""Of each video, whose rows are whose; in the second one nobody is found."""
VIDEOS = [LabeledVideo(f"{number}.mp4", "xy"[number % 2], group=f"g{number}") for number in range(len(PEOPLE))]


def with_people(sequence: FeatureSequence, track: tuple[int, ...]) -> FeatureSequence:
    """Rows of the people with these numbers: a new frame where a number is not larger than the one before."""
    numbers = np.array(track, np.int32)
    frame = np.cumsum(np.diff(numbers, prepend=9) <= 0) - 1
    region = np.linspace(0.1, 0.5, len(frame) * 4, dtype=np.float32).reshape(-1, 4)
    rows = Rows(frame / 25.0, frame.astype(np.int64), np.zeros(len(frame), np.int32), region=region, track=numbers)
    return replace(sequence, rows=rows)


def sequence_of(number: int, *, seed: int = 0) -> FeatureSequence:
    sequence = make_sequence(f"{number}.mp4", len(PEOPLE[number]) or 4, seed=seed)
    if PEOPLE[number]:
        return with_people(sequence, PEOPLE[number])
    whole = np.tile(np.array([0, 0, 1, 1], np.float32), (4, 1))
    return replace(sequence, rows=replace(sequence.rows, region=whole))


@pytest.fixture
def sequences() -> list[FeatureSequence]:
    return [sequence_of(number) for number in range(len(PEOPLE))]


@pytest.fixture
def store(sequences: list[FeatureSequence], tmp_path: Path) -> FeatureStore:
    return write(tmp_path / "store", sequences)


def write(path: Path, sequences: list[FeatureSequence]) -> FeatureStore:
    made = FeatureStore.create(path, TRACKS_KEY)
    with made.writer(max_videos=3) as writer:
        for sequence in sequences:
            writer.add(sequence)
    return FeatureStore.open(path)


def assert_same_rows(store: FeatureStore, sequences: list[FeatureSequence]) -> None:
    for one in sequences:
        found = store[one.video_id]
        assert np.array_equal(found.features, one.features)
        for name in ("frame_index", "region", "track"):
            expected, got = getattr(one.rows, name), getattr(found.rows, name)
            assert (expected is None) == (got is None)
            assert expected is None or (np.array_equal(expected, got) and expected.dtype == got.dtype)


# Stores


def test_a_store_keeps_who_is_who(store: FeatureStore, sequences: list[FeatureSequence], tmp_path: Path) -> None:
    assert_same_rows(store, sequences)
    assert find_damage(store) == []
    compact(store)
    assert_same_rows(FeatureStore.open(store.path), sequences)
    other = write(tmp_path / "other", [replace(sequences[0], video_id="other.mp4")])
    merge([store, other], tmp_path / "merged")
    assert_same_rows(FeatureStore.open(tmp_path / "merged"), sequences)
    export(store, tmp_path / "exported", form="h5")
    with h5py.File(tmp_path / "exported/features.h5") as file:
        assert sorted(file["track"]) == ["0.mp4", "2.mp4", "3.mp4"]
        assert file["track/2.mp4"][:].tolist() == list(PEOPLE[2])


def test_a_changed_number_is_found(store: FeatureStore) -> None:
    path = next(path for path in store.shard_paths if "track" in h5py.File(path))
    with h5py.File(path, "r+") as file:
        file["track"][0] = 7
    assert [damage.video_id for damage in find_damage(FeatureStore.open(store.path))] == ["0.mp4"]


@pytest.mark.parametrize("track", [(2, 1), (1, 1), (0, 1)])
def test_rows_of_people_are_in_order_and_from_1_on(track: tuple[int, int]) -> None:
    region, frame = np.full((2, 4), 0.5, np.float32), np.zeros(2, np.int64)
    numbers = np.array(track, np.int32)
    with pytest.raises(ValueError, match="people"):
        Rows(np.zeros(2), frame, np.zeros(2, np.int32), region=region, track=numbers)
    with pytest.raises(ValueError, match="people"):
        Rows(np.zeros(2), np.arange(2), np.zeros(2, np.int32), track=np.ones(2, np.int32))


# Data sets


def test_each_person_is_a_sequence_with_the_label_and_group_of_the_video(
    store: FeatureStore, sequences: list[FeatureSequence]
) -> None:
    people = SequenceDataset(store, VIDEOS, ["x", "y"]).by_person()
    expected = [
        (video, one.features[np.array(PEOPLE[number]) == person] if person else one.features)
        for number, (video, one) in enumerate(zip(VIDEOS, sequences, strict=True))
        for person in sorted(set(PEOPLE[number])) or [0]
    ]
    assert people.videos == tuple(video for video, _ in expected)
    assert people.units == [video.unit for video, _ in expected]
    assert people.class_index.tolist() == ["xy".index(video.label) for video, _ in expected]
    for number, (_, features) in enumerate(expected):
        assert np.array_equal(people.sequence(number).numpy(), features)
    assert people.by_person() is people


def test_selected_and_joined_data_sets_keep_their_people(store: FeatureStore) -> None:
    dataset = SequenceDataset(store, VIDEOS, ["x", "y"])
    selected = dataset.select(["3.mp4", "0.mp4"])
    joined = selected.concatenate(dataset.select(["1.mp4"]))
    assert joined.by_person().lengths.tolist() == [2, 4, 2, 4]
    assert joined.by_person().video_ids == ["3.mp4", "0.mp4", "0.mp4", "1.mp4"]


def test_what_heads_say_of_people_is_averaged_by_video(store: FeatureStore) -> None:
    people = SequenceDataset(store, VIDEOS, ["x", "y"]).by_person()
    values = torch.arange(2.0 * len(people)).reshape(-1, 2)
    mean = people.mean_by_video(values)
    assert mean.tolist() == [[1, 2], [4, 5], [8, 9], [12, 13]]
    assert people.mean_by_video(values[3:6], torch.arange(3, 6)).tolist() == [[8, 9]]


def test_alterations_are_of_each_person(store: FeatureStore) -> None:
    dataset = SequenceDataset(store, VIDEOS, ["x", "y"])
    before = dataset.by_person()
    for altered in (freeze(dataset, still={}).by_person(), shuffle(dataset).by_person()):
        assert altered.lengths.tolist() == before.lengths.tolist()
        for number in range(len(before)):
            its = {tuple(row) for row in before.sequence(number).tolist()}
            assert {tuple(row) for row in altered.sequence(number).tolist()} <= its


# Training


def many(folder: Path, *, with_tracks: bool, seed: int = 0) -> tuple[FeatureStore, list[LabeledVideo]]:
    """Forty videos of two people; one of the two shows the class in its first feature, the other shows nothing."""
    random = np.random.default_rng(seed)
    sequences, videos = [], []
    for number in range(40):
        label = "xy"[number % 2]
        sequence = make_sequence(f"{number:02}.mp4", 8, seed=number)
        if with_tracks:
            sequence = with_people(sequence, (1, 2) * 4)
        sequence.features[:] = 0.3 * random.standard_normal(sequence.features.shape)
        sequence.features[number % 4 // 2 :: 2, 0] += 2 if label == "x" else -2
        sequences.append(sequence)
        videos.append(LabeledVideo(sequence.video_id, label, group=f"g{number // 4}"))
    store = FeatureStore.create(folder, TRACKS_KEY if with_tracks else replace(KEY, backbone="resnet18"))
    with store.writer() as writer:
        for sequence in sequences:
            writer.add(sequence)
    return FeatureStore.open(folder), videos


def test_logits_of_a_video_are_the_mean_of_those_of_its_people(tmp_path: Path) -> None:
    store, videos = many(tmp_path / "s", with_tracks=True)
    dataset = SequenceDataset(store, videos, ["x", "y"])
    head, (epoch,) = fit_head("statistics", {"train": dataset, "val": dataset.select([])}, TrainConfig(device="cpu"))
    logits = compute_logits(head, dataset)
    with torch.inference_mode():
        for number, sequence in enumerate(store.features(dataset.video_ids)):
            by_hand = [head(torch.from_numpy(sequence[k::2].copy())[None], torch.tensor([4])) for k in (0, 1)]
            assert torch.allclose(logits[number], torch.cat(by_hand).mean(dim=0), atol=1e-4)
    assert epoch.train_top1 == float((logits.argmax(dim=1) == dataset.class_index).float().mean()) > 0.85


@pytest.mark.parametrize("fusion", ["late", "early"])
def test_streams_with_and_without_people_are_fused_by_video(fusion: str, tmp_path: Path) -> None:
    tracked, videos = many(tmp_path / "tracked", with_tracks=True)
    whole, _ = many(tmp_path / "whole", with_tracks=False, seed=1)
    dataset = SequenceDataset({"tracked": tracked, "whole": whole}, videos, ["x", "y"])
    subsets = {"train": dataset, "val": dataset.select([])}
    streams = ("tracked", "whole")
    members = [Member(streams, "mean")] if fusion == "early" else [Member((name,), "mean") for name in streams]
    fitted = fit_classifier(members, subsets, TrainConfig(device="cpu"))
    scores = score_classifiers([fitted.fusion], dataset)[fitted.fusion.name]
    assert scores.logits.shape == (40, 2)
    assert [row["video"] for row in scores.rows()] == dataset.video_ids
    assert scores.evaluation.top1 > 0.9


def test_people_of_different_detectors_are_refused(store: FeatureStore) -> None:
    other = FeatureStore(store.path, replace(TRACKS_KEY, regions={"kind": "tracks", "detector": "centernet"}))
    with pytest.raises(UsageError, match="a and b have tracks of different detectors"):
        check_same_tracks({"a": store, "whole": FeatureStore(store.path, KEY), "b": other})
    check_same_tracks({"a": store, "whole": FeatureStore(store.path, KEY)})


# Videos


def test_a_person_has_their_own_rows_and_those_of_streams_without_people(sequences: list[FeatureSequence]) -> None:
    whole = make_sequence("2.mp4", 6)
    found = split_people({"a": sequences[2], "whole": whole})
    assert list(found) == [1, 2, 3]
    assert np.array_equal(found[2]["a"].features, sequences[2].features[[1, 4]])
    assert found[2]["whole"] is whole
    assert split_people({"whole": whole}) == {}
    assert split_people({"a": sequences[1]}) == {}


def test_streams_without_people_are_cut_to_the_time_of_a_person() -> None:
    tracked = with_people(make_sequence("a.mp4", 6), (1, 1, 1, 2, 2, 2))
    times = np.arange(6) / 25.0
    tracked = replace(tracked, rows=replace(tracked.rows, frame_index=np.arange(6), pts_seconds=times))
    whole = make_sequence("a.mp4", 6)
    whole = replace(whole, rows=replace(whole.rows, frame_index=np.arange(6), pts_seconds=times))
    people = split_people({"a": tracked, "whole": whole})
    assert np.array_equal(person_in_time(people[1])["whole"].features, whole.features[:3])
    assert np.array_equal(person_in_time(people[2])["whole"].features, whole.features[3:])


# Stores beside a store


def test_a_store_beside_has_regions_if_they_were_found_alike_for_frames_sampled_alike(
    store: FeatureStore, sequences: list[FeatureSequence], tmp_path: Path
) -> None:
    window = {"num_frames": 2, "fps": None, "min_frames": 2}
    others = {
        "other_regions": replace(TRACKS_KEY, regions={**(TRACKS_KEY.regions or {}), "detector": "centernet"}),
        "other_sampling": replace(TRACKS_KEY, sampling={"method": "uniform", "num_frames": 3}),
        "whole": KEY,
        "windows": replace(TRACKS_KEY, backbone="flow", window=window),
        "zz_frames": replace(TRACKS_KEY, backbone="resnet18"),
    }
    for name, key in others.items():
        made = FeatureStore.create(tmp_path / name, key)
        with made.writer() as writer:
            writer.add(sequences[0])
    (tmp_path / "damaged" / "shards").mkdir(parents=True)
    found = find_siblings(store)
    assert [(one.store.path.name, one.has_same_rows) for one in found] == [("zz_frames", True), ("windows", False)]
    masks = replace(TRACKS_KEY, regions={"kind": "mask", "detector": "person_mask"})
    assert find_siblings(FeatureStore.create(tmp_path / "masks", masks)) == ()
    assert find_siblings(FeatureStore.open(tmp_path / "whole")) == ()
