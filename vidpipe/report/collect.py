"""The contents of a run's report, as plain records: subsets, groups, metrics, errors, leaks."""

import base64
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidpipe.datasets.streams import kind_of
from vidpipe.heads.members import BASELINE
from vidpipe.report.heated import read_heated
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.run import Run
from vidpipe.runs.tables import FoldRow, PredictionRow
from vidpipe.video.files import find_videos
from vidpipe.video.thumbnails import THUMBNAIL_PIXELS, Thumbnail, read_thumbnails

__all__ = [
    "Case",
    "Group",
    "Report",
    "Score",
    "Subset",
    "TypicalCases",
    "collect_report",
    "evaluated_rows",
    "find_scores",
    "find_verdict",
]

logger = logging.getLogger(__name__)

MAX_MISTAKES = 12
MAX_TYPICAL_CLASSES = 12
NUM_TYPICAL = 2
"""Most typical, and least typical, videos of a class."""
EvaluatedRow = PredictionRow | FoldRow


@dataclass(frozen=True)
class Subset:
    """A subset of the run's split."""

    name: str
    num_videos: int
    num_groups: int
    labels: Mapping[str, int]
    """The number of videos by label."""


@dataclass(frozen=True)
class Group:
    """A group of videos in one subset, and the model's top-1 on them."""

    name: str
    subset: str
    num_videos: int
    top1: float | None
    """None where no prediction for its videos was evaluated."""


@dataclass(frozen=True)
class Score:
    """The metrics of a head on one evaluation set."""

    evaluation_set: str
    """A key of `EVALUATION_SETS`."""
    head: str
    kind: str
    """`model`, `part` of it, `baseline` or `majority`: always predicting the most frequent class."""
    top1: float
    num_videos: int
    evaluation: Evaluation | None = None
    """None for the majority class."""


@dataclass(frozen=True)
class Case:
    """A video of the evaluation set, and what the model predicts for it."""

    video: str
    group: str
    label: str
    predicted: str
    probability: float
    fold: int | None
    """None without cross-validation."""
    baseline: str
    """What the baseline predicts; empty where there is no baseline."""
    thumbnails: tuple[Thumbnail, ...] = ()
    problem: str = ""
    """Why there are no frames of the video, or what is wrong with them."""
    margin: str = ""
    """The parts of the margin in words, where the frames have heat maps."""


@dataclass(frozen=True)
class TypicalCases:
    """Of a class: the videos that the model is most certain of, and those that it takes least for the class."""

    most: tuple[Case, ...]
    least: tuple[Case, ...]


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    run: Run
    subsets: tuple[Subset, ...]
    groups: tuple[Group, ...]
    scores: tuple[Score, ...]
    mistakes: tuple[Case, ...]
    """Wrong predictions, most confident first."""
    num_mistakes: int
    """The number of videos that the model predicts wrongly at least once."""
    typical: Mapping[str, TypicalCases]
    """By label, for the classes with the lowest recall; empty where no frames are shown."""
    shows_frames: bool
    verdict: str
    """From `find_verdict`."""
    strip_uri: str = ""
    """Segments of the test videos, truth above prediction, as `data:image/png;base64,…`; empty where the labels are of
    whole videos."""

    def score_of(self, kind: str) -> Score | None:
        """Return the score of the model, the baseline or the majority class on the run's evaluation set."""
        return _score_of(self.scores, self.run, kind)


