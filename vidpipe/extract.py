"""Stage 1: videos -> features. Every sampled frame is decoded once and put through a frozen image model once.

decode_videos (worker processes) ──FrameBatch──► _BatchModel (full batches across videos) ──► FeatureSequence ──► store
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import ExtractConfig
from vidpipe.errors import InterruptedExtractionError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.models.backbones import find_backbone
from vidpipe.models.weights import WeightsFile, find_weights
from vidpipe.records import FeatureSequence, FrameBatch, FramePlan, VideoFailure, VideoFile, VideoInfo
from vidpipe.video.decoding import decode_videos, default_workers

if TYPE_CHECKING:
    from vidpipe.models.frozen import FrozenBackbone

__all__ = ["ExtractProgress", "ExtractSummary", "Extracted", "extract", "iter_features"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = {"cpu": 8, "cuda": 64}
"""On a CPU larger batches only cost memory: their activations no longer fit its caches."""

Extracted = FeatureSequence | VideoFailure


@dataclass(frozen=True)
class ExtractProgress:
    """How far an extraction is."""

    num_videos: int
    """Videos to do in this run, those that the store already held left out."""
    num_done: int = 0
    num_failed: int = 0
    num_frames: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did."""

    num_stored: int
    num_skipped: int
    """Videos that the store already held."""
    num_frames: int
    failures: tuple[VideoFailure, ...]
    seconds: float


def extract(
    videos: Sequence[VideoFile],
    store_path: Path,
    *,
    config: ExtractConfig,
    force: bool = False,
    on_progress: Callable[[ExtractProgress], None] = lambda progress: None,
) -> ExtractSummary:
    """Put the features of videos into a store, those that it does not hold yet.

    Args:
        videos: from `vidpipe.video.files.find_videos`.
        store_path: the store's folder; made if it is not there.
        config: the settings; those that change a feature must be the store's own.
        force: extract again what the store already holds.
        on_progress: called whenever a video is done.

    Raises:
        StoreError: the folder is no store, has another key, or cannot be written.
        WeightsError: the backbone's weights cannot be had.
        InterruptedExtractionError: Ctrl-C; what was finished is in the store.
    """
    weights = find_weights(find_backbone(config.backbone), config.weights)
    store = FeatureStore.create(store_path, feature_key(config, weights))
    to_do = [video for video in videos if force or not store.holds(video)]
    started, stored, frames = time.monotonic(), 0, 0
    failures: list[VideoFailure] = []
    if to_do:
        backbone = _load(config, weights)
        try:
            with store.writer() as writer, closing(iter_features(to_do, backbone=backbone, config=config)) as results:
                for result in results:
                    if isinstance(result, VideoFailure):
                        writer.fail(result)
                        failures.append(result)
                        logger.debug("failed: %s: %s", result.video_id, result.message)
                    else:
                        writer.add(result)
                        stored, frames = stored + 1, frames + len(result)
                    seconds = time.monotonic() - started
                    on_progress(ExtractProgress(len(to_do), stored, len(failures), frames, seconds))
        except KeyboardInterrupt:
            raise InterruptedExtractionError(
                f"stopped; {stored} of {len(to_do)} videos are in {store_path}. The same command goes on from there"
            ) from None
    failures.sort(key=lambda failure: failure.video_id)
    return ExtractSummary(stored, len(videos) - len(to_do), frames, tuple(failures), time.monotonic() - started)


def feature_key(config: ExtractConfig, weights: WeightsFile) -> FeatureKey:
    """The key of the features that a config's settings make."""
    return FeatureKey.of(
        config.resolve_sampling(),
        backbone=config.backbone,
        weights_id=weights.id,
        pooling=config.pool,
        preprocessing=find_backbone(config.backbone).preprocessing,
        dtype=config.dtype,
    )


def _load(config: ExtractConfig, weights: WeightsFile) -> "FrozenBackbone":
    from vidpipe.models.frozen import load_backbone  # torch: only where there is something to do

    return load_backbone(find_backbone(config.backbone), weights=weights, pool=config.pool, device=config.device)


