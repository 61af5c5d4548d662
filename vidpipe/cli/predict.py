"""vidpipe predict"""

import csv
import heapq
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from vidpipe.cli.options import (
    OUTPUT_PATH,
    SOME_VIDEOS_FAILED,
    LocalPath,
    exclude_option,
    find_inputs,
    inputs_or_urls_argument,
    json_line,
    prefix_option,
    printable,
    setting_options,
    vidpipe_command,
)
from vidpipe.cli.outputs import OutputLines, check_replaceable
from vidpipe.cli.predict_follow import check_follow, print_live_segments
from vidpipe.cli.predict_timeline import CSV_COLUMNS as TIMELINE_COLUMNS
from vidpipe.cli.predict_timeline import Copies, print_timelines
from vidpipe.config import PREDICT_SETTINGS, ExtractConfig, PredictConfig, TimelineConfig, make_config
from vidpipe.config import settings as settings_of
from vidpipe.errors import InterruptedExtractionError, UsageError, count_of, first_few

if TYPE_CHECKING:
    from vidpipe.features.store import FeatureStore
    from vidpipe.records import PersonPrediction, Prediction, VideoFile
    from vidpipe.runs.run import Run

__all__ = ["command"]

logger = logging.getLogger(__name__)

DEFAULT_TOP = 5
CSV_COLUMNS = ("video", "label", "probability", "path")
MAX_SECONDS_BETWEEN_FRAMES = 10.0
"""A warning names videos whose sampled frames are further apart: an action between two frames is missed."""
NUM_NAMES_SHOWN = 3
FORMAT_OF_SUFFIX = {".csv": "csv", ".json": "json", ".jsonl": "json"}


@vidpipe_command(name="predict", short_help="Label videos with a trained run.")
@click.argument("run", type=LocalPath())
@inputs_or_urls_argument
@click.option("-o", "--output", type=OUTPUT_PATH, help="Write to this .csv or .json file; FILE.partial until done.")
@prefix_option
@exclude_option
@setting_options(PredictConfig)
@setting_options(TimelineConfig)
@setting_options(ExtractConfig, "extract", "predict", only=PREDICT_SETTINGS)
def command(
    run: Path,
    inputs: tuple[Path | str, ...],
    top: int | None,
    min_confidence: float,
    uncertain: int | None,
    store: Path | None,
    prefix: str,
    exclude: tuple[str, ...],
    output: Path | None,
    format_: str,
    **settings: Any,
) -> None:
    """Label videos with a trained run, using the run's own sampling and backbones; --timeline finds segments in them.

    INPUT is a video, a folder (searched to any depth; hidden folders are skipped), a CSV with a column `video`, or the
    URL of a video or folder (s3://, gs://: pip install 'vidpipe[cloud]'). Predictions come in the order of the inputs.
    csv has a row for each video that was read: video,label,probability,path.

    \b
    vidpipe predict run new_video.mp4
    vidpipe predict run new_videos/ --format csv > labels.csv
    vidpipe predict run new_videos/ --min-confidence 0.6
    vidpipe predict run new_videos/ --uncertain 20 -o to_correct.csv
    vidpipe predict run long.mp4 --timeline --store dense_features
    vidpipe predict run recording.ts --timeline --follow
    """
    config, timeline = make_config(ExtractConfig, settings), make_config(TimelineConfig, settings)
    _check_options(timeline, top=top, uncertain=uncertain)
    if timeline.follow:
        check_follow(inputs, output)
    else:
        columns = TIMELINE_COLUMNS if timeline.timeline else CSV_COLUMNS
        format_ = _choose_format(format_, output, uncertain, columns=columns)

    from vidpipe.runs.run import Run

    opened_run = Run.open(run)
    if timeline.follow:
        num_failed = print_live_segments(
            opened_run, Path(inputs[0]), timeline, min_confidence=min_confidence, output=output, config=config
        )
        _exit(num_failed, ())
        return
    videos, unreadable = find_inputs(inputs, prefix=prefix, exclude=exclude, video_column=config.video_column)
    if timeline.write_video is not None and any(video.remote for video in videos):
        raise UsageError("--write-video copies files, and URLs are not kept; download the videos, and name them here")
    if timeline.timeline:
        num_failed = print_timelines(
            opened_run,
            videos,
            timeline,
            min_confidence=min_confidence,
            store=store,
            output=output,
            format_=format_,
            config=config,
        )
    else:
        usage = f"vidpipe predict {run} {inputs[0]} --store STORE"
        num_failed = _print_predictions(
            opened_run,
            videos,
            top=top,
            min_confidence=min_confidence,
            uncertain=uncertain,
            stores=None if store is None else _open_stores(store, opened_run, config, usage=usage),
            copies=Copies(videos, timeline.write_video),
            output=output,
            format_=format_,
            config=config,
        )
    _exit(num_failed, unreadable)


