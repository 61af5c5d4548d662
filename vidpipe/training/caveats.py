"""Caveats about a run's metrics: small or unequal data, leaks, few videos to calibrate on, a better baseline."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from vidpipe.config import LINEAR_HEADS
from vidpipe.datasets.leaks import Leak
from vidpipe.datasets.splits import Split
from vidpipe.errors import count_of
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.run import BASELINE
from vidpipe.training.calibration import MIN_CALIBRATION_VIDEOS
from vidpipe.training.cross_validation import CrossValidation

__all__ = ["result_caveats", "split_caveats"]

MIN_GROUPS = 10
MAX_IMBALANCE = 3


def split_caveats(split: Split, leaks: Sequence[Leak], *, has_folds: bool) -> Iterator[str]:
    """Caveats about the videos and how they are divided."""
    videos = [*split.train, *split.val, *split.test]
    num_groups = len({video.group for video in videos if video.group})
    if num_groups == 0:
        yield "no groups are known: clips of one source may be in both training and test; name them with --group-by"
    elif num_groups < MIN_GROUPS:
        yield f"only {count_of(num_groups, 'group')}: the metrics depend on which of them are in the test part"
    yield from _test_caveats(split, num_groups, has_folds=has_folds)
    counts = Counter(video.label for video in videos)
    (most, most_videos), *_, (least, least_videos) = counts.most_common()
    if most_videos > MAX_IMBALANCE * least_videos:
        yield (
            f"{count_of(most_videos, 'video')} of {most}, {least_videos} of {least}: look at the balanced accuracy, "
            "and consider --balance"
        )
    if leaks:
        first = leaks[0]
        yield (
            f"{count_of(len(leaks), 'pair')} of videos in different parts {'looks' if len(leaks) == 1 else 'look'} "
            f"alike, such as {first.video} ({first.split}) and {first.other} ({first.other_split}), "
            f"cosine {first.cosine:.3f}; leaks.csv lists all"
        )


def _test_caveats(split: Split, num_groups: int, *, has_folds: bool) -> Iterator[str]:
    """A test part so small that its metrics say little."""
    num_test, num_tested = len(split.test), len({video.unit for video in split.test})
    remedy = "" if has_folds else "; --folds 5 tests all videos"
    if num_test == 1:
        yield f"only 1 video is in the test part: its metrics say next to nothing{remedy}"
    elif num_tested == 1:
        yield f"all {num_test} test videos are of one group: their metrics say next to nothing about others{remedy}"
    elif 0 < num_tested < MIN_GROUPS <= num_groups and not has_folds:
        yield f"only {num_tested} of {num_groups} groups are in the test part: --folds 5 tests them all"
    elif 0 < num_test < MIN_GROUPS and num_groups == 0:
        yield f"only {num_test} videos are in the test part: their metrics depend much on each of them{remedy}"


def result_caveats(
    split: Split,
    learned_parts: Sequence[str],
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    cross_validation: CrossValidation | None,
    head: str,
) -> Iterator[str]:
    """Caveats about the probabilities, and a head that its baseline beats."""
    calibrated_by = {*learned_parts, "val"} - {"train"} if head not in LINEAR_HEADS else learned_parts
    num_videos = sum(len(getattr(split, part)) for part in calibrated_by)
    if 0 < num_videos < MIN_CALIBRATION_VIDEOS:
        yield (
            f"{count_of(num_videos, 'video')} to calibrate probabilities on, which are too few to calibrate them well "
            f"(at least {MIN_CALIBRATION_VIDEOS}): read them as a ranking"
        )
    by_head = cross_validation.as_dict() if cross_validation else {}
    tops = {name: figures["top1"] for name, figures in by_head.items()}
    tops = tops or {name: evaluation.top1 for name, evaluation in evaluations.get("test", {}).items()}
    if head == BASELINE or not tops:
        return
    if tops[BASELINE] > tops[head]:
        yield f"the baseline ({tops[BASELINE]:.3f}) beats {head} ({tops[head]:.3f}): do not rely on this model"
    elif tops[BASELINE] == tops[head]:
        yield f"the baseline does as well as {head} ({tops[head]:.3f}): the mean feature alone is enough"
