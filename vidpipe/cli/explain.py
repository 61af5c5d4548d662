"""vidpipe explain"""

import logging
from pathlib import Path
from typing import Any

import click

from vidpipe.cli.explain_backbone import backbone
from vidpipe.cli.options import (
    OUTPUT_PATH,
    SOME_VIDEOS_FAILED,
    LocalPath,
    exclude_option,
    find_inputs,
    format_option,
    inputs_argument,
    json_line,
    prefix_option,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.config import EXPLAIN_SETTINGS, ExtractConfig, make_config

__all__ = ["command", "run"]

logger = logging.getLogger(__name__)


@vidpipe_command(name="run", short_help="Show which frames and places spoke for a label.")
@click.argument("run", type=LocalPath())
@inputs_argument
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="Folder for the explanations, one a video.")
@click.option("--label", metavar="LABEL", help="Label to explain.  [default: the predicted one]")
@click.option("--against", metavar="LABEL", help="Label to compare it with.  [default: the mean of all]")
@format_option("table", "json")
@click.option("--no-video", is_flag=True, help="Do not write heat.mp4.")
@click.option("--overwrite", is_flag=True, help="Replace explanations that exist.")
@prefix_option
@exclude_option
@setting_options(ExtractConfig, "extract", "predict", only=EXPLAIN_SETTINGS)
def run(
    run: Path,
    inputs: tuple[Path, ...],
    output: Path,
    label: str | None,
    against: str | None,
    format_: str,
    no_video: bool,
    overwrite: bool,
    prefix: str,
    exclude: tuple[str, ...],
    **settings: Any,
) -> None:
    """Show which streams, frames and places of a video spoke for its label, and which against it.

    OUTPUT gets a folder for each video:

    \b
    contact.png        the frames with heat maps, and a bar of each frame's share
    heat.mp4           the video with the heat maps over it and the curve of the shares below
    explanation.json   the numbers

    \b
    vidpipe explain run run new_video.mp4 -o why
    vidpipe explain run run new_videos/ -o why --label running --against walking
    """
    from vidpipe.errors import VideoError
    from vidpipe.explain.contact import describe_margin
    from vidpipe.explain.folder import check_folders, write_explanation
    from vidpipe.records import VideoFailure
    from vidpipe.runs.run import Run
    from vidpipe.stages.explain import explain

    config = make_config(ExtractConfig, settings)
    videos, unreadable = find_inputs(inputs, prefix=prefix, exclude=exclude, video_column=config.video_column)
    if not overwrite:
        check_folders(output, [video.id for video in videos])
    num_failed, without_places = 0, set[str]()
    questions = {video.id: (label, against) for video in videos}
    for explained in explain(Run.open(run), videos, questions=questions, config=config):
        try:
            if isinstance(explained, VideoFailure):
                raise VideoError(f"{explained.video_id}: {explained.message}")
            folder = write_explanation(explained, output, video=not no_video)
            if format_ == "json":
                click.echo(json_line(explained.as_dict()))
            else:
                click.echo(printable(f"{folder}: {describe_margin(explained.explanation)}"))
        except VideoError as error:
            num_failed += 1
            click.echo(printable(f"failed: {error}"), err=True)
            continue
        without_places |= {stream.name for stream in explained.explanation.streams if stream.places is None}
    _warn_without_places(without_places)
    for line in unreadable:
        click.echo(line, err=True)
    if num_failed or unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _warn_without_places(streams: set[str]) -> None:
    from vidpipe.backbones.spec import OFFLINE_BACKBONE

    for name in sorted(streams):
        logger.warning(
            "%s: its features have no places, so only frames have shares; resnet18 and %s are small backbones with "
            "places",
            printable(name),
            OFFLINE_BACKBONE,
        )


command = click.Group(
    "explain",
    commands=[run, backbone],
    short_help="Show why a video has its label, and what a backbone sees.",
    help="Show why a video has its label, and what a backbone sees.",
)
