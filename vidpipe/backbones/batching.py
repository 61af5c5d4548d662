"""Decoded pictures -> feature sequences: full batches of rows for the engine, across the borders of videos."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.engine import Engine, Finish
from vidpipe.records import (
    DecodeProgress,
    FeatureSequence,
    FrameBatch,
    Rows,
    VideoFeatures,
    VideoInfo,
    VideoPlan,
)

__all__ = ["BatchedModel", "BatchedModels", "Utilisation"]


@dataclass
class Utilisation:
    """How busy the decoding processes and the backbone are during an extraction."""

    num_workers: int = 1
    """Decoding processes that have decoded something."""
    started: float | None = None
    """When the first pictures came, on the monotonic clock; the time before is start-up."""
    seconds: float = 0.0
    """From `started` until now."""
    model_seconds: float = 0.0
    """How long the backbone computed."""
    decoding_seconds: float = 0.0
    """How long the decoding processes decoded, all together."""

    def add(self, *, model_seconds: float = 0.0, decoding_seconds: float = 0.0) -> None:
        """Count work that has just been done.

        Args:
            model_seconds: of the backbone.
            decoding_seconds: of a decoding process.
        """
        now = time.monotonic()
        self.started = now - model_seconds if self.started is None else self.started
        self.seconds = now - self.started
        self.model_seconds += model_seconds
        self.decoding_seconds += decoding_seconds

    @property
    def model_idle_share(self) -> float:
        """Share of the time in which the backbone had nothing to compute, 0 to 1."""
        return max(0.0, 1 - self.model_seconds / self.seconds) if self.seconds else 0.0

    @property
    def decoders_idle_share(self) -> float:
        """Share of the time in which the decoding processes had nothing to decode, 0 to 1."""
        return max(0.0, 1 - self.decoding_seconds / (self.num_workers * self.seconds)) if self.seconds else 0.0


FindRegions = Callable[[VideoInfo], NDArray[np.float32]]
"""Gives the regions that the engine pools of each picture of a video, (C, 4), the whole picture first."""


@dataclass(frozen=True)
class _Ready:
    """Rows whose pictures are decoded, and that have not been through the engine."""

    sequence: "_Sequence"
    rows: NDArray[np.int64]
    """(n,) their numbers."""
    pictures: NDArray[Any] | None
    """(n, 3, H, W) where each row is a picture of its own, (n, D) where it is a feature. None where the sequence holds
    the pictures of its rows."""

    def split(self, num_rows: int) -> tuple["_Ready", "_Ready"]:
        """Return the first rows, and the others."""
        head, tail = (None, None) if self.pictures is None else (self.pictures[:num_rows], self.pictures[num_rows:])
        return (
            _Ready(self.sequence, self.rows[:num_rows], head),
            _Ready(self.sequence, self.rows[num_rows:], tail),
        )

    @property
    def window(self) -> int:
        """W, the pictures of a row; rows of one batch have the same."""
        return 1 if self.pictures is not None else self.sequence.window

    def take_inputs(self) -> NDArray[Any]:
        """Return what the engine computes these rows from, (n, 3, H, W) or (n, W, 3, H, W); called once."""
        return self.sequence.take_inputs(self.rows) if self.pictures is None else self.pictures


class _Sequence:
    """A video's features while they are computed, and the pictures that its rows still need."""

    def __init__(
        self,
        batch: FrameBatch,
        dim: int,
        dtype: "np.dtype[np.floating]",
        find_regions: FindRegions | None,
    ) -> None:
        self.plan = plan = batch.plan
        rows = plan.rows if find_regions is None else _rows_of_regions(plan.rows, find_regions(batch.info))
        self.result = FeatureSequence(batch.video.id, np.empty((len(rows), dim), dtype), rows, batch.info)
        self._by_row = self.result.features.reshape(len(plan.rows), -1, dim)
        """(T, C, D) the same memory, by row of the plan."""
        self.window = 1
        """W, the pictures of a row."""
        self.num_missing = len(plan.rows)
        """Rows that have not been computed."""
        self._row_pictures = plan.row_pictures
        self._pictures: dict[int, NDArray[Any]] = {}
        """By number, the decoded pictures that a row still needs; views of the batches that they came in."""
        if self._row_pictures is not None:
            self._num_uses = np.bincount(self._row_pictures.ravel(), minlength=plan.num_pictures)
            """(P,) how often rows that are still to come use each picture."""
            table = self._row_pictures.reshape(len(plan.rows), -1)
            self.window = table.shape[1]
            self._last_picture, self._first_picture = table.max(axis=1), table.min(axis=1)
            self._num_undecoded = np.full(len(plan.rows), table.shape[1])
            """(T,) how many places of each row wait for their picture."""

    def add(self, start: int, pictures: NDArray[Any]) -> _Ready:
        """Take the pictures from number `start` on, and return the rows that they complete."""
        stop = start + len(pictures)
        if self._row_pictures is None:
            return _Ready(self, np.arange(start, stop), pictures)
        self._pictures |= zip(range(start, stop), pictures, strict=True)
        touched = np.flatnonzero((self._last_picture >= start) & (self._first_picture < stop))
        used = self._row_pictures[touched].reshape(len(touched), -1)  # (n,) or (n, W) -> (n, W)
        num_new = ((used >= start) & (used < stop)).sum(axis=1)
        self._num_undecoded[touched] -= num_new
        return _Ready(self, touched[(num_new > 0) & (self._num_undecoded[touched] == 0)], None)

    def take_inputs(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the pictures of some rows, (n, 3, H, W) or (n, W, 3, H, W), and drop those that no other row needs."""
        assert self._row_pictures is not None
        numbers = self._row_pictures[rows]  # (n,) or (n, W)
        stacked = np.stack([self._pictures[number] for number in numbers.ravel().tolist()])
        np.subtract.at(self._num_uses, numbers.ravel(), 1)
        for number in np.unique(numbers).tolist():
            if self._num_uses[number] == 0:
                del self._pictures[number]
        return stacked.reshape(*numbers.shape, *stacked.shape[1:])

    def put(self, rows: NDArray[np.int64], features: NDArray[np.float32]) -> bool:
        """Keep the features of some rows, (n, D) or (n, C, D), and return whether the sequence is complete."""
        self._by_row[rows] = features.reshape(len(rows), *self._by_row.shape[1:])
        self.num_missing -= len(rows)
        return self.num_missing == 0


def _rows_of_regions(rows: Rows, regions: NDArray[np.float32]) -> Rows:
    """A row for each region, (C, 4), of each frame: T -> T · C rows."""
    num_regions = len(regions)
    return Rows(
        rows.pts_seconds.repeat(num_regions),
        rows.frame_index.repeat(num_regions),
        rows.scene_index.repeat(num_regions),
        region=np.tile(regions, (len(rows), 1)),
    )


class BatchedModel:
    """Runs an engine on full batches of rows; a batch may hold the end of one video and the start of the next.

    A row is computed once all its pictures are decoded, and a picture is dropped once no other row needs it.

    Args:
        engine: the backbone.
        batch_size: rows in a batch.
        dtype: of the features.
        utilisation: counts how long the engine computes.
        find_regions: where the engine pools cells of each picture, too, the regions of a video's pictures, (C, 4), the
            whole picture first; each row of a plan, which is one frame, then becomes C rows.
    """

    def __init__(
        self,
        engine: Engine,
        batch_size: int,
        dtype: "np.dtype[np.floating]",
        utilisation: Utilisation,
        find_regions: FindRegions | None = None,
    ) -> None:
        self._engine, self._batch_size, self._dtype, self._utilisation = engine, batch_size, dtype, utilisation
        self._find_regions = find_regions
        self._sequences: dict[str, _Sequence] = {}
        self._ready: deque[_Ready] = deque()
        self._in_flight: deque[tuple[list[_Ready], Finish]] = deque()

    def add(self, batch: FrameBatch) -> Iterator[FeatureSequence | DecodeProgress]:
        """Take decoded pictures.

        Args:
            batch: some pictures of a video. Where the plan is another than before, the video starts again.

        Yields:
            The sequences that are now complete, and the progress of this video while it is not.
        """
        sequence = self._sequences.get(batch.video.id)
        if sequence is None or sequence.plan is not batch.plan:
            self.drop(batch.video.id)
            sequence = _Sequence(batch, self._engine.dim, self._dtype, self._find_regions)
            self._sequences[batch.video.id] = sequence
        self._ready.append(sequence.add(batch.start, batch.pictures))
        while sum(len(ready.rows) for ready in self._ready) >= self._batch_size:
            yield from self._run()
            if (progress := self.progress(batch.video.id)) is not None:
                yield progress

    def progress(self, video_id: str) -> DecodeProgress | None:
        """Return how many rows of an unfinished video's plan are computed; None where no picture of it has come."""
        sequence = self._sequences.get(video_id)
        if sequence is None:
            return None
        num_rows = len(sequence.plan.rows)
        return DecodeProgress(video_id, num_rows - sequence.num_missing, num_rows)

    def drop(self, video_id: str) -> None:
        """Forget an unfinished video."""
        dropped = self._sequences.pop(video_id, None)
        self._ready = deque(ready for ready in self._ready if ready.sequence is not dropped)

    def flush(self) -> Iterator[FeatureSequence]:
        """Compute all rows that are ready, and yield the sequences that are then complete."""
        while self._ready:
            yield from self._run()
        while self._in_flight:
            yield from self._finish()

    def _run(self) -> Iterator[FeatureSequence]:
        """Start one batch, and finish the oldest ones where more are in flight than the engine wants."""
        taken = self._take()
        if taken:
            inputs = np.concatenate([ready.take_inputs() for ready in taken])  # (N, 3, H, W) or (N, W, 3, H, W)
            self._in_flight.append((taken, self._engine.start(inputs)))
        while len(self._in_flight) > self._engine.max_in_flight:
            yield from self._finish()

    def _finish(self) -> Iterator[FeatureSequence]:
        taken, finish = self._in_flight.popleft()
        features, model_seconds = finish()  # (N, D) or (N, C, D)
        self._utilisation.add(model_seconds=model_seconds)
        offset = 0
        for ready in taken:
            sequence, stop = ready.sequence, offset + len(ready.rows)
            if sequence.put(ready.rows, features[offset:stop]) and self._is_current(sequence):
                del self._sequences[sequence.result.video_id]
                yield sequence.result
            offset = stop

    def _is_current(self, sequence: _Sequence) -> bool:
        """Whether the sequence's video has neither failed nor started again since."""
        return self._sequences.get(sequence.result.video_id) is sequence

    def _take(self) -> list[_Ready]:
        """Take up to `batch_size` rows of equal windows from the front of those that are ready."""
        taken: list[_Ready] = []
        room = self._batch_size
        while room and self._ready:
            if taken and taken[0].window != self._ready[0].window:
                break
            ready = self._ready.popleft()
            if len(ready.rows) > room:
                ready, rest = ready.split(room)
                self._ready.appendleft(rest)
            if len(ready.rows):
                taken.append(ready)
            room -= len(ready.rows)
        return taken


class BatchedModels:
    """Runs the engine of each stream; a video's features are done once they are complete in all its streams.

    Args:
        models: by stream.
    """

    def __init__(self, models: Mapping[str, BatchedModel]) -> None:
        self._models = models
        self._plans: dict[str, VideoPlan] = {}
        """By id, the plans of unfinished videos."""
        self._done: dict[str, dict[str, FeatureSequence]] = {}
        """By id, the sequences of unfinished videos that are complete, by stream."""

    def add(self, batch: FrameBatch) -> Iterator[VideoFeatures | DecodeProgress]:
        """Take decoded pictures.

        Args:
            batch: some pictures of a video. Where the plan is another than before, the video starts again.

        Yields:
            The videos that are now complete, and the progress of this one while it is not.
        """
        video_id = batch.video.id
        if self._plans.get(video_id) is not batch.video_plan:
            self.drop(video_id)
            self._plans[video_id], self._done[video_id] = batch.video_plan, {}
        for result in self._models[batch.stream].add(batch):
            if isinstance(result, FeatureSequence):
                yield from self._complete(batch.stream, result)
            elif (progress := self.progress(video_id)) is not None:
                yield progress

    def progress(self, video_id: str) -> DecodeProgress | None:
        """Return how many rows of an unfinished video are computed; None where none of its pictures has come."""
        plan = self._plans.get(video_id)
        if plan is None:
            return None
        running = [one for model in self._models.values() if (one := model.progress(video_id)) is not None]
        num_done = sum(one.num_done for one in running)
        num_done += sum(len(plan.streams[name].rows) for name in self._done[video_id])
        return DecodeProgress(video_id, num_done, sum(len(stream.rows) for stream in plan.streams.values()))

    def drop(self, video_id: str) -> None:
        """Forget an unfinished video."""
        self._plans.pop(video_id, None)
        self._done.pop(video_id, None)
        for model in self._models.values():
            model.drop(video_id)

    def flush(self) -> Iterator[VideoFeatures]:
        """Compute all rows that are ready, and yield the videos that are then complete."""
        for stream, model in self._models.items():
            for sequence in model.flush():
                yield from self._complete(stream, sequence)

    def _complete(self, stream: str, sequence: FeatureSequence) -> Iterator[VideoFeatures]:
        """Keep a complete sequence; yield its video if it was the last one."""
        video_id = sequence.video_id
        done = self._done[video_id]
        done[stream] = sequence
        names = self._plans[video_id].streams
        if len(done) == len(names):
            del self._plans[video_id], self._done[video_id]
            yield VideoFeatures(video_id, {name: done[name] for name in names})
