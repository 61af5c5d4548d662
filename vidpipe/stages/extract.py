"""Stage 1: videos -> features. Every frame is decoded once for all streams, and put through each backbone once.

decode_videos (worker processes) ──FrameBatch──► BatchedModels (full batches across videos) ──VideoFeatures──► stores
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.batching import BatchedModel, BatchedModels, Utilisation
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.stream import WEIGHTS_NOT_READ, Stream, resolve_streams
from vidpipe.backbones.weights import WeightsFile
from vidpipe.config import ExtractConfig
from vidpipe.errors import InterruptedExtractionError, count_of
from vidpipe.features.inventory import FileChanges, Reused, follow_files
from vidpipe.features.key import FeatureKey
from vidpipe.features.locks import WHOLE, Part
from vidpipe.features.planning import ExtractionPlan, plan_extraction, skip_reasons
from vidpipe.features.siblings import Sibling, find_known, find_siblings
from vidpipe.features.sources import fingerprint_of, sources_of, stamp_of
from vidpipe.features.store import FeatureStore, StoreWriter
from vidpipe.features.streams import place_stores
from vidpipe.records import (
    DecodeProgress,
    VideoFailure,
    VideoFeatures,
    VideoFile,
    VideoInfo,
    VideoSource,
    Window,
)
from vidpipe.regions.finder import RegionFinder
from vidpipe.regions.known import PlanKnown
from vidpipe.regions.pose import PoseFinder
from vidpipe.video.crop import cell_regions
from vidpipe.video.decoding import decode_videos, default_workers
from vidpipe.video.view import View

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "ExtractProgress",
    "ExtractSummary",
    "Extracted",
    "LoadedStream",
    "StreamSummary",
    "add_to_stores",
    "extract",
    "extract_into",
    "iter_features",
    "preview",
]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = {"cpu": 8, "cuda": 64}
"""Larger batches are no faster on a CPU and take more memory: their activations no longer fit its caches."""

Extracted = VideoFeatures | VideoFailure | DecodeProgress
"""What `iter_features` yields."""


@dataclass(frozen=True)
class LoadedStream:
    """A stream whose backbone is ready to run."""

    engine: Engine
    key: FeatureKey
    window: Window | None = None
    """The frames of a row; None where a row is one frame."""
    finder: RegionFinder | PoseFinder | None = None
    """Decides what of each frame the backbone sees, or finds key points in its place; None for whole frames."""
    siblings: tuple[Sibling, ...] = ()
    """Stores that may have the regions of a video."""

    @classmethod
    def load(cls, stream: Stream, config: ExtractConfig, *, num_videos: int) -> "LoadedStream":
        """Load a stream's backbone; `num_videos` as for `Stream.load_engine`."""
        engine = stream.load_engine(device=config.device, engine=config.engine, num_videos=num_videos)
        finder: RegionFinder | PoseFinder | None = None
        key, weights = stream.key, config.detector_weights
        if key.regions is not None:
            finder = RegionFinder.of_key(key.regions, weights=weights, device=config.device)
        elif stream.spec.kind == "pose":
            finder = PoseFinder.of_key(key.parameters or {}, key.weights, weights=weights, device=config.device)
        if finder is not None:
            finder.detector.check()
        return cls(engine, stream.key, stream.spec.window, finder)

    def regions(self, info: VideoInfo) -> NDArray[np.float32]:
        """Return the regions that the backbone pools of each picture of a video, (1 + G², 4), the whole one first."""
        return cell_regions(info.height, info.width, self.engine.preprocessing, self.key.grid)

    @property
    def view(self) -> View:
        """What it needs of each video."""
        view = View(self.key.resolve_sampling(), self.engine.preprocessing, self.window)
        return view if self.finder is None else self.finder.applied_to(view)

    def view_of(self, video: VideoFile) -> View:
        """Return what it needs of one video: regions that a store beside has are not found again."""
        view, known = self.view, find_known(self.siblings, video)
        return view if known is None else replace(view, planner=PlanKnown(*known, view.planner))


