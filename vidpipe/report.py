"""A run -> one HTML page that opens from disk, asks the network for nothing, and is whole without its script.

Everything on it is read from the run folder; the frames of the worst mistakes come from the videos, where they are
given. All names are the user's: Jinja2 escapes each, and what cannot be seen in one (a change of writing direction, a
control character) is shown as its escape.
"""

import base64
import csv
import hashlib
import io
import json
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from vidpipe import __version__
from vidpipe.charts import HEIGHT, WIDTH, Axis, Chart, Line, span
from vidpipe.config import Sampling, TrainConfig, settings
from vidpipe.errors import RunError
from vidpipe.metrics import ClassMetrics, Estimate, Evaluation, ReliabilityBin
from vidpipe.records import FrameBatch, Preprocessing, VideoFailure, VideoFile
from vidpipe.run import Run
from vidpipe.video.decoding import decode_videos
from vidpipe.video.files import find_videos

__all__ = ["Mistake", "Report", "collect_report", "write_report"]

logger = logging.getLogger(__name__)

JUDGES = {"test": "the test part", "folds": "cross-validation", "val": "the validation part"}
"""What a run can be judged by, the best first."""
MOST_MISTAKES = 12
MOST_PAIRS = 20
MOST_LEAKS = 50
MOST_ROWS = 1000
"""Of groups, and of test parts."""
MOST_CELLS_ASIDE = 200
"""Classes a side of the confusion matrix: of more, those with the most mistakes are shown."""
FEW_CLASSES = 12
"""Up to so many need no overview beside the matrix."""
NUM_STILLS = 6
STILL_PIXELS = 144
JPEG_QUALITY = 72
TIMEOUT_SECONDS = 60.0
SHADES = 10
UNIT = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


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
class Cell:
    """A cell of the confusion matrix."""

    row: int
    column: int
    count: int
    shade: int
    """1 to `SHADES`, by the root of its share of the row; 0 where it is empty."""


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix, of all classes or of those with the most mistakes."""

    class_names: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    num_left_out: int
    has_overview: bool


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another."""

    label: str
    predicted: str
    count: int
    share: float
    """Of the label's videos."""


@dataclass(frozen=True)
class Still:
    """A frame of a video."""

    pts_seconds: float
    uri: str
    """`data:image/jpeg;base64,…`"""


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
    judge = next((judge for judge in JUDGES if judge in run.metrics), "")
    predictions = _read_predictions(run, judge)
    own = [row for row in predictions if row["head"] == run.config.head]
    try:
        wrong = sorted((row for row in own if row["right"] == "0"), key=lambda row: -float(row["probability"]))
        mistakes = tuple(_mistakes(wrong, predictions, run.config.head))
        scores, folds = tuple(_scores(run)), tuple(_folds(run))
        history, leaks = tuple(_history(run)), tuple(_leaks(run))
        versions = dict(json.loads((run.path / "run.json").read_text(encoding="utf-8"))["versions"])
        if videos:
            mistakes = tuple(_with_stills(mistakes, run, videos))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.path}: the run is not whole ({type(error).__name__}: {error}); train it again") from error
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
    )


def write_report(report: Report, path: Path) -> None:
    """Write the page, aside first: a page that is there is whole.

    Raises:
        RunError: it cannot be written.
    """
    page = _render(report)
    target = path.resolve()
    aside = target.with_name(f".{target.name}.partial")
    try:
        if target.exists() and not target.is_file():
            raise OSError("a folder or a device is there")
        aside.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")  # a lone surrogate is no UTF-8
        aside.replace(target)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise RunError(
            f"{path}: the report cannot be written ({error.strerror or error}); -o names another file"
        ) from error


