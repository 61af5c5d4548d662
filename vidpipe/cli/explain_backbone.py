"""vidpipe explain backbone"""

from pathlib import Path
from typing import Any

import click

from vidpipe.cli.options import OUTPUT_PATH, LocalPath, printable, setting_options, vidpipe_command
from vidpipe.config import ExtractConfig, make_config
from vidpipe.errors import count_of

__all__ = ["backbone"]


@vidpipe_command(name="backbone", short_help="Show what the layers of a backbone see of a picture.")
@click.argument("name")
@click.argument("input_", metavar="INPUT", type=LocalPath())
@click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="Folder for the page and the pictures.")
@click.option("--at", type=float, metavar="SECONDS", help="Frame of a video to show.  [default: the middle]")
@click.option("--stage", multiple=True, metavar="NAME", help="Module of the network to show. Repeatable.")
@click.option(
    "--channels", type=click.IntRange(1), default=16, show_default=True, help="Channels of each stage, strongest first."
)
@click.option(
    "--filters",
    type=click.IntRange(0),
    help="Channels of each stage whose filters are found.  [default: 4; none for video models and transformers]",
)
@click.option("--no-filters", is_flag=True, help="Find no filters: the same as --filters 0.")
@click.option(
    "--steps", type=click.IntRange(1), default=32, show_default=True, help="Steps of gradient ascent of a filter."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the filters.")
@click.option("--overwrite", is_flag=True, help="Replace the page and the pictures that exist.")
@setting_options(ExtractConfig, only=("weights", "input_size", "device"))
def backbone(
    name: str,
    input_: Path,
    output: Path,
    at: float | None,
    stage: tuple[str, ...],
    channels: int,
    filters: int | None,
    no_filters: bool,
    steps: int,
    seed: int,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Show what each stage of a backbone computes from a picture or a frame, and what its channels look for.

    NAME is a backbone, as for `vidpipe extract --backbone`; INPUT is a JPEG, a PNG or a video.

    \b
    vidpipe explain backbone efficientnet_lite0 fight.mp4 -o seen
    vidpipe explain backbone resnet18 photo.jpg -o seen --stage layer3 --channels 32 --filters 8
    """
    from vidpipe.backbones.stream import at_input_size
    from vidpipe.backbones.table import find_backbone
    from vidpipe.explain.backbone import explain_backbone
    from vidpipe.explain.backbone_page import check_folder, write_backbone

    config = make_config(ExtractConfig, settings)
    if no_filters and filters:
        raise click.UsageError("--no-filters does not go with --filters; give one of them")
    check_folder(output, overwrite=overwrite)
    explained = explain_backbone(
        at_input_size(find_backbone(name), config.input_size),
        input_,
        weights=config.weights,
        device=config.device,
        at_seconds=at,
        stages=stage,
        num_channels=channels,
        num_filters=0 if no_filters else filters,
        num_steps=steps,
        seed=seed,
    )
    page = write_backbone(explained, output)
    click.echo(printable(f"{page}: {count_of(len(explained.stages), 'stage')} of {explained.backbone}"))
