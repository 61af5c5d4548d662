"""Stage 1: videos -> features. Every sampled frame is decoded once and put through a frozen image model once.

decode_videos (worker processes) ──FrameBatch──► BatchedModel (full batches across videos) ──► FeatureSequence ──► store
"""

import stat
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidpipe.backbones.batching import BatchedModel, Utilisation
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.config import ExtractConfig
from vidpipe.errors import InterruptedExtractionError, count_of
from vidpipe.features.inventory import (
    Reused,
    find_gone,
    find_moved,
    find_reusable,
    refuse_other_collections,
    reuse_features,
)
from vidpipe.features.key import FeatureKey
from vidpipe.features.locks import WHOLE, Part
from vidpipe.features.maintenance import drop
from vidpipe.features.sources import fingerprint_of, sources_of, stamp_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import (
    DecodeProgress,
    FeatureSequence,
    VideoFailure,
    VideoFile,
    VideoSource,
)
from vidpipe.video.decoding import decode_videos, default_workers

__all__ = [
    "ExtractProgress",
    "ExtractSummary",
    "Extracted",
    "extract",
    "extract_into",
    "iter_features",
    "load_configured_engine",
    "preview",
]

DEFAULT_BATCH_SIZE = {"cpu": 8, "cuda": 64}
"""On a CPU larger batches only cost memory: their activations no longer fit its caches."""

FRAMES_OF_A_VIDEO = 64
"""A guess, where the sampling does not say."""

Extracted = FeatureSequence | VideoFailure | DecodeProgress


@dataclass(frozen=True)
class ExtractProgress:
    """How far an extraction is."""

    num_videos: int
    """Videos to do in this run, those that the store already held left out."""
    num_done: int = 0
    num_failed: int = 0
    num_frames: int = 0
    """Frames of the videos that are done."""
    seconds: float = 0.0
    reading: DecodeProgress | None = None
    """The unfinished video that was heard of, if that is the news."""
    failure: VideoFailure | None = None
    """The video that failed, if that is the news."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did."""

    num_stored: int
    num_skipped: int
    """Videos that the store already held."""
    num_frames: int
    failures: tuple[VideoFailure, ...]
    """Videos that failed in this run."""
    known_failures: tuple[VideoFailure, ...]
    """Videos that failed in an earlier run and were not tried again."""
    seconds: float
    utilisation: Utilisation
    num_replaced: int = 0
    """Of the videos that were stored: those in place of an older version."""
    reused: tuple[Reused, ...] = ()
    """Videos that were stored without being decoded: a file of the same content was stored under another id."""
    moved: tuple[str, ...] = ()
    """Old ids of moved files, which were dropped."""
    gone: tuple[str, ...] = ()
    """Stored videos of these folders whose files are no longer there."""


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
    """Put the features of videos into a store, those that it does not hold yet.

    A moved file's features are stored under its new id without decoding it. Its old id is dropped, but not with a
    `part`, for then other processes may be writing.

    Args:
        videos: from `vidpipe.video.files.find_videos`.
        store_path: the store's folder; made if it is not there.
        config: the settings; those that change a feature must be the store's own.
        part: which of the videos to do; several processes, each with its own part, can fill one store.
        force: extract again what the store already holds, and try again what failed.
        retry_failed: try again what failed in an earlier run.
        on_progress: called whenever a video is done, and about once a second.

    Raises:
        StoreError: the folder is no store, has another key, cannot be written, holds other videos under the same ids
            (see `vidpipe.features.inventory.refuse_other_collections`), or another process writes this part.
        WeightsError: the backbone's weights cannot be had.
        InterruptedExtractionError: Ctrl-C; what was finished is in the store.
    """
    spec = find_backbone(config.backbone)
    spec.resolve_pool(config.pool)  # a pooling that does not go with it is told before anything is downloaded
    weights = find_weights(spec, config.weights)
    store = FeatureStore.create(store_path, feature_key(config, weights))
    with store.lock(part):
        if part == WHOLE:
            store.clear_leftovers()
        stock = _take_stock(store, videos, part, force=force)
        missing = stock.missing
        known = {video.id: store.known_failure(video) for video in missing if not (force or retry_failed)}
        to_do = [video for video in missing if known.get(video.id) is None]
        old_ids = {video.id for video in to_do if video.id in store}
        utilisation = Utilisation()
        progress, failures = _extract_missing(store, to_do, config, weights, utilisation, on_progress)
    return ExtractSummary(
        num_stored=progress.num_done,
        num_skipped=stock.num_held,
        num_frames=progress.num_frames,
        failures=tuple(sorted(failures, key=lambda failure: failure.video_id)),
        known_failures=tuple(failure for failure in known.values() if failure is not None),
        seconds=progress.seconds,
        utilisation=utilisation,
        num_replaced=len(old_ids - {failure.video_id for failure in failures}),
        reused=stock.reused,
        moved=stock.moved,
        gone=stock.gone,
    )