def _read(run: Run, name: str) -> list[dict[str, str]]:
    """The lines of one of the run's tables."""
    try:
        with (run.path / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{run.path}: {name}.csv cannot be read ({error}); train it again") from error


def _read_predictions(run: Run, judge: str) -> list[dict[str, str]]:
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
        rights[row["group"]].append(row["right"] == "1")
    for (name, part), num_videos in sorted(videos.items()):
        told = rights.get(name)
        yield Group(name, part, num_videos, sum(told) / len(told) if told else None)


def _scores(run: Run) -> Iterator[Score]:
    """By each judge, each head and a guess."""
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
    values["per_class"] = tuple(ClassMetrics(**row) for row in figures["per_class"])
    values["reliability"] = tuple(ReliabilityBin(**row) for row in figures["reliability"])
    return Evaluation(**values)


def _folds(run: Run) -> Iterator[Folds]:
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
    for row in list(worst_of.values())[:MOST_MISTAKES]:
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
    stills, problems = _read_stills(wanted, run.key.preprocessing)
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


def _read_stills(
    videos: Sequence[VideoFile], preprocessing: Mapping[str, Any]
) -> tuple[dict[str, tuple[Still, ...]], dict[str, str]]:
    """Frames of each video, cropped as the image model sees them; and of those that cannot be read, why."""
    stills: dict[str, tuple[Still, ...]] = {}
    problems: dict[str, str] = {}
    side = round(STILL_PIXELS * preprocessing["resize"] / preprocessing["crop"])
    small = Preprocessing(side, STILL_PIXELS, "bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    sampling = Sampling("uniform", num_frames=NUM_STILLS)
    decoding = decode_videos(videos, sampling=sampling, preprocessing=small, workers=1, timeout_seconds=TIMEOUT_SECONDS)
    for result in decoding if videos else ():
        if isinstance(result, FrameBatch):
            seconds = result.plan.pts_seconds
            stills[result.video.id] = tuple(
                Still(float(when), _jpeg(frame.transpose(1, 2, 0)))
                for when, frame in zip(seconds, result.frames, strict=True)
            )
        elif isinstance(result, VideoFailure):
            stills.pop(result.video_id, None)
            problems[result.video_id] = result.message
    return stills, problems


def _jpeg(frame: NDArray[np.uint8]) -> str:
    """(H, W, 3) as a data URI."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _confusion(evaluation: Evaluation) -> Confusion:
    counts = np.asarray(evaluation.confusion)  # (K, K)
    wrong = counts - np.diag(np.diag(counts))
    kept = np.arange(len(counts))
    if len(counts) > MOST_CELLS_ASIDE:
        num_wrong = wrong.sum(axis=0) + wrong.sum(axis=1)
        kept = np.sort(np.argsort(-num_wrong, kind="stable")[:MOST_CELLS_ASIDE])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shades = np.ceil(SHADES * np.sqrt(shares)).astype(int)
    return Confusion(
        class_names=tuple(evaluation.per_class[index].label for index in kept),
        cells=tuple(
            tuple(Cell(r, c, int(counts[i, j]), int(shades[i, j])) for c, j in enumerate(kept))
            for r, i in enumerate(kept)
        ),
        num_left_out=len(counts) - len(kept),
        has_overview=len(kept) > FEW_CLASSES,
    )


def _pairs(evaluation: Evaluation) -> list[Pair]:
    """Which class is most often taken for which."""
    names = [row.label for row in evaluation.per_class]
    pairs = [
        Pair(names[i], names[j], count, count / sum(row))
        for i, row in enumerate(evaluation.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))[:MOST_PAIRS]


def _curves(history: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Loss and top-1 by epoch; none of a head that is fitted in one go."""
    if len({row["epoch"] for row in history}) < 2:
        return []
    epochs = span("epoch", [row["epoch"] for row in history], whole=True)
    charts = []
    for quantity, title in (("loss", "Loss"), ("top1", "Top-1 accuracy")):
        lines = tuple(_lines(history, quantity))
        values = [y for line in lines for _, y in line.points]
        if values:
            axis = Axis("top-1", 0, 1, UNIT) if quantity == "top1" else span(quantity, values, low=0)
            charts.append(Chart(title, epochs, axis, lines))
    return charts


def _lines(history: Sequence[Mapping[str, float]], quantity: str) -> Iterator[Line]:
    """One for each part, and for each member of an ensemble."""
    for part, name in (("train", "training"), ("val", "validation")):
        column = f"{part}_{quantity}"
        for member in sorted({row.get("member", 0) for row in history}):
            rows = [row for row in history if row.get("member", 0) == member and column in row]
            points = tuple((row["epoch"], row[column]) for row in rows if math.isfinite(row[column]))
            if points:
                yield Line(name, part, points)


def _reliability(evaluation: Evaluation) -> Chart:
    """Of the videos with a confidence, which share is right."""
    points = tuple((bin_.confidence, bin_.top1) for bin_ in evaluation.reliability)
    diagonal = Line("as confident as right", "ideal", ((0, 0), (1, 1)))
    axes = Axis("confidence", 0, 1, UNIT), Axis("share that is right", 0, 1, UNIT)
    return Chart("Reliability", *axes, (diagonal, Line("videos by confidence", "val", points)))


@dataclass(frozen=True)
class ShownSetting:
    """A setting of the training beside its default."""

    name: str
    value: Any
    default: Any

    @property
    def is_changed(self) -> bool:
        """Whether it is not the default."""
        return bool(self.value != self.default)


def _settings(config: TrainConfig) -> list[ShownSetting]:
    """Those that were changed first."""
    shown = [ShownSetting(known.name, getattr(config, known.name), known.default) for known in settings(TrainConfig)]
    return sorted(shown, key=lambda setting: not setting.is_changed)


def _notes(report: Report) -> list[str]:
    """What to know before the figures: the run's own warnings, and what the page itself sees."""
    notes = list(report.run.warnings)
    if report.judge == "val":
        notes.append("no test part was kept: the validation part, which chose the epoch and the temperature, flatters")
    return notes


def _render(report: Report) -> str:
    folder = files("vidpipe") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader("vidpipe"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    model, baseline = report.score_of("model"), report.score_of("baseline")
    evaluation = model.evaluation if model else None
    return environment.get_template("report.html").render(
        report=report,
        run=report.run,
        name=report.run.path.resolve().name,
        judges=JUDGES,
        model=model,
        baseline=baseline,
        guess=report.score_of("guess"),
        evaluation=evaluation,
        baseline_of={row.label: row for row in baseline.evaluation.per_class}
        if baseline and baseline.evaluation
        else {},
        confusion=_confusion(evaluation) if evaluation else None,
        pairs=_pairs(evaluation) if evaluation else [],
        reliability=_reliability(evaluation) if evaluation else None,
        curves=_curves(report.history),
        folds_chart=Chart("Folds", Axis("top-1", 0, 1, UNIT), Axis("", 0, 1, ()), ()),
        settings=_settings(report.run.config),
        notes=_notes(report),
        still_pixels=STILL_PIXELS,
        most_leaks=MOST_LEAKS,
        most_rows=MOST_ROWS,
        width=WIDTH,
        height=HEIGHT,
        vidpipe_version=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """As a Content-Security-Policy names the one script, or style, that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _visible(value: Any) -> Any:
    """Text in which what cannot be seen is shown as its escape."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in value)
