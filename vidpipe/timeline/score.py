"""Compare predicted timelines with true ones: match their videos, and compute all metrics."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vidpipe.datasets.intervals import as_subset
from vidpipe.datasets.matching import match_names
from vidpipe.errors import InputError, LabelsError, UsageError, count_of, first_few
from vidpipe.records import Timeline
from vidpipe.timeline.detection import ACTIVITYNET, THUMOS14, DetectionScores, score_detection
from vidpipe.timeline.exchange import format_of_file, read_timelines
from vidpipe.timeline.formats.frame_texts import read_labels_of_frames
from vidpipe.timeline.frames import BACKGROUND, frame_labels, grid_frames, segments_of_frames
from vidpipe.timeline.segmentation import SegmentationScores, score_segmentation

__all__ = ["DEFAULT_FPS", "Protocol", "TimelineScores", "score_files", "score_timelines"]

logger = logging.getLogger(__name__)

DEFAULT_FPS = 10.0
"""Frames per second of the grid on which segments in seconds are compared frame by frame."""

Protocol = Literal["public", "corrected"]

_PROTOCOLS = {"0.3:0.1:0.7": THUMOS14, "0.5:0.05:0.95": ACTIVITYNET}
_THRESHOLDS = tuple(sorted({*THUMOS14, *ACTIVITYNET}))


@dataclass(frozen=True)
class TimelineScores:
    """All metrics of predicted timelines, each 0 to 1."""

    detection: DetectionScores
    has_probabilities: bool
    """Whether predictions have probabilities; without them there is no average precision."""
    segmentation: SegmentationScores
    protocol: Protocol
    fps: float | None
    """Of the grid; None where labels of frames were compared as they are."""
    num_missing: int
    """True videos without a prediction."""
    num_unmatched: int
    """Predicted videos that are not among the true ones."""

    @property
    def num_videos(self) -> int:
        """The true videos."""
        return len(self.segmentation.videos)

    @property
    def map(self) -> dict[float, float] | None:
        """Mean average precision by tIoU threshold; None without probabilities."""
        if not self.has_probabilities:
            return None
        return dict(zip(self.detection.thresholds, self.detection.map, strict=True))

    @property
    def average_map(self) -> dict[str, float] | None:
        """The mean of `map` over the thresholds of THUMOS14 and of ActivityNet; None without probabilities."""
        found = self.map
        if found is None:
            return None
        return {name: sum(found[one] for one in limits) / len(limits) for name, limits in _PROTOCOLS.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "num_videos": self.num_videos,
            "num_missing": self.num_missing,
            "num_unmatched": self.num_unmatched,
            "protocol": self.protocol,
            "fps": self.fps,
            "map": None if self.map is None else {f"{one:g}": value for one, value in self.map.items()},
            "average_map": self.average_map,
            "per_class": [self._of_class(label) for label in self.detection.num_truth],
            "f1": {str(overlap): value for overlap, value in self.segmentation.f1.items()},
            "edit": self.segmentation.edit,
            "frame_accuracy": self.segmentation.frame_accuracy,
            "foreground_accuracy": self.segmentation.foreground_accuracy,
        }

    def _of_class(self, label: str) -> dict[str, Any]:
        figures = zip(self.detection.thresholds, self.detection.average_precision[label], strict=True)
        return {
            "label": label,
            "num_truth": self.detection.num_truth[label],
            "num_predicted": self.detection.num_predicted[label],
            "ap": {f"{one:g}": value for one, value in figures} if self.has_probabilities else None,
        }


@dataclass(frozen=True)
class _Side:
    """The truth, or the predictions."""

    timelines: Sequence[Timeline]
    frames: Mapping[str, Sequence[str]] | None = None
    """The labels of frames by video, where the files hold such."""


def score_files(
    truth: Path,
    predicted: Path,
    *,
    fps: float | None = None,
    background: Sequence[str] = (BACKGROUND,),
    subset: str | None = None,
    protocol: Protocol = "public",
) -> TimelineScores:
    """Read the truth and predictions, and compare them.

    Videos are matched by their ids, as labels are (`vidpipe.datasets.matching`).

    Args:
        truth: a file or folder in any format of `vidpipe.timeline.exchange`.
        predicted: as `truth`.
        fps: frames per second of the grid for frame metrics, 10 by default. Where one of the two holds labels of
            frames, their rate, which is needed. Where both do, they are compared as they are.
        background: labels that are no segments. The first is that of time without a segment.
        subset: the subset of the truth to evaluate, or `all`. By default `test`, if some videos are of it.
        protocol: `public` gives the public evaluators' figures; `corrected` counts the last frame of a segment that
            reaches the end of the video, which the public evaluator for F1@k leaves out.

    Returns:
        The metrics.

    Raises:
        UsageError: there is no such file, or `fps` is missing.
        InputError: the truth has no videos of the subset.
        LabelsError: a file cannot be read, or labels of frames differ in number.
    """
    forms = [format_of_file(path) for path in (truth, predicted)]
    if forms.count("mstcn") == 1 and fps is None:
        raise UsageError("one of the two is labels of frames, the other segments in seconds; give the frames' --fps")
    rate = DEFAULT_FPS if fps is None else fps
    sides = (_load(path, form, rate, background[0]) for path, form in zip((truth, predicted), forms, strict=True))
    return _score(*sides, fps=rate, background=background, subset=subset, protocol=protocol)


def score_timelines(
    truth: Sequence[Timeline],
    predicted: Sequence[Timeline],
    *,
    fps: float = DEFAULT_FPS,
    background: Sequence[str] = (BACKGROUND,),
    subset: str | None = None,
    protocol: Protocol = "public",
) -> TimelineScores:
    """Compare predicted timelines with true ones, as `score_files` does.

    Args:
        truth: the true timelines.
        predicted: the predicted ones.
        fps: frames per second of the grid for frame metrics.
        background: labels that are no segments. The first is that of time without a segment.
        subset: the subset of the truth to evaluate, or `all`. By default `test`, if some videos are of it.
        protocol: `public` or `corrected`.

    Returns:
        The metrics.

    Raises:
        InputError: the truth has no videos of the subset.
        LabelsError: two predictions are of the same video.
    """
    sides = (_Side(truth), _Side(predicted))
    return _score(*sides, fps=fps, background=background, subset=subset, protocol=protocol)


def _load(path: Path, form: str, fps: float, background: str) -> _Side:
    if form != "mstcn":
        return _Side(read_timelines(path, form=form))
    frames = read_labels_of_frames(path)
    timelines = [
        Timeline(video_id, segments_of_frames(labels, fps=fps, background=background), len(labels) / fps)
        for video_id, labels in frames.items()
    ]
    return _Side(timelines, frames)


def _score(
    truth: _Side, predicted: _Side, *, fps: float, background: Sequence[str], subset: str | None, protocol: Protocol
) -> TimelineScores:
    predicted = _with_ids_of(truth, predicted)
    chosen = _without_labels(_of_subset(truth.timelines, subset), background)
    found = _without_labels(predicted.timelines, background)
    missing, unmatched = _report_unmatched(truth.timelines, chosen, found)
    true_frames, predicted_frames = _frames(chosen, truth.frames, found, predicted.frames, fps, background[0])
    return TimelineScores(
        detection=score_detection(chosen, found, thresholds=_THRESHOLDS),
        has_probabilities=_have_probabilities(found),
        segmentation=score_segmentation(
            true_frames, predicted_frames, background=background, end_exclusive=protocol == "corrected"
        ),
        protocol=protocol,
        fps=None if truth.frames is not None and predicted.frames is not None else fps,
        num_missing=missing,
        num_unmatched=unmatched,
    )


def _of_subset(truth: Sequence[Timeline], subset: str | None) -> list[Timeline]:
    splits = Counter(one.split for one in truth)
    wanted = ("test" if "test" in splits else "all") if subset is None else as_subset(subset)
    if wanted == "all":
        return list(truth)
    chosen = [one for one in truth if one.split == wanted]
    if not chosen:
        known = ", ".join(str(split) for split in splits if split) or "none"
        raise InputError(
            f"the truth has no videos of the subset {subset!r}; its subsets: {known}; or give --subset all"
        )
    if subset is None and len(chosen) < len(truth):
        logger.warning("scored the %s of the subset test; --subset all scores all", count_of(len(chosen), "video"))
    return chosen


def _with_ids_of(truth: _Side, predicted: _Side) -> _Side:
    """The predictions under the truth's ids; those that match no video, or several, keep their own."""
    matches = match_names((one.video_id for one in predicted.timelines), {one.video_id for one in truth.timelines})
    ids = {name: found[0].video_id if len(found) == 1 else name for name, found in matches.items()}
    for video_id, count in Counter(ids.values()).items():
        if count > 1:
            names = [repr(name) for name, other in ids.items() if other == video_id]
            raise LabelsError(f"predictions {first_few(names)} are all of the video {video_id!r}; keep one")
    timelines = [replace(one, video_id=ids[one.video_id]) for one in predicted.timelines]
    frames = predicted.frames
    return _Side(timelines, None if frames is None else {ids[name]: labels for name, labels in frames.items()})


