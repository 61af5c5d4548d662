"""Mean average precision of segments, as ActivityNet and THUMOS14 measure it.

The figures equal those of OpenTAD's evaluator (github.com/sming256/OpenTAD, `opentad/evaluations`), which follows
ActivityNet's (Caba Heilbron et al., CVPR 2015) and ActionFormer's rule for duplicates (Zhang et al., ECCV 2022):

- A prediction takes the segment of its class and video with the highest temporal IoU that no more probable prediction
  took, if the tIoU reaches the threshold. Otherwise it is a false positive, also in a video without ground truth.
- Predictions of classes without ground truth are ignored. A class without predictions has the average precision 0.
- The average precision is the area under the precision envelope at every recall step.
- Of ground truth, empty segments are dropped, and those within 1 ms of another of their label, at both ends.
- Of predictions with equal probabilities the last one counts first; OpenTAD sorts long lists of them in no fixed order.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import Segment, Timeline

__all__ = ["ACTIVITYNET", "THUMOS14", "DetectionScores", "score_detection"]

THUMOS14 = (0.3, 0.4, 0.5, 0.6, 0.7)
"""tIoU thresholds of THUMOS14, 0.3:0.1:0.7."""
ACTIVITYNET = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""tIoU thresholds of ActivityNet, 0.5:0.05:0.95."""

_DUPLICATE_SECONDS = 1e-3


@dataclass(frozen=True)
class DetectionScores:
    """Average precision by class and tIoU threshold."""

    thresholds: tuple[float, ...]
    """R thresholds."""
    average_precision: Mapping[str, tuple[float, ...]]
    """By class of the ground truth, in order of the alphabet: R figures, 0 to 1."""
    num_truth: Mapping[str, int]
    """Segments of the ground truth, by class."""
    num_predicted: Mapping[str, int]
    """Predicted segments, by class of the ground truth."""
    num_unknown: int
    """Predicted segments whose class the ground truth lacks; they are ignored."""

    @property
    def map(self) -> tuple[float, ...]:
        """The mean over the classes at each threshold; 0 where there is no ground truth."""
        if not self.average_precision:
            return (0.0,) * len(self.thresholds)
        means = np.mean(list(self.average_precision.values()), axis=0)
        return tuple(map(float, means))

    @property
    def average_map(self) -> float:
        """The mean of `map` over the thresholds."""
        return float(np.mean(self.map))


@dataclass(frozen=True)
class _Segments:
    """Segments of one class in all videos."""

    video: NDArray[np.int64]
    """(S,) the number of each segment's video."""
    times: NDArray[np.float64]
    """(S, 2) start and stop in seconds."""
    probability: NDArray[np.float64]
    """(S,)"""

    @classmethod
    def of(cls, found: Sequence[tuple[int, Segment]]) -> Self:
        """Return segments, each given with the number of its video."""
        return cls(
            video=np.array([number for number, _ in found], np.int64),
            times=np.array([(one.start_seconds, one.stop_seconds) for _, one in found], np.float64).reshape(-1, 2),
            probability=np.array([one.probability or 0.0 for _, one in found], np.float64),
        )

    def __len__(self) -> int:
        return len(self.video)


_NONE = _Segments.of(())


def score_detection(
    truth: Sequence[Timeline],
    predicted: Sequence[Timeline],
    *,
    thresholds: Sequence[float],
    drop_duplicates: bool = True,
) -> DetectionScores:
    """Compare predicted segments with the ground truth.

    Args:
        truth: the videos of the subset that is evaluated.
        predicted: predictions, of the same ids; each segment has a probability.
        thresholds: tIoU thresholds, 0 to 1. A tIoU equal to one is a hit.
        drop_duplicates: drop empty and duplicate segments of the ground truth, as the public evaluators do.

    Returns:
        The average precision of each class at each threshold.
    """
    kept = [replace(one, segments=_without_duplicates(one.segments)) for one in truth] if drop_duplicates else truth
    numbers = {video_id: number for number, video_id in enumerate({one.video_id: None for one in (*kept, *predicted)})}
    true_segments, found = _by_class(kept, numbers), _by_class(predicted, numbers)
    limits = np.asarray(thresholds, np.float64)
    return DetectionScores(
        thresholds=tuple(thresholds),
        average_precision={
            label: _average_precisions(ones, found.get(label, _NONE), limits) for label, ones in true_segments.items()
        },
        num_truth={label: len(ones) for label, ones in true_segments.items()},
        num_predicted={label: len(found.get(label, _NONE)) for label in true_segments},
        num_unknown=sum(len(ones) for label, ones in found.items() if label not in true_segments),
    )


def _without_duplicates(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    kept: dict[str, list[Segment]] = defaultdict(list)
    return tuple(one for one in segments if one.duration_seconds > 0 and _add_if_new(one, kept[one.label]))


def _add_if_new(segment: Segment, kept: list[Segment]) -> bool:
    """Add a segment to those of its label, unless one of them is a duplicate; return whether it was added."""
    is_new = not any(
        abs(segment.start_seconds - one.start_seconds) <= _DUPLICATE_SECONDS
        and abs(segment.stop_seconds - one.stop_seconds) <= _DUPLICATE_SECONDS
        for one in kept
    )
    if is_new:
        kept.append(segment)
    return is_new


def _by_class(videos: Sequence[Timeline], numbers: Mapping[str, int]) -> dict[str, _Segments]:
    """The segments of each class, in order of the alphabet."""
    found: dict[str, list[tuple[int, Segment]]] = defaultdict(list)
    for video in videos:
        for segment in video.segments:
            found[segment.label].append((numbers[video.video_id], segment))
    return {label: _Segments.of(found[label]) for label in sorted(found)}


def _average_precisions(truth: _Segments, predicted: _Segments, limits: NDArray[np.float64]) -> tuple[float, ...]:
    order = np.argsort(predicted.probability, kind="stable")[::-1]
    hits = _hits(truth, predicted, order, limits)  # (R, P)
    num_hits = np.cumsum(hits, axis=1)
    precision = num_hits / np.arange(1, hits.shape[1] + 1)  # (R, P)
    recall = num_hits / len(truth)
    return tuple(_area_under_envelope(*curve) for curve in zip(precision, recall, strict=True))


def _hits(
    truth: _Segments, predicted: _Segments, order: NDArray[np.int64], limits: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(R, P) whether each prediction, in the given order, takes a segment of the ground truth at each threshold."""
    hits = np.zeros((len(limits), len(order)), bool)
    taken = np.zeros((len(limits), len(truth)), bool)
    of_video = {int(video): np.flatnonzero(truth.video == video)[::-1] for video in np.unique(truth.video)}
    for rank, number in enumerate(order):
        candidates = of_video.get(int(predicted.video[number]))
        if candidates is None:
            continue
        tiou = np.where(taken[:, candidates], -1.0, _tiou(predicted.times[number], truth.times[candidates]))  # (R, G)
        best = tiou.argmax(axis=1)  # of equal ones the last in the file: candidates are in reverse order
        hits[:, rank] = tiou.max(axis=1) >= limits
        taken[hits[:, rank], candidates[best[hits[:, rank]]]] = True
    return hits


def _tiou(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,), (G, 2) -> (G,) temporal intersection over union; 0 of two empty segments."""
    shared = (np.minimum(one[1], others[:, 1]) - np.maximum(one[0], others[:, 0])).clip(min=0)
    union = (one[1] - one[0]) + (others[:, 1] - others[:, 0]) - shared
    tiou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return tiou


def _area_under_envelope(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """(P,), (P,) -> the sum over recall steps of the highest precision at that recall or a higher one."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