@dataclass(frozen=True)
class ExtractProgress:
    """How far an extraction is."""

    num_videos: int
    """Videos to extract in this run, without those that are stored already."""
    num_done: int = 0
    num_failed: int = 0
    num_frames: int = 0
    """Rows of the videos that are done, of all streams, without the cells of a grid."""
    seconds: float = 0.0
    reading: DecodeProgress | None = None
    """The progress of an unfinished video, where that is the news."""
    failure: VideoFailure | None = None
    """The video that failed, where that is the news."""


@dataclass(frozen=True)
class StreamSummary:
    """What an extraction did to the store of one stream."""

    store_path: Path
    num_stored: int
    num_skipped: int
    """Videos that were stored already."""
    failures: tuple[VideoFailure, ...]
    """Videos that failed in this run."""
    known_failures: tuple[VideoFailure, ...]
    """Videos that failed in an earlier run and were not retried."""
    num_replaced: int = 0
    """Of the stored videos: those that replace an older version."""
    reused: tuple[Reused, ...] = ()
    """Videos stored without decoding: a file of the same content was stored under another id."""
    moved: tuple[str, ...] = ()
    """Old ids of moved files, which were dropped."""
    gone: tuple[str, ...] = ()
    """Stored videos of these folders whose files no longer exist."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did."""

    streams: Mapping[str, StreamSummary]
    """By stream."""
    num_stored: int
    """Videos that were decoded and stored."""
    num_skipped: int
    """Videos that all streams had already."""
    num_frames: int
    """Rows of these videos, of all streams, without the cells of a grid."""
    seconds: float
    utilisation: Utilisation

    @property
    def failures(self) -> tuple[VideoFailure, ...]:
        """Videos that failed in this run, each once."""
        return _each_once(failure for stream in self.streams.values() for failure in stream.failures)

    @property
    def known_failures(self) -> tuple[VideoFailure, ...]:
        """Videos that failed in an earlier run and were not retried, each once."""
        return _each_once(failure for stream in self.streams.values() for failure in stream.known_failures)


def _each_once(failures: Iterable[VideoFailure]) -> tuple[VideoFailure, ...]:
    return tuple({failure.video_id: failure for failure in failures}.values())


def extract(
    videos: Sequence[VideoFile],
    store_path: Path,
    *,
    config: ExtractConfig,
    part: Part = WHOLE,
    force: bool = False,
    retry_failed: bool = False,
    on_progress: Callable[[ExtractProgress], None] = lambda progress: None,
) -> ExtractSummary:
    """Extract the features of videos, with each backbone into its own store; what is stored already is skipped.

    A video is decoded once, for all the streams that lack it. The features of a moved file are stored under its new id
    without decoding it. Its old id is dropped, except with a `part`: other processes may be writing then.

    Args:
        videos: from `vidpipe.video.files.find_videos`.
        store_path: the folder of the one store, or of several; see `vidpipe.features.streams.place_stores`. It is made
            if it does not exist.
        config: the settings; those that change a feature must be the stores' own.
        part: which of the videos to extract; several processes, each with its own part, can fill one store.
        force: extract stored videos again, and retry those that failed.
        retry_failed: retry videos that failed in an earlier run.
        on_progress: called after each video, and about once a second.

    Returns:
        The counts, the failures, and the files that were moved or are gone.

    Raises:
        UsageError: a backbone, its pooling or a weights file does not exist, a setting does not go with a backbone, or
            several streams are to go into one store.
        StoreError: a folder is no store, has another key, cannot be written, holds other videos under the same ids
            (see `vidpipe.features.inventory.refuse_other_collections`), or another process writes this part.
        WeightsError: the backbone's weights cannot be downloaded or read.
        InterruptedExtractionError: Ctrl-C; the videos that were finished are stored.
    """
    streams = _resolve_streams(config)
    paths = place_stores(store_path, {name: stream.key for name, stream in streams.items()})
    if not all((path / "store.json").exists() for path in paths.values()):
        _check_detectors(config)
    stores = {name: FeatureStore.create(paths[name], stream.key) for name, stream in streams.items()}
    with ExitStack() as locks:
        for store in stores.values():
            locks.enter_context(store.lock(part))
        pending = {
            name: _prepare(store, videos, part=part, force=force, retry_failed=retry_failed)
            for name, store in stores.items()
        }
        progress, failures, utilisation = _extract_pending(videos, stores, pending, streams, config, on_progress)
    return ExtractSummary(
        {name: one.summarise(failures) for name, one in pending.items()},
        num_stored=progress.num_done,
        num_skipped=len(frozenset.intersection(*(one.plan.stored_ids for one in pending.values()))),
        num_frames=progress.num_frames,
        seconds=progress.seconds,
        utilisation=utilisation,
    )


