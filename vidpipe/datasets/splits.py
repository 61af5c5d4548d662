"""Splits into train, val and test: stratified by label, without dividing a group; scikit-learn draws the folds."""

import logging
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from random import Random

from vidpipe.datasets.groups import DUPLICATES_OF
from vidpipe.datasets.official import ucf101_group
from vidpipe.errors import LabelsError, UsageError, count_of, first_few
from vidpipe.records import LabeledVideo

__all__ = ["SUBSETS", "Split", "describe_grouping", "make_folds", "make_split"]

logger = logging.getLogger(__name__)

SUBSETS = ("train", "val", "test")
"""The names of a split's subsets, in the order in which tables list them."""
_MAX_FOLDS = 20  # with more folds, StratifiedGroupKFold takes over 2 seconds for 13,000 videos in groups

_Videos = list[LabeledVideo]


@dataclass(frozen=True)
class Split:
    """The videos of train, val and test, each ordered by video id: `split.train`, or `split["train"]`."""

    train: tuple[LabeledVideo, ...]
    val: tuple[LabeledVideo, ...]
    test: tuple[LabeledVideo, ...]
    grouping: str
    """Where the split and the groups come from, in a sentence."""

    def __getitem__(self, subset: str) -> tuple[LabeledVideo, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[subset]

    def __repr__(self) -> str:
        return f"Split(train={len(self.train)}, val={len(self.val)}, test={len(self.test)}, grouping={self.grouping!r})"


def make_split(videos: Iterable[LabeledVideo], *, val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Divide videos into train, val and test.

    A split that the labels give is kept; only a missing val is drawn, from train. Otherwise test is drawn from all
    videos, then val from the others.

    Args:
        videos: in any order: the same videos give the same split.
        val_fraction: share of the videos outside test to put into val, in [0, 1).
        test_fraction: share of all videos to put into test, in [0, 1). Ignored where the labels give a split.
        seed: another seed draws other videos.

    Returns:
        The split.

    Raises:
        LabelsError: there are fewer than two classes, a class has too few videos to learn from, or only some videos
            have a split.
        UsageError: a fraction is out of range.
    """
    for name, fraction in (("val", val_fraction), ("test", test_fraction)):
        if not 0 <= fraction < 1:
            raise UsageError(f"{name} fraction {fraction}: must be at least 0 and below 1, such as 0.2")
    videos = _ordered(videos)
    _check_classes(videos)
    if any(video.split for video in videos):
        train, val, test = _given_subsets(videos)
        grouping = f"taken from {videos[0].split_source}"
        if val_fraction and not val:
            train, val = _draw(train, val_fraction, "val", Random(seed))
            grouping = f"{grouping}; val drawn from train; {_grouping(videos)}"
    else:
        grouping = _grouping(videos)
        others, test = _draw(videos, test_fraction, "test", Random(seed))
        train, val = _draw(others, val_fraction, "val", Random(seed))
    return Split(_ordered(train), _ordered(val), _ordered(test), grouping)


def make_folds(videos: Iterable[LabeledVideo], num_folds: int | None, val_fraction: float, *, seed: int) -> list[Split]:
    """Divide videos into folds without dividing a group; each fold is the test set of one split.

    Args:
        videos: in any order; a split that they have is ignored.
        num_folds: number of folds, 2 or more; None makes each group a fold.
        val_fraction: share of the videos outside a fold to put into val, in [0, 1).
        seed: another seed draws other folds.

    Returns:
        A split for each fold.

    Raises:
        LabelsError: there are fewer groups than folds, or a fold leaves fewer than two classes to learn.
    """
    videos = _ordered(videos)
    _check_classes(videos)
    labels = {video.label for video in videos}
    grouping = _grouping(videos)
    splits = []
    for fold in _fold_numbers(videos, num_folds, seed):
        others = [video for number, video in enumerate(videos) if number not in fold]
        _check_fold(others, labels)
        train, val = _draw(others, val_fraction, "val", Random(seed), warn=False)
        test = [video for number, video in enumerate(videos) if number in fold]
        splits.append(Split(_ordered(train), _ordered(val), _ordered(test), grouping))
    return splits


def _fold_numbers(videos: Sequence[LabeledVideo], num_folds: int | None, seed: int) -> list[set[int]]:
    """The numbers of each fold's videos."""
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold

    labels = [video.label for video in videos]
    groups = [video.unit for video in videos]
    if len(set(groups)) < (num_folds or 2):
        what = f"{num_folds} folds need" if num_folds else "leaving one group out needs"
        raise LabelsError(
            f"{what} at least {num_folds or 2} groups, found {len(set(groups))}; give more videos or groups"
        )
    splitter = LeaveOneGroupOut()
    if num_folds is not None:
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class has fewer videos than there are folds
        return [set(map(int, test)) for _, test in splitter.split(labels, labels, groups)]


def _check_fold(others: Sequence[LabeledVideo], labels: set[str]) -> None:
    left = {video.label for video in others}
    if len(left) < 2:
        raise LabelsError(f"a fold leaves only {first_few(sorted(left))} to learn; use fewer folds, or other groups")
    if absent := sorted(labels - left):
        logger.warning(
            "a fold leaves no training video of %s; all videos of these classes in that fold will be misclassified",
            first_few(absent),
        )


def _ordered(videos: Iterable[LabeledVideo]) -> tuple[LabeledVideo, ...]:
    return tuple(sorted(videos, key=lambda video: video.video_id))


def _check_classes(videos: Sequence[LabeledVideo]) -> None:
    num_videos = Counter(video.label for video in videos)
    if len(num_videos) < 2:
        found = ", ".join(map(repr, num_videos)) or "none"
        raise LabelsError(f"a classifier needs videos of at least two classes, found {found}; check the labels")
    if lone := sorted(label for label, number in num_videos.items() if number == 1):
        raise LabelsError(
            f"classes with only one video: {first_few(lone)}; a class needs one video to train on and one to test on: "
            "add videos of these classes, or remove them from the labels"
        )


def _given_subsets(videos: Sequence[LabeledVideo]) -> tuple[_Videos, _Videos, _Videos]:
    """The train, val and test sets that the labels give, checked."""
    if without := [video.video_id for video in videos if video.split is None]:
        raise LabelsError(
            f"{len(without)} of {count_of(len(videos), 'video')} without a split, while others have one: "
            f"{first_few(without)}; "
            "fill in the split column, or remove it to have a split drawn"
        )
    train, val, test = ([video for video in videos if video.split == subset] for subset in SUBSETS)
    if untrained := sorted({video.label for video in videos} - {video.label for video in train}):
        raise LabelsError(
            f"the labels' split leaves no training video of {first_few(untrained)}; "
            "put some of each class into train, or remove the split column to have a split drawn"
        )
    subsets_of = _subsets_by_group({"train": train, "val": val, "test": test})
    if divided := [f"{group} ({', '.join(names)})" for group, names in sorted(subsets_of.items()) if len(names) > 1]:
        logger.warning(
            "the labels' split has %d of %s in more than one subset, so results may look better than they are: %s",
            len(divided),
            count_of(len(subsets_of), "group"),
            first_few(divided),
        )
    return train, val, test


def _subsets_by_group(videos: Mapping[str, Sequence[LabeledVideo]]) -> dict[str, list[str]]:
    """The names of the subsets that hold each group."""
    subsets_of: dict[str, list[str]] = defaultdict(list)
    for subset, its_videos in videos.items():
        for group in {video.group for video in its_videos if video.group}:
            subsets_of[group].append(subset)
    return subsets_of


def describe_grouping(split: Split) -> str:
    """Describe where a split comes from and, where the labels give it, whether it divides groups."""
    videos = {subset: split[subset] for subset in SUBSETS}
    if not any(video.split for video in chain(*videos.values())):
        return split.grouping
    subsets_of = _subsets_by_group(videos)
    num_divided = sum(len(names) > 1 for names in subsets_of.values())
    if num_divided:
        return f"{split.grouping}; {num_divided} of {count_of(len(subsets_of), 'group')} in more than one subset"
    return f"{split.grouping}; no group in more than one subset" if subsets_of else split.grouping


def _grouping(videos: Sequence[LabeledVideo]) -> str:
    groups = {video.group for video in videos if video.group}
    if not groups:
        return (
            "no groups: each video is its own group; "
            "if clips come from one source, name the sources with --group-by or a column group"
        )
    if any(group.startswith(DUPLICATES_OF) for group in groups):
        return f"groups of duplicates: {count_of(len(groups), 'group')} of {count_of(len(videos), 'video')}"
    from_names = all(video.group in (None, ucf101_group(video.video_id)) for video in videos)
    alone = sum(not video.group for video in videos)
    return f"groups from {'UCF101 file names' if from_names else 'the labels'}: {count_of(len(groups), 'group')}" + (
        f", and {count_of(alone, 'video')} without a group" if alone else ""
    )


# Drawing


def _draw(
    videos: Sequence[LabeledVideo], fraction: float, subset: str, rng: Random, *, warn: bool = True
) -> tuple[_Videos, _Videos]:
    """Divide videos into others and drawn ones; a fraction above 0 draws at least one group, if one can be spared."""
    if fraction == 0:
        return list(videos), []
    by_group: dict[str, _Videos] = defaultdict(list)
    for video in videos:
        by_group[video.unit].append(video)
    groups = list(by_group.values())
    num_videos = _num_videos(videos)
    num_groups = Counter(label for group in groups for label in _num_videos(group))
    num_wanted = fraction * sum(number for label, number in num_videos.items() if num_groups[label] > 1)

    def distance(drawn: Iterable[LabeledVideo]) -> float:
        num_drawn = _num_videos(drawn)
        return sum((num_drawn[label] - fraction * number) ** 2 for label, number in num_videos.items())

    draws = (_draw_in_order(order, num_videos, num_wanted) for order in _fold_orders(groups, fraction, rng))
    drawn = set(min(draws, key=distance, default=()))
    if warn:
        present = {video.label for video in drawn}
        _warn_of_absent([video for video in videos if video.label not in present], num_groups, subset)
    return [video for video in videos if video not in drawn], [video for video in videos if video in drawn]


def _num_videos(videos: Iterable[LabeledVideo]) -> Counter[str]:
    return Counter(video.label for video in videos)


def _fold_orders(groups: Sequence[_Videos], fraction: float, rng: Random) -> Iterator[list[_Videos]]:
    """Yield all groups, stratified fold by fold, from each fold on: of ten folds 012…9, 12…90, …; 3 folds are 3/10."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    exact = Fraction(fraction)
    ratio = exact.limit_denominator(max(10, math.ceil(1 / exact)))
    largest_class = max(_num_videos(chain(*groups)).values())
    num_folds = min(max(2, ratio.denominator), _MAX_FOLDS, len(groups), largest_class)
    if num_folds < 2:  # then no group can be spared
        return
    kind = StratifiedGroupKFold if any(len(group) > 1 for group in groups) else StratifiedKFold
    for _ in range(4 if len(groups) < 1000 else 1):  # one draw balances many groups well
        groups = rng.sample(groups, len(groups))  # which class comes first matters to scikit-learn
        labels = [video.label for group in groups for video in group]
        numbers = [number for number, group in enumerate(groups) for _ in group]
        splitter = kind(num_folds, shuffle=True, random_state=rng.randrange(2**32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class has fewer videos than there are folds
            folds = [dict.fromkeys(numbers[at] for at in fold) for _, fold in splitter.split(labels, labels, numbers)]
        for first in range(num_folds):
            yield [groups[number] for fold in folds[first:] + folds[:first] for number in fold]


def _draw_in_order(groups: Iterable[_Videos], num_videos: Counter[str], num_wanted: float) -> _Videos:
    """Draw group after group up to the number wanted, but never the last training videos of a class."""
    drawn: _Videos = []
    left = num_videos.copy()
    for group in groups:
        size = _num_videos(group)
        is_nearer = len(group) < 2 * (num_wanted - len(drawn))
        if (is_nearer or not drawn) and all(left[label] > number for label, number in size.items()):
            drawn += group
            left.subtract(size)
    return drawn


def _warn_of_absent(videos: Sequence[LabeledVideo], num_groups: Mapping[str, int], subset: str) -> None:
    """Warn of the classes that have no video in a subset, with the reason."""
    labels = sorted({video.label for video in videos})
    grouped = {video.label for video in videos if video.group and num_groups[video.label] == 1}
    use = {"val": "validate", "test": "test"}[subset]
    if one_group := [label for label in labels if label in grouped]:
        logger.warning(
            "%s: all videos of %s%s are in one group, so there is none to %s on; all are used for training",
            first_few(one_group),
            "the class" if len(one_group) == 1 else "each class",
            " outside test" if subset == "val" else "",
            use,
        )
    if few := [label for label in labels if label not in grouped]:
        has = "has" if len(few) == 1 else "have"
        used = "all are used for training" if subset == "val" else "none is tested"
        logger.warning("%s %s too few videos to %s on; %s", first_few(few), has, use, used)
