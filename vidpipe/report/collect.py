"""What a run folder tells: its parts, groups, figures, worst mistakes and leaks, as plain records."""

import csv
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vidpipe.errors import RunError
from vidpipe.report.stills import Still, read_stills
from vidpipe.runs.metrics import MAX_CLASSES_WITHOUT_TOP5, ClassMetrics, Estimate, Evaluation, ReliabilityBin
from vidpipe.runs.run import Run
from vidpipe.video.files import find_videos

__all__ = [
    "JUDGES",
    "Folds",
    "Group",
    "Mistake",
    "Part",
    "Report",
    "Score",
    "collect_report",
    "find_judge",
    "find_verdict",
    "read_folds",
    "read_predictions",
    "read_scores",
    "told_if_not_whole",
]

logger = logging.getLogger(__name__)

JUDGES = {"test": "the test part", "folds": "cross-validation", "val": "the validation part"}
"""What a run can be judged by, the best first."""
MAX_MISTAKES = 12


@dataclass(frozen=True)
class Part:
    """A part of the run's split."""

    name: str
    num_videos: int
    num_groups: int
    labels: Mapping[str, int]
    """How many videos have each label."""


@dataclass(frozen=True)
class Group:
    """A group, where it stood, and how many of its videos the model told rightly."""

    name: str
    part: str
    num_videos: int
    top1: float | None
    """None where none of its videos was predicted."""


@dataclass(frozen=True)
class Score:
    """A head held against one part."""

    judge: str
    head: str
    kind: str
    """`model`, `baseline` or `guess`."""
    top1: float
    num_videos: int
    evaluation: Evaluation | None = None
    """None for a guess."""


@dataclass(frozen=True)
class Folds:
    """A head over all splits of a cross-validation."""

    head: str
    estimate: Estimate
    rows: tuple[Mapping[str, Any], ...]
    """`fold`, `seed`, `top1` and `num_videos` of each."""


@dataclass(frozen=True)
class Mistake:
    """A confident wrong answer."""

    video: str
    group: str
    label: str
    predicted: str
    probability: float
    fold: str
    """Of the cross-validation; empty where there was none."""
    baseline: str
    """What the baseline said; empty where there is none."""
    stills: tuple[Still, ...] = ()
    problem: str = ""
    """Why there are no frames of it, or what is wrong with them."""


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    run: Run
    versions: Mapping[str, str]
    parts: tuple[Part, ...]
    groups: tuple[Group, ...]
    scores: tuple[Score, ...]
    folds: tuple[Folds, ...]
    history: tuple[Mapping[str, float], ...]
    judge: str
    """By what the model is judged below: a key of `JUDGES`, or nothing."""
    mistakes: tuple[Mistake, ...]
    num_mistakes: int
    leaks: tuple[Mapping[str, str], ...]
    shows_frames: bool
    verdict: str
    """From `find_verdict`."""

    def score_of(self, kind: str) -> Score | None:
        """The model's, the baseline's or the guess's, by `judge`."""
        return next((score for score in self.scores if (score.judge, score.kind) == (self.judge, kind)), None)


def collect_report(run: Run, *, videos: Sequence[Path] = ()) -> Report:
    """Read what a run folder tells.

    Args:
        run: from `Run.open`.
        videos: folders, files or CSVs, as given to `extract`: where to take frames of the worst mistakes from.

    Raises:
        RunError: a file of the run is missing or damaged.
        UsageError: a path of `videos` is not there.
        InputError: one holds no videos.
    """
    judge = find_judge(run)
    predictions = read_predictions(run, judge)
    own = [row for row in predictions if row["head"] == run.config.head]
    with told_if_not_whole(run):
        wrong = sorted((row for row in own if row["right"] == "0"), key=lambda row: -float(row["probability"]))
        mistakes = tuple(_mistakes(wrong, predictions, run.config.head))
        scores, folds = tuple(read_scores(run)), tuple(read_folds(run))
        history, leaks = tuple(_history(run)), tuple(_leaks(run))
        verdict = find_verdict(run)
        versions = dict(json.loads((run.path / "run.json").read_text(encoding="utf-8"))["versions"])
        if videos:
            mistakes = tuple(_with_stills(mistakes, run, videos))
    return Report(
        run=run,
        versions=versions,
        parts=tuple(_parts(run)),
        groups=tuple(_groups(run, own)),
        scores=scores,
        folds=folds,
        history=history,
        judge=judge,
        mistakes=mistakes,
        num_mistakes=len({row["video"] for row in wrong}),
        leaks=leaks,
        shows_frames=bool(videos),
        verdict=verdict,
    )