def _resolve_streams(config: ExtractConfig, *, weights: WeightsFile | None = None) -> dict[str, Stream]:
    """The streams of an extraction, with its detector; `weights` stands for all of them, as for `Stream.of`."""
    finder, pose = RegionFinder.of(config, weights=weights), PoseFinder.of(config, weights=weights)
    return resolve_streams(
        config,
        weights=weights,
        regions=None if finder is None else finder.as_dict(),
        pose=None if pose is None else pose.described,
    )


def _check_detectors(config: ExtractConfig) -> None:
    """Refuse a wrong file before a store is made for what it would find."""
    for finder in (RegionFinder.of(config), PoseFinder.of(config)):
        if finder is not None:
            finder.detector.check()


@dataclass(frozen=True)
class _Pending:
    """What is left to extract into one store."""

    store_path: Path
    plan: ExtractionPlan
    changes: FileChanges
    ids: frozenset[str]
    """Videos to extract."""
    old_ids: frozenset[str]
    """Of these, those that the store holds in another version."""

    def summarise(self, failures: Mapping[str, VideoFailure]) -> StreamSummary:
        """What has become of it, with the failures of all streams by id."""
        failed = self.ids & failures.keys()
        return StreamSummary(
            self.store_path,
            num_stored=len(self.ids - failed),
            num_skipped=len(self.plan.stored_ids),
            failures=tuple(failures[video_id] for video_id in sorted(failed)),
            known_failures=self.plan.failed_before,
            num_replaced=len(self.old_ids - failed),
            reused=self.changes.reused,
            moved=self.changes.moved,
            gone=self.changes.gone,
        )


def _prepare(
    store: FeatureStore, videos: Sequence[VideoFile], *, part: Part, force: bool, retry_failed: bool
) -> _Pending:
    """Find what a store lacks, and follow moved files."""
    if part == WHOLE:
        store.clear_leftovers()
    plan = plan_extraction(store, videos, part=part, force=force, retry_failed=retry_failed)
    changes = follow_files(store, videos, plan.reusable, drop_old_ids=part == WHOLE)
    ids = frozenset(video.id for video in (*plan.to_extract, *changes.not_reused))
    old_ids = frozenset(video_id for video_id in ids if video_id in store)
    return _Pending(store.path, plan, changes, ids, old_ids)


def _extract_pending(
    videos: Sequence[VideoFile],
    stores: Mapping[str, FeatureStore],
    pending: Mapping[str, _Pending],
    streams: Mapping[str, Stream],
    config: ExtractConfig,
    on_progress: Callable[[ExtractProgress], None],
) -> tuple[ExtractProgress, dict[str, VideoFailure], Utilisation]:
    """Extract what the stores lack; return how far it got, the failures by id, and how busy all were."""
    wanted = {video.id: tuple(name for name, one in pending.items() if video.id in one.ids) for video in videos}
    to_extract = [video for video in videos if wanted[video.id]]
    progress, failures, utilisation = ExtractProgress(len(to_extract)), dict[str, VideoFailure](), Utilisation()
    if not to_extract:
        return progress, failures, utilisation
    loaded = {
        name: replace(
            LoadedStream.load(streams[name], config, num_videos=len(one.ids)), siblings=find_siblings(stores[name])
        )
        for name, one in pending.items()
        if one.ids
    }
    for name, stream in loaded.items():
        for sibling in stream.siblings:
            logger.info("%s: uses the regions of the videos in %s", name, sibling.store.path)
    try:
        for progress in extract_into(stores, to_extract, loaded, config=config, wanted=wanted, utilisation=utilisation):
            if progress.failure is not None:
                failures[progress.failure.video_id] = progress.failure
            on_progress(progress)
    except KeyboardInterrupt:
        places = " and ".join(str(stores[name].path) for name in loaded)
        raise InterruptedExtractionError(
            f"stopped; {progress.num_done} of {count_of(len(to_extract), 'video')} stored in {places}. "
            "The same command continues from there"
        ) from None
    return progress, failures, utilisation