def iter_features(
    videos: Iterable[VideoFile], *, backbone: "FrozenBackbone", config: ExtractConfig
) -> Generator[Extracted]:
    """Features of videos, one sequence or failure a video, in the order in which they get done.

    Args:
        videos: what to read.
        backbone: the frozen image model.
        config: how to sample, decode and batch.
    """
    batch_size = config.batch_size or DEFAULT_BATCH_SIZE[backbone.device.type]
    model = _BatchModel(backbone, batch_size, np.dtype(config.dtype))
    batches = decode_videos(
        videos,
        sampling=config.resolve_sampling(),
        preprocessing=backbone.preprocessing,
        workers=config.workers or default_workers(),
        timeout_seconds=config.timeout,
    )
    with closing(batches):
        for batch in batches:
            if isinstance(batch, VideoFailure):
                model.drop(batch.video_id)
                yield batch
            else:
                yield from model.add(batch)
        yield from model.flush()


class _Sequence:
    """A video's features while they come in."""

    def __init__(
        self, video_id: str, plan: FramePlan, info: VideoInfo, dim: int, dtype: "np.dtype[np.floating]"
    ) -> None:
        self.features = np.empty((len(plan), dim), dtype)
        self.num_missing = len(plan)
        self.plan = plan
        self.result = FeatureSequence(video_id, self.features, plan, info)

    def put(self, start: int, rows: NDArray[np.float32]) -> bool:
        """Place rows; whether the sequence is whole now."""
        self.features[start : start + len(rows)] = rows
        self.num_missing -= len(rows)
        return self.num_missing == 0


class _BatchModel:
    """Runs a backbone on full batches, which may hold the end of one video and the beginning of the next."""

    def __init__(self, backbone: "FrozenBackbone", batch_size: int, dtype: "np.dtype[np.floating]") -> None:
        self._backbone, self._batch_size, self._dtype = backbone, batch_size, dtype
        self._sequences: dict[str, _Sequence] = {}
        self._waiting: list[tuple[_Sequence, int, NDArray[np.uint8]]] = []
        """(sequence, where in it, frames) not yet through the model."""

    def add(self, batch: FrameBatch) -> Iterator[FeatureSequence]:
        """Take frames; gives the sequences that they complete."""
        sequence = self._sequences.get(batch.video.id)
        if sequence is None or sequence.plan is not batch.plan:  # new, or started anew with another plan
            self.drop(batch.video.id)
            sequence = _Sequence(batch.video.id, batch.plan, batch.info, self._backbone.dim, self._dtype)
            self._sequences[batch.video.id] = sequence
        self._waiting.append((sequence, batch.start, batch.frames))
        while sum(len(frames) for _, _, frames in self._waiting) >= self._batch_size:
            yield from self._run()

    def drop(self, video_id: str) -> None:
        """Forget a video that failed half-way."""
        dropped = self._sequences.pop(video_id, None)
        self._waiting = [waiting for waiting in self._waiting if waiting[0] is not dropped]

    def flush(self) -> Iterator[FeatureSequence]:
        """Run what is left."""
        while self._waiting:
            yield from self._run()

    def _run(self) -> Iterator[FeatureSequence]:
        """Put one batch through the model."""
        import torch

        taken = list(self._take())
        frames = torch.from_numpy(np.concatenate([frames for _, _, frames in taken]))  # (batch_size, 3, H, W)
        rows = self._backbone(frames).float().cpu().numpy()  # (batch_size, D)
        offset = 0
        for sequence, start, part in taken:
            if sequence.put(start, rows[offset : offset + len(part)]):
                del self._sequences[sequence.result.video_id]
                yield sequence.result
            offset += len(part)

    def _take(self) -> Iterator[tuple[_Sequence, int, NDArray[np.uint8]]]:
        """Up to `batch_size` frames off the front of what waits."""
        room = self._batch_size
        while room and self._waiting:
            sequence, start, frames = self._waiting.pop(0)
            if len(frames) > room:
                self._waiting.insert(0, (sequence, start + room, frames[room:]))
            yield sequence, start, frames[:room]
            room -= min(room, len(frames))