def _open_stores(store: Path, run: "Run", config: ExtractConfig, *, usage: str) -> "dict[str, FeatureStore]":
    """The stores of the run's streams; on Ray they are made where they do not exist."""
    from vidpipe.datasets.streams import match_stores
    from vidpipe.stages.apply import make_stores

    if config.executor == "ray":
        return make_stores(store, run.keys)
    return match_stores(run.keys, [store], usage=usage)


def _print_predictions(
    run: "Run",
    videos: "Sequence[VideoFile]",
    *,
    top: int | None,
    min_confidence: float,
    uncertain: int | None,
    stores: "dict[str, FeatureStore] | None",
    copies: Copies,
    output: Path | None,
    format_: str,
    config: ExtractConfig,
) -> int:
    """Print the classes of each video; return the number of videos that failed, or whose annotated copy failed."""
    from vidpipe.stages.predict import predict

    form = _form(format_, videos, run, top)
    seen = _Seen(run, len(videos), is_table=format_ == "table")
    found = predict(run, videos, top=top or DEFAULT_TOP, min_confidence=min_confidence, store=stores, config=config)
    predictions = _copied(seen.watch(found), copies)
    chosen = _least_certain(predictions, uncertain) if uncertain else predictions
    _write(output, form, chosen, seen, is_kept=config.executor == "ray")
    seen.report()
    return seen.num_failed + copies.num_failed


def _copied(predictions: "Iterable[Prediction]", copies: Copies) -> "Iterator[Prediction]":
    """Write the annotated copy of each video before its prediction is passed on."""
    from vidpipe.timeline.of_clips import timeline_of

    for prediction in predictions:
        copies.write(timeline_of(prediction))
        yield prediction


def _exit(num_failed: int, unreadable: Sequence[str]) -> None:
    """Print which folders cannot be read; end with the exit code for what failed."""
    for line in unreadable:
        click.echo(line, err=True)
    if num_failed or unreadable:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


def _check_options(timeline: TimelineConfig, *, top: int | None, uncertain: int | None) -> None:
    """Check that the options go together."""
    if timeline.timeline:
        for option, value in (("--top", top), ("--uncertain", uncertain)):
            if value is not None:
                raise UsageError(f"{option} does not go with --timeline, which gives one label for each segment")
        if timeline.idle != TimelineConfig().idle and not timeline.follow:
            raise UsageError("--idle goes with --follow")
    elif replace(timeline, write_video=None) != TimelineConfig():
        named = [one for one in settings_of(TimelineConfig) if one.name != "write_video"]
        given = [one.name for one in named if getattr(timeline, one.name) != one.default]
        raise UsageError(f"--{given[0].replace('_', '-')} goes with --timeline")


def _choose_format(format_: str, output: Path | None, uncertain: int | None, *, columns: Sequence[str]) -> str:
    """The format that is asked for, else the one of the output file's name; check that the file can be written."""
    if click.get_current_context().get_parameter_source("format_") is ParameterSource.DEFAULT:
        by_default = "table" if uncertain is None else "csv"
        format_ = FORMAT_OF_SUFFIX.get(output.suffix.lower(), by_default) if output else by_default
    if output is not None:
        _check_output(output, format_, uncertain, columns)
    return format_


