"""vidpipe evaluate"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    LocalPath,
    evaluation_lines,
    json_line,
    label_options,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.cli.outputs import check_replaceable, is_own_picture
from vidpipe.config import EvaluateConfig
from vidpipe.errors import count_of
from vidpipe.heads.members import BASELINE

if TYPE_CHECKING:
    from vidpipe.runs.metrics import Evaluation
    from vidpipe.stages.evaluate import EvaluationReport


@vidpipe_command(name="evaluate", short_help="Evaluate a run on videos that it has not seen.")
@click.argument("run", type=LocalPath())
@click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=LocalPath())
@label_options
@setting_options(EvaluateConfig, "evaluate")
def command(
    run: Path,
    stores: tuple[Path, ...],
    device: str,
    plot: Path | None,
    format_: str,
    official_split: str,
    **labels: Any,
) -> None:
    """Compare a run's predictions with labels: accuracy, precision, recall and F1 by class, confusion matrix.

    STORE is a store, or a folder of stores with one for each of the run's streams; each stream is found by the features
    that it holds.

    Videos that the run used for training or model selection are excluded. After `train`, these are all videos except a
    test set that the labels give; after `train --no-refit`, all except the run's test set. Macro F1, balanced accuracy
    and mean average precision are means over the classes that have videos here; a class without videos shows –, in
    JSON null. Top-5 is shown for six classes or more.

    \b
    vidpipe evaluate run other_features --labels other_labels.csv
    vidpipe evaluate run other_features --format json --plot confusion.png
    """
    from vidpipe.api import evaluate
    from vidpipe.runs.run import Run

    if plot is not None:
        check_replaceable(plot, "a confusion matrix", is_own=is_own_picture)
    opened_run = Run.open(run)
    report = evaluate(opened_run, stores, device=device, split=official_split, **labels)
    if report.num_excluded:
        click.echo(f"excluded {count_of(report.num_excluded, 'video')} used for training or model selection", err=True)
    own = opened_run.classifier
    if plot is not None:
        from vidpipe.runs.plots import plot_confusion

        confusion = report.evaluations[own].confusion
        plot_confusion(
            plot, confusion, opened_run.class_names, f"{run.name} on {', '.join(store.name for store in stores)}"
        )
    if format_ == "json":
        click.echo(json_line(_as_json(report, own, opened_run.class_names)))
    else:
        _print_metrics(report.evaluations, own)


def _as_json(report: "EvaluationReport", own: str, class_names: Sequence[str]) -> dict[str, Any]:
    """The classifier's metrics; of its parts and the baseline, those that fit a line."""
    names = ("top1", "top5", "macro_f1", "balanced_accuracy", "log_loss", "calibration_error")
    others = {
        name: {metric: getattr(evaluation, metric) for metric in names}
        for name, evaluation in report.evaluations.items()
        if name != own
    }
    baseline = {name: others.pop(name) for name in (BASELINE,) if name in others}
    more = {"num_excluded": report.num_excluded, "class_names": class_names, "parts": others, "baseline": baseline}
    return {**report.evaluations[own].as_dict(), **more}


def _print_metrics(evaluations: "Mapping[str, Evaluation]", own: str) -> None:
    """Print a line for each classifier and part, then the own one's other metrics and its classes."""
    for line in evaluation_lines(evaluations, own=own):
        click.echo(line)
    evaluation = evaluations[own]
    click.echo(
        f"balanced accuracy {evaluation.balanced_accuracy:.3f}  mean average precision "
        f"{evaluation.mean_average_precision:.3f}  log loss {evaluation.log_loss:.3f}  "
        f"calibration error {evaluation.calibration_error:.3f}"
    )
    _print_classes(evaluation)


def _print_classes(evaluation: "Evaluation") -> None:
    """Print a line for each class, with its row of the confusion matrix if that fits the screen."""
    names = [printable(metrics.label) for metrics in evaluation.per_class]
    width = max(map(len, [*names, "class"]))
    fits = len(names) <= 10
    heading = "  predicted as " + " ".join(f"{name[:9]:>9}" for name in names) if fits else ""
    click.echo(f"\n{'class':<{width}}  precision  recall    F1    AP  videos{heading}")
    for name, metrics, row in zip(names, evaluation.per_class, evaluation.confusion, strict=True):
        counts = " " * 15 + " ".join(f"{count:>9}" for count in row) if fits else ""
        figures = (
            f"{_figure(metrics.precision, 3):>9}  {_figure(metrics.recall, 3):>6}  {_figure(metrics.f1, 2):>4}  "
            f"{_figure(metrics.average_precision, 2):>4}"
        )
        click.echo(f"{name:<{width}}  {figures}  {metrics.num_videos:>6}{counts}")
    num_untested = len(names) - evaluation.num_classes_tested
    if num_untested:
        click.echo(
            f"{count_of(num_untested, 'class')} of {len(names)} without a video: –, and not in the means "
            "(macro F1, balanced accuracy, mean average precision)"
        )


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
