"""vidpipe backbones"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import format_option, json_line, vidpipe_command
from vidpipe.cli.tables import show_table

if TYPE_CHECKING:
    from vidpipe.backbones.spec import BackboneSpec
    from vidpipe.regions.spec import DetectorSpec

__all__ = ["command"]

COLUMNS = ("name", "D", "parameters", "GMACs", "frames", "input", "top-1", "on", "here", "weights from", "licence")
DETECTOR_COLUMNS = ("name", "finds", "classes", "parameters", "figure", "of", "here", "weights from", "licence")


@vidpipe_command(name="backbones", short_help="List the frozen models.")
@click.argument("names", metavar="[NAME…]", nargs=-1)
@click.option(
    "--kind",
    type=click.Choice(("image", "clip", "motion", "pose", "detector")),
    help="List only models of single frames (image), of windows of frames (clip), of motion without weights, or "
    "key points of people (pose); or the detectors of `vidpipe extract --detector`.",
)
@click.option(
    "--download", is_flag=True, help="Download the weights of the named backbones, for use without a network."
)
@format_option("table", "json")
def command(names: tuple[str, ...], kind: str | None, download: bool, format_: str) -> None:
    """List the frozen models, or show all facts about those named.

    Parameters and GMACs (billions of multiply-accumulate operations for one frame, or for one window of frames) do not
    include the classifier. top-1 is the published accuracy in percent, and `on` the dataset: ImageNet-1k for images,
    Kinetics-400 for videos; do not compare the two. With NAME, its source is shown. timm/NAME and torchvision/NAME are
    any other models of these libraries; transformers/NAME is a video encoder of the Hugging Face hub, or of a folder:
    transformers/./FOLDER. The first of its poolings is the default. docs/backbones.md helps to choose.

    \b
    vidpipe backbones
    vidpipe backbones --kind clip
    vidpipe backbones --kind detector
    vidpipe backbones resnet50 timm/resnet50d.ra2_in1k
    vidpipe backbones --download dinov2_small resnet50
    """
    from vidpipe.backbones.table import BACKBONES, find_backbone

    if kind == "detector":
        _list_detectors(names, format_, download=download)
        return
    if download:
        _download(names)
        return
    specs = [find_backbone(name) for name in names] if names else list(BACKBONES.values())
    rows = [_row(spec) for spec in specs if kind in (None, spec.family)]
    _print(rows, names, format_, _show)


def _print(
    rows: Sequence[dict[str, Any]], names: Sequence[str], format_: str, show: Callable[[Sequence[dict[str, Any]]], None]
) -> None:
    """Print a table, or all facts about the models that are named."""
    if format_ == "json":
        for row in rows:
            click.echo(json_line(row))
    elif names:
        click.echo("\n\n".join(map(_format_row, rows)))
    else:
        show(rows)


def _list_detectors(names: Sequence[str], format_: str, *, download: bool) -> None:
    from vidpipe.errors import UsageError
    from vidpipe.regions.table import DETECTORS, find_detector
    from vidpipe.regions.weights import find_detector_weights

    specs = [find_detector(name) for name in names or DETECTORS]
    if not download:
        _print([_detector_row(spec) for spec in specs], names, format_, _show_detectors)
        return
    if not names:
        raise UsageError("--download: name the detectors: vidpipe backbones --kind detector --download ssdlite")
    for spec in specs:
        click.echo(f"{spec.name}: {find_detector_weights(spec, 'default').path}")


def _detector_row(spec: "DetectorSpec") -> dict[str, Any]:
    from vidpipe.regions.weights import default_detector_path

    path = default_detector_path(spec)
    here = path is not None and path.exists()
    return {
        "name": spec.name,
        "kind": "detector",
        "finds": spec.finds,
        "classes": spec.classes,
        "library": spec.library,
        "parameters": spec.num_parameters,
        "score": spec.score,
        "score_metric": spec.score_metric or None,
        "score_source": spec.score_source or None,
        "min_score": spec.min_score,
        "here": here,
        "weights": spec.weights or None,
        "licence": spec.weights_licence,
        "path": str(path) if here else None,
    }


def _download(names: Sequence[str]) -> None:
    from vidpipe.backbones.table import find_backbone
    from vidpipe.backbones.weights import find_weights
    from vidpipe.errors import UsageError

    if not names:
        raise UsageError(
            "--download: name the backbones whose weights to download: vidpipe backbones --download resnet50"
        )
    for spec in [find_backbone(name) for name in names]:
        click.echo(f"{spec.name}: {find_weights(spec, 'default').path}")


def _row(spec: "BackboneSpec") -> dict[str, Any]:
    from vidpipe.backbones.sizes import size_of
    from vidpipe.backbones.weights import default_weights_path

    path = default_weights_path(spec)
    here = path is not None and path.exists()
    size = size_of(spec)
    return {
        "name": spec.name,
        "kind": spec.family,
        "dim": spec.dim,
        "parameters": size.num_parameters,
        "gmacs": round(size.gmacs, 4),
        "window": None if spec.window is None else dict(spec.window.as_dict()),
        "input_size": list(spec.preprocessing.size),
        "poolings": list(spec.poolings),
        "top1": spec.top1,
        "top1_dataset": None if spec.top1 is None else spec.top1_dataset,
        "top1_source": spec.top1_source or None,
        "here": here,
        "weights": spec.weights,
        "licence": spec.weights_licence,
        "path": str(path) if here else None,
    }


def _format_row(row: dict[str, Any]) -> str:
    return "\n".join(f"{key:<12} {_format_value(value)}" for key, value in row.items())


def _format_value(value: Any) -> str:
    """A value as text: `True` is `yes`, `None` is `–`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return f"{_format_window(value)}, at least {value['min_frames']}"
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _format_window(window: dict[str, Any] | None) -> str:
    """`16 at 7.5 fps`; `1` for a model of single frames."""
    if window is None:
        return "1"
    return f"{window['num_frames']}" + ("" if window["fps"] is None else f" at {window['fps']:g} fps")


def _source(weights: str) -> str:
    """`https://download.pytorch.org/models/…` -> `download.pytorch.org`; a package or a shipped file unchanged."""
    return weights.split("/")[2] if weights.startswith("http") else weights


def _show(rows: Sequence[dict[str, Any]]) -> None:
    show_table(
        COLUMNS,
        [
            (
                row["name"],
                str(row["dim"]),
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['gmacs']:.2f}",
                _format_window(row["window"]),
                "×".join(map(str, row["input_size"])),
                "–" if row["top1"] is None else f"{row['top1']:.1f}",
                _format_value(row["top1_dataset"]),
                _format_value(row["here"]),
                _source(row["weights"] or ("--weights FILE" if row["parameters"] else "")),
                row["licence"],
            )
            for row in rows
        ],
    )


def _show_detectors(rows: Sequence[dict[str, Any]]) -> None:
    show_table(
        DETECTOR_COLUMNS,
        [
            (
                row["name"],
                ", ".join(row["finds"]),
                row["classes"],
                "–" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f} M",
                "–" if row["score"] is None else f"{row['score']:.1f}",
                _format_value(row["score_metric"]),
                _format_value(row["here"]),
                _source(row["weights"] or "--detector-weights FILE"),
                row["licence"],
            )
            for row in rows
        ],
    )
