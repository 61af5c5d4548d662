"""Stage 1: videos -> features. Every sampled frame is decoded once and put through a frozen image model once.

decode_videos (worker processes) ──FrameBatch──► BatchedModel (full batches across videos) ──► FeatureSequence ──► store
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidpipe.backbones.batching import BatchedModel, Utilisation
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.stream import WEIGHTS_NOT_READ, Stream
from vidpipe.config import ExtractConfig
from vidpipe.errors import InterruptedExtractionError, count_of
from vidpipe.features.inventory import Reused, follow_files
from vidpipe.features.key import FeatureKey
from vidpipe.features.locks import WHOLE, Part
from vidpipe.features.planning import plan_extraction, skip_reasons
from vidpipe.features.sources import fingerprint_of, sources_of, stamp_of
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import refuse_folder_of_stores
from vidpipe.records import (
    DecodeProgress,
    FeatureSequence,
    VideoFailure,
    VideoFile,
    VideoSource,
)
from vidpipe.video.decoding import decode_videos, default_workers

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "ExtractProgress",
    "ExtractSummary",
    "Extracted",
    "extract",
    "extract_into",
    "iter_features",
    "preview",
]

DEFAULT_BATCH_SIZE = {"cpu": 8, "cuda": 64}
"""Larger batches are no faster on a CPU and take more memory: their activations no longer fit its caches."""

Extracted = FeatureSequence | VideoFailure | DecodeProgress
"""What `iter_features` yields."""


@dataclass(frozen=True)
class ExtractProgress:
    """How far an extraction is."""

    num_videos: int
    """Videos to extract in this run, without those that are stored already."""
    num_done: int = 0
    num_failed: int = 0
    num_frames: int = 0
    """Frames of the videos that are done."""
    seconds: float = 0.0
    reading: DecodeProgress | None = None
    """The progress of an unfinished video, where that is the news."""
    failure: VideoFailure | None = None
    """The video that failed, where that is the news."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did."""

    num_stored: int
    num_skipped: int
    """Videos that were stored already."""
    num_frames: int
    failures: tuple[VideoFailure, ...]
    """Videos that failed in this run."""
    known_failures: tuple[VideoFailure, ...]
    """Videos that failed in an earlier run and were not retried."""
    seconds: float
    utilisation: Utilisation
    num_replaced: int = 0
    """Of the stored videos: those that replace an older version."""
    reused: tuple[Reused, ...] = ()
    """Videos stored without decoding: a file of the same content was stored under another id."""
    moved: tuple[str, ...] = ()
    """Old ids of moved files, which were dropped."""
    gone: tuple[str, ...] = ()
    """Stored videos of these folders whose files no longer exist."""


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
    """Extract the features of videos into a store; videos that are stored already are skipped.

    The features of a moved file are stored under its new id without decoding it. Its old id is dropped, except with a
    `part`: other processes may be writing then.

    Args:
        videos: from `vidpipe.video.files.find_videos`.
        store_path: the store's folder; it is made if it does not exist.
        config: the settings; those that change a feature must be the store's own.
        part: which of the videos to extract; several processes, each with its own part, can fill one store.
        force: extract stored videos again, and retry those that failed.
        retry_failed: retry videos that failed in an earlier run.
        on_progress: called after each video, and about once a second.

    Returns:
        The counts, the failures, and the files that were moved or are gone.

    Raises:
        UsageError: `store_path` is a folder of stores, or the backbone, its pooling or a weights file does not exist.
        StoreError: the folder is no store, has another key, cannot be written, holds other videos under the same ids
            (see `vidpipe.features.inventory.refuse_other_collections`), or another process writes this part.
        WeightsError: the backbone's weights cannot be downloaded or read.
        InterruptedExtractionError: Ctrl-C; the videos that were finished are stored.
    """
    refuse_folder_of_stores(store_path)
    stream = Stream.of(config)
    store = FeatureStore.create(store_path, stream.key)
    with store.lock(part):
        if part == WHOLE:
            store.clear_leftovers()
        plan = plan_extraction(store, videos, part=part, force=force, retry_failed=retry_failed)
        changes = follow_files(store, videos, plan.reusable, drop_old_ids=part == WHOLE)
        to_extract = [*plan.to_extract, *changes.not_reused]
        old_ids = {video.id for video in to_extract if video.id in store}
        utilisation = Utilisation()
        progress, failures = _extract_all(store, to_extract, stream, config, utilisation, on_progress)
    return ExtractSummary(
        num_stored=progress.num_done,
        num_skipped=len(plan.stored_ids),
        num_frames=progress.num_frames,
        failures=tuple(sorted(failures, key=lambda failure: failure.video_id)),
        known_failures=plan.failed_before,
        seconds=progress.seconds,
        utilisation=utilisation,
        num_replaced=len(old_ids - {failure.video_id for failure in failures}),
        reused=changes.reused,
        moved=changes.moved,
        gone=changes.gone,
    )


