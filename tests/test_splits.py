"""Splits: nothing lost, no group on two sides, the sizes and the classes that were asked for, the same every time."""

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from vidpipe.datasets.labels import labels_from_folders, read_labels
from vidpipe.datasets.splits import SUBSETS, Split, describe_grouping, make_split
from vidpipe.errors import LabelsError, UsageError
from vidpipe.records import LabeledVideo

DATA = Path(__file__).parents[2] / "shared" / "data"
SEEDS = range(5)


def real_videos(name: str) -> list[LabeledVideo]:
    path = DATA / "clips" / name / "labels.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    names = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    return read_labels(path, video_ids=names)


def unequal_groups(num_groups: int = 40, labels: str = "abc") -> list[LabeledVideo]:
    """Groups of 1 to 12 videos, each group with its own mixture of labels."""
    rng = random.Random(0)
    videos = []
    for group in range(num_groups):
        weights = [rng.random() for _ in labels]
        for clip in range(rng.randint(1, 12)):
            (label,) = rng.choices(labels, weights)
            videos.append(LabeledVideo(f"g{group:02d}/{clip:02d}.mp4", label, group=f"g{group:02d}"))
    return videos


def single_videos(**num_videos: int) -> list[LabeledVideo]:
    return [LabeledVideo(f"{label}/{n}.mp4", label) for label, number in num_videos.items() for n in range(number)]


def ucf101_like(num_classes: int = 101) -> list[LabeledVideo]:
    rng = random.Random(0)
    return [
        LabeledVideo(f"C{c}/v_C{c}_g{group:02d}_c{clip:02d}.avi", f"C{c}", group=f"C{c}_g{group:02d}")
        for c in range(num_classes)
        for group in range(1, 26)
        for clip in range(rng.randint(4, 7))
    ]


def ids(videos: Iterable[LabeledVideo]) -> list[str]:
    return [video.video_id for video in videos]


def groups(videos: Iterable[LabeledVideo]) -> set[str | None]:
    return {video.group for video in videos} - {None}


def distance(subset: Iterable[LabeledVideo], videos: Sequence[LabeledVideo], fraction: float) -> float:
    """How many videos a subset has too many or too few, over each class and in all."""
    asked, drawn = Counter(video.label for video in videos), Counter(video.label for video in subset)
    in_classes = sum(abs(drawn[label] - fraction * number) for label, number in asked.items())
    return in_classes + abs(drawn.total() - fraction * asked.total())


def assert_sound(split: Split, videos: Sequence[LabeledVideo]) -> None:
    assert sorted(ids(split.train) + ids(split.val) + ids(split.test)) == sorted(ids(videos))
    assert {video.label for video in split.train} == {video.label for video in videos}
    assert not groups(split.train) & groups(split.val)
    assert not groups(split.train) & groups(split.test)
    assert not groups(split.val) & groups(split.test)


# Drawn splits


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("val_fraction", "test_fraction"), [(0.2, 0.2), (0.15, 0.3), (0.05, 0.4), (0.5, 0.0)])
def test_unequal_groups_stay_together_and_the_subsets_have_the_sizes_asked_for(
    val_fraction: float, test_fraction: float, seed: int
) -> None:
    videos = unequal_groups()
    split = make_split(videos, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    assert_sound(split, videos)
    assert distance(split.test, videos, test_fraction) <= 4
    assert distance(split.val, split.train + split.val, val_fraction) <= 6


def test_the_size_is_as_asked_even_where_the_classes_of_many_mixed_groups_cannot_be() -> None:
    rng = random.Random(0)
    videos = [LabeledVideo(f"{n}.mp4", f"c{rng.randrange(50)}", group=f"g{rng.randrange(600)}") for n in range(2000)]
    split = make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert_sound(split, videos)
    assert len(split.test) == pytest.approx(400, abs=4)
    assert len(split.val) == pytest.approx(320, abs=4)


@pytest.mark.parametrize("seed", SEEDS)
def test_single_videos_are_drawn_exactly_by_class(seed: int) -> None:
    videos = single_videos(a=50, b=20, c=10)
    split = make_split(videos, val_fraction=0.25, test_fraction=0.2, seed=seed)
    assert_sound(split, videos)
    assert Counter(video.label for video in split.test) == {"a": 10, "b": 4, "c": 2}
    assert Counter(video.label for video in split.val) == {"a": 10, "b": 4, "c": 2}


def test_the_same_seed_draws_the_same_in_any_order_of_the_videos() -> None:
    for videos in (unequal_groups(), single_videos(a=9, b=7, c=5)):
        shuffled = random.Random(1).sample(videos, len(videos))
        one = make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=3)
        assert make_split(shuffled, val_fraction=0.2, test_fraction=0.2, seed=3) == one


