"""Runs beside each other: their figures, and whether these can be compared: only tests on the same videos can."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from vidpipe.config import TrainConfig
from vidpipe.errors import count_of
from vidpipe.report.collect import (
    Score,
    find_judge,
    find_verdict,
    read_folds,
    read_predictions,
    read_scores,
    told_if_not_whole,
)
from vidpipe.runs.run import Run

__all__ = ["ComparedRun", "Comparison", "Pair", "compare_runs"]


@dataclass(frozen=True)
class TestedVideo:
    """A video that a run was tested on, told from another file of the same name by its size."""

    video: str
    size_bytes: int
    label: str


@dataclass(frozen=True)
class ComparedRun:
    """A run as it stands in the comparison."""

    run: Run
    name: str
    """The folder's name, or its path where two runs have the same."""
    judge: str
    """By what it is judged: a key of `JUDGES`, or nothing."""
    protocol: str
    """How it was tested, in words: `test part`, `5 folds`."""
    model: Score | None
    """None where nothing was kept to test on; so is `interval`."""
    baseline: Score | None
    interval: tuple[float, float] | None
    """95 % confidence interval of top-1; None of too few groups."""
    warnings: tuple[str, ...]
    rights: Mapping[TestedVideo, bool]
    """Whether the model was right; where a video was tested several times, mostly."""


@dataclass(frozen=True)
class Pair:
    """Two runs, and what may be said of their difference."""

    one: ComparedRun
    other: ComparedRun
    reason: str
    """Why their figures cannot be compared; empty where they can, and only then are the numbers below more than 0."""
    num_videos: int = 0
    num_only_one: int = 0
    """Videos that `one` gets right and `other` wrong."""
    num_only_other: int = 0
    p_value: float | None = None
    """McNemar's exact test: how often chance alone would make the two differ as much. McNemar 1947."""


@dataclass(frozen=True)
class Comparison:
    """Runs, and each two of them."""

    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether all figures may be compared."""
        return not any(pair.reason for pair in self.pairs)


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Set runs beside each other.

    Args:
        runs: from `Run.open`, in the order in which to show them.

    Returns:
        the runs with their figures, and each two of them.

    Raises:
        RunError: a file of a run is missing or damaged.
    """
    compared = tuple(_compared(run, name) for run, name in zip(runs, _names(runs), strict=True))
    return Comparison(compared, tuple(_pair(one, other) for one, other in combinations(compared, 2)))


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _compared(run: Run, name: str) -> ComparedRun:
    judge = find_judge(run)
    verdict = find_verdict(run)
    with told_if_not_whole(run):
        scores = {score.kind: score for score in read_scores(run) if score.judge == judge}
        own = next((folds for folds in read_folds(run) if folds.head == run.config.head), None)
        rights = _rights(run, judge)
    model = scores.get("model")
    interval = model.evaluation.top1_interval if model and model.evaluation else None
    if judge == "folds" and own is not None:
        interval = own.estimate.low, own.estimate.high
    warnings = dict.fromkeys([verdict, *run.warnings]) if verdict else run.warnings
    return ComparedRun(
        run, name, judge, _protocol(judge, run.config), model, scores.get("baseline"), interval, tuple(warnings), rights
    )


def _protocol(judge: str, config: TrainConfig) -> str:
    if judge != "folds":
        return {"test": "test part", "val": "validation part"}.get(judge, "–")
    folds = "leave one group out" if config.leave_one_group_out else count_of(config.folds or 1, "fold")
    if config.folds is None and not config.leave_one_group_out:
        folds = "several splits"
    return f"{folds}, {count_of(config.repeats, 'seed')}" if config.repeats > 1 else folds


def _rights(run: Run, judge: str) -> dict[TestedVideo, bool]:
    sizes = {row.video: row.size_bytes for row in run.splits}
    told: dict[TestedVideo, list[bool]] = defaultdict(list)
    for row in read_predictions(run, judge):
        if row["head"] == run.config.head:
            video = TestedVideo(row["video"], sizes.get(row["video"], 0), row["label"])
            told[video].append(row["right"] == "1")
    return {video: 2 * sum(rights) > len(rights) for video, rights in told.items()}


def _pair(one: ComparedRun, other: ComparedRun) -> Pair:
    reason = "; ".join(_reasons(one, other))
    if reason:
        return Pair(one, other, reason)
    from scipy.stats import binomtest

    only_one = sum(right and not other.rights[video] for video, right in one.rights.items())
    only_other = sum(right and not one.rights[video] for video, right in other.rights.items())
    differing = only_one + only_other
    p_value = float(binomtest(only_one, differing).pvalue) if differing else None
    return Pair(one, other, "", len(one.rights), only_one, only_other, p_value)


def _reasons(one: ComparedRun, other: ComparedRun) -> Iterator[str]:
    """Why two runs' figures cannot be compared."""
    untested = [run.name for run in (one, other) if not run.rights]
    if untested:
        yield f"nothing was kept to test {' and '.join(untested)} on"
        return
    if one.run.class_names != other.run.class_names:
        yield "they know different classes"
    if one.rights.keys() != other.rights.keys():
        shared = len(one.rights.keys() & other.rights.keys())
        yield f"tested on different videos ({len(one.rights)} and {len(other.rights)}, {shared} of them the same)"
    if (one.judge == "val") != (other.judge == "val"):
        validated = one if one.judge == "val" else other
        yield f"{validated.name} has only its validation part, which flatters"