def _check_output(output: Path, format_: str, uncertain: int | None, columns: Sequence[str]) -> None:
    """Check that the output file replaces at most older predictions."""
    if format_ == "table":
        raise UsageError(f"-o {output}: a file holds csv or json; add --format csv")
    if uncertain is not None and output.is_file() and output.stat().st_size:
        raise UsageError(f"{output}: exists, and may hold your corrections; choose another file")
    first_columns, first_key = ",".join(columns).encode(), b'{"video": '
    own_key = b'"segments": ' if columns == TIMELINE_COLUMNS else b'"seconds_between_frames": '
    is_own = {
        "csv": lambda first: first.startswith(first_columns),
        "json": lambda first: first.startswith(first_key) and own_key in first,
    }
    check_replaceable(output, f"predictions as {format_}", is_own=is_own[format_])


def _least_certain(predictions: "Iterable[Prediction]", count: int) -> "Iterator[Prediction]":
    """The videos whose most probable class has the lowest probability, lowest first."""
    labelled = (prediction for prediction in predictions if prediction.error is None)
    yield from heapq.nsmallest(count, labelled, key=lambda prediction: prediction.probabilities[0])


def _write(
    output: Path | None, form: "_Form", predictions: "Iterable[Prediction]", seen: "_Seen", *, is_kept: bool
) -> None:
    with OutputLines(output, form.header) as lines:
        try:
            for prediction in predictions:
                if (line := form.line(prediction)) is not None:
                    lines.write(line)
        except KeyboardInterrupt:
            raise InterruptedExtractionError(_where_it_stands(seen, lines, is_kept=is_kept)) from None


def _where_it_stands(seen: "_Seen", lines: OutputLines, *, is_kept: bool) -> str:
    kept = f" Those written so far are in {lines.partial}." if lines.partial and lines.num_lines else ""
    remedy = (
        "computes only what is missing in the store"
        if is_kept
        else "starts over; to be able to continue, extract the videos into a store first (`vidpipe extract`) and give "
        "it with --store"
    )
    return f"stopped after {seen.num_seen} of {count_of(seen.num_videos, 'video')}.{kept} The same command {remedy}"


class _Seen:
    """Counts predictions, and reports videos that failed, that the run learned from, or that are sparsely sampled."""

    def __init__(self, run: "Run", num_videos: int, *, is_table: bool) -> None:
        self.num_videos = num_videos
        self.num_seen = self.num_failed = 0
        self._is_table = is_table
        self._has_own_rate = run.streams[0].key.resolve_sampling().method == "fps"
        self._learned: list[str] = []
        self._sparse: list[Prediction] = []

    def watch(self, predictions: "Iterable[Prediction]") -> "Iterator[Prediction]":
        """Yield the same predictions."""
        for prediction in predictions:
            self.num_seen += 1
            if prediction.error is not None:
                self.num_failed += 1
                if not self._is_table:  # the table has a row for it
                    click.echo(printable(f"failed: {prediction.video_id}: {prediction.error}"), err=True)
            if prediction.is_learned:
                self._learned.append(prediction.video_id)
            if not self._has_own_rate and (prediction.seconds_between_frames or 0) > MAX_SECONDS_BETWEEN_FRAMES:
                self._sparse.append(prediction)
            yield prediction

    def report(self) -> None:
        """Log which videos the run learned from, and which are sparsely sampled."""
        if self._learned:
            logger.warning(
                "the run learned from %s (same file name and size): %s; predictions of these do not show how well "
                "the run does on new videos",
                f"{len(self._learned)} of {count_of(self.num_videos, 'video')}",
                first_few(self._learned),
            )
        for prediction in self._sparse[:NUM_NAMES_SHOWN]:
            logger.warning(
                "%s: %s of %s, one every %.0f s; actions between them are missed",
                prediction.video_id,
                count_of(prediction.num_frames, "frame"),
                _duration(prediction.duration_seconds),
                prediction.seconds_between_frames,
            )
        if self._sparse:
            more = len(self._sparse) - NUM_NAMES_SHOWN
            logger.warning(
                "%sfor long videos, extract and train with --sampling fps",
                f"{count_of(more, 'more video')} like this; " if more > 0 else "",
            )


