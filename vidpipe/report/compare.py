"""Comparison of runs: their metrics, and a significance test for each two that were tested on the same videos."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from vidpipe.config import TrainConfig
from vidpipe.errors import count_of
from vidpipe.report.collect import Score, evaluated_rows, find_scores, find_verdict
from vidpipe.runs.run import Run

__all__ = ["ComparedRun", "Comparison", "RunPair", "compare_runs"]


@dataclass(frozen=True)
class _TestedVideo:
    """A video that a run was tested on; the size distinguishes it from another file of the same name."""

    video: str
    size_bytes: int
    label: str


@dataclass(frozen=True)
class ComparedRun:
    """A run with what the comparison shows of it."""

    run: Run
    name: str
    """The folder's name, or its path where two runs have the same name."""
    protocol: str
    """How the run was tested: `test set`, `5 folds`."""
    model: Score | None
    """None where no video was kept for testing."""
    baseline: Score | None
    interval: tuple[float, float] | None
    """95 % confidence interval of the model's top-1; None with too few groups."""
    caveats: tuple[str, ...]
    correct: Mapping[_TestedVideo, bool]
    """Whether the model predicts each video correctly; of a video tested several times, in most of the tests."""


@dataclass(frozen=True)
class RunPair:
    """Two runs, and the test of their difference."""

    one: ComparedRun
    other: ComparedRun
    reason: str
    """Why the two cannot be compared; empty where they can. The numbers below are 0 where they cannot."""
    num_videos: int = 0
    num_only_one: int = 0
    """Videos that `one` predicts correctly and `other` does not."""
    num_only_other: int = 0
    p_value: float | None = None
    """McNemar's exact test: how likely a difference this large is by chance. McNemar 1947."""


@dataclass(frozen=True)
class Comparison:
    """Runs, and each pair of them."""

    runs: tuple[ComparedRun, ...]
    pairs: tuple[RunPair, ...]

    @property
    def is_comparable(self) -> bool:
        """Whether each two runs can be compared."""
        return not any(pair.reason for pair in self.pairs)


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare runs with each other.

    Args:
        runs: from `Run.open`, in the order in which to show them.

    Returns:
        The runs with their metrics, and each pair of them.

    Raises:
        RunError: a file of a run is missing or damaged.
    """
    compared = tuple(_compared(run, name) for run, name in zip(runs, _names(runs), strict=True))
    return Comparison(compared, tuple(_pair(one, other) for one, other in combinations(compared, 2)))


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _compared(run: Run, name: str) -> ComparedRun:
    scores = {score.kind: score for score in find_scores(run) if score.evaluation_set == run.evaluation_set}
    verdict = find_verdict(run)
    return ComparedRun(
        run,
        name,
        protocol=_protocol(run.evaluation_set, run.config),
        model=scores.get("model"),
        baseline=scores.get("baseline"),
        interval=_interval(run, scores.get("model")),
        caveats=tuple(dict.fromkeys([verdict, *run.warnings] if verdict else run.warnings)),
        correct=_correct(run),
    )


def _interval(run: Run, model: Score | None) -> tuple[float, float] | None:
    if run.evaluation_set == "folds" and run.classifier in run.fold_scores:
        estimate = run.fold_scores[run.classifier].estimate
        return estimate.low, estimate.high
    return model.evaluation.top1_interval if model and model.evaluation else None


def _protocol(evaluation_set: str, config: TrainConfig) -> str:
    if evaluation_set != "folds":
        return {"test": "test set", "val": "validation set"}.get(evaluation_set, "–")
    folds = "leave one group out" if config.leave_one_group_out else count_of(config.folds or 1, "fold")
    if config.folds is None and not config.leave_one_group_out:
        folds = "several splits"
    return f"{folds}, {count_of(config.repeats, 'seed')}" if config.repeats > 1 else folds


def _correct(run: Run) -> dict[_TestedVideo, bool]:
    sizes = {row.video: row.size_bytes for row in run.splits}
    found: dict[_TestedVideo, list[bool]] = defaultdict(list)
    for row in evaluated_rows(run):
        if row.head == run.classifier:
            found[_TestedVideo(row.video, sizes.get(row.video, 0), row.label)].append(row.right)
    return {video: 2 * sum(correct) > len(correct) for video, correct in found.items()}


def _pair(one: ComparedRun, other: ComparedRun) -> RunPair:
    reason = "; ".join(_reasons(one, other))
    if reason:
        return RunPair(one, other, reason)
    from scipy.stats import binomtest

    only_one = sum(correct and not other.correct[video] for video, correct in one.correct.items())
    only_other = sum(correct and not one.correct[video] for video, correct in other.correct.items())
    differing = only_one + only_other
    p_value = float(binomtest(only_one, differing).pvalue) if differing else None
    return RunPair(one, other, "", len(one.correct), only_one, only_other, p_value)


def _reasons(one: ComparedRun, other: ComparedRun) -> Iterator[str]:
    """Why the metrics of two runs cannot be compared."""
    untested = [run.name for run in (one, other) if not run.correct]
    if untested:
        yield f"no video was kept for testing {' and '.join(untested)}"
        return
    if one.run.class_names != other.run.class_names:
        yield "they have different classes"
    if one.correct.keys() != other.correct.keys():
        num_shared = len(one.correct.keys() & other.correct.keys())
        yield f"tested on different videos ({len(one.correct)} and {len(other.correct)}, {num_shared} in common)"
    validated = [run.name for run in (one, other) if run.run.evaluation_set == "val"]
    if len(validated) == 1:
        yield f"{validated[0]} was evaluated on its validation set only, which gives optimistic metrics"
