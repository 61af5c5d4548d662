"""Timelines in training: settings of the decoding found on training videos, and the test videos' segments scored."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.interval_labels import LabelledWindows
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.heads.fusion import Fusion
from vidpipe.records import Curve, Timeline
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.timeline.classifier import RowCurve, WindowClassifier
from vidpipe.timeline.curves import thin
from vidpipe.timeline.decoding import Decoding, decode_segments
from vidpipe.timeline.formats import json_lines
from vidpipe.timeline.score import TimelineScores, score_timelines
from vidpipe.timeline.strip import write_strip
from vidpipe.training.fusion import FittedClassifier, fit_classifier

__all__ = ["TimelineExam", "TimelineResult", "write_timelines"]

CHANGE_COSTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
MIN_UNITS = 4
"""With fewer groups of training videos, the default settings of the decoding stay."""
STRIDES_PER_WINDOW = 4


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
        decoding, is_found = self._find_decoding(fitted, subsets["train"])
        truth, predicted = {}, {}
        for subset in ("val", "test"):
            if timelines := self._truth_of(subsets[subset]):
                names = subsets[subset].class_names
                curves = self._curves(fitted.fusion, timelines)
                truth[subset] = timelines
                predicted[subset] = tuple(
                    self._timeline(one, curve, names, decoding) for one, curve in zip(timelines, curves, strict=True)
                )
        scores = {subset: self._score(truth[subset], predicted[subset]) for subset in truth}
        return TimelineResult(decoding, is_found, truth, predicted, scores, self.windows.background)

    def _find_decoding(self, fitted: FittedClassifier, training: SequenceDataset) -> tuple[Decoding, bool]:
        """The cost of a change with the best sum of F1@50 and frame accuracy on videos that were not learned from."""
        units = list(dict.fromkeys(training.units))
        if len(units) < MIN_UNITS:
            return Decoding(), False
        learned, unseen = (_of_units(training, units[part::2]) for part in (0, 1))
        if len(set(learned.class_index.tolist())) < 2 or not len(unseen):
            return Decoding(), False
        subsets = {"train": learned, "val": training.select([])}
        members = fitted.fusion.members
        other = fit_classifier(members, subsets, self.config, weights=fitted.weights)
        timelines = self._truth_of(unseen)
        curves = list(self._curves(other.fusion, timelines))

        def worth(cost: float) -> float:
            decoding = Decoding(change_cost=cost)
            found = [
                self._timeline(one, curve, training.class_names, decoding)
                for one, curve in zip(timelines, curves, strict=True)
            ]
            scores = self._score(timelines, found).segmentation
            return scores.f1[50] + scores.frame_accuracy

        default = Decoding()
        best = max((default.change_cost, *CHANGE_COSTS), key=worth)  # of equal ones the first: the default
        return replace(default, change_cost=best), True

    def _truth_of(self, windows: SequenceDataset) -> tuple[Timeline, ...]:
        """The long videos of some windows."""
        ids = {self.windows.video_of[name] for name in windows.video_ids}
        return tuple(one for one in self.windows.truth if one.video_id in ids)

    def _curves(self, fusion: Fusion, timelines: Sequence[Timeline]) -> Iterator[RowCurve]:
        keys = {name: store.key for name, store in self.windows.whole.items()}
        first = next(iter(keys.values()))
        length = self.windows.window_seconds
        classifier = WindowClassifier(
            SequenceClassifier(fusion, keys, choose_device(self.config.device)),
            first.resolve_sampling(),
            length,
            length / STRIDES_PER_WINDOW,
        )
        for one in timelines:
            yield classifier.curve({name: store[one.video_id] for name, store in self.windows.whole.items()})

    def _timeline(self, truth: Timeline, curve: RowCurve, class_names: Sequence[str], decoding: Decoding) -> Timeline:
        segments = decode_segments(curve, class_names, decoding, background=self.windows.background)
        stride_seconds = self.windows.window_seconds / STRIDES_PER_WINDOW
        times, values = thin(curve.probabilities, curve.grid.edges_seconds, stride_seconds)
        return Timeline(truth.video_id, segments, truth.duration_seconds, Curve(tuple(class_names), times, values))

    def _score(self, truth: Sequence[Timeline], predicted: Sequence[Timeline]) -> TimelineScores:
        background = self.windows.background or "background"
        return score_timelines(truth, predicted, background=(background,), subset="all")


def _of_units(training: SequenceDataset, units: Sequence[str]) -> SequenceDataset:
    """The windows of some groups."""
    pairs = zip(training.video_ids, training.units, strict=True)
    return training.select(video_id for video_id, unit in pairs if unit in set(units))
