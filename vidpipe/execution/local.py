"""Extraction on this machine. Every frame is decoded once for all streams, and put through each backbone once.

decode_videos (worker processes) ──FrameBatch──► BatchedModels (full batches across videos) ──VideoFeatures──► stores
"""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from vidpipe.backbones.batching import BatchedModel, BatchedModels, Utilisation
from vidpipe.backbones.stream import resolve_decoding
from vidpipe.config import ExtractConfig
from vidpipe.execution.loaded import DEFAULT_BATCH_SIZE, LoadedStream, busiest_device
from vidpipe.execution.progress import ExtractProgress
from vidpipe.features.sources import fingerprint_of, sources_of, stamp_of
from vidpipe.features.store import FeatureStore, StoreWriter
from vidpipe.records import DecodeProgress, FrameBatch, VideoFailure, VideoFeatures, VideoFile, VideoSource
from vidpipe.video.decoding import choose_decoder, decode_videos, default_workers
from vidpipe.video.remote import LocalCopies

__all__ = ["Extracted", "add_to_stores", "extract_into", "iter_features"]

Extracted = VideoFeatures | VideoFailure | DecodeProgress
"""What `iter_features` yields."""


def extract_into(
    stores: Mapping[str, FeatureStore],
    videos: Sequence[VideoFile],
    streams: Mapping[str, LoadedStream],
    *,
    config: ExtractConfig,
    wanted: Mapping[str, Sequence[str]] | None = None,
    utilisation: Utilisation | None = None,
) -> Generator[ExtractProgress]:
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

    Raises:
        UsageError: two streams need the frames decoded differently, or this machine cannot decode them so.
    """
    decoding = resolve_decoding({name: stream.key for name, stream in streams.items()})
    decoder = choose_decoder(decoding, config.decoder)
    workers = config.workers or default_workers(busiest_device(streams.values()), decoder)
    with LocalCopies(videos, num_ahead=2 * workers) as copies:
        batches = decode_videos(
            copies,
            {name: stream.view for name, stream in streams.items()},
            wanted=wanted,
            view_of=lambda video, name: streams[name].view_of(video),
            decoder=decoder,
            fast_decode=decoding.fast_decode,
            workers=workers,
            timeout_seconds=config.timeout,
        )
        with closing(batches):
            for result in _run_models(batches, streams, config, utilisation or Utilisation(), max_workers=workers):
                yield from copies.failures()
                yield result
                if not isinstance(result, DecodeProgress):
                    copies.remove(result.video_id)
        yield from copies.failures()


def _run_models(
    batches: Iterable[FrameBatch | VideoFailure | DecodeProgress],
    streams: Mapping[str, LoadedStream],
    config: ExtractConfig,
    utilisation: Utilisation,
    *,
    max_workers: int,
) -> Iterator[Extracted]:
    """Put decoded frames through the backbones, in full batches across videos."""
    workers: set[int] = set()
    models = BatchedModels({name: _batched(stream, config, utilisation) for name, stream in streams.items()})
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


def _batched(stream: LoadedStream, config: ExtractConfig, utilisation: Utilisation) -> BatchedModel:
    """The engine of a stream with full batches; `batch_size` counts frames, of which a window has several."""
    num_frames = config.batch_size or DEFAULT_BATCH_SIZE[stream.engine.device]
    batch_size = max(1, num_frames // (stream.window.num_frames if stream.window else 1))
    find_regions = stream.regions if stream.key.grid > 1 else None
    return BatchedModel(stream.engine, batch_size, np.dtype(stream.key.dtype), utilisation, find_regions)