def _extract_all(
    store: FeatureStore,
    videos: Sequence[VideoFile],
    stream: Stream,
    config: ExtractConfig,
    utilisation: Utilisation,
    on_progress: Callable[[ExtractProgress], None],
) -> tuple[ExtractProgress, list[VideoFailure]]:
    """Extract videos; return how far it got and which videos failed."""
    progress, failures = ExtractProgress(len(videos)), list[VideoFailure]()
    if not videos:
        return progress, failures
    engine = stream.load_engine(device=config.device, engine=config.engine, num_videos=len(videos))
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
        store_path: the store's folder; it need not exist.
        config: as for `extract`.
        part: as for `extract`.
        force: as for `extract`.
        retry_failed: as for `extract`.

    Returns:
        For each id why the video would be skipped, in words; an empty text where it would be extracted.

    Raises:
        UsageError: `store_path` is a folder of stores, or the backbone or its pooling does not exist.
        StoreError: the store cannot be read, was made with other settings, or holds other videos under the same ids.
    """
    refuse_folder_of_stores(store_path)
    stream, store = Stream.of(config, weights=WEIGHTS_NOT_READ), None
    if (store_path / "store.json").exists():
        store = FeatureStore.open(store_path)
        store.check_key(replace(stream.key, weights=store.key.weights))
    plan = plan_extraction(store, videos, part=part, force=force, retry_failed=retry_failed)
    return skip_reasons(plan, videos)


def extract_into(
    store: FeatureStore,
    videos: Sequence[VideoFile],
    *,
    engine: Engine,
    config: ExtractConfig,
    utilisation: Utilisation | None = None,
) -> Iterator[ExtractProgress]:
    """Extract videos into a store with a backbone that is loaded, and note the failures there.

    Args:
        store: the store to write; its key gives the sampling and the dtype, and must name the engine's backbone.
        videos: what to extract, whether the store holds it or not.
        engine: the frozen image model.
        config: how to decode, batch and seal.
        utilisation: measures how busy the decoders and the model are.

    Yields:
        The progress after each video, and about once a second.

    Raises:
        StoreError: the store cannot be written.
    """
    by_id = {video.id: video for video in videos}
    sources = sources_of(videos)
    started = time.monotonic()
    progress = ExtractProgress(len(videos))
    with (
        store.writer(max_videos=config.seal_videos, max_seconds=config.seal_seconds) as writer,
        closing(iter_features(videos, engine=engine, key=store.key, config=config, utilisation=utilisation)) as results,
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
    """Add where the video's file lies, and its fingerprint unless the file has changed since it was decoded."""
    is_as_decoded = stamp_of(video) == (sequence.info.size_bytes, sequence.info.mtime_ns)
    fingerprint = fingerprint_of(video.path) if is_as_decoded else ""
    return replace(sequence, source=replace(source, fingerprint=fingerprint))


def iter_features(
    videos: Sequence[VideoFile],
    *,
    engine: Engine,
    key: FeatureKey,
    config: ExtractConfig,
    utilisation: Utilisation | None = None,
) -> Generator[Extracted]:
    """Compute the features of videos.

    Args:
        videos: what to read.
        engine: the frozen image model.
        key: of the features: gives the sampling and the dtype.
        config: how to decode and batch; its settings that change a feature are not used.
        utilisation: measures how busy the decoders and the model are.

    Yields:
        One sequence or failure a video, in the order in which they are done; in between, at least once a second, the
        progress of a video that is being decoded.
    """
    utilisation = utilisation or Utilisation()
    max_workers = config.workers or default_workers(engine.device)
    workers: set[int] = set()
    batch_size = config.batch_size or DEFAULT_BATCH_SIZE[engine.device]
    model = BatchedModel(engine, batch_size, np.dtype(key.dtype), utilisation)
    batches = decode_videos(
        videos,
        sampling=key.resolve_sampling(),
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
                utilisation.num_workers = min(len(workers), max_workers)  # a worker that is renewed has a new id
                utilisation.add(decoding_seconds=batch.seconds)
                yield from model.add(batch)
        yield from model.flush()
