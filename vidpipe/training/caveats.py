"""Caveats about a run's metrics: small or unequal data, leaks, few videos to calibrate on, a better baseline."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from vidpipe.datasets.groups import DUPLICATES_OF
from vidpipe.datasets.leaks import Leak
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.errors import count_of
from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS
from vidpipe.heads.fusion import Fusion
from vidpipe.heads.heads import Head
from vidpipe.heads.members import BASELINE
from vidpipe.training.cross_validation import CrossValidation
from vidpipe.training.scoring import Scores

__all__ = ["result_caveats", "split_caveats"]

MIN_GROUPS = 10
MAX_IMBALANCE = 3


def split_caveats(subsets: Subsets, leaks: Sequence[Leak], *, has_folds: bool) -> Iterator[str]:
    """Yield caveats about the videos and their split.

    Args:
        subsets: `train`, `val` and `test`.
        leaks: pairs of videos in different subsets that look alike.
        has_folds: whether cross-validation tests more videos than the test set.

    Yields:
        A sentence each.
    """
    videos = [video for dataset in subsets.values() for video in dataset.videos]
    num_groups = len({video.group for video in videos if video.group})
    if num_groups == 0:
        yield "no groups are known: clips of one source may be in both training and test; name them with --group-by"
    elif any(video.group and video.group.startswith(DUPLICATES_OF) for video in videos):
        yield "the groups are of duplicates: other clips of one source may be in both training and test"
    elif num_groups < MIN_GROUPS:
        yield f"only {count_of(num_groups, 'group')}: the metrics depend on which of them are in the test set"
    yield from _test_set_caveats(subsets["test"], num_groups, has_folds=has_folds)
    counts = Counter(video.label for video in videos)
    (most, most_videos), *_, (least, least_videos) = counts.most_common()
    if most_videos > MAX_IMBALANCE * least_videos:
        yield (
            f"{count_of(most_videos, 'video')} of {most}, {least_videos} of {least}: look at the balanced accuracy, "
            "and consider --balance"
        )
    if leaks:
        yield _describe_leaks(leaks)


def _describe_leaks(leaks: Sequence[Leak]) -> str:
    first, num_same = leaks[0], sum(leak.duplicate_score > 0 for leak in leaks)
    same, score, remedy = "", "", ""
    if num_same:
        same = f", {num_same} with the same footage"
        score = f", duplicate score {first.duplicate_score:.2f}"
        remedy = "; --group-by duplicates keeps the same footage in one subset"
    return (
        f"{count_of(len(leaks), 'pair')} of videos in different subsets {'looks' if len(leaks) == 1 else 'look'} "
        f"alike{same}, such as {first.video} ({first.split}) and {first.other} ({first.other_split}), "
        f"cosine {first.cosine:.3f}{score}; leaks.csv lists all{remedy}"
    )


def _test_set_caveats(test: SequenceDataset, num_groups: int, *, has_folds: bool) -> Iterator[str]:
    """Yield the caveat about a small test set, if it is one."""
    num_videos, num_units = len(test), len(set(test.units))
    remedy = "" if has_folds else "; --folds 5 tests all videos"
    if num_videos == 1:
        yield f"only 1 video is in the test set: its metrics say next to nothing{remedy}"
    elif num_units == 1:
        yield f"all {num_videos} test videos are of one group: their metrics say next to nothing about others{remedy}"
    elif 0 < num_units < MIN_GROUPS <= num_groups and not has_folds:
        yield f"only {num_units} of {num_groups} groups are in the test set: --folds 5 tests them all"
    elif 0 < num_videos < MIN_GROUPS and num_groups == 0:
        yield f"only {num_videos} videos are in the test set: the metrics depend much on each of them{remedy}"


def result_caveats(
    subsets: Subsets,
    learned_subsets: Sequence[str],
    scores: Mapping[str, Mapping[str, Scores]],
    cross_validation: CrossValidation | None,
    classifier: Fusion,
) -> Iterator[str]:
    """Yield caveats about the probabilities, about heads that see nothing, or no more than the baseline.

    Args:
        subsets: `train`, `val` and `test`.
        learned_subsets: the names of those that the saved head is trained on.
        scores: by subset, then by classifier or part.
        cross_validation: its results, where there are any.
        classifier: the run's own.

    Yields:
        A sentence each.
    """
    yield from _single_row_caveats(subsets["train"], classifier)
    head = classifier.name
    num_videos = sum(len(subsets[subset]) for subset in _calibrated_by(classifier, learned_subsets))
    if 0 < num_videos < MIN_CALIBRATION_VIDEOS:
        yield (
            f"{count_of(num_videos, 'video')} to calibrate probabilities on, which are too few to calibrate them well "
            f"(at least {MIN_CALIBRATION_VIDEOS}): read them as a ranking"
        )
    tops = {name: its_scores.evaluation.top1 for name, its_scores in scores.get("test", {}).items()}
    if cross_validation is not None:
        tops = {name: cross_validation.pooled(name).top1 for name in cross_validation.heads}
    if head == BASELINE or not tops:
        return
    if tops[BASELINE] > tops[head]:
        yield f"the baseline ({tops[BASELINE]:.3f}) beats {head} ({tops[head]:.3f}): do not rely on this model"
    elif tops[BASELINE] == tops[head]:
        yield f"the baseline does as well as {head} ({tops[head]:.3f}): the mean feature alone is enough"


def _single_row_caveats(training: SequenceDataset, classifier: Fusion) -> Iterator[str]:
    """Yield a caveat for each stream most of whose videos have one row, while its heads see changes between rows."""
    heads: dict[str, list[Head]] = {}
    for member in classifier.fitted.values():
        for stream, head in zip(member.member.streams, member.heads, strict=True):
            heads.setdefault(stream, []).append(head)
    for stream, its in heads.items():
        num_single = int((training.stream(stream).lengths == 1).sum())
        if 2 * num_single > len(training) and not any(head.motion.sees_one_row for head in its):
            yield (
                f"{num_single} of {count_of(len(training), 'training video')} have one row of {stream}, and its heads "
                "see only what changes between rows: use --head mean, or extract more frames"
            )


def _calibrated_by(classifier: Fusion, learned_subsets: Sequence[str]) -> set[str]:
    """The subsets whose videos calibrate the saved classifier.

    Several members are calibrated on folds of the training set, before the refit; a linear head on folds of all that
    it learns from; another head on the videos that the tested one has not learned from.
    """
    if len(classifier.members) > 1:
        return {"train"}
    if classifier.members[0].is_linear:
        return set(learned_subsets)
    return {*learned_subsets, "val"} - {"train"}