def preview(
    videos: Sequence[VideoFile],
    store_path: Path,
    *,
    config: ExtractConfig,
    part: Part = WHOLE,
    force: bool = False,
    retry_failed: bool = False,
) -> dict[str, str]:
    """Return what `extract` with the same arguments would do with each video; write nothing and read no weights.

    Args:
        videos: as for `extract`.
        store_path: as for `extract`.
        config: as for `extract`.
        part: as for `extract`.
        force: as for `extract`.
        retry_failed: as for `extract`.

    Returns:
        For each id why the video would be skipped, in words; an empty text where some stream would be extracted.

    Raises:
        UsageError: a backbone or its pooling does not exist, a setting does not go with a backbone, or several streams
            are to go into one store.
        StoreError: a store cannot be read, was made with other settings, or holds other videos under the same ids.
    """
    streams = _resolve_streams(config, weights=WEIGHTS_NOT_READ)
    paths = place_stores(store_path, {name: stream.key for name, stream in streams.items()})
    reasons: dict[str, str] = {}
    for name, stream in streams.items():
        store = None
        if (paths[name] / "store.json").exists():
            store = FeatureStore.open(paths[name])
            store.check_key(_with_weights_of(stream.key, store.key))
        plan = plan_extraction(store, videos, part=part, force=force, retry_failed=retry_failed)
        found = skip_reasons(plan, videos)
        reasons = {video_id: reason and reasons.get(video_id, reason) for video_id, reason in found.items()}
    return reasons


def _with_weights_of(key: FeatureKey, other: FeatureKey) -> FeatureKey:
    """A key whose weights were not read, with those of another one."""
    regions = key.regions
    if regions is not None and other.regions is not None:
        regions = {**regions, "weights": other.regions.get("weights")}
    return replace(key, weights=other.weights, regions=regions)


def extract_into(
    stores: Mapping[str, FeatureStore],
    videos: Sequence[VideoFile],
    streams: Mapping[str, LoadedStream],
    *,
    config: ExtractConfig,
    wanted: Mapping[str, Sequence[str]] | None = None,
    utilisation: Utilisation | None = None,
) -> Iterator[ExtractProgress]:
    """Extract videos into stores with backbones that are loaded, and note the failures there.

    Args:
        stores: by stream, the store to write; its key is the stream's.
        videos: what to extract, whether the stores hold it or not.
        streams: by stream, the backbones.
        config: how to decode, batch and seal.
        wanted: by id, the streams that need the video; all of them where it is None.
        utilisation: measures how busy the decoders and the models are.

    Yields:
        The progress after each video, and about once a second.

    Raises:
        StoreError: a store cannot be written.
    """
    by_id = {video.id: video for video in videos}
    sources = sources_of(videos)
    started = time.monotonic()
    progress = ExtractProgress(len(videos))
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                stores[name].writer(max_videos=config.seal_videos, max_seconds=config.seal_seconds)
            )
            for name in streams
        }
        results = iter_features(videos, streams, config=config, wanted=wanted, utilisation=utilisation)
        for result in stack.enter_context(closing(results)):
            progress = replace(progress, seconds=time.monotonic() - started, reading=None, failure=None)
            if isinstance(result, DecodeProgress):
                progress = replace(progress, reading=result)
            elif isinstance(result, VideoFailure):
                for name in streams if wanted is None else wanted[result.video_id]:
                    writers[name].fail(result, by_id[result.video_id])
                progress = replace(progress, num_failed=progress.num_failed + 1, failure=result)
            else:
                add_to_stores(writers, result, by_id[result.video_id], sources[result.video_id])
                num_frames = progress.num_frames + _count_frames(result, streams)
                progress = replace(progress, num_done=progress.num_done + 1, num_frames=num_frames)
            for writer in writers.values():
                writer.seal_if_due()
            yield progress