def _extract_missing(
    store: FeatureStore,
    videos: Sequence[VideoFile],
    config: ExtractConfig,
    weights: WeightsFile,
    utilisation: Utilisation,
    on_progress: Callable[[ExtractProgress], None],
) -> tuple[ExtractProgress, list[VideoFailure]]:
    """How far the extraction of videos got, and those that failed."""
    progress, failures = ExtractProgress(len(videos)), list[VideoFailure]()
    if not videos:
        return progress, failures
    engine = load_configured_engine(config, weights, len(videos))
    try:
        for progress in extract_into(store, videos, engine=engine, config=config, utilisation=utilisation):
            failures += [progress.failure] if progress.failure else []
            on_progress(progress)
    except KeyboardInterrupt:
        raise InterruptedExtractionError(
            f"stopped; {progress.num_done} of {count_of(len(videos), 'video')} stored in {store.path}. "
            "The same command continues from there"
        ) from None
    return progress, failures


@dataclass(frozen=True)
class _Stock:
    """What there is to do, after what could be done without decoding."""

    missing: list[VideoFile]
    num_held: int
    reused: tuple[Reused, ...]
    moved: tuple[str, ...]
    gone: tuple[str, ...]


def _take_stock(store: FeatureStore, videos: Sequence[VideoFile], part: Part, *, force: bool) -> _Stock:
    """Compare the files with the store, and let it follow those that were moved."""
    held = set() if force else {video.id for video in videos if store.holds(video)}
    if not force:
        refuse_other_collections(store, videos, held)
    missing = [video for video in videos if part.holds(video.id) and video.id not in held]
    reused = [] if force else reuse_features(store, missing)
    gone = find_gone(store, videos)
    moved = find_moved(store, videos, gone) if part == WHOLE else []
    if moved:
        drop(store, moved)
    known_ids = {one.video_id for one in reused}
    return _Stock(
        missing=[video for video in missing if video.id not in known_ids],
        num_held=sum(part.holds(video_id) for video_id in held),
        reused=tuple(reused),
        moved=tuple(moved),
        gone=tuple(video_id for video_id in gone if video_id not in set(moved)),
    )


def preview(
    videos: Sequence[VideoFile],
    store_path: Path,
    *,
    config: ExtractConfig,
    part: Part = WHOLE,
    force: bool = False,
    retry_failed: bool = False,
) -> dict[str, str]:
    """What `extract` would do with each video. Writes nothing, and reads no weights.

    Args:
        videos: as for `extract`.
        store_path: the store's folder; it need not be there.
        config: as for `extract`.
        part: as for `extract`.
        force: as for `extract`.
        retry_failed: as for `extract`.

    Returns:
        For each id why the video would be skipped, in words; empty where it would be extracted.

    Raises:
        StoreError: the store cannot be read, was made with other settings, or holds other videos under the same ids.
    """
    store, reusable = None, dict[str, str]()
    if (store_path / "store.json").exists():
        weights = WeightsFile(FeatureStore.open(store_path).key.weights, None, "not read")
        store = FeatureStore.create(store_path, feature_key(config, weights))  # it is there: only the key is checked
        if not force:
            held = {video.id for video in videos if store.holds(video)}
            refuse_other_collections(store, videos, held)
            reusable = find_reusable(store, [video for video in videos if video.id not in held])
    reasons = {
        video.id: _why_not_extracted(video, store, part, force=force, retry_failed=retry_failed) for video in videos
    }
    return {
        video_id: f"stored already, as {reusable[video_id]}" if not reason and video_id in reusable else reason
        for video_id, reason in reasons.items()
    }


def _why_not_extracted(
    video: VideoFile, store: FeatureStore | None, part: Part, *, force: bool, retry_failed: bool
) -> str:
    if not part.holds(video.id):
        return f"not in part {part}"
    try:
        is_file = stat.S_ISREG(video.path.stat().st_mode)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not is_file:
        return "not a regular file"
    if store is None or force:
        return ""
    if store.holds(video):
        return "stored already"
    known = None if retry_failed else store.known_failure(video)
    return "" if known is None else "failed before; --retry-failed tries it again"