def _without_labels(timelines: Sequence[Timeline], labels: Collection[str]) -> list[Timeline]:
    return [
        replace(one, segments=tuple(segment for segment in one.segments if segment.label not in labels))
        for one in timelines
    ]


def _report_unmatched(
    truth: Sequence[Timeline], chosen: Sequence[Timeline], found: Sequence[Timeline]
) -> tuple[int, int]:
    """Warn of true videos without prediction, and of predicted ones without truth; return how many there are."""
    predicted, known = {one.video_id for one in found if one.error is None}, {one.video_id for one in truth}
    missing = [one.video_id for one in chosen if one.video_id not in predicted]
    unmatched = [one.video_id for one in found if one.video_id not in known]
    if missing:
        logger.warning(
            "%s without a prediction, counted as nothing found: %s", count_of(len(missing), "video"), first_few(missing)
        )
    if unmatched:
        logger.warning(
            "%s not in the truth, whose segments are false positives of mAP and not in the other metrics: %s",
            count_of(len(unmatched), "predicted video"),
            first_few(unmatched),
        )
    return len(missing), len(unmatched)


def _frames(
    chosen: Sequence[Timeline],
    true_frames: Mapping[str, Sequence[str]] | None,
    found: Sequence[Timeline],
    predicted_frames: Mapping[str, Sequence[str]] | None,
    fps: float,
    background: str,
) -> tuple[dict[str, Sequence[str]], dict[str, Sequence[str]]]:
    """The labels of frames of each true video: the true ones, and the predicted ones."""
    by_id = {one.video_id: one for one in found}
    truth: dict[str, Sequence[str]] = {}
    predicted: dict[str, Sequence[str]] = {}
    for video in chosen:
        name, other = video.video_id, by_id.get(video.video_id, Timeline(video.video_id))
        given, guessed = (true_frames or {}).get(name), (predicted_frames or {}).get(name)
        length = len(given or guessed or ()) or _num_frames(video, other, fps)
        truth[name] = given or frame_labels(video, fps=fps, num_frames=length, background=background)
        predicted[name] = guessed or frame_labels(other, fps=fps, num_frames=length, background=background)
        if len(truth[name]) != len(predicted[name]):
            raise LabelsError(
                f"video {name!r} has {len(truth[name])} true labels of frames and {len(predicted[name])} predicted "
                "ones; both need one for each frame, at the same rate"
            )
    return truth, predicted


def _num_frames(truth: Timeline, predicted: Timeline, fps: float) -> int:
    """The length of a video's grid: by its duration, if either side knows it, or up to the last stop of both."""
    for one in (truth, predicted):
        if one.duration_seconds is not None:
            return grid_frames(one, fps)
    return max(grid_frames(truth, fps), grid_frames(predicted, fps))


def _have_probabilities(found: Sequence[Timeline]) -> bool:
    """Whether all predicted segments have a probability. Warns if some lack it."""
    num_without = sum(segment.probability is None for one in found for segment in one.segments)
    if num_without:
        logger.warning("no mAP: %s without a probability", count_of(num_without, "predicted segment"))
    return not num_without