def test_each_subset_is_ordered_by_id() -> None:
    split = make_split(unequal_groups(), val_fraction=0.2, test_fraction=0.2, seed=0)
    for subset in SUBSETS:
        assert ids(split[subset]) == sorted(ids(split[subset]))


def test_other_seeds_draw_others_and_every_group_has_its_turn() -> None:
    videos = unequal_groups()
    tests = [make_split(videos, val_fraction=0, test_fraction=0.2, seed=seed).test for seed in range(20)]
    assert len({tuple(ids(test)) for test in tests}) > 15
    assert len(set().union(*map(groups, tests))) > 35


def test_a_fraction_of_zero_is_an_empty_subset() -> None:
    videos = unequal_groups()
    split = make_split(videos, val_fraction=0, test_fraction=0, seed=0)
    assert ids(split.train) == sorted(ids(videos))
    assert split.val == split.test == ()


def test_four_videos_in_two_classes_give_something_to_every_subset() -> None:
    videos = single_videos(a=2, b=2)
    for seed in SEEDS:
        split = make_split(videos, val_fraction=0.25, test_fraction=0.25, seed=seed)
        assert_sound(split, videos)
        assert (len(split.train), len(split.val), len(split.test)) == (2, 1, 1)


@pytest.mark.parametrize("seed", range(100))
def test_however_much_is_asked_of_however_few_every_class_can_be_learnt(seed: int) -> None:
    rng = random.Random(seed)
    names: list[str | None] = rng.choice([[None], [*"xy"], [*"xyz"], [None, *"xyz"], [*"pqrstuvwxyz"]])
    videos = [
        LabeledVideo(f"{label}/{n}.mp4", label, group=rng.choice(names))
        for label in "abcd"[: rng.randint(2, 4)]
        for n in range(rng.randint(2, 6))
    ]
    val_fraction, test_fraction = rng.choice([1e-300, 0.05, 0.5, 0.9]), rng.choice([0.01, 0.2, 0.99, rng.random()])
    split = make_split(videos, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    assert_sound(split, videos)
    if not split.test:  # then each group is all that there is of some class
        labels_of_others = [{v.label for v in videos if v.group != group} for group in groups(videos)]
        assert all(video.group for video in videos)
        assert all(labels < {video.label for video in videos} for labels in labels_of_others)


def test_which_of_many_small_classes_is_tested_depends_on_the_seed() -> None:
    videos = single_videos(**dict.fromkeys("abcdefghij", 2))
    tested = set()
    for seed in range(20):
        test = make_split(videos, val_fraction=0, test_fraction=0.2, seed=seed).test
        assert len(test) == len({video.label for video in test}) == 4
        tested |= {video.label for video in test}
    assert tested == set("abcdefghij")


def test_a_subset_asked_for_is_not_empty_even_if_every_group_is_larger_than_it() -> None:
    videos = [LabeledVideo(f"{g}/{c}{n}.mp4", c, group=g) for g in "xyz" for c in "ab" for n in range(5)]
    split = make_split(videos, val_fraction=0.05, test_fraction=0.05, seed=0)
    assert_sound(split, videos)
    assert (len(split.train), len(split.val), len(split.test)) == (10, 10, 10)


def test_two_groups_give_one_to_test_and_say_that_none_is_left_for_val(caplog: pytest.LogCaptureFixture) -> None:
    videos = [LabeledVideo(f"{g}/{c}{n}.mp4", c, group=g) for g in "xy" for c in "ab" for n in range(5)]
    split = make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert_sound(split, videos)
    assert (len(split.train), len(split.val), len(split.test)) == (10, 0, 10)
    assert (
        "a, b: all videos of each class outside test are in one group, so there is none to validate on" in caplog.text
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_real_interaction_clips_are_split_by_whole_sequences(seed: int) -> None:
    videos = real_videos("interaction")
    split = make_split(videos, val_fraction=0.25, test_fraction=0.2, seed=seed)
    assert_sound(split, videos)
    assert set(Counter(video.label for video in split.test).values()) == {2}
    assert set(Counter(video.label for video in split.val).values()) == {2}


@pytest.mark.parametrize("seed", SEEDS)
def test_real_fight_clips_are_split_by_source(seed: int) -> None:
    videos = real_videos("fight")
    split = make_split(videos, val_fraction=0.2, test_fraction=0.3, seed=seed)
    assert_sound(split, videos)
    assert distance(split.test, videos, 0.3) <= 4
    assert distance(split.val, split.train + split.val, 0.2) <= 5


@pytest.mark.parametrize("grouped", [True, False])
def test_a_set_of_the_size_of_ucf101_is_split_quickly(grouped: bool) -> None:
    videos = ucf101_like()
    if not grouped:
        videos = [LabeledVideo(video.video_id, video.label) for video in videos]
    start = time.process_time()
    split = make_split(videos, val_fraction=0.15, test_fraction=0.25, seed=0)
    assert time.process_time() - start < 10
    assert_sound(split, videos)
    assert len(split.test) == pytest.approx(0.25 * len(videos), rel=0.02)
    for label, clips in groupby(sorted(videos, key=lambda video: video.label), key=lambda video: video.label):
        tested = sum(video.label == label for video in split.test)
        assert tested == pytest.approx(0.25 * len(list(clips)), abs=4)


# Splits that the labels give


def given_split(*, val: bool) -> list[LabeledVideo]:
    subset_of = {"g0": "test", "g1": "test", "g2": "val" if val else "train"}
    return [
        LabeledVideo(video.video_id, video.label, subset_of.get(f"g{int(video.group[1:]) % 10}", "train"), video.group)
        for video in unequal_groups()
        if video.group
    ]


def test_a_given_split_is_kept() -> None:
    videos = given_split(val=True)
    split = make_split(videos, val_fraction=0.5, test_fraction=0.5, seed=0)
    assert_sound(split, videos)
    for subset in SUBSETS:
        assert {video.split for video in split[subset]} == {subset}
    assert split.grouping == "taken from the labels"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_val_is_drawn_from_train_by_groups(seed: int) -> None:
    videos = given_split(val=False)
    split = make_split(videos, val_fraction=0.2, test_fraction=0.5, seed=seed)
    assert_sound(split, videos)
    assert {video.split for video in split.test} == {"test"}
    assert {video.split for video in split.train + split.val} == {"train"}
    assert distance(split.val, split.train + split.val, 0.2) <= 4


def test_a_given_split_is_described_with_the_groups_that_it_divides() -> None:
    given = given_split(val=True)
    split = make_split(given, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert describe_grouping(split) == "taken from the labels; no group in more than one subset"
    moved = next(video for video in given if video.split == "train" and given[0].group != video.group)
    divided = [replace(video, split="val") if video == moved else video for video in given]
    split = make_split(divided, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert describe_grouping(split) == "taken from the labels; 1 of 40 groups in more than one subset"
    drawn = make_split(unequal_groups(), val_fraction=0.2, test_fraction=0.2, seed=0)
    assert describe_grouping(drawn) == drawn.grouping


def test_groups_on_both_sides_of_a_given_split_are_kept_and_named(caplog: pytest.LogCaptureFixture) -> None:
    videos = [
        LabeledVideo("1.mp4", "a", "train", "park"),
        LabeledVideo("2.mp4", "a", "test", "park"),
        LabeledVideo("3.mp4", "b", "train", "street"),
        LabeledVideo("4.mp4", "b", "val", "field"),
    ]
    split = make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert ids(split.test) == ["2.mp4"]
    assert "1 of 3 groups in more than one subset" in caplog.text
    assert "park (train, test)" in caplog.text


def test_a_split_for_only_some_videos_is_refused() -> None:
    videos = [*given_split(val=False), LabeledVideo("z.mp4", "a")]
    with pytest.raises(LabelsError, match=r"1 of \d+ videos without a split, while others have one: z.mp4; fill in"):
        make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0)


def test_a_given_split_must_leave_each_class_something_to_learn_from() -> None:
    videos = [LabeledVideo(f"{n}.mp4", "ab"[n // 2], "train" if n < 2 else "test") for n in range(4)]
    with pytest.raises(LabelsError, match="no training video of b; put some of each class into train"):
        make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0)


# Classes that cannot be split, and what is said


@pytest.mark.parametrize(("videos", "found"), [([], "none"), (single_videos(walk=5), "'walk'")])
def test_fewer_than_two_classes_are_refused(videos: list[LabeledVideo], found: str) -> None:
    with pytest.raises(LabelsError, match=f"at least two classes, found {found}"):
        make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0)


def test_classes_with_one_video_are_refused_by_name() -> None:
    with pytest.raises(LabelsError, match=r"only one video: b, c, d and 1 more; .*add videos .*or remove them"):
        make_split(single_videos(a=5, b=1, c=1, d=1, e=1), val_fraction=0.2, test_fraction=0.2, seed=0)


def test_a_class_within_one_group_stays_in_train_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    videos = single_videos(a=10, b=10) + [LabeledVideo(f"c/{n}.mp4", "c", group="studio") for n in range(5)]
    split = make_split(videos, val_fraction=0, test_fraction=0.2, seed=0)
    assert_sound(split, videos)
    assert Counter(video.label for video in split.test) == {"a": 2, "b": 2}
    assert "c: all videos of the class are in one group, so there is none to test on; all are used for" in caplog.text


def test_a_class_within_one_group_does_not_change_how_much_is_drawn_of_the_others() -> None:
    videos = unequal_groups()
    studio = [LabeledVideo(f"studio/{n}.mp4", "d", group="studio") for n in range(200)]
    for seed in SEEDS:
        split = make_split(videos + studio, val_fraction=0, test_fraction=0.2, seed=seed)
        assert distance(split.test, videos, 0.2) <= 4


def test_a_class_too_small_for_the_fraction_is_said_to_be_untested(caplog: pytest.LogCaptureFixture) -> None:
    make_split(single_videos(a=97, b=3), val_fraction=0, test_fraction=0.1, seed=0)
    assert "b has too few videos to test on; none is tested" in caplog.text


def test_classes_without_groups_are_said_to_be_too_small_to_validate_on(caplog: pytest.LogCaptureFixture) -> None:
    make_split(single_videos(a=10, go=2), val_fraction=0.2, test_fraction=0.2, seed=0)
    assert "go has too few videos to validate on; all are used for training" in caplog.text
    make_split(single_videos(a=10, go=2, run=2), val_fraction=0.2, test_fraction=0.2, seed=0)
    assert "go, run have too few videos to validate on; all are used for training" in caplog.text
    assert "group" not in caplog.text


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match=r"val fraction .*: must be at least 0 and below 1"):
        make_split(single_videos(a=5, b=5), val_fraction=fraction, test_fraction=0.2, seed=0)


def test_where_a_given_split_comes_from_is_said(tmp_path: Path) -> None:
    def said(videos: list[LabeledVideo]) -> str:
        return make_split(videos, val_fraction=0, test_fraction=0.2, seed=0).grouping

    ids = [f"{part}/{label}/{n}.mp4" for part in ("train", "Test") for label in "ab" for n in range(2)]
    assert said(labels_from_folders(ids)) == "taken from the folders train/ and Test/"
    rows = [f"{video_id},{video_id.split('/')[1]},{video_id.split('/')[0]}" for video_id in ids]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label,Split", *rows]))
    assert said(read_labels(tmp_path / "labels.csv", video_ids=ids)) == "taken from the labels' column `Split`"
    for name in ("trainlist02.txt", "testlist02.txt"):
        (tmp_path / name).write_text("".join(f"{label}/{name}{n}.avi\n" for label in "ab" for n in range(2)))
    ids = [f"{label}/{name}{n}.avi" for name in ("trainlist02.txt", "testlist02.txt") for label in "ab" for n in (0, 1)]
    official = read_labels(tmp_path / "trainlist02.txt", video_ids=ids)
    assert said(official) == "taken from UCF101's official lists, split 2"


def test_the_grouping_that_was_used_is_said() -> None:
    def said(videos: list[LabeledVideo]) -> str:
        return make_split(videos, val_fraction=0.2, test_fraction=0.2, seed=0).grouping

    assert said(unequal_groups()) == "groups from the labels: 40 groups"
    assert said(ucf101_like(num_classes=2)) == "groups from UCF101 file names: 50 groups"
    assert (
        said(unequal_groups() + single_videos(a=3)) == "groups from the labels: 40 groups, and 3 videos without a group"
    )
    assert said([*unequal_groups(1, "ab"), *single_videos(a=1, b=0)]) == (
        "groups from the labels: 1 group, and 1 video without a group"
    )
    assert said(single_videos(a=5, b=5)).startswith(
        "no groups: each video is its own group; if clips come from one source"
    )
    assert said(given_split(val=False)) == (
        "taken from the labels; val drawn from train; groups from the labels: 40 groups"
    )