def extract_into(
    store: FeatureStore,
    videos: Sequence[VideoFile],
    *,
    engine: Engine,
    config: ExtractConfig,
    utilisation: Utilisation | None = None,
) -> Iterator[ExtractProgress]:
    """Extract videos into a store, with a backbone that is loaded; what fails is noted there.

    Args:
        store: where to; its key must be that of the backbone and the config.
        videos: what to extract, whether the store holds it or not.
        engine: the frozen image model.
        config: how to sample, decode, batch and seal.
        utilisation: counts who waits for whom.

    Raises:
        StoreError: the store cannot be written.
    """
    by_id = {video.id: video for video in videos}
    sources = sources_of(videos)
    started = time.monotonic()
    progress = ExtractProgress(len(videos))
    with (
        store.writer(max_videos=config.seal_videos, max_seconds=config.seal_seconds) as writer,
        closing(iter_features(videos, engine=engine, config=config, utilisation=utilisation)) as results,
    ):
        for result in results:
            progress = replace(progress, seconds=time.monotonic() - started, reading=None, failure=None)
            if isinstance(result, DecodeProgress):
                progress = replace(progress, reading=result)
            elif isinstance(result, VideoFailure):
                writer.fail(result, by_id[result.video_id])
                progress = replace(progress, num_failed=progress.num_failed + 1, failure=result)
            else:
                writer.add(_with_source(result, by_id[result.video_id], sources[result.video_id]))
                num_frames = progress.num_frames + len(result)
                progress = replace(progress, num_done=progress.num_done + 1, num_frames=num_frames)
            writer.seal_if_due()
            yield progress


def _with_source(sequence: FeatureSequence, video: VideoFile, source: VideoSource) -> FeatureSequence:
    """A sequence with where its file lies, and its fingerprint unless the file has changed since it was decoded."""
    is_as_decoded = stamp_of(video) == (sequence.info.size_bytes, sequence.info.mtime_ns)
    fingerprint = fingerprint_of(video.path) if is_as_decoded else ""
    return replace(sequence, source=replace(source, fingerprint=fingerprint))


def feature_key(config: ExtractConfig, weights: WeightsFile) -> FeatureKey:
    """The key of the features that a config's settings make."""
    spec = find_backbone(config.backbone)
    return FeatureKey.of(
        config.resolve_sampling(),
        backbone=config.backbone,
        weights_id=weights.id,
        pooling=spec.resolve_pool(config.pool),
        preprocessing=spec.preprocessing,
        dtype=config.dtype,
        precision=config.precision,
    )


def load_configured_engine(config: ExtractConfig, weights: WeightsFile, num_videos: int) -> Engine:
    """The backbone that a config asks for, ready to run over so many videos.

    Raises:
        WeightsError: the weights are of another model.
        UsageError: the device or the engine is not there, or the pooling does not go with the backbone.
    """
    return load_engine(
        find_backbone(config.backbone),
        weights=weights,
        pool=config.pool,
        device=config.device,
        engine=config.engine,
        precision=config.precision,
        num_frames=num_videos * (config.resolve_sampling().num_frames or FRAMES_OF_A_VIDEO),
    )


def iter_features(
    videos: Sequence[VideoFile], *, engine: Engine, config: ExtractConfig, utilisation: Utilisation | None = None
) -> Generator[Extracted]:
    """Features of videos, one sequence or failure a video, in the order in which they get done.

    In between, at least once a second, come `DecodeProgress`s, the signs of life of videos in hand.

    Args:
        videos: what to read.
        engine: the frozen image model.
        config: how to sample, decode and batch.
        utilisation: counts who waits for whom.
    """
    utilisation = utilisation or Utilisation()
    max_workers = config.workers or default_workers(engine.device)
    workers: set[int] = set()
    batch_size = config.batch_size or DEFAULT_BATCH_SIZE[engine.device]
    model = BatchedModel(engine, batch_size, np.dtype(config.dtype), utilisation)
    batches = decode_videos(
        videos,
        sampling=config.resolve_sampling(),
        preprocessing=engine.preprocessing,
        decoder=config.decoder,
        workers=max_workers,
        timeout_seconds=config.timeout,
    )
    with closing(batches):
        for batch in batches:
            if isinstance(batch, VideoFailure):
                model.drop(batch.video_id)
                yield batch
            elif isinstance(batch, DecodeProgress):
                yield model.progress(batch.video_id) or batch
            else:
                workers.add(batch.worker)
                utilisation.num_workers = min(len(workers), max_workers)  # they are renewed, and then have another id
                utilisation.add(decoding_seconds=batch.seconds)
                yield from model.add(batch)
        yield from model.flush()
