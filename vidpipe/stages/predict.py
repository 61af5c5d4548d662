"""Stage 4: new videos -> labels, with the run's own sampling and backbones."""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vidpipe.backbones.image import choose_device
from vidpipe.config import ExtractConfig
from vidpipe.datasets.streams import Stores
from vidpipe.errors import RunError
from vidpipe.records import (
    FeatureSequence,
    PersonPath,
    PersonPrediction,
    Prediction,
    VideoFailure,
    VideoFeatures,
    VideoFile,
)
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.runs.run import Run, stores_of
from vidpipe.runs.tables import SplitRow
from vidpipe.stages.apply import answer_each

__all__ = ["predict"]

logger = logging.getLogger(__name__)


def predict(
    run: Run,
    videos: Sequence[VideoFile],
    *,
    top: int = 5,
    min_confidence: float = 0.0,
    store: Stores | None = None,
    config: ExtractConfig | None = None,
) -> Iterator[Prediction]:
    """Label videos; for a video that cannot be read, give the reason and go on.

    Args:
        run: from `Run.open`.
        videos: what to label; their ids differ.
        top: how many classes to give, most probable first.
        min_confidence: below this probability of the first class, the answer is none of the classes.
        store: by the run's streams, or one store. Their features are used where they hold a video; what they lack is
            computed, from one decode for all streams, and not added to them, except by Ray.
        config: device, batch size, workers, timeout and weights; the run gives the settings that change a feature.

    Returns:
        An iterator over the predictions in the order of `videos`, each as soon as it and all before it are done.

    Raises:
        RunError: the store's features, or the weights, are not those that the run was trained on, or this version of
            vidpipe does not have the backbone.
        UsageError: the device or a weights file is not available.
        WeightsError: the backbone's weights cannot be downloaded or read.
    """
    config = config or ExtractConfig()
    classifier = _Classifier(run, choose_device(config.device), top, min_confidence)
    stores = {} if store is None else stores_of(run, store)
    return answer_each(videos, run.keys, classifier.answer, stores=stores, config=config, owner=str(run.path))


class _Classifier:
    """A run's classifier, from the feature sequences of a video to a prediction."""

    def __init__(self, run: Run, device: torch.device, top: int, min_confidence: float) -> None:
        self._classifier = SequenceClassifier.of_run(run, device)
        self._class_names = run.class_names
        self._top = min(top, len(run.class_names))
        self._min_confidence = min_confidence
        self._learned = {(_file_name(row.video), row.size_bytes) for row in _learned_rows(run)}

    def answer(self, found: VideoFeatures | VideoFailure) -> Prediction:
        """Return the prediction for a video, or why there is none."""
        if isinstance(found, VideoFailure):
            return Prediction(found.video_id, error=found.message)
        return self._predict(found.streams)

    def _predict(self, streams: Mapping[str, FeatureSequence]) -> Prediction:
        whole, by_person = self._classifier.classify(streams)
        sequence = next(iter(streams.values()))
        labels, probabilities = self._best(whole)
        return Prediction(
            video_id=sequence.video_id,
            labels=labels,
            probabilities=probabilities,
            is_unknown=probabilities[0] < self._min_confidence,
            is_learned=(_file_name(sequence.video_id), sequence.info.size_bytes) in self._learned,
            num_frames=len(np.unique(sequence.rows.frame_index)),
            duration_seconds=sequence.info.duration_seconds,
            start_seconds=_first_seconds(sequence),
            people=tuple(self._person(streams, number, its) for number, its in by_person.items()),
        )

    def _best(self, probabilities: Tensor) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The most probable classes of (K,), and their probabilities."""
        best = probabilities.topk(self._top)
        return tuple(self._class_names[index] for index in best.indices.tolist()), tuple(best.values.tolist())

    def _person(self, streams: Mapping[str, FeatureSequence], number: int, probabilities: Tensor) -> PersonPrediction:
        """What is predicted for a person, with the regions of the first stream that has them."""
        rows = next(one for one in streams.values() if one.rows.track is not None).person(number)
        labels, values = self._best(probabilities)
        start, stop = float(rows.start_seconds[0]), float(rows.stop_seconds[-1])
        return PersonPrediction(labels, values, PersonPath.of(rows, number), start, stop)


def _first_seconds(sequence: FeatureSequence) -> float:
    """When the video starts, by the time and the number of its first row's frame."""
    fps = sequence.info.fps
    first = float(sequence.pts_seconds[0])
    return max(min(0.0, first), first - int(sequence.rows.frame_index[0]) / fps if fps > 0 else first)


def _file_name(video_id: str) -> str:
    """The last component of an id; those before it depend on which folder was given."""
    return video_id.rpartition("/")[2]


def _learned_rows(run: Run) -> Sequence[SplitRow]:
    """The videos that the run learned from; none, with a warning, where the run's table of them cannot be read."""
    try:
        return run.learned
    except RunError as error:
        logger.warning("%s; a video that the run learned from will not be marked", error)
        return ()
