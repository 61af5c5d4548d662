"""vidpipe predict"""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import (
    SOME_VIDEOS_FAILED,
    LocalPath,
    exclude_option,
    find_inputs,
    json_line,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.config import ExtractConfig, PredictConfig

if TYPE_CHECKING:
    from vidpipe.records import Prediction

HOW_TO_EXTRACT = ("weights", "device", "engine", "decoder", "batch_size", "workers", "timeout", "video_column")
"""Settings of `vidpipe extract` that change no feature; the run has the others."""


@vidpipe_command(name="predict", short_help="New videos -> labels.")
@click.argument("run", type=LocalPath())
@click.argument("inputs", metavar="INPUT…", nargs=-1, required=True, type=LocalPath())
@exclude_option
@setting_options(PredictConfig)
@setting_options(ExtractConfig, "extract", "predict", only=HOW_TO_EXTRACT)
def command(
    run: Path,
    inputs: tuple[Path, ...],
    top: int,
    min_confidence: float,
    store: Path | None,
    exclude: tuple[str, ...],
    format_: str,
    **settings: Any,
) -> None:
    """Label videos with a trained run, by the run's own sampling and image model.

    INPUT is a video, a folder (searched to any depth; hidden folders are skipped) or a CSV with a column `video`.

    \b
    vidpipe predict run new_video.mp4
    vidpipe predict run new_videos/ --format csv > labels.csv
    vidpipe predict run new_videos/ --min-confidence 0.6
    """
    config = ExtractConfig(**settings)

    from vidpipe.features.store import FeatureStore
    from vidpipe.predict import predict
    from vidpipe.run import Run

    opened_run = Run.open(run)
    videos, unreadable = find_inputs(inputs, exclude=exclude, video_column=config.video_column)
    opened_store = FeatureStore.open(store) if store is not None else None
    forms: dict[str, Callable[[Prediction], str]] = {
        "table": _TableLines(max(len(printable(video.id)) for video in videos)),
        "json": _json,
        "csv": _CsvLines(),
    }
    any_failed = False
    for prediction in predict(
        opened_run, videos, top=top, min_confidence=min_confidence, store=opened_store, config=config
    ):
        any_failed |= prediction.error is not None
        click.echo(forms[format_](prediction))
        if prediction.error is not None and format_ != "table":
            click.echo(printable(f"failed: {prediction.video_id}: {prediction.error}"), err=True)
    for told in unreadable:
        click.echo(told, err=True)
    if any_failed or unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _json(prediction: "Prediction") -> str:
    ranked = zip(prediction.labels, prediction.probabilities, strict=True)
    return json_line(
        {
            "video": prediction.video_id,
            "status": prediction.status,
            "predictions": [{"label": label, "probability": probability} for label, probability in ranked],
            "error": prediction.error,
        }
    )


class _TableLines:
    """`waving/a.mp4   waving 97.1 %   jumping 1.2 %`"""

    def __init__(self, width: int) -> None:
        self._width = min(width, 60)

    def __call__(self, prediction: "Prediction") -> str:
        ranked = zip(prediction.labels, prediction.probabilities, strict=True)
        told = "   ".join(f"{label} {100 * probability:.1f} %" for label, probability in ranked)
        told = f"none of these   ({told})" if prediction.is_unknown else told
        told = told or f"failed: {prediction.error}"
        return f"{printable(prediction.video_id):<{self._width}}   {printable(told)}"


class _CsvLines:
    """A line for each class given; the header before the first."""

    COLUMNS = ("video", "status", "rank", "label", "probability", "error")

    def __init__(self) -> None:
        self._header: tuple[tuple[Any, ...], ...] = (self.COLUMNS,)

    def __call__(self, prediction: "Prediction") -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows(self._header)
        self._header = ()
        writer.writerows(self._rows(prediction))
        return text.getvalue().removesuffix("\n")

    @staticmethod
    def _rows(prediction: "Prediction") -> Iterator[tuple[Any, ...]]:
        if prediction.error is not None:
            yield prediction.video_id, "failed", "", "", "", printable(prediction.error)
        ranked = zip(prediction.labels, prediction.probabilities, strict=True)
        for rank, (label, probability) in enumerate(ranked, start=1):
            yield prediction.video_id, prediction.status, rank, label, f"{probability:.6f}", ""
