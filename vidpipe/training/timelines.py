"""Timelines in training: settings of the decoding found on training videos, and the test videos' segments scored."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.interval_labels import LabelledWindows
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.datasets.windows import STRIDES_PER_WINDOW
from vidpipe.heads.fusion import Fusion
from vidpipe.records import Curve, FeatureSequence, Timeline
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.timeline.classifier import RowCurve, WindowClassifier
from vidpipe.timeline.curves import thin
from vidpipe.timeline.decoding import Decoding, decode_segments
from vidpipe.timeline.formats import json_lines
from vidpipe.timeline.score import TimelineScores, score_timelines
from vidpipe.timeline.strip import write_strip
from vidpipe.training.fusion import FittedClassifier, fit_classifier

__all__ = ["MIN_UNITS", "TimelineExam", "TimelineJudge", "TimelineResult", "write_timelines"]

CHANGE_COSTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
MIN_UNITS = 4
"""With fewer groups of training videos, the default settings of the decoding stay."""


@dataclass(frozen=True)
class TimelineResult:
    """What a training finds out about timelines."""

    decoding: Decoding
    is_found: bool
    """Whether the decoding was found on the training videos; otherwise it is the default."""
    truth: Mapping[str, tuple[Timeline, ...]]
    """By subset, val and test, where these have videos."""
    predicted: Mapping[str, tuple[Timeline, ...]]
    scores: Mapping[str, TimelineScores]
    background: str
    """The class of time without a label; empty where there is none."""
    window_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the decoding and the scores by subset, for JSON."""
        scores = {subset: scores.as_dict() for subset, scores in self.scores.items()}
        return {"decoding": asdict(self.decoding), "is_found": self.is_found, "scores": scores}


def write_timelines(result: TimelineResult, folder: Path) -> None:
    """Write the timelines of the test videos, or of the validation videos where there are no others.

    Args:
        result: of a training.
        folder: gets truth.jsonl, timelines.jsonl and timelines.png.

    Raises:
        VidpipeError: a file cannot be written.
    """
    for subset in ("test", "val"):
        if subset in result.truth:
            json_lines.write(folder / "truth.jsonl", result.truth[subset])
            json_lines.write(folder / "timelines.jsonl", result.predicted[subset])
            write_strip(result.predicted[subset], folder / "timelines.png", truth=result.truth[subset])
            return


@dataclass(frozen=True)
class TimelineJudge:
    """Turns curves of long videos into timelines, and scores them.

    Args:
        windows: of the training.
        class_names: K names.
    """

    windows: LabelledWindows
    class_names: Sequence[str]

    def truth_of(self, windows: Iterable[str]) -> tuple[Timeline, ...]:
        """Return the long videos of some windows, by their ids."""
        ids = {self.windows.video_of[name] for name in windows}
        return tuple(one for one in self.windows.truth if one.video_id in ids)

    def features_of(self, video_id: str) -> dict[str, FeatureSequence]:
        """Return the features of a long video by stream."""
        return {name: store[video_id] for name, store in self.windows.whole.items()}

    def choose_decoding(self, truth: Sequence[Timeline], curves: Sequence[RowCurve]) -> Decoding:
        """Return the decoding whose cost of a change gives the best sum of F1@50 and frame accuracy.

        Args:
            truth: videos that the curves' classifier has not learned from.
            curves: of these videos.

        Returns:
            The decoding; the default where nothing is better.
        """

        def worth(cost: float) -> float:
            scores = self.score(truth, self.decode(truth, curves, Decoding(change_cost=cost))).segmentation
            return scores.f1[50] + scores.frame_accuracy

        default = Decoding()
        best = max((default.change_cost, *CHANGE_COSTS), key=worth)  # of equal ones the first: the default
        return replace(default, change_cost=best)

    def decode(self, truth: Sequence[Timeline], curves: Iterable[RowCurve], decoding: Decoding) -> tuple[Timeline, ...]:
        """Return the timelines of videos by their curves."""
        stride_seconds = self.windows.window_seconds / STRIDES_PER_WINDOW
        found = []
        for one, curve in zip(truth, curves, strict=True):
            segments = decode_segments(curve, self.class_names, decoding, background=self.windows.background)
            times, values = thin(curve.probabilities, curve.grid.edges_seconds, stride_seconds)
            drawn = Curve(tuple(self.class_names), times, values)
            found.append(Timeline(one.video_id, segments, one.duration_seconds, drawn))
        return tuple(found)

    def score(self, truth: Sequence[Timeline], predicted: Sequence[Timeline]) -> TimelineScores:
        """Return the metrics of timelines."""
        background = self.windows.background or "background"
        return score_timelines(truth, predicted, background=(background,), subset="all")

    def result(
        self,
        subsets: Mapping[str, Sequence[Timeline]],
        curves_of: Callable[[Sequence[Timeline]], Iterable[RowCurve]],
        decoding: Decoding | None,
    ) -> TimelineResult:
        """Return the timelines of the validation and the test videos, and their scores.

        Args:
            subsets: the videos of each subset.
            curves_of: gives the curves of videos.
            decoding: found on the training videos; None for the default.

        Returns:
            The result.
        """
        truth = {name: tuple(subsets[name]) for name in ("val", "test") if subsets[name]}
        used = decoding or Decoding()
        predicted = {name: self.decode(videos, curves_of(videos), used) for name, videos in truth.items()}
        scores = {name: self.score(truth[name], predicted[name]) for name in truth}
        return TimelineResult(
            used, decoding is not None, truth, predicted, scores, self.windows.background, self.windows.window_seconds
        )


