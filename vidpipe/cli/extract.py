"""vidpipe extract"""

from pathlib import Path
from typing import Any

import click

from vidpipe.cli.options import SOME_VIDEOS_FAILED, setting_options, vidpipe_command
from vidpipe.config import ExtractConfig


@vidpipe_command(name="extract", short_help="Videos -> features, in a store.")
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", "store", required=True, type=click.Path(path_type=Path), help="The store's folder.")
@click.option("--force", is_flag=True, help="Extract again what the store already holds.")
@setting_options(ExtractConfig, "extract")
def command(inputs: tuple[Path, ...], store: Path, force: bool, **settings: Any) -> None:
    """Put the features of videos into a store.

    INPUT is a video, a folder (searched to any depth) or a CSV with a column `video`. What the store already holds is
    skipped, so the same command goes on after a stop.

    \b
    vidpipe extract videos/ -o features
    vidpipe extract videos/ -o features --backbone efficientnet_lite0 --sampling fps --fps 2
    """
    config = ExtractConfig(**settings)

    from vidpipe.cli.progress import extract_progress
    from vidpipe.extract import extract
    from vidpipe.video.files import find_videos

    with extract_progress() as show:
        summary = extract(find_videos(inputs), store, config=config, force=force, on_progress=show)
    click.echo(
        f"{store}: {summary.num_stored} videos stored ({summary.num_frames} frames, {summary.seconds:.1f} s), "
        f"{summary.num_skipped} were there already, {len(summary.failures)} failed"
    )
    for failure in summary.failures:
        click.echo(f"failed: {failure.video_id}: {failure.message}", err=True)
    if summary.failures:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)