def _duration(seconds: float) -> str:
    """`1 h 02 min`, `12 min 30 s`"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


class _Form(NamedTuple):
    """How predictions are formatted."""

    header: str | None
    line: "Callable[[Prediction], str | None]"
    """Returns None where a prediction has no line."""


def _form(format_: str, videos: "Sequence[VideoFile]", run: "Run", top: int | None) -> _Form:
    paths = {video.id: video.place for video in videos}
    if format_ == "csv":
        num_ranked = min(top or 0, len(run.class_names))
        ranking = [f"{name}_{rank}" for rank in range(1, num_ranked + 1) for name in ("label", "probability")]
        return _Form(_csv_line([*CSV_COLUMNS, *ranking]), lambda prediction: _csv_row(prediction, paths, num_ranked))
    if format_ == "json":
        return _Form(None, lambda prediction: _json(prediction, paths))
    width = min(max(len(printable(video.id)) for video in videos), 60)
    return _Form(None, lambda prediction: _table_line(prediction, width))


def _table_line(prediction: "Prediction", width: int) -> str:
    """`waving/a.mp4   waving 97.1 %   jumping 1.2 %`, then a line for each person"""
    ranked = zip(prediction.labels, prediction.probabilities, strict=True)
    text = "   ".join(f"{label} {100 * probability:.1f} %" for label, probability in ranked)
    text = f"{prediction.label}   ({text})" if prediction.is_unknown else text
    text = text or f"failed: {prediction.error}"
    mark = "   [learned from]" if prediction.is_learned else ""
    video = f"{printable(prediction.video_id):<{width}}   {printable(text)}{mark}"
    return "\n".join([video, *map(_person_line, prediction.people)])


def _person_line(person: "PersonPrediction") -> str:
    """`  person 1   0.0 – 4.2 s   waving 97.1 %`"""
    times = f"{person.start_seconds:.1f} – {person.stop_seconds:.1f} s"
    label = f"{printable(person.labels[0])} {100 * person.probabilities[0]:.1f} %"
    return f"  person {person.path.track}   {times}   {label}"


def _json(prediction: "Prediction", paths: Mapping[str, str]) -> str:
    ranked = zip(prediction.labels, prediction.probabilities, strict=True)
    return json_line(
        {
            "video": prediction.video_id,
            "path": paths[prediction.video_id],
            "status": prediction.status,
            "label": prediction.label,
            "probability": prediction.probability,
            "predictions": [{"label": label, "probability": probability} for label, probability in ranked],
            "learned": prediction.is_learned,
            "seconds_between_frames": prediction.seconds_between_frames,
            "people": [_person_object(person) for person in prediction.people],
            "error": prediction.error,
        }
    )


def _person_object(person: "PersonPrediction") -> dict[str, Any]:
    ranked = zip(person.labels, person.probabilities, strict=True)
    return {
        "track": person.path.track,
        "start_seconds": person.start_seconds,
        "stop_seconds": person.stop_seconds,
        "predictions": [{"label": label, "probability": probability} for label, probability in ranked],
    }


def _csv_row(prediction: "Prediction", paths: Mapping[str, str], num_ranked: int) -> str | None:
    """A row for a video with a label; None for one that failed, because the rows serve as labels to train on."""
    if prediction.error is not None:
        return None
    path = os.fsencode(paths[prediction.video_id]).decode("utf-8", "backslashreplace")
    ranked = zip(prediction.labels[:num_ranked], prediction.probabilities, strict=False)
    ranking = [value for label, probability in ranked for value in (label, f"{probability:.6f}")]
    return _csv_line([prediction.video_id, prediction.label, f"{prediction.probability:.6f}", path, *ranking])


def _csv_line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
