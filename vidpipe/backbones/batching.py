"""Decoded frames -> feature sequences: full batches for the backbone, across the borders of videos."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.engine import Engine, Finish
from vidpipe.records import DecodeProgress, FeatureSequence, FrameBatch, FramePlan, VideoInfo

__all__ = ["BatchedModel", "Utilisation"]


@dataclass
class Utilisation:
    """Who waited for whom, while videos were extracted."""

    num_workers: int = 1
    """Decoding processes that have decoded something."""
    started: float | None = None
    """When the first frames came, on the monotonic clock; what came before is start-up."""
    seconds: float = 0.0
    """From then to now."""
    model_seconds: float = 0.0
    """In which the image model was at work."""
    decoding_seconds: float = 0.0
    """Of all decoding processes together."""

    def add(self, *, model_seconds: float = 0.0, decoding_seconds: float = 0.0) -> None:
        """Count some work that has just been done."""
        now = time.monotonic()
        self.started = now - model_seconds if self.started is None else self.started
        self.seconds = now - self.started
        self.model_seconds += model_seconds
        self.decoding_seconds += decoding_seconds

    @property
    def model_idle_share(self) -> float:
        """Share of the time in which the image model had no frames, 0 to 1."""
        return max(0.0, 1 - self.model_seconds / self.seconds) if self.seconds else 0.0

    @property
    def decoders_idle_share(self) -> float:
        """Share of the time in which the decoding processes had nothing to do, 0 to 1."""
        return max(0.0, 1 - self.decoding_seconds / (self.num_workers * self.seconds)) if self.seconds else 0.0


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


class BatchedModel:
    """Runs an engine on full batches, which may hold the end of one video and the beginning of the next."""

    def __init__(
        self, engine: Engine, batch_size: int, dtype: "np.dtype[np.floating]", utilisation: Utilisation
    ) -> None:
        self._engine, self._batch_size, self._dtype, self._utilisation = engine, batch_size, dtype, utilisation
        self._sequences: dict[str, _Sequence] = {}
        self._waiting: list[tuple[_Sequence, int, NDArray[np.uint8]]] = []
        """(sequence, where in it, frames) not yet through the model."""
        self._in_flight: deque[tuple[list[tuple[_Sequence, int, NDArray[np.uint8]]], Finish]] = deque()

    def add(self, batch: FrameBatch) -> Iterator[FeatureSequence | DecodeProgress]:
        """Take frames; gives the sequences that they complete, and where those stand that they do not."""
        sequence = self._sequences.get(batch.video.id)
        if sequence is None or sequence.plan is not batch.plan:  # new, or started anew with another plan
            self.drop(batch.video.id)
            sequence = _Sequence(batch.video.id, batch.plan, batch.info, self._engine.dim, self._dtype)
            self._sequences[batch.video.id] = sequence
        self._waiting.append((sequence, batch.start, batch.frames))
        while sum(len(frames) for _, _, frames in self._waiting) >= self._batch_size:
            yield from self._run()
            if (reading := self.reading(batch.video.id)) is not None:
                yield reading

    def reading(self, video_id: str) -> DecodeProgress | None:
        """Where an unfinished video stands, if any of its frames has come."""
        sequence = self._sequences.get(video_id)
        if sequence is None:
            return None
        return DecodeProgress(video_id, len(sequence.plan) - sequence.num_missing, len(sequence.plan))

    def drop(self, video_id: str) -> None:
        """Forget a video that failed half-way."""
        dropped = self._sequences.pop(video_id, None)
        self._waiting = [waiting for waiting in self._waiting if waiting[0] is not dropped]

    def flush(self) -> Iterator[FeatureSequence]:
        """Run what is left."""
        while self._waiting:
            yield from self._run()
        while self._in_flight:
            yield from self._finish()

    def _run(self) -> Iterator[FeatureSequence]:
        """Start one batch, and finish those that have been in flight for long enough."""
        taken = list(self._take())
        frames = np.concatenate([frames for _, _, frames in taken])  # (batch_size, 3, H, W)
        self._in_flight.append((taken, self._engine.start(frames)))
        while len(self._in_flight) > self._engine.max_in_flight:
            yield from self._finish()

    def _finish(self) -> Iterator[FeatureSequence]:
        taken, finish = self._in_flight.popleft()
        rows, model_seconds = finish()
        self._utilisation.add(model_seconds=model_seconds)
        offset = 0
        for sequence, start, part in taken:
            if sequence.put(start, rows[offset : offset + len(part)]) and self._is_current(sequence):
                del self._sequences[sequence.result.video_id]
                yield sequence.result
            offset += len(part)

    def _is_current(self, sequence: _Sequence) -> bool:
        """Whether its video has not failed, or started anew, since."""
        return self._sequences.get(sequence.result.video_id) is sequence

    def _take(self) -> Iterator[tuple[_Sequence, int, NDArray[np.uint8]]]:
        """Up to `batch_size` frames off the front of what waits."""
        room = self._batch_size
        while room and self._waiting:
            sequence, start, frames = self._waiting.pop(0)
            if len(frames) > room:
                self._waiting.insert(0, (sequence, start + room, frames[room:]))
            yield sequence, start, frames[:room]
            room -= min(room, len(frames))
