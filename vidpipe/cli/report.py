"""vidpipe report"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import OUTPUT_PATH, SOME_VIDEOS_FAILED, LocalPath, printable, vidpipe_command
from vidpipe.cli.outputs import check_replaceable, is_own_page
from vidpipe.cli.tables import show_table
from vidpipe.errors import UsageError, count_of

if TYPE_CHECKING:
    from vidpipe.report.compare import ComparedRun, RunPair

COMPARISON = Path("comparison.html")
COLUMNS = (
    *("run", "top-1", "95 % CI", "baseline", "macro F1", "tested on", "caveats"),
    *("head", "transforms", "backbone", "sampling", "videos"),
)


@vidpipe_command(name="report", short_help="Report a run, or compare several, as one HTML page.")
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, type=LocalPath())
@click.option("--compare", is_flag=True, help="Compare two runs or more.")
@click.option(
    "-o",
    "--output",
    type=OUTPUT_PATH,
    help="Page to write.  [default: RUN/report.html; with --compare, comparison.html]",
)
@click.option(
    "--videos",
    multiple=True,
    type=OUTPUT_PATH,
    help="The INPUT of extract, such as a folder: adds frames of the most confident mistakes, and the most and least "
    "typical videos of each class. May be repeated.",
)
@click.option(
    "--heat-maps/--no-heat-maps",
    default=True,
    show_default=True,
    help="With --videos, lay heat maps over the frames: what spoke for the predicted label. Runs the backbones.",
)
def command(
    runs: tuple[Path, ...], compare: bool, output: Path | None, videos: tuple[Path, ...], heat_maps: bool
) -> None:
    """Report a run as one HTML page, which opens from disk and loads nothing from the network.

    The page shows the training settings, the metrics of the model and its baselines, the confusion matrix, the
    calibration of the probabilities and the most confident mistakes. Macro F1, balanced accuracy and mean average
    precision are means over the classes that have test videos.

    \b
    vidpipe report run
    vidpipe report run -o fights.html --videos videos/
    vidpipe report --compare run run2 run3
    """
    if compare:
        if len(runs) < 2 or videos:
            raise UsageError("--compare takes two runs or more, and no --videos")
        _compare(runs, output or COMPARISON)
    elif len(runs) > 1:
        raise UsageError("several runs: compare them with --compare, or report one run at a time")
    else:
        _report(runs[0], output or runs[0] / "report.html", videos, heat_maps=heat_maps)


def _report(run: Path, path: Path, videos: tuple[Path, ...], *, heat_maps: bool) -> None:
    from vidpipe.report.collect import collect_report
    from vidpipe.report.page import write_report
    from vidpipe.runs.run import Run

    check_replaceable(path, "a report", is_own=is_own_page)
    report = collect_report(Run.open(run), videos=videos, heat_maps=heat_maps)
    write_report(report, path)
    num_shown = sum(bool(mistake.thumbnails) for mistake in report.mistakes)
    frames = f", {num_shown} of them with frames" if report.shows_frames else ""
    mistakes = f"the {len(report.mistakes)} most confident of {count_of(report.num_mistakes, 'mistake')}"
    click.echo(printable(f"{path}: {mistakes}{frames}"))
    if any(mistake.problem for mistake in report.mistakes):
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _compare(runs: Sequence[Path], path: Path) -> None:
    from vidpipe.report.compare import compare_runs
    from vidpipe.report.page import write_comparison
    from vidpipe.runs.run import Run

    check_replaceable(path, "a report", is_own=is_own_page)
    comparison = compare_runs([Run.open(run) for run in runs])
    write_comparison(comparison, path)
    show_table(COLUMNS, map(_row, comparison.runs))
    click.echo()
    for pair in comparison.pairs:
        click.echo(printable(_describe_pair(pair)))
    click.echo(printable(f"{path}: comparison of {count_of(len(runs), 'run')}, with caveats about their metrics"))


def _row(run: "ComparedRun") -> tuple[str, ...]:
    config, evaluation = run.run.config, run.model.evaluation if run.model else None
    return (
        printable(run.name),
        f"{run.model.top1:.3f}" if run.model else "–",
        "{:.3f} to {:.3f}".format(*run.interval) if run.interval else "–",
        f"{run.baseline.top1:.3f}" if run.baseline else "–",
        f"{evaluation.macro_f1:.3f}" if evaluation else "–",
        run.protocol,
        str(len(run.caveats)),
        config.head,
        config.motion or "by stream",
        "+".join(stream.key.backbone for stream in run.run.streams),
        str(run.run.streams[0].key.resolve_sampling()),
        str(len(run.run.splits)),
    )


def _describe_pair(pair: "RunPair") -> str:
    one, other = pair.one.name, pair.other.name
    if pair.reason:
        return f"{one} and {other} cannot be compared: {pair.reason}"
    p_value = "" if pair.p_value is None else f"; McNemar's exact p {pair.p_value:.3f}"
    counts = f"{pair.num_only_one} correct only in {one}, {pair.num_only_other} only in {other}"
    return f"{one} and {other}, tested on the same {count_of(pair.num_videos, 'video')}: {counts}{p_value}"