@dataclass(frozen=True)
class TimelineExam:
    """Examines classifiers of windows on the long videos that the windows are from.

    Args:
        windows: of the training.
        config: its settings.
    """

    windows: LabelledWindows
    config: TrainConfig

    def examine(
        self,
        fitted: FittedClassifier,
        subsets: Subsets,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> TimelineResult:
        """Find the settings of the decoding on the training videos, then score the others.

        Args:
            fitted: the classifier, fitted to the training windows.
            subsets: the windows.
            on_stage: called with what is being done.

        Returns:
            The settings, the timelines of the validation and the test videos, and their scores.

        Raises:
            TrainingError: a loss is not finite.
        """
        on_stage("while finding the settings of the decoding")
        judge = TimelineJudge(self.windows, subsets["train"].class_names)
        decoding = self._find_decoding(fitted, subsets["train"], judge)
        truth = {name: judge.truth_of(subsets[name].video_ids) for name in ("val", "test")}
        return judge.result(truth, lambda videos: self._curves(fitted.fusion, videos, judge), decoding)

    def _find_decoding(
        self, fitted: FittedClassifier, training: SequenceDataset, judge: TimelineJudge
    ) -> Decoding | None:
        """The best decoding for a classifier of half of the training videos, on the other half; None for too few."""
        units = list(dict.fromkeys(training.units))
        if len(units) < MIN_UNITS:
            return None
        learned, unseen = (_of_units(training, units[part::2]) for part in (0, 1))
        if len(set(learned.class_index.tolist())) < 2:
            return None
        subsets = {"train": learned, "val": training.select([])}
        other = fit_classifier(fitted.fusion.members, subsets, self.config, weights=fitted.weights)
        truth = judge.truth_of(unseen.video_ids)
        return judge.choose_decoding(truth, list(self._curves(other.fusion, truth, judge)))

    def _curves(self, fusion: Fusion, videos: Sequence[Timeline], judge: TimelineJudge) -> Iterator[RowCurve]:
        keys = {name: store.key for name, store in self.windows.whole.items()}
        sampling, length = next(iter(keys.values())).resolve_sampling(), self.windows.window_seconds
        classifier = SequenceClassifier(fusion, keys, choose_device(self.config.device))
        windows = WindowClassifier(classifier, sampling, length, length / STRIDES_PER_WINDOW)
        for one in videos:
            yield windows.curve(judge.features_of(one.video_id))


def _of_units(training: SequenceDataset, units: Sequence[str]) -> SequenceDataset:
    """The windows of some groups."""
    pairs = zip(training.video_ids, training.units, strict=True)
    return training.select(video_id for video_id, unit in pairs if unit in set(units))
