"""A report, or a comparison of runs -> one HTML page that opens from disk and asks the network for nothing.

The page is whole without its script.

All names are the user's: Jinja2 escapes each, and what cannot be seen in one (a change of writing direction, a control
character) is shown as its escape.
"""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vidpipe import __version__
from vidpipe.config import TrainConfig, settings
from vidpipe.errors import RunError
from vidpipe.report.charts import HEIGHT, WIDTH, Axis, Chart, Line, span
from vidpipe.report.collect import JUDGES, Report
from vidpipe.report.compare import Comparison
from vidpipe.report.stills import STILL_PIXELS
from vidpipe.runs.metrics import Evaluation

__all__ = ["write_comparison", "write_report"]

MAX_PAIRS = 20
MAX_LEAKS = 50
MAX_ROWS = 1000
"""Of groups, and of test parts."""
MAX_CELLS_ASIDE = 200
"""Classes a side of the confusion matrix: of more, those with the most mistakes are shown."""
MAX_CLASSES_SHOWN_WHOLE = 12
"""Up to so many need no overview beside the matrix."""
SHADES = 10
UNIT = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


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


def write_report(report: Report, path: Path) -> None:
    """Write the page of a run, aside first: a page that is there is whole.

    Raises:
        RunError: it cannot be written.
    """
    _write(_render("report.html", **_of_report(report)), path)


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the page that sets runs beside each other, aside first: a page that is there is whole.

    Raises:
        RunError: it cannot be written.
    """
    _write(_render("compare.html", comparison=comparison, chart=_top1_chart()), path)


def _write(page: str, path: Path) -> None:
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


def _confusion(evaluation: Evaluation) -> Confusion:
    counts = np.asarray(evaluation.confusion)  # (K, K)
    wrong = counts - np.diag(np.diag(counts))
    kept = np.arange(len(counts))
    if len(counts) > MAX_CELLS_ASIDE:
        num_wrong = wrong.sum(axis=0) + wrong.sum(axis=1)
        kept = np.sort(np.argsort(-num_wrong, kind="stable")[:MAX_CELLS_ASIDE])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shades = np.ceil(SHADES * np.sqrt(shares)).astype(int)
    return Confusion(
        class_names=tuple(evaluation.per_class[index].label for index in kept),
        cells=tuple(
            tuple(Cell(r, c, int(counts[i, j]), int(shades[i, j])) for c, j in enumerate(kept))
            for r, i in enumerate(kept)
        ),
        num_left_out=len(counts) - len(kept),
        has_overview=len(kept) > MAX_CLASSES_SHOWN_WHOLE,
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
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))[:MAX_PAIRS]


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


def _top1_chart() -> Chart:
    """Room for marks on an axis of top-1."""
    return Chart("Top-1", Axis("top-1", 0, 1, UNIT), Axis("", 0, 1, ()), ())


def _render(template: str, **values: Any) -> str:
    """A page of a template, with what all pages share."""
    folder = files("vidpipe.report") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=PackageLoader("vidpipe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    return environment.get_template(template).render(
        **values,
        width=WIDTH,
        height=HEIGHT,
        vidpipe_version=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _of_report(report: Report) -> dict[str, Any]:
    model, baseline = report.score_of("model"), report.score_of("baseline")
    evaluation = model.evaluation if model else None
    groups = Counter(group.name for group in report.groups)
    return {
        "report": report,
        "run": report.run,
        "name": report.run.path.resolve().name,
        "judges": JUDGES,
        "model": model,
        "baseline": baseline,
        "guess": report.score_of("guess"),
        "evaluation": evaluation,
        "num_groups": len(groups),
        "num_divided": sum(num_parts > 1 for num_parts in groups.values()),
        "untested": len(evaluation.per_class) - evaluation.num_classes_tested if evaluation else 0,
        "shows_top5": any(score.evaluation and score.evaluation.top5 is not None for score in report.scores),
        "baseline_of": {row.label: row for row in baseline.evaluation.per_class}
        if baseline and baseline.evaluation
        else {},
        "confusion": _confusion(evaluation) if evaluation else None,
        "pairs": _pairs(evaluation) if evaluation else [],
        "reliability": _reliability(evaluation) if evaluation else None,
        "curves": _curves(report.history),
        "folds_chart": _top1_chart(),
        "settings": _settings(report.run.config),
        "notes": _notes(report),
        "still_pixels": STILL_PIXELS,
        "max_leaks": MAX_LEAKS,
        "max_rows": MAX_ROWS,
    }


def _hash(text: str) -> str:
    """As a Content-Security-Policy names the one script, or style, that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _visible(value: Any) -> Any:
    """Text in which what cannot be seen is shown as its escape."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in value)
