"""Apply a run to videos: their features from stores or files, an answer for each video, in the order of the videos."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

from vidpipe.backbones.batching import Utilisation
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.errors import UsageError, count_of
from vidpipe.execution.executor import connected, extract_videos
from vidpipe.execution.loaded import LoadedStream
from vidpipe.execution.local import add_to_stores, iter_features
from vidpipe.features.key import FeatureKey
from vidpipe.features.sources import sources_of
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import place_stores
from vidpipe.records import FeatureSequence, VideoFailure, VideoFeatures, VideoFile

__all__ = ["answer_each", "make_stores"]

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
SECONDS_BETWEEN_LINES = 10.0


def make_stores(path: Path, keys: Mapping[str, FeatureKey]) -> dict[str, FeatureStore]:
    """Open the stores for the streams of a run, or make them.

    Args:
        path: a store, or a folder of stores.
        keys: by stream.

    Returns:
        The stores, by stream.

    Raises:
        UsageError: the path is one store, and there are several streams.
        StoreError: a store has other features, or cannot be made.
    """
    paths = place_stores(path, keys)
    return {name: FeatureStore.create(paths[name], key) for name, key in keys.items()}


def answer_each(
    videos: Sequence[VideoFile],
    keys: Mapping[str, FeatureKey],
    answer: Callable[[VideoFeatures | VideoFailure], Answer],
    *,
    stores: Mapping[str, FeatureStore] | None = None,
    keep: bool = False,
    config: ExtractConfig,
    owner: str,
) -> Iterator[Answer]:
    """Answer each video from its features in all streams.

    A video that all stores hold is not decoded. The others are, once for all streams that lack them.

    Args:
        videos: their ids differ.
        keys: by stream, the key of the features.
        answer: called with the features or the failure of each video, once each, in any order.
        stores: by stream; None or empty without stores. Ray needs one for each stream.
        keep: store the features that are computed; Ray does so always.
        config: device, batch size, workers, timeout and weights.
        owner: the path of the run, for messages.

    Returns:
        An iterator over the answers in the order of `videos`, each as soon as it and all before it are there.

    Raises:
        RunError: the weights are not those of the keys, or this version of vidpipe does not have the backbone.
        UsageError: the device or a weights file is not available, or there is no store where one is needed.
        WeightsError: the backbone's weights cannot be downloaded or read.
        StoreError: the features cannot be stored.
        ExecutorError: Ray cannot be reached, or one of its nodes cannot take part.
    """
    stores = stores or {}
    if config.executor == "ray" and stores.keys() != keys.keys():
        raise UsageError("--executor ray needs --store FOLDER, in a folder that all nodes see; what it lacks is added")
    return _answers(videos, keys, answer, stores, keep or config.executor == "ray", config, owner)


def _answers(
    videos: Sequence[VideoFile],
    keys: Mapping[str, FeatureKey],
    answer: Callable[[VideoFeatures | VideoFailure], Answer],
    stores: Mapping[str, FeatureStore],
    keep: bool,
    config: ExtractConfig,
    owner: str,
) -> Iterator[Answer]:
    lacking = {
        video.id: tuple(name for name in keys if name not in stores or not stores[name].holds(video))
        for video in videos
    }
    to_read = [video for video in videos if lacking[video.id]]
    with ExitStack() as stack:
        if keep and to_read:
            for store in stores.values():
                stack.enter_context(store.lock())
        writing = stores if keep else {}
        results = (
            _read_on_ray(to_read, keys, lacking, stores, config, owner)
            if config.executor == "ray"
            else _read(to_read, keys, lacking, stores, writing, config, owner)
        )
        read = stack.enter_context(closing(results))
        waiting: dict[str, Answer] = {}
        for video in videos:
            while lacking[video.id] and video.id not in waiting:
                result = next(read)
                waiting[result.video_id] = answer(result)
            yield waiting.pop(video.id) if lacking[video.id] else answer(_stored(video.id, stores))


def _stored(video_id: str, stores: Mapping[str, FeatureStore]) -> VideoFeatures:
    return VideoFeatures(video_id, {name: store[video_id] for name, store in stores.items()})


def _read(
    videos: Sequence[VideoFile],
    keys: Mapping[str, FeatureKey],
    lacking: Mapping[str, Sequence[str]],
    stores: Mapping[str, FeatureStore],
    writing: Mapping[str, FeatureStore],
    config: ExtractConfig,
    owner: str,
) -> Generator[VideoFeatures | VideoFailure]:
    """Decode videos for the streams that lack them, and add what the stores have of the others."""
    if not videos:
        return
    loaded = {
        name: LoadedStream.load(Stream.of_key(key, weights=config.weights, owner=owner), config, num_videos=len(videos))
        for name, key in keys.items()
        if any(name in lacking[video.id] for video in videos)
    }
    by_id, sources = {video.id: video for video in videos}, sources_of(videos) if writing else {}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(store.writer(max_videos=config.seal_videos, max_seconds=config.seal_seconds))
            for name, store in writing.items()
        }
        for result in stack.enter_context(closing(iter_features(videos, loaded, config=config, wanted=lacking))):
            if isinstance(result, VideoFailure):
                for name in lacking[result.video_id] if writers else ():
                    writers[name].fail(result, by_id[result.video_id])
                yield result
            elif isinstance(result, VideoFeatures):
                if writers:
                    add_to_stores(writers, result, by_id[result.video_id], sources[result.video_id])
                yield VideoFeatures(result.video_id, _in_order(keys, result, stores))


def _read_on_ray(
    videos: Sequence[VideoFile],
    keys: Mapping[str, FeatureKey],
    lacking: Mapping[str, Sequence[str]],
    stores: Mapping[str, FeatureStore],
    config: ExtractConfig,
    owner: str,
) -> Generator[VideoFeatures | VideoFailure]:
    """Extract videos into the stores, and give what these have then."""
    if not videos:
        return
    failures: dict[str, VideoFailure] = {}
    with connected(config):
        needed = {name for video in videos for name in lacking[video.id]}
        streams = {
            name: Stream.of_key(key, weights=config.weights, owner=owner)
            for name, key in keys.items()
            if name in needed
        }
        shown = time.monotonic()
        steps = extract_videos(
            stores, videos, streams, config=config, wanted=lacking, utilisation=Utilisation(), owner=owner
        )
        with closing(steps):
            for step in steps:
                if step.failure is not None:
                    failures[step.failure.video_id] = step.failure
                if time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
                    shown = time.monotonic()
                    logger.info("%d of %s extracted", step.num_done + step.num_failed, count_of(len(videos), "video"))
    for video in videos:
        yield failures.get(video.id) or _stored(video.id, stores)


def _in_order(
    keys: Mapping[str, FeatureKey], read: VideoFeatures, stores: Mapping[str, FeatureStore]
) -> dict[str, FeatureSequence]:
    """A video's sequences in all streams: those that were read, and the stored ones."""
    return {name: read.streams[name] if name in read.streams else stores[name][read.video_id] for name in keys}
