"""Metrics of a label for each frame: frame accuracy, segmental edit score and F1.

The edit score and F1@k are those of Lea et al., CVPR 2017, as the MS-TCN family computes them (Abu Farha and Gall, CVPR
2019): F1 from hits summed over all videos, edit as the mean over videos, accuracy over all frames. A predicted segment
is a hit if the true segment of its label with the highest IoU reaches k, and no earlier prediction took that one.

The public evaluator (github.com/ChinaYi/ASFormer, `eval.py`) ends a segment that reaches the last frame one frame too
early; of one frame, it cannot be hit. `end_exclusive` says which is computed. A video that is all background cannot be
evaluated there; here, each predicted segment in it is a false positive, and its edit score is 1 if there is none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.timeline.frames import BACKGROUND

__all__ = ["OVERLAPS", "Hits", "SegmentationScores", "VideoScores", "score_segmentation"]

OVERLAPS = (10, 25, 50)
"""k of F1@k, in percent."""


@dataclass(frozen=True)
class Hits:
    """Hits of segments, summed."""

    num_hits: int
    num_false: int
    """Predicted segments that are no hit."""
    num_missed: int
    """True segments that no prediction took."""

    @property
    def f1(self) -> float:
        """0 to 1; 0 where there is no segment at all."""
        total = 2 * self.num_hits + self.num_false + self.num_missed
        return 2 * self.num_hits / total if total else 0.0


@dataclass(frozen=True)
class VideoScores:
    """The metrics of one video."""

    edit: float
    """0 to 1."""
    hits: Mapping[int, Hits]
    """By overlap in percent."""
    num_frames: int
    num_correct: int
    """Frames whose label is right."""
    num_foreground: int
    """Frames whose true label is not background."""
    num_correct_foreground: int


@dataclass(frozen=True)
class SegmentationScores:
    """The metrics of several videos, each 0 to 1."""

    videos: Mapping[str, VideoScores]
    """By id."""

    @property
    def hits(self) -> dict[int, Hits]:
        """Summed over the videos, by overlap in percent."""
        return {overlap: _sum(video.hits[overlap] for video in self.videos.values()) for overlap in OVERLAPS}

    @property
    def f1(self) -> dict[int, float]:
        """By overlap in percent."""
        return {overlap: hits.f1 for overlap, hits in self.hits.items()}

    @property
    def edit(self) -> float:
        """The mean over the videos."""
        return float(np.mean([video.edit for video in self.videos.values()])) if self.videos else 0.0

    @property
    def frame_accuracy(self) -> float:
        """The share of all frames whose label is right."""
        videos = self.videos.values()
        return _share(sum(one.num_correct for one in videos), sum(one.num_frames for one in videos))

    @property
    def foreground_accuracy(self) -> float:
        """The share of frames whose label is right among those whose true label is not background."""
        videos = self.videos.values()
        return _share(sum(one.num_correct_foreground for one in videos), sum(one.num_foreground for one in videos))


@dataclass(frozen=True)
class _Runs:
    """The segments of one video: runs of equal labels that are not background."""

    classes: NDArray[np.int64]
    """(S,)"""
    starts: NDArray[np.int64]
    """(S,) the first frame of each."""
    stops: NDArray[np.int64]
    """(S,) the frame after the last of each."""


def score_segmentation(
    truth: Mapping[str, Sequence[str]],
    predicted: Mapping[str, Sequence[str]],
    *,
    background: Collection[str] = (BACKGROUND,),
    end_exclusive: bool = False,
) -> SegmentationScores:
    """Compare the predicted labels of frames with the true ones.

    Args:
        truth: the label of each frame, by video.
        predicted: as `truth`, of the same videos and lengths.
        background: labels that are no segments; empty to count all.
        end_exclusive: count the last frame of a segment that reaches the end. The public evaluator does not.

    Returns:
        The metrics.

    Raises:
        ValueError: a video has another number of predicted frames than of true ones.
    """
    return SegmentationScores(
        {
            video_id: _score_video(labels, predicted[video_id], frozenset(background), end_exclusive)
            for video_id, labels in truth.items()
        }
    )


def _score_video(
    truth: Sequence[str], predicted: Sequence[str], background: frozenset[str], end_exclusive: bool
) -> VideoScores:
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true labels of frames and {len(predicted)} predicted ones")
    numbers: dict[str, int] = {}
    true_classes, predicted_classes = _numbered(truth, numbers), _numbered(predicted, numbers)
    is_background = np.array([label in background for label in numbers], bool)  # (K,)
    is_right = true_classes == predicted_classes
    is_foreground = ~is_background[true_classes]
    true_runs, predicted_runs = (
        _runs(classes, is_background, end_exclusive) for classes in (true_classes, predicted_classes)
    )
    return VideoScores(
        edit=_edit_score(true_runs.classes, predicted_runs.classes),
        hits=_count_hits(true_runs, predicted_runs),
        num_frames=len(truth),
        num_correct=int(is_right.sum()),
        num_foreground=int(is_foreground.sum()),
        num_correct_foreground=int((is_right & is_foreground).sum()),
    )


def _numbered(labels: Sequence[str], numbers: dict[str, int]) -> NDArray[np.int64]:
    """(F,) the number of each label; new labels are added to `numbers`."""
    for label in dict.fromkeys(labels):
        numbers.setdefault(label, len(numbers))
    return np.fromiter(map(numbers.__getitem__, labels), np.int64, len(labels))


def _runs(classes: NDArray[np.int64], is_background: NDArray[np.bool_], end_exclusive: bool) -> _Runs:
    """(F,) class of each frame, (K,) -> the runs of equal classes that are not background"""
    bounds = np.flatnonzero(np.diff(classes, prepend=-1, append=-1))
    starts, stops = bounds[:-1], bounds[1:]
    last = len(classes) if end_exclusive else len(classes) - 1
    kept = ~is_background[classes[starts]]
    return _Runs(classes[starts][kept], starts[kept], np.minimum(stops, last)[kept])


def _count_hits(truth: _Runs, predicted: _Runs) -> dict[int, Hits]:
    num_true, num_predicted = len(truth.classes), len(predicted.classes)
    if not num_true or not num_predicted:
        return dict.fromkeys(OVERLAPS, Hits(0, num_predicted, num_true))
    iou = _iou(predicted, truth)  # (P, S)
    best = iou.argmax(axis=1)  # of equal ones the first
    highest = iou[np.arange(num_predicted), best]
    num_hits = {overlap: len(np.unique(best[highest >= overlap / 100])) for overlap in OVERLAPS}
    return {overlap: Hits(count, num_predicted - count, num_true - count) for overlap, count in num_hits.items()}


def _iou(predicted: _Runs, truth: _Runs) -> NDArray[np.float64]:
    """(P, S) IoU of segments with equal labels, 0 of others; NaN of two segments of no length, which argmax prefers."""
    shared = np.minimum(predicted.stops[:, None], truth.stops) - np.maximum(predicted.starts[:, None], truth.starts)
    union = np.maximum(predicted.stops[:, None], truth.stops) - np.minimum(predicted.starts[:, None], truth.starts)
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.full(shared.shape, np.nan), where=union > 0)
    iou *= predicted.classes[:, None] == truth.classes
    return iou


def _edit_score(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """1 - the Levenshtein distance of the two sequences of classes, divided by the longer one's length."""
    longest = max(len(truth), len(predicted))
    if not longest:
        return 1.0
    distances = np.arange(len(predicted) + 1)
    for number, label in enumerate(truth, start=1):
        changed = np.minimum(distances[1:] + 1, distances[:-1] + (predicted != label))
        distances = np.concatenate([[number], changed])
        distances = np.minimum.accumulate(distances - np.arange(len(distances))) + np.arange(len(distances))
    return 1 - float(distances[-1]) / longest


def _sum(found: Iterable[Hits]) -> Hits:
    ones = list(found)
    return Hits(
        sum(one.num_hits for one in ones), sum(one.num_false for one in ones), sum(one.num_missed for one in ones)
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
