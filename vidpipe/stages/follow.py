"""A video that is still recorded -> segments, each as soon as it is certain.

read_live (a process) ──rows that are certain──► engines ──features──► LiveTimeline ──► segments
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.image import choose_device
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig, TimelineConfig
from vidpipe.datasets.streams import kind_of
from vidpipe.errors import UsageError
from vidpipe.execution.loaded import DEFAULT_BATCH_SIZE, LoadedStream
from vidpipe.records import Segment, VideoFailure
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.runs.run import Run
from vidpipe.stages.timeline import WindowPlan, decoding_of
from vidpipe.timeline.live import LiveTimeline, NewRows
from vidpipe.video.live import LiveEnd, LiveFile, LiveRows, read_live
from vidpipe.video.live_files import Patience

__all__ = ["LiveSegment", "follow"]

_MAX_SETTLE_SECONDS = 3.0
_NUM_VIDEOS = 1000
"""A recording is as long as many clips: an export to ONNX pays."""


@dataclass(frozen=True)
class LiveSegment:
    """A segment of a video that is still recorded."""

    video_id: str
    """The file in which it starts."""
    segment: Segment
    """Its times go on from file to file."""


def follow(
    run: Run,
    path: Path,
    *,
    timeline: TimelineConfig | None = None,
    min_confidence: float = 0.0,
    config: ExtractConfig | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[LiveSegment | VideoFailure]:
    """Find the segments of a video while it is recorded.

    Rows, windows and segments are those of `predict_timelines` on the finished file, as far as they do not depend on
    its length: the mean frame rate and the mean distance of rows are those of the first seconds.

    Args:
        run: from `Run.open`.
        path: a file that grows; or a folder, whose files are one video in the order of their names.
        timeline: the windows, how segments are read off, and how long to wait for more.
        min_confidence: segments with a lower probability are left out.
        config: device, batch size, timeout and weights.
        is_stopped: is called often; once it returns True, the video ends with what was read so far.

    Returns:
        An iterator over the segments in the order of their ends, and over the failures of a folder's files.

    Raises:
        UsageError: the windows do not go with the run, or the device or a weights file is not available.
        RunError: the weights are not those of the run, or this version of vidpipe does not have the backbone.
        WeightsError: the backbone's weights cannot be downloaded or read.
        VideoError: the file or the folder cannot be read.
    """
    timeline, config = timeline or TimelineConfig(), config or ExtractConfig()
    _check_run(run)
    plan = WindowPlan.of(run, timeline)
    live = LiveTimeline(
        SequenceClassifier.of_run(run, choose_device(config.device)),
        plan.sampling,
        plan.window_seconds,
        plan.stride_seconds,
        class_names=run.class_names,
        decoding=decoding_of(run, timeline, min_confidence),
        background=run.background,
        has_cuts=timeline.cuts,
    )
    streams = {
        name: LoadedStream.load(
            Stream.of_key(key, weights=config.weights, owner=str(run.path)), config, num_videos=_NUM_VIDEOS
        )
        for name, key in plan.keys.items()
    }
    patience = Patience(timeline.idle, min(_MAX_SETTLE_SECONDS, timeline.idle / 2))
    return _follow(path, live, streams, patience, config, is_stopped)


def _check_run(run: Run) -> None:
    """Check that the rows of a run can be computed, and labelled, before the video ends."""
    if run.config.targets == "rows":
        raise UsageError(
            f"{run.path}: its head sees a video as a whole, so nothing is certain before the end; --follow goes with a "
            "run that was trained on windows"
        )
    if any(key.regions is not None for key in run.keys.values()):
        raise UsageError(f"{run.path}: it was trained with --regions, which --follow does not find; leave out --follow")
    if any(key.decoding is not None for key in run.keys.values()):
        raise UsageError(
            f"{run.path}: its features were not decoded exactly (--fast-decode, --decoder nvdec), as --follow does; "
            "leave out --follow"
        )
    if any(kind_of(key) == "pose" for key in run.keys.values()):
        raise UsageError(
            f"{run.path}: it was trained on key points of people, which --follow does not find; leave out --follow"
        )


def _follow(
    path: Path,
    live: LiveTimeline,
    streams: dict[str, LoadedStream],
    patience: Patience,
    config: ExtractConfig,
    is_stopped: Callable[[], bool],
) -> Iterator[LiveSegment | VideoFailure]:
    files = _Files()
    news = read_live(
        path,
        {name: stream.view for name, stream in streams.items()},
        patience=patience,
        timeout_seconds=config.timeout,
        is_stopped=is_stopped,
    )
    with closing(news):
        for one in news:
            if isinstance(one, VideoFailure):
                yield one
            elif isinstance(one, LiveFile):
                files.add(one)
            elif isinstance(one, LiveEnd):
                yield from map(files.place, live.finish(one.stop_seconds))
            else:
                rows = _rows(one, streams[one.stream], config.batch_size)
                yield from map(files.place, live.add(one.stream, rows))


class _Files:
    """The files of a video, by their times."""

    def __init__(self) -> None:
        self._files: list[LiveFile] = []

    def add(self, file: LiveFile) -> None:
        """Add the next file."""
        self._files.append(file)

    def place(self, segment: Segment) -> LiveSegment:
        """Find the file in which a segment starts."""
        starts = [file.start_seconds for file in self._files]
        number = max(0, bisect_right(starts, segment.start_seconds + 1e-6) - 1)
        return LiveSegment(self._files[number].video_id, segment)


def _rows(news: LiveRows, stream: LoadedStream, batch_size: int | None) -> NewRows:
    """The features of rows."""
    num_frames = batch_size or DEFAULT_BATCH_SIZE[stream.engine.device]
    size = max(1, num_frames // (stream.window.num_frames if stream.window else 1))
    parts = [news.inputs[first : first + size] for first in range(0, len(news.inputs), size)]
    computed: list[NDArray[np.float32]] = [stream.engine.start(part)()[0] for part in parts]
    features = np.concatenate(computed).reshape(len(news.inputs), -1).astype(stream.key.dtype)  # (T, C · D)
    return NewRows(news.pts_seconds, news.frame_index, features, news.start_seconds, news.frames_per_clip)