def _count_frames(features: VideoFeatures, streams: Mapping[str, LoadedStream]) -> int:
    """The rows of a video in all its streams, without the cells of a grid."""
    return sum(len(sequence) // streams[name].key.num_cells for name, sequence in features.streams.items())


def add_to_stores(
    writers: Mapping[str, StoreWriter], features: VideoFeatures, video: VideoFile, source: VideoSource
) -> None:
    """Give each stream's sequence to its store, with the place of the file.

    The file's fingerprint is added unless the file has changed since it was decoded.

    Args:
        writers: by stream.
        features: of the video.
        video: its file.
        source: where the file is.

    Raises:
        StoreError: a shard cannot be written.
    """
    first = next(iter(features.streams.values()))
    is_as_decoded = stamp_of(video) == (first.info.size_bytes, first.info.mtime_ns)
    source = replace(source, fingerprint=fingerprint_of(video.path) if is_as_decoded else "")
    for name, sequence in features.streams.items():
        writers[name].add(replace(sequence, source=source))


def iter_features(
    videos: Sequence[VideoFile],
    streams: Mapping[str, LoadedStream],
    *,
    config: ExtractConfig,
    wanted: Mapping[str, Sequence[str]] | None = None,
    utilisation: Utilisation | None = None,
) -> Generator[Extracted]:
    """Compute the features of videos in one or more streams; each video is decoded once.

    Args:
        videos: what to read.
        streams: by name, the backbones with the keys of their features.
        config: how to decode and batch; its settings that change a feature are not used.
        wanted: by id, the streams that need the video; all of them where it is None.
        utilisation: measures how busy the decoders and the models are.

    Yields:
        The features or the failure of a video, in the order in which they are done; in between, at least once a
        second, the progress of a video that is being decoded.
    """
    utilisation = utilisation or Utilisation()
    max_workers = config.workers or default_workers(_busiest_device(streams))
    workers: set[int] = set()
    models = BatchedModels({name: _batched(stream, config, utilisation) for name, stream in streams.items()})
    batches = decode_videos(
        videos,
        {name: stream.view for name, stream in streams.items()},
        wanted=wanted,
        view_of=lambda video, name: streams[name].view_of(video),
        decoder=config.decoder,
        workers=max_workers,
        timeout_seconds=config.timeout,
    )
    with closing(batches):
        for batch in batches:
            if isinstance(batch, VideoFailure):
                models.drop(batch.video_id)
                yield batch
            elif isinstance(batch, DecodeProgress):
                yield models.progress(batch.video_id) or batch
            else:
                workers.add(batch.worker)
                utilisation.num_workers = min(len(workers), max_workers)  # a worker that is renewed has a new id
                utilisation.add(decoding_seconds=batch.seconds)
                yield from models.add(batch)
        yield from models.flush()


def _busiest_device(streams: Mapping[str, LoadedStream]) -> str:
    """`cuda` where some backbone runs there."""
    return "cuda" if any(stream.engine.device == "cuda" for stream in streams.values()) else "cpu"


def _batched(stream: LoadedStream, config: ExtractConfig, utilisation: Utilisation) -> BatchedModel:
    """The engine of a stream with full batches; `batch_size` counts frames, of which a window has several."""
    num_frames = config.batch_size or DEFAULT_BATCH_SIZE[stream.engine.device]
    batch_size = max(1, num_frames // (stream.window.num_frames if stream.window else 1))
    find_regions = stream.regions if stream.key.grid > 1 else None
    return BatchedModel(stream.engine, batch_size, np.dtype(stream.key.dtype), utilisation, find_regions)
