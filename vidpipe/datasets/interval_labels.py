"""Labels of intervals, and the windows of long videos that learn them.

interval         [────── walk ──────)          [run)
windows      [───────)                         background, or not used: partly covered
                  [───────)                    walk
                        [───────)              walk
                                          [───────)   run: the window around an interval that is shorter
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import LabelsConfig
from vidpipe.datasets.groups import group_by_pattern
from vidpipe.datasets.intervals import LabeledInterval, read_intervals
from vidpipe.datasets.labels import labels_table
from vidpipe.datasets.matching import match_names
from vidpipe.datasets.people import has_tracks
from vidpipe.datasets.windows import Windows, cut_windows, grid_of, rows_between
from vidpipe.errors import LabelsError, UsageError, count_of, first_few
from vidpipe.features.slices import Slice, SlicedStore
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo, Segment, Timeline

__all__ = ["LabelledWindows", "label_windows", "read_interval_labels"]

logger = logging.getLogger(__name__)

MIN_SHARE, MAX_OTHER_SHARE = 0.75, 0.25
"""A window learns a label that covers this share of it, if each other label covers less than that."""
MAX_BACKGROUND_SHARE = 0.1
"""A window is background where labels cover no more of it."""
_TRAINING_STRIDES_PER_WINDOW = 2
TOLERANCE_SECONDS = 0.5
"""An interval may stop so much after its video, as times are rounded."""


@dataclass(frozen=True)
class LabelledWindows:
    """Windows of long videos, and what they are labelled with."""

    truth: tuple[Timeline, ...]
    """The long videos, by id."""
    whole: Mapping[str, FeatureStore]
    """By stream, the features of the long videos."""
    stores: Mapping[str, SlicedStore]
    """By stream, those of the windows."""
    videos: tuple[LabeledVideo, ...]
    """The windows that have a label."""
    video_of: Mapping[str, str]
    """The long video of each window, by their ids."""
    window_seconds: float
    background: str
    """The class of time without a label; empty where no window has it."""


def read_interval_labels(stores: Mapping[str, FeatureStore], config: LabelsConfig) -> list[Timeline]:
    """Read the labels of intervals, and match them with the videos of the stores.

    Args:
        stores: by stream; videos that one of them lacks are an error, or left out with `skip_missing`.
        config: `labels` and how to read them.

    Returns:
        The timeline of each labelled video, with the store's id, in order of the ids.

    Raises:
        LabelsError: the labels cannot be read, an interval lies outside its video, or the videos have no features.
        UsageError: there is no such file.
    """
    assert config.labels is not None
    intervals = read_intervals(
        config.labels,
        group_column=config.group_by or "group",
        video_column=config.video_column,
        label_column=config.label_column,
    )
    common = sorted(set.intersection(*(set(store.ids) for store in stores.values())))
    first = next(iter(stores.values()))
    by_video: dict[str, list[LabeledInterval]] = defaultdict(list)
    missing = []
    matches = match_names((one.video_id for one in intervals), common)
    for one in intervals:
        found = matches[one.video_id]
        if len(found) > 1:
            names = " or ".join(repr(match.video_id) for match in found[:2])
            raise LabelsError(f"{one.place}: {one.video_id!r} may be {names}; write the full id")
        if found:
            by_video[found[0].video_id].append(one)
        else:
            missing.append(one.video_id)
    _report_missing(config, sorted(set(missing)), common, by_video)
    return _grouped([_timeline(video_id, by_video[video_id], first) for video_id in sorted(by_video)], config)


def _grouped(timelines: Sequence[Timeline], config: LabelsConfig) -> list[Timeline]:
    """The timelines with the groups of --group-by, where it is an expression over ids and no column."""
    table = None if str(config.labels).lower().endswith(".json") else labels_table(str(config.labels))
    if config.group_by is None or (table is not None and table.named(config.group_by) is not None):
        return list(timelines)
    no_column = f"{config.labels} has no such column"
    videos = group_by_pattern(
        [LabeledVideo(one.video_id, "") for one in timelines], config.group_by, no_column=no_column
    )
    return [replace(one, group=video.group) for one, video in zip(timelines, videos, strict=True)]


def _report_missing(
    config: LabelsConfig, missing: Sequence[str], stored: Sequence[str], found: Mapping[str, object]
) -> None:
    if missing:
        what = f"{config.labels}: {count_of(len(missing), 'labelled video')} without features: {first_few(missing)}"
        if not config.skip_missing or not found:
            raise LabelsError(f"{what}; extract them, remove their rows, or pass --skip-missing")
        logger.warning("%s; left out", what)
    if unlabelled := [video_id for video_id in stored if video_id not in found]:
        logger.warning(
            "%s: %s of the store without a label: %s; left out",
            config.labels,
            count_of(len(unlabelled), "video"),
            first_few(unlabelled),
        )


def _timeline(video_id: str, intervals: Sequence[LabeledInterval], store: FeatureStore) -> Timeline:
    duration_seconds = store.info(video_id).duration_seconds
    for one in intervals:
        if one.segment is not None and one.segment.stop_seconds > duration_seconds + TOLERANCE_SECONDS:
            raise LabelsError(
                f"{one.place}: {one.segment.label!r} from {one.segment.start_seconds:g} to "
                f"{one.segment.stop_seconds:g} s lies outside {video_id!r}, which lasts {duration_seconds:.1f} s; "
                "correct the times, or the video's name"
            )
    segments = sorted((one.segment for one in intervals if one.segment), key=lambda one: one.start_seconds)
    first = intervals[0]
    return Timeline(video_id, tuple(segments), duration_seconds, split=first.split, group=first.group)


def label_windows(
    stores: Mapping[str, FeatureStore],
    truth: Sequence[Timeline],
    *,
    window_seconds: float | None = None,
    background: str = "background",
) -> LabelledWindows:
    """Cut long videos into windows, and label those that one label covers, and those that none does.

    Args:
        stores: by stream, with frames at a rate, or of clips of a length.
        truth: the labels, from `read_interval_labels`.
        window_seconds: the length of a window; None is the length of the store's clips, or the median interval.
        background: the class of time without a label.

    Returns:
        The windows.

    Raises:
        UsageError: the frames are of whole videos or scenes, the store's clips have another length, or its rows are of
            single people.
        LabelsError: no window has a label.
    """
    if any(has_tracks(store.key) for store in stores.values()):
        raise UsageError(
            "labels of intervals do not say which person they are of, so they do not go with --regions tracks; extract "
            "with --regions people, or label whole videos"
        )
    window_seconds = _resolve_length(next(iter(stores.values())), truth, window_seconds)
    slices: dict[str, list[Slice]] = {name: [] for name in stores}
    videos, video_of = list[LabeledVideo](), dict[str, str]()
    for timeline in truth:
        windows, spans = _cut(stores, timeline.video_id, window_seconds)
        for number, label in _labels(windows, timeline.segments, background):
            start, stop = windows.start_seconds[number], windows.stop_seconds[number]
            name = f"{timeline.video_id}#{start:.3f}-{stop:.3f}"
            group = timeline.group or timeline.video_id
            videos.append(LabeledVideo(name, label, timeline.split, group, "the labels"))
            video_of[name] = timeline.video_id
            for stream, (first_row, stop_row) in spans.items():
                cells = stores[stream].key.num_cells
                rows = int(first_row[number]) * cells, int(stop_row[number]) * cells
                slices[stream].append(Slice(name, timeline.video_id, *rows, float(stop - start)))
    if not videos:
        raise LabelsError(
            f"no window of {window_seconds:g} s is covered by one label; give a shorter --window than the intervals"
        )
    sliced = {name: SlicedStore(store, slices[name]) for name, store in stores.items()}
    known = {video.label for video in videos}
    return LabelledWindows(
        tuple(truth),
        stores,
        sliced,
        tuple(videos),
        video_of,
        window_seconds,
        background if background in known else "",
    )


def _resolve_length(store: FeatureStore, truth: Sequence[Timeline], window_seconds: float | None) -> float:
    sampling = store.key.resolve_sampling()
    if sampling.method == "uniform" and sampling.clip_seconds is not None:
        if window_seconds not in (None, sampling.clip_seconds):
            raise UsageError(
                f"--window {window_seconds:g}: {store.path} holds frames of clips of {sampling.clip_seconds:g} s; "
                "leave --window out, or extract with another --clip-seconds"
            )
        return sampling.clip_seconds
    if sampling.method != "fps":
        raise UsageError(
            f"{store.path}: its frames ({sampling}) are not at even distances in time, as windows need them; extract "
            "with --sampling fps --fps 4, or with --clip-seconds"
        )
    durations = [segment.duration_seconds for timeline in truth for segment in timeline.segments]
    return window_seconds or (median(durations) if durations else 1.0)


def _cut(
    stores: Mapping[str, FeatureStore], video_id: str, window_seconds: float
) -> tuple[Windows, dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """The windows of a video, and their rows in each stream."""
    spans: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    windows: Windows | None = None
    for name, store in stores.items():
        sequence, cells = store[video_id], store.key.num_cells
        if windows is None:
            grid = grid_of(sequence, store.key.resolve_sampling(), window_seconds, num_cells=cells)
            windows = cut_windows(grid, window_seconds / _TRAINING_STRIDES_PER_WINDOW)
            spans[name] = windows.first_row, windows.stop_row
        else:
            spans[name] = rows_between(sequence.pts_seconds[::cells], windows)
    assert windows is not None
    return windows, spans


def _labels(windows: Windows, segments: Sequence[Segment], background: str) -> Iterator[tuple[int, str]]:
    """The number and the label of each window that has one."""
    starts, stops = windows.start_seconds, windows.stop_seconds
    lengths = np.maximum(stops - starts, 1e-9)
    labels = sorted({segment.label for segment in segments})
    shares = np.zeros((len(windows), len(labels)))
    for segment in segments:
        overlap = np.minimum(stops, segment.stop_seconds) - np.maximum(starts, segment.start_seconds)
        shares[:, labels.index(segment.label)] += overlap.clip(min=0) / lengths
    best_of_short = _windows_of_short(windows, segments)
    for number, row in enumerate(shares):
        if number in best_of_short:
            yield number, best_of_short[number]
        elif row.sum() <= MAX_BACKGROUND_SHARE:
            yield number, background
        elif row.max() >= MIN_SHARE and np.partition(np.append(row, 0), -2)[-2] < MAX_OTHER_SHARE:
            yield number, labels[int(row.argmax())]


def _windows_of_short(windows: Windows, segments: Sequence[Segment]) -> dict[int, str]:
    """The window around each interval that is too short to cover one."""
    centres = (windows.start_seconds + windows.stop_seconds) / 2
    length = float(np.median(windows.stop_seconds - windows.start_seconds))
    return {
        int(np.abs(centres - (one.start_seconds + one.stop_seconds) / 2).argmin()): one.label
        for one in segments
        if one.duration_seconds < MIN_SHARE * length
    }
