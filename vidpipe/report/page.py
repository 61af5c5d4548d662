"""A report, or a comparison of runs, as one HTML page.

The page opens from disk, loads nothing from the network and is complete without its script.

All names come from the user; `vidpipe.html_pages` escapes them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidpipe.config import TrainConfig, settings
from vidpipe.errors import RunError
from vidpipe.heads.members import BASELINE
from vidpipe.html_pages import render_page, write_whole
from vidpipe.report.charts import HEIGHT, WIDTH, Axis, Chart, Line, axis_over
from vidpipe.report.collect import Report, Score
from vidpipe.report.compare import Comparison
from vidpipe.runs.background_check import CONTROLS
from vidpipe.runs.confusion import ConfusionMatrix
from vidpipe.runs.curves import learning_curves
from vidpipe.runs.metrics import Evaluation, FoldScores
from vidpipe.runs.run import EVALUATION_SETS, Run
from vidpipe.runs.tables import Epoch, row_cells
from vidpipe.video.thumbnails import THUMBNAIL_PIXELS

__all__ = ["write_comparison", "write_report"]

MAX_PAIRS = 20
MAX_LEAKS = 50
MAX_ROWS = 1000
"""Of the tables of groups and of folds."""
MAX_MATRIX_CLASSES = 200
"""A confusion matrix of more classes shows those with the most errors."""
MAX_CLASSES_WITHOUT_OVERVIEW = 12
"""A larger matrix has an overview above it."""
SHADES = 10
UNIT = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TITLES = {"loss": "Loss", "top1": "Top-1 accuracy"}
SUBSET_NAMES = {"train": "training", "val": "validation"}


@dataclass(frozen=True)
class _Cell:
    """A cell of the confusion matrix."""

    row: int
    column: int
    count: int
    shade: int
    """1 to `SHADES`, by the square root of its share of the row; 0 where it is empty."""


def write_report(report: Report, path: Path) -> None:
    """Write the page of a run: under another name first, so that an existing page is replaced as a whole.

    Args:
        report: from `collect_report`.
        path: the file.

    Raises:
        RunError: the page cannot be written.
    """
    page = _render("report.html", **_report_values(report))
    write_whole(page, path, kind="the report", error=RunError)


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the page that compares runs: under another name first, so that an existing page is replaced as a whole.

    Args:
        comparison: from `compare_runs`.
        path: the file.

    Raises:
        RunError: the page cannot be written.
    """
    page = _render("compare.html", comparison=comparison, chart=_top1_chart())
    write_whole(page, path, kind="the report", error=RunError)


def _cells(matrix: ConfusionMatrix) -> list[list[_Cell]]:
    """The rows of a matrix, with a shade for each cell."""
    shades = np.ceil(SHADES * np.sqrt(matrix.shares)).astype(int)  # (K, K)
    return [
        [_Cell(row, column, int(count), int(shades[row, column])) for column, count in enumerate(counts)]
        for row, counts in enumerate(matrix.counts)
    ]


def _curve_charts(history: Sequence[Epoch]) -> list[Chart]:
    """Loss and top-1 by epoch; nothing for a head that is fitted in one step."""
    if len({epoch.epoch for epoch in history}) < 2:
        return []
    several = len({curve.name for curve in learning_curves(history)}) > 1
    epochs = axis_over("epoch", [epoch.epoch for epoch in history], whole=True)
    curves = learning_curves(history)
    charts = []
    for quantity, title in TITLES.items():
        own = [curve for curve in curves if curve.quantity == quantity]
        if own:
            values = [value for curve in own for _, value in curve.points]
            axis = Axis("top-1", 0, 1, UNIT) if quantity == "top1" else axis_over(quantity, values, low=0)
            lines = tuple(
                Line(SUBSET_NAMES[curve.subset] + f", {curve.name}" * several, curve.subset, curve.points)
                for curve in own
            )
            charts.append(Chart(title, epochs, axis, lines))
    return charts


def _last_epochs(history: Sequence[Epoch]) -> list[Epoch]:
    """The last epoch of each head."""
    return list({(epoch.name, epoch.member): epoch for epoch in history}.values())


def _frames_note(report: Report) -> str:
    """What the frames show."""
    typical = (case for cases in report.typical.values() for case in (*cases.most, *cases.least))
    if not any(case.margin for case in (*report.mistakes, *typical)):
        return "Frames are cropped as for the image model."
    learned = " It was refitted on these videos, too." if len(report.run.learned_subsets) > 1 else ""
    return (
        "Frames are those of the stream with the largest share. Orange places speak for the predicted label and "
        "against the true one, blue places the other way; the number under a frame is its share of the difference of "
        "the two logits. A right label is compared with the mean of all. "
        f"Heat maps are of the saved model.{learned}"
    )


