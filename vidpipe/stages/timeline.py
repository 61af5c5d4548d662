"""Long videos -> segments: windows over features that are computed once, a curve for each class, segments."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vidpipe.backbones.image import choose_device
from vidpipe.config import ExtractConfig, Sampling, TimelineConfig
from vidpipe.datasets.people import person_in_time, split_people
from vidpipe.datasets.windows import STRIDES_PER_WINDOW
from vidpipe.errors import UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.records import (
    Curve,
    FeatureSequence,
    PersonPath,
    Segment,
    Timeline,
    VideoFailure,
    VideoFeatures,
    VideoFile,
)
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.runs.run import Run
from vidpipe.stages.apply import answer_each, make_stores
from vidpipe.timeline.classifier import RowClassifier, RowCurve, WindowClassifier
from vidpipe.timeline.curves import thin
from vidpipe.timeline.decoding import Decoding, decode_segments

__all__ = ["WindowPlan", "decoding_of", "predict_timelines"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowPlan:
    """The windows of a run's timelines, and the features that they are cut from."""

    keys: Mapping[str, FeatureKey]
    """By stream."""
    window_seconds: float
    stride_seconds: float

    @classmethod
    def of(cls, run: Run, config: TimelineConfig) -> "WindowPlan":
        """Plan the windows of a run.

        Args:
            run: the run.
            config: `window` and `stride`.

        Returns:
            The plan.

        Raises:
            UsageError: the run does not say what length it learned from, or was trained on frames of scenes or on key
                frames.
        """
        own_seconds = run.streams[0].key.resolve_sampling().clip_seconds or run.clip_seconds
        window_seconds = config.window or own_seconds
        if not window_seconds:
            raise UsageError(
                f"{run.path}: a run of an older vidpipe, which does not say how long its videos are; give the length "
                "of a window in seconds, such as --window 5"
            )
        stride_seconds = config.stride or window_seconds / STRIDES_PER_WINDOW
        if stride_seconds > window_seconds:
            raise UsageError(
                f"--stride {stride_seconds:g} is longer than the window of {window_seconds:g} s, so some of the video "
                "would be in no window; give a smaller stride"
            )
        return cls(
            {name: _dense(key, window_seconds) for name, key in run.keys.items()}, window_seconds, stride_seconds
        )

    @property
    def sampling(self) -> Sampling:
        """Of the first stream."""
        return next(iter(self.keys.values())).resolve_sampling()


def _dense(key: FeatureKey, window_seconds: float) -> FeatureKey:
    """The key of features whose windows have the frames of a clip that is sampled as the key says."""
    sampling = key.resolve_sampling()
    if sampling.method in ("scene", "keyframe"):
        frames = "frames of each scene" if sampling.method == "scene" else "key frames"
        raise UsageError(
            f"the run was trained on {frames}, and a timeline needs frames at even distances; extract and train with "
            "--sampling uniform or fps"
        )
    if sampling.method == "fps":
        return key
    return replace(key, sampling=replace(sampling, clip_seconds=window_seconds).as_dict())


def predict_timelines(
    run: Run,
    videos: Sequence[VideoFile],
    *,
    timeline: TimelineConfig | None = None,
    min_confidence: float = 0.0,
    store_path: Path | None = None,
    config: ExtractConfig | None = None,
) -> Iterator[Timeline]:
    """Find the segments of long videos; for a video that cannot be read, give the reason and go on.

    Args:
        run: from `Run.open`.
        videos: their ids differ.
        timeline: the windows, and how segments are read off the curves.
        min_confidence: segments with a lower probability are left out.
        store_path: a store, or a folder of stores, to keep the features in; it is made if it does not exist, and what
            it holds is not computed again. None keeps none.
        config: device, batch size, workers, timeout and weights; the run gives the settings that change a feature.

    Returns:
        An iterator over the timelines in the order of `videos`, each as soon as it and all before it are done.

    Raises:
        UsageError: the windows do not go with the run, or the device or a weights file is not available.
        RunError: the weights are not those of the run, or this version of vidpipe does not have the backbone.
        StoreError: the store has other features, or cannot be written.
        WeightsError: the backbone's weights cannot be downloaded or read.
    """
    timeline, config = timeline or TimelineConfig(), config or ExtractConfig()
    plan = WindowPlan.of(run, timeline)
    answerer = _Answerer(run, plan, timeline, min_confidence, config.device)
    stores = {} if store_path is None else make_stores(store_path, plan.keys)
    return answer_each(videos, plan.keys, answerer.answer, stores=stores, keep=True, config=config, owner=str(run.path))


class _Answerer:
    """From the features of a video to its timeline."""

    def __init__(self, run: Run, plan: WindowPlan, config: TimelineConfig, min_confidence: float, device: str) -> None:
        self._classifier = _load_classifier(run, plan, choose_device(device), has_cuts=config.cuts)
        self._run, self._plan = run, plan
        self._decoding = decoding_of(run, config, min_confidence)

    def answer(self, found: VideoFeatures | VideoFailure) -> Timeline:
        """Return the timeline of a video, or why there is none."""
        if isinstance(found, VideoFailure):
            return Timeline(found.video_id, error=found.message)
        duration_seconds = next(iter(found.streams.values())).info.duration_seconds
        if people := split_people(found.streams):
            return self._by_person(found.video_id, people, duration_seconds)
        curve = self._classifier.curve(found.streams)
        times, values = thin(curve.probabilities, curve.grid.edges_seconds, self._plan.stride_seconds)
        return Timeline(
            found.video_id, self._segments(curve), duration_seconds, Curve(self._run.class_names, times, values)
        )

    def _segments(self, curve: RowCurve) -> tuple[Segment, ...]:
        return decode_segments(curve, self._run.class_names, self._decoding, background=self._run.background)

    def _by_person(
        self, video_id: str, people: Mapping[int, Mapping[str, FeatureSequence]], duration_seconds: float
    ) -> Timeline:
        """The segments of each person, without curves: there would be one for each."""
        segments: list[Segment] = []
        for number, streams in people.items():
            curve = self._classifier.curve(person_in_time(streams), is_part=True)
            segments += [replace(one, person=number) for one in self._segments(curve)]
        paths = tuple(
            PersonPath.of(next(one for one in streams.values() if one.rows.track is not None), number)
            for number, streams in people.items()
        )
        in_order = sorted(segments, key=lambda one: (one.start_seconds, one.person))
        return Timeline(video_id, tuple(in_order), duration_seconds, people=paths)


def _load_classifier(
    run: Run, plan: WindowPlan, device: torch.device, *, has_cuts: bool
) -> WindowClassifier | RowClassifier:
    """What gives the curve of a video: a classifier of windows, or a head that labels rows."""
    if run.config.targets == "rows":
        return RowClassifier(run.load_row_head(device), plan.keys, plan.window_seconds, device)
    classifier = SequenceClassifier.of_run(run, device)
    return WindowClassifier(classifier, plan.sampling, plan.window_seconds, plan.stride_seconds, has_cuts=has_cuts)


def decoding_of(run: Run, config: TimelineConfig, min_confidence: float) -> Decoding:
    """Return the settings that are given, else those that were found in training."""
    found = run.timelines.get("decoding", {}).get("change_cost", Decoding().change_cost)
    change_cost = found if config.change_cost is None else config.change_cost
    return Decoding(
        config.method,
        change_cost=change_cost,
        high=config.high,
        low=config.low,
        max_overlap=config.max_overlap,
        min_seconds=config.min_segment,
        min_confidence=min_confidence,
    )