def collect_report(run: Run, *, videos: Sequence[Path] = (), heat_maps: bool = True) -> Report:
    """Collect the contents of a run's report.

    Args:
        run: from `Run.open`.
        videos: folders, files or CSVs, as given to `extract`: where to find frames.
        heat_maps: lay heat maps over the frames: why the model predicts what it does.

    Returns:
        The contents.

    Raises:
        RunError: a file of the run is missing or damaged.
        UsageError: a path of `videos` does not exist.
        InputError: a path of `videos` holds no videos.
    """
    rows = evaluated_rows(run)
    own = [row for row in rows if row.head == run.classifier]
    wrong = sorted((row for row in own if not row.right), key=lambda row: -row.probability)
    baseline = {_video_in_fold(row): row.predicted for row in rows if row.head == BASELINE != run.classifier}
    mistakes = [_case(row, baseline) for row in _one_a_video(wrong)[:MAX_MISTAKES]]
    typical = _typical_rows(own) if videos else {}
    cases = {row.video: _case(row, baseline) for pair in typical.values() for rows in pair for row in rows}
    cases |= {case.video: case for case in mistakes}
    if videos:
        cases = {case.video: case for case in _with_frames(list(cases.values()), run, videos, heat_maps=heat_maps)}
    return Report(
        run=run,
        subsets=tuple(_subsets(run)),
        groups=tuple(_groups(run, own)),
        scores=tuple(find_scores(run)),
        mistakes=tuple(cases[case.video] for case in mistakes),
        num_mistakes=len({row.video for row in wrong}),
        typical={
            label: TypicalCases(*(tuple(cases[row.video] for row in rows) for rows in pair))
            for label, pair in typical.items()
        },
        shows_frames=bool(videos),
        verdict=find_verdict(run),
        strip_uri=_strip_uri(run.path / "timelines.png") if run.timelines else "",
    )


def _strip_uri(path: Path) -> str:
    """The picture as a data URI; empty where there is none."""
    try:
        return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError:
        return ""


def evaluated_rows(run: Run) -> Sequence[EvaluatedRow]:
    """Return what each head predicts for each video of the run's evaluation set.

    Args:
        run: from `Run.open`.

    Returns:
        The rows, in the order of their file.

    Raises:
        RunError: the file is missing or damaged.
    """
    if run.evaluation_set == "folds":
        return run.folds
    return [row for row in run.predictions if row.split == run.evaluation_set]


def find_verdict(run: Run) -> str:
    """Say that the baseline, or the majority class, beats the model: `the baseline (0.153) beats lstm (0.024): …`.

    Args:
        run: from `Run.open`.

    Returns:
        A sentence without a full stop; empty where neither has a greater top-1 on the run's evaluation set.

    Raises:
        RunError: a file of the run is missing or damaged.
    """
    scores = list(find_scores(run))
    model = _score_of(scores, run, "model")
    others = [score for kind in ("baseline", "majority") if (score := _score_of(scores, run, kind))]
    if model is None or not others:
        return ""
    best = max(others, key=lambda score: score.top1)
    if best.top1 <= model.top1:
        return ""
    name = "the baseline" if best.kind == "baseline" else f"the {best.head}"
    return f"{name} ({best.top1:.3f}) beats {model.head} ({model.top1:.3f}): do not rely on this model"


def find_scores(run: Run) -> Iterator[Score]:
    """Yield the score of each head, then of the majority class, on each evaluation set."""
    for name, evaluations in run.evaluations.items():
        for head, evaluation in evaluations.items():
            kind = "model" if head == run.classifier else "baseline" if head == BASELINE else "part"
            yield Score(name, head, kind, evaluation.top1, evaluation.num_videos, evaluation)
        for evaluation in list(evaluations.values())[:1]:
            yield _majority_score(name, evaluation, Counter(row.label for row in run.splits))


def _majority_score(evaluation_set: str, evaluation: Evaluation, labels: Mapping[str, int]) -> Score:
    """The score of always predicting the most frequent label of the run."""
    label = max(labels, key=lambda label: labels[label])
    num_correct = sum(row.num_videos for row in evaluation.per_class if row.label == label)
    top1 = num_correct / evaluation.num_videos
    return Score(evaluation_set, f"majority class “{label}”", "majority", top1, evaluation.num_videos)


def _score_of(scores: Sequence[Score], run: Run, kind: str) -> Score | None:
    own = (score for score in scores if (score.evaluation_set, score.kind) == (run.evaluation_set, kind))
    return next(own, None)