def _reliability(evaluation: Evaluation) -> Chart:
    """The share of correct predictions by confidence."""
    points = tuple((bin_.confidence, bin_.top1) for bin_ in evaluation.reliability)
    diagonal = Line("perfect calibration", "ideal", ((0, 0), (1, 1)))
    axes = Axis("confidence", 0, 1, UNIT), Axis("share correct", 0, 1, UNIT)
    return Chart("Reliability", *axes, (diagonal, Line("videos by confidence", "val", points)))


@dataclass(frozen=True)
class _ShownSetting:
    """A setting of the training beside its default."""

    name: str
    value: Any
    default: Any

    @property
    def is_changed(self) -> bool:
        """Whether the value differs from the default."""
        return bool(self.value != self.default)


def _settings(config: TrainConfig) -> list[_ShownSetting]:
    """All settings, the changed ones first."""
    shown = [_ShownSetting(known.name, getattr(config, known.name), known.default) for known in settings(TrainConfig)]
    return sorted(shown, key=lambda setting: not setting.is_changed)


def _caveats(report: Report) -> list[str]:
    """Caveats about the metrics, without the one that is the page's headline."""
    caveats = [warning for warning in report.run.warnings if warning != report.verdict]
    if report.run.evaluation_set == "val":
        caveats.append(
            "no test set was kept: metrics on the validation set are optimistic, "
            "because it also chose the epoch and the temperature"
        )
    if report.run.background_check:
        caveats += report.run.background_check.caveats
    return caveats


def _top1_chart() -> Chart:
    """An empty chart over an axis of top-1."""
    return Chart("Top-1", Axis("top-1", 0, 1, UNIT), Axis("", 0, 1, ()), ())


def _render(template: str, **values: Any) -> str:
    """Render a template with the values that all pages share."""
    return render_page("vidpipe.report", template, assets="report", **values, width=WIDTH, height=HEIGHT)


def _report_values(report: Report) -> dict[str, Any]:
    model = report.score_of("model")
    evaluation = model.evaluation if model else None
    history = report.run.history
    return {
        "report": report,
        "run": report.run,
        "name": report.run.path.resolve().name,
        "controls": CONTROLS,
        "names_of_sets": EVALUATION_SETS,
        "place": EVALUATION_SETS.get(report.run.evaluation_set, "no set"),
        "model": model,
        "majority": report.score_of("majority"),
        "evaluation": evaluation,
        "shows_top5": any(score.evaluation and score.evaluation.top5 is not None for score in report.scores),
        "strip_uri": report.strip_uri,
        "parts": [score for score in report.scores if _is_listed_part(report.run, score)],
        "weights": {member.member.name: member.weight for member in report.run.members},
        "fold_scores": _drawn_folds(report.run),
        "curves": _curve_charts(history),
        "last_epochs": [row_cells(epoch) for epoch in _last_epochs(history)],
        "folds_chart": _top1_chart(),
        "settings": _settings(report.run.config),
        "caveats": _caveats(report),
        "frames_note": _frames_note(report),
        "thumbnail_pixels": THUMBNAIL_PIXELS,
        "max_leaks": MAX_LEAKS,
        "max_rows": MAX_ROWS,
        **_group_values(report),
        **_baseline_values(report),
        **(_evaluation_values(evaluation) if evaluation else {}),
    }


def _is_listed_part(run: Run, score: Score) -> bool:
    """Whether a score belongs into the table of streams and heads: the classifier and its parts, where it has parts."""
    is_own = score.kind in ("part", "model") and score.evaluation_set == run.evaluation_set
    return is_own and len(run.members) > 1


def _drawn_folds(run: Run) -> Mapping[str, FoldScores]:
    """The scores to draw by fold: of the classifier, of each stream alone, and of the baseline."""
    names = {run.classifier, BASELINE, *run.keys}
    return {name: scores for name, scores in run.fold_scores.items() if name in names}


def _group_values(report: Report) -> dict[str, Any]:
    num_subsets = Counter(group.name for group in report.groups)
    return {"num_groups": len(num_subsets), "num_divided": sum(number > 1 for number in num_subsets.values())}


def _baseline_values(report: Report) -> dict[str, Any]:
    baseline = report.score_of("baseline")
    rows = baseline.evaluation.per_class if baseline and baseline.evaluation else ()
    return {"baseline": baseline, "baseline_of": {row.label: row for row in rows}}


def _evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    names = [row.label for row in evaluation.per_class]
    whole = ConfusionMatrix.from_counts(evaluation.confusion, names)
    shown = whole.most_confused(MAX_MATRIX_CLASSES)
    return {
        "num_untested": len(names) - evaluation.num_classes_tested,
        "pairs": whole.pairs(MAX_PAIRS),
        "matrix_names": shown.class_names,
        "cells": _cells(shown),
        "has_overview": len(shown.class_names) > MAX_CLASSES_WITHOUT_OVERVIEW,
        "reliability": _reliability(evaluation),
    }
