"""vidpipe evaluate"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import format_option, label_options, printable, vidpipe_command

if TYPE_CHECKING:
    from vidpipe.metrics import Evaluation


@vidpipe_command(name="evaluate", short_help="How well a run does on videos it has not seen.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@label_options
@click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="Where the head runs.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write the confusion matrix to this PNG file.")
@format_option("table", "json")
def command(
    run: Path,
    store: Path,
    labels: Path | None,
    official_split: int,
    skip_missing: bool,
    device: str,
    plot: Path | None,
    format_: str,
) -> None:
    """Hold a run's predictions against labels: accuracy, per-class precision, recall and F1, confusion matrix.

    Videos that the run was trained or validated on are left out.

    \b
    vidpipe evaluate run features --labels labels.csv
    vidpipe evaluate run other_features --format json --plot confusion.png
    """
    from vidpipe.datasets.stored import label_store
    from vidpipe.evaluate import evaluate
    from vidpipe.features.store import FeatureStore
    from vidpipe.run import Run

    opened_run, opened_store = Run.open(run), FeatureStore.open(store)
    videos = label_store(opened_store, labels, official_split=official_split, skip_missing=skip_missing)
    report = evaluate(opened_run, opened_store, videos, device=device)
    best, *baselines = report.evaluations.items()
    if plot is not None:
        from vidpipe.plots import plot_confusion

        plot_confusion(plot, best[1].confusion, opened_run.class_names, f"{run.name} on {store.name}")
    if format_ == "json":
        beside = {name: {"top1": e.top1, "top5": e.top5, "macro_f1": e.macro_f1} for name, e in baselines}
        click.echo(json.dumps({**best[1].as_dict(), "class_names": opened_run.class_names, "baseline": beside}))
        return
    if report.num_seen:
        click.echo(f"{report.num_seen} videos left out: the run was trained or validated on them", err=True)
    for name, evaluation in report.evaluations.items():
        beside_it = "  (baseline)" if name != best[0] else ""
        click.echo(
            f"{name:<5} top-1 {evaluation.top1:.3f}  top-5 {evaluation.top5:.3f}  macro F1 {evaluation.macro_f1:.3f}  "
            f"{evaluation.num_videos} videos{beside_it}"
        )
    _print_classes(best[1])


def _print_classes(evaluation: "Evaluation") -> None:
    """A line a class, with its row of the confusion matrix where that fits a screen."""
    names = [printable(metrics.label) for metrics in evaluation.per_class]
    width = max(map(len, [*names, "class"]))
    fits = len(names) <= 10
    heading = "  predicted as " + " ".join(f"{name[:9]:>9}" for name in names) if fits else ""
    click.echo(f"\n{'class':<{width}}  precision  recall    F1  videos{heading}")
    for name, metrics, row in zip(names, evaluation.per_class, evaluation.confusion, strict=True):
        counts = " " * 15 + " ".join(f"{count:>9}" for count in row) if fits else ""
        click.echo(
            f"{name:<{width}}  {metrics.precision:>9.3f}  {metrics.recall:>6.3f}  {metrics.f1:.2f}  "
            f"{metrics.num_videos:>6}{counts}"
        )
