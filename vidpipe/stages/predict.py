"""Stage 4: new videos -> labels, with the run's own sampling and backbones."""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing

import torch

from vidpipe.backbones.image import choose_device
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.datasets.sequences import join_cells, pad
from vidpipe.datasets.streams import Stores
from vidpipe.errors import RunError
from vidpipe.heads.fusion import Padded
from vidpipe.records import FeatureSequence, Prediction, VideoFailure, VideoFeatures, VideoFile
from vidpipe.runs.run import Run, stores_of
from vidpipe.runs.tables import SplitRow
from vidpipe.stages.extract import LoadedStream, iter_features

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
        store: by the run's streams, or one store. Their features are used where all of them hold a video; the other
            videos are decoded, once for all streams, and not added to them.
        config: device, batch size, workers, timeout and weights; the run gives the settings that change a feature.

    Yields:
        The predictions in the order of `videos`, each as soon as it and all before it are done.

    Raises:
        RunError: the store's features, or the weights, are not those that the run was trained on, or this version of
            vidpipe does not have the backbone.
        UsageError: the device or a weights file is not available.
        WeightsError: the backbone's weights cannot be downloaded or read.
    """
    config = config or ExtractConfig()
    classifier = _Classifier(run, choose_device(config.device), top, min_confidence)
    named = {} if store is None else stores_of(run, store)
    stored = {video.id for video in videos if named and all(one.holds(video) for one in named.values())}
    to_read = [video for video in videos if video.id not in stored]
    waiting: dict[str, Prediction] = {}
    with closing(_read(run, to_read, classifier, config)) as read:
        for video in videos:
            if video.id in stored:
                yield classifier({name: one[video.id] for name, one in named.items()})
                continue
            while video.id not in waiting:
                prediction = next(read)
                waiting[prediction.video_id] = prediction
            yield waiting.pop(video.id)


def _read(
    run: Run, videos: Sequence[VideoFile], classifier: "_Classifier", config: ExtractConfig
) -> Generator[Prediction]:
    """Decode and label videos, each as soon as it is done; each is decoded once for all streams."""
    if not videos:
        return
    loaded = {
        name: LoadedStream.load(
            Stream.of_key(key, weights=config.weights, owner=str(run.path)), config, num_videos=len(videos)
        )
        for name, key in run.keys.items()
    }
    with closing(iter_features(videos, loaded, config=config)) as results:
        for result in results:
            if isinstance(result, VideoFailure):
                yield Prediction(result.video_id, error=result.message)
            elif isinstance(result, VideoFeatures):
                yield classifier(result.streams)


class _Classifier:
    """A run's classifier, from the feature sequences of a video to a prediction."""

    def __init__(self, run: Run, device: torch.device, top: int, min_confidence: float) -> None:
        self._fusion, _ = run.load_classifiers(device)
        self._num_cells = {name: key.num_cells for name, key in run.keys.items()}
        self._device = device
        self._class_names = run.class_names
        self._top = min(top, len(run.class_names))
        self._min_confidence = min_confidence
        self._learned = {(_file_name(row.video), row.size_bytes) for row in _learned_rows(run)}

    @torch.inference_mode()
    def __call__(self, streams: Mapping[str, FeatureSequence]) -> Prediction:
        padded = {name: self._pad(name, sequence) for name, sequence in streams.items()}
        probabilities = self._fusion(padded).softmax(dim=1)[0].cpu()  # (1, K) -> (K,)
        name, sequence = next(iter(streams.items()))
        best = probabilities.topk(self._top)
        return Prediction(
            video_id=sequence.video_id,
            labels=tuple(self._class_names[index] for index in best.indices.tolist()),
            probabilities=tuple(best.values.tolist()),
            is_unknown=float(best.values[0]) < self._min_confidence,
            is_learned=(_file_name(sequence.video_id), sequence.info.size_bytes) in self._learned,
            num_frames=len(sequence) // self._num_cells[name],
            duration_seconds=sequence.info.duration_seconds,
        )

    def _pad(self, stream: str, sequence: FeatureSequence) -> Padded:
        cells = join_cells(sequence.features, self._num_cells[stream], owner=sequence.video_id)
        features, lengths = pad([cells.float()])  # (1, T, C · D), (1,)
        return features.to(self._device), lengths


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
