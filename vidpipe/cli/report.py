"""vidpipe report"""

from pathlib import Path

import click

from vidpipe.cli.options import SOME_VIDEOS_FAILED, printable, vidpipe_command
from vidpipe.cli.outputs import check_replaceable, is_own_page


@vidpipe_command(name="report", short_help="A run as one HTML page.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to write.  [default: RUN/report.html]")
@click.option(
    "--videos",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What was given to extract, a folder for example: shows frames of the worst mistakes. May be given again.",
)
def command(run: Path, output: Path | None, videos: tuple[Path, ...]) -> None:
    """Write what a run is worth as one HTML page, which opens from disk and needs no network.

    It tells what was trained on what, the figures beside the baseline's, which class is taken for which, how far
    confidence can be believed, and the worst mistakes.

    \b
    vidpipe report run
    vidpipe report run -o fights.html --videos videos/
    """
    from vidpipe.report.collect import collect_report
    from vidpipe.report.page import write_report
    from vidpipe.run import Run

    path = output or run / "report.html"
    check_replaceable(path, "a report", is_own=is_own_page)
    report = collect_report(Run.open(run), videos=videos)
    write_report(report, path)
    num_shown = sum(bool(mistake.stills) for mistake in report.mistakes)
    frames = f", {num_shown} of them with frames" if report.shows_frames else ""
    click.echo(printable(f"{path}: {len(report.mistakes)} worst of {report.num_mistakes} mistakes{frames}"))
    if any(mistake.problem for mistake in report.mistakes):
        click.get_current_context().exit(SOME_VIDEOS_FAILED)