def _subsets(run: Run) -> Iterator[Subset]:
    for name in ("train", "val", "test"):
        rows = [row for row in run.splits if row.split == name]
        yield Subset(name, len(rows), len({row.group for row in rows} - {""}), Counter(row.label for row in rows))


def _groups(run: Run, own: Sequence[EvaluatedRow]) -> Iterator[Group]:
    num_videos_of = Counter((row.group, row.split) for row in run.splits if row.group)
    correct = defaultdict(list)
    for row in own:
        subset = row.split if isinstance(row, PredictionRow) else None
        correct[row.group, subset].append(row.right)
    for (name, subset), num_videos in sorted(num_videos_of.items()):
        found = correct.get((name, subset)) or correct.get((name, None))
        yield Group(name, subset, num_videos, sum(found) / len(found) if found else None)


def _one_a_video(rows: Iterable[EvaluatedRow]) -> list[EvaluatedRow]:
    """The first row of each video."""
    first: dict[str, EvaluatedRow] = {}
    for row in rows:
        first.setdefault(row.video, row)
    return list(first.values())


def _case(row: EvaluatedRow, baseline: Mapping[Any, str]) -> Case:
    return Case(
        video=row.video,
        group=row.group,
        label=row.label,
        predicted=row.predicted,
        probability=row.probability,
        fold=row.fold if isinstance(row, FoldRow) else None,
        baseline=baseline.get(_video_in_fold(row), ""),
    )


def _typical_rows(own: Sequence[EvaluatedRow]) -> dict[str, tuple[list[EvaluatedRow], list[EvaluatedRow]]]:
    """By label, the most and the least typical videos; for the classes with the lowest recall."""
    by_label = defaultdict(list)
    for row in _one_a_video(own):
        by_label[row.label].append(row)
    recall = {label: sum(row.right for row in rows) / len(rows) for label, rows in by_label.items()}
    found = {}
    for label in sorted(by_label, key=lambda label: (recall[label], label))[:MAX_TYPICAL_CLASSES]:
        ranked = sorted(by_label[label], key=lambda row: row.probability if row.right else -row.probability)
        most = [row for row in ranked[::-1] if row.right][:NUM_TYPICAL]
        found[label] = most, [row for row in ranked if row not in most][:NUM_TYPICAL]
    return found


def _video_in_fold(row: EvaluatedRow) -> tuple[str, int | None, int | None]:
    return (row.video, row.fold, row.seed) if isinstance(row, FoldRow) else (row.video, None, None)


def _shown_part(run: Run) -> Mapping[str, Any]:
    """The preprocessing of the first stream that sees pictures; the centre of the picture where none does."""
    seen = [key.preprocessing for key in run.keys.values() if kind_of(key) in ("image", "clip")]
    return seen[0] if seen else {"resize": THUMBNAIL_PIXELS, "crop": THUMBNAIL_PIXELS}


def _with_frames(cases: Sequence[Case], run: Run, videos: Sequence[Path], *, heat_maps: bool) -> Iterator[Case]:
    """The cases with frames of their videos, or with the problem of one that cannot be found or decoded."""
    found = {file.id: file for file in find_videos(videos)}
    wanted = [case for case in cases if case.video in found]
    heated = read_heated(run, wanted, found) if heat_maps else {}
    others = [found[case.video] for case in wanted if case.video not in heated]
    thumbnails, problems = read_thumbnails(others, _shown_part(run))
    size_bytes = {row.video: row.size_bytes for row in run.splits}
    for case in cases:
        file = found.get(case.video)
        problem = problems.get(case.video, "")
        if file is None:
            problem = f"not found in {', '.join(map(str, videos))}"
        elif not problem and file.path.stat().st_size != size_bytes.get(case.video):
            problem = "not the file that the features came from: its size differs"
        if problem:
            logger.warning("%s: %s", case.video, problem)
        if case.video in heated:
            yield replace(case, **vars(heated[case.video]), problem=problem)
        else:
            yield replace(case, thumbnails=thumbnails.get(case.video, ()), problem=problem)