@contextmanager
def told_if_not_whole(run: Run) -> Iterator[None]:
    """Raise a RunError where a file of the run does not hold what it should."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path}: the run is not whole ({type(error).__name__}: {error}); train it again") from error


def find_judge(run: Run) -> str:
    """By what a run is judged: the first key of `JUDGES` that it has metrics of, or nothing."""
    return next((judge for judge in JUDGES if judge in run.metrics), "")


def find_verdict(run: Run) -> str:
    """The headline of a model that its baseline, or a guess, beats: `the baseline (0.153) beats lstm (0.024): …`.

    Returns:
        a sentence without a full stop; empty where neither has a greater top-1.

    Raises:
        RunError: a file of the run is missing or damaged.
    """
    with told_if_not_whole(run):
        scores = [score for score in read_scores(run) if score.judge == find_judge(run)]
    model = next((score for score in scores if score.kind == "model"), None)
    if model is None:
        return ""
    better = [score for score in scores if score.kind != "model" and score.top1 > model.top1]
    if not better:
        return ""
    best = max(better, key=lambda score: score.top1)
    name = "the baseline" if best.kind == "baseline" else f"to guess {best.head}"
    return f"{name} ({best.top1:.3f}) beats {model.head} ({model.top1:.3f}): do not rely on this model"


def _read(run: Run, name: str) -> list[dict[str, str]]:
    """The lines of one of the run's tables."""
    try:
        with (run.path / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{run.path}: {name}.csv cannot be read ({error}); train it again") from error


def read_predictions(run: Run, judge: str) -> list[dict[str, str]]:
    """What each head said of the videos that the run is judged by."""
    if not judge:
        return []
    rows = _read(run, "folds" if judge == "folds" else "predictions")
    needed = {"head", "video", "group", "label", "predicted", "probability", "right"}
    needed |= {"fold", "seed"} if judge == "folds" else {"split"}
    if any(needed - {name for name, value in row.items() if value is not None} for row in rows):
        raise RunError(f"{run.path}: its predictions have not the columns {', '.join(sorted(needed))}; train it again")
    return [row for row in rows if row.get("split", judge) == judge]


def _history(run: Run) -> Iterator[Mapping[str, float]]:
    for row in _read(run, "history"):
        yield {"epoch": float(row["epoch"])} | {name: float(value) for name, value in row.items() if value}


def _leaks(run: Run) -> Iterator[Mapping[str, str]]:
    columns = ("video", "split", "other", "other_split", "cosine", "same")
    for row in _read(run, "leaks") if (run.path / "leaks.csv").exists() else ():
        yield {name: row[name] for name in columns}


def _parts(run: Run) -> Iterator[Part]:
    for name in ("train", "val", "test"):
        rows = [row for row in run.splits if row.split == name]
        labels = Counter(row.label for row in rows)
        yield Part(name, len(rows), len({row.group for row in rows} - {""}), labels)


def _groups(run: Run, own: Sequence[Mapping[str, str]]) -> Iterator[Group]:
    videos, rights = Counter((row.group, row.split) for row in run.splits if row.group), defaultdict(list)
    for row in own:
        rights[row["group"], row.get("split")].append(row["right"] == "1")  # the folds' rows have no split
    for (name, part), num_videos in sorted(videos.items()):
        told = rights.get((name, part)) or rights.get((name, None))
        yield Group(name, part, num_videos, sum(told) / len(told) if told else None)


def read_scores(run: Run) -> Iterator[Score]:
    """Each head's score by each judge, and that of a guess."""
    for judge in (judge for judge in JUDGES if judge in run.metrics):
        evaluations = {head: _evaluation(figures) for head, figures in run.metrics[judge].items()}
        for head, evaluation in evaluations.items():
            kind = "model" if head == run.config.head else "baseline"
            yield Score(judge, head, kind, evaluation.top1, evaluation.num_videos, evaluation)
        yield _guess(judge, evaluations[run.config.head], Counter(row.label for row in run.splits))


def _guess(judge: str, evaluation: Evaluation, labels: Mapping[str, int]) -> Score:
    """What it is worth to say the run's commonest label always."""
    label = max(labels, key=lambda label: labels[label])
    num_right = sum(row.num_videos for row in evaluation.per_class if row.label == label)
    return Score(judge, f"always “{label}”", "guess", num_right / evaluation.num_videos, evaluation.num_videos)


def _evaluation(figures: Mapping[str, Any]) -> Evaluation:
    """Back from `Evaluation.as_dict`, whatever else stands beside it."""
    values = {field.name: figures[field.name] for field in fields(Evaluation)}
    values["per_class"] = tuple(map(_class_metrics, figures["per_class"]))
    values["top5"] = None if len(values["per_class"]) <= MAX_CLASSES_WITHOUT_TOP5 else values["top5"]
    values["reliability"] = tuple(ReliabilityBin(**row) for row in figures["reliability"])
    return Evaluation(**values)


def _class_metrics(row: Mapping[str, Any]) -> ClassMetrics:
    """A class's metrics. Runs of earlier versions say 0 for a class without videos, where nothing was measured."""
    if row["num_videos"]:
        return ClassMetrics(**row)
    return ClassMetrics(row["label"], None, None, None, None, 0)


def read_folds(run: Run) -> Iterator[Folds]:
    """Each head over the splits of the cross-validation; nothing where there was none."""
    for head, figures in run.metrics.get("folds", {}).items():
        rows = tuple({name: row[name] for name in ("fold", "seed", "top1", "num_videos")} for row in figures["folds"])
        yield Folds(head, Estimate(**figures["estimate"]), rows)


def _mistakes(
    wrong: Sequence[Mapping[str, str]], predictions: Sequence[Mapping[str, str]], head: str
) -> Iterator[Mistake]:
    """The first of the wrong answers, one a video."""
    baseline = {_place(row): row["predicted"] for row in predictions if row["head"] != head}
    worst_of: dict[str, Mapping[str, str]] = {}
    for row in wrong:
        worst_of.setdefault(row["video"], row)
    for row in list(worst_of.values())[:MAX_MISTAKES]:
        yield Mistake(
            video=row["video"],
            group=row["group"],
            label=row["label"],
            predicted=row["predicted"],
            probability=float(row["probability"]),
            fold=row.get("fold", ""),
            baseline=baseline.get(_place(row), ""),
        )


def _place(row: Mapping[str, str]) -> tuple[str, ...]:
    """A video in its fold."""
    return row["video"], row.get("fold", ""), row.get("seed", "")


def _with_stills(mistakes: Sequence[Mistake], run: Run, videos: Sequence[Path]) -> Iterator[Mistake]:
    """The mistakes with frames of their videos; one that cannot be found or read says why."""
    found = {file.id: file for file in find_videos(videos)}
    wanted = [found[mistake.video] for mistake in mistakes if mistake.video in found]
    stills, problems = read_stills(wanted, run.key.preprocessing)
    size_bytes = {row.video: row.size_bytes for row in run.splits}
    for mistake in mistakes:
        file = found.get(mistake.video)
        problem = problems.get(mistake.video, "")
        if file is None:
            problem = f"not found in {', '.join(map(str, videos))}"
        elif not problem and file.path.stat().st_size != size_bytes.get(mistake.video):
            problem = "not the file that the features came from: its size differs"
        if problem:
            logger.warning("%s: %s", mistake.video, problem)
        yield replace(mistake, stills=stills.get(mistake.video, ()), problem=problem)
