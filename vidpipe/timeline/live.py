"""Rows of features that come while a video is recorded -> segments, each as soon as it is certain.

rows       ··─────────────────────────────────┐ known
cuts       ··──────────────────────────────┐  │ a cut needs two rows after it
windows    ··  [────────)  [────────)      │    those that are the same wherever the shot ends
curve      ··──────────────────┐                rows that no other window can see: one window behind
segments   ··───────────┐                       what the decoder is certain of
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.datasets.windows import (
    MAX_WINDOWS_OF_SHOT,
    ROUNDING_SECONDS,
    Windows,
    find_cuts,
    rows_between,
    spans_of_shot,
)
from vidpipe.records import Segment
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.timeline.classifier import Spans, cut_clip, stream_with_cuts
from vidpipe.timeline.curves import window_weights
from vidpipe.timeline.decoding import Decoding
from vidpipe.timeline.live_decoding import LiveDecoder

__all__ = ["LiveTimeline", "NewRows"]

_WINDOWS_AT_ONCE = 64
_ROWS_AROUND_CUT = 3
"""Rows before a cut that decide whether it is one."""


@dataclass(frozen=True)
class NewRows:
    """The next rows of one stream."""

    pts_seconds: NDArray[np.float64]
    """(T,)"""
    frame_index: NDArray[np.int64]
    """(T,)"""
    features: NDArray[np.floating]
    """(T, C · D) with the C cells of each picture."""
    start_seconds: float
    """Of the video."""
    frames_per_clip: int | None
    """Where frames are sampled by clips; None where the video is no longer than a clip."""


class LiveTimeline:
    """The timeline of a video that is still recorded.

    Args:
        classifier: of clips as long as a window.
        sampling: of the first stream's features.
        window_seconds: the length of a window.
        stride_seconds: from the start of a window to the start of the next.
        class_names: K names.
        decoding: how segments are read off.
        background: the class that gives no segments.
        has_cuts: whether windows end at cuts.
    """

    def __init__(
        self,
        classifier: SequenceClassifier,
        sampling: Sampling,
        window_seconds: float,
        stride_seconds: float,
        *,
        class_names: tuple[str, ...],
        decoding: Decoding,
        background: str = "",
        has_cuts: bool = True,
    ) -> None:
        self._classifier, self._stride_seconds = classifier, stride_seconds
        self._rows = {name: _StreamRows() for name in classifier.keys}
        self._first = next(iter(classifier.keys))
        self._grid = _LiveGrid(sampling, window_seconds)
        seen_by = stream_with_cuts(classifier.keys) if has_cuts else None
        self._cuts = _LiveCuts(seen_by, classifier.keys[seen_by].num_cells if seen_by else 1)
        self._shot = _Shot(0)
        self._shown_cuts: list[int] = []
        """Cuts at which the curve is not complete."""
        self._totals = np.zeros((0, len(class_names)))
        """(T, K) weighted sums of the rows from `_num_done` on."""
        self._weights = np.zeros((0, 1))
        self._num_done = 0
        """Rows whose probabilities are complete."""
        self._decoder: LiveDecoder | None = None
        self._class_names, self._decoding, self._background = class_names, decoding, background

    def add(self, stream: str, rows: NewRows) -> Iterator[Segment]:
        """Take the next rows of a stream.

        Args:
            stream: its name.
            rows: they follow those before.

        Yields:
            The segments that are now certain, in the order of their ends.
        """
        self._rows[stream].add(rows)
        if stream == self._first:
            self._grid.start_seconds, self._grid.frames_per_clip = rows.start_seconds, rows.frames_per_clip
        known = self._rows[self._first]
        if not len(known.pts_seconds) or not self._grid.is_known(known):
            return
        self._grid.extend(known)
        num_rows = self._num_seen_by_all()
        if num_rows > self._grid.rows_per_window:
            yield from self._advance(num_rows, is_end=False)

    def finish(self, stop_seconds: float) -> Iterator[Segment]:
        """End the video.

        Args:
            stop_seconds: when the last frame's presentation ends.

        Yields:
            The segments that are left.
        """
        known = self._rows[self._first]
        if not known.stop:
            return
        self._grid.finish(known, stop_seconds)
        yield from self._advance(known.stop, is_end=True)
        assert self._decoder is not None
        yield from self._decoder.finish(float(self._grid.edges_seconds[-1]))

    def _num_seen_by_all(self) -> int:
        """How many rows end before the last row of each other stream, so that their windows are known in all."""
        edges, others = self._grid.edges_seconds, [rows for name, rows in self._rows.items() if name != self._first]
        if any(not len(rows.pts_seconds) for rows in others):
            return 0
        until_seconds = min((float(rows.pts_seconds[-1]) for rows in others), default=np.inf)
        return self._grid.first + max(0, int(np.searchsorted(edges, until_seconds, side="right")) - 1)

    def _advance(self, num_rows: int, *, is_end: bool) -> Iterator[Segment]:
        """Go on as far as is certain with `num_rows` rows."""
        length, step = self._grid.rows_per_window, self._grid.step(self._stride_seconds)
        num_uncut = num_rows
        if num_rows > length:  # a video of one window has no cuts
            cuts, num_uncut = self._cuts.find(self._rows, self._grid, num_rows, is_end=is_end)
            for cut in cuts:
                self._classify(self._shot.close(cut, length, step))
                self._shot = _Shot(cut)
                self._shown_cuts.append(cut)
        if is_end:
            self._classify(self._shot.close(num_rows, length, step))
            yield from self._show(num_rows)
            return
        self._classify(self._shot.open_windows(num_uncut, length, step))
        yield from self._show(self._shot.num_complete(num_uncut, length))
        self._drop()

    def _classify(self, spans: NDArray[np.int64]) -> None:
        """Add the probabilities of windows, (W, 2) first and stop rows, to the rows that they see."""
        for part in np.split(spans, range(_WINDOWS_AT_ONCE, len(spans), _WINDOWS_AT_ONCE)):
            if len(part):
                for (first, stop), probabilities in zip(part.tolist(), self._probabilities(part), strict=True):
                    self._add_window(first, stop, probabilities)

    def _probabilities(self, spans: NDArray[np.int64]) -> NDArray[np.float32]:
        """(W, 2) -> (W, K)"""
        local = spans - self._grid.first
        windows = Windows(local[:, 0], local[:, 1], self._grid.edges_seconds)
        first, stop = spans.T
        places: dict[str, Spans] = {
            name: (first - rows.start, stop - rows.start)
            if name == self._first
            else rows_between(rows.pts_seconds, windows)
            for name, rows in self._rows.items()
        }
        features = {name: torch.from_numpy(rows.features) for name, rows in self._rows.items()}
        clips = [cut_clip(features, places, number) for number in range(len(spans))]
        probabilities: NDArray[np.float32] = self._classifier.probabilities(clips).numpy()
        return probabilities

    def _add_window(self, first: int, stop: int, probabilities: NDArray[np.float32]) -> None:
        missing = stop - self._num_done - len(self._totals)
        if missing > 0:
            self._totals = np.concatenate([self._totals, np.zeros((missing, self._totals.shape[1]))])
            self._weights = np.concatenate([self._weights, np.zeros((missing, 1))])
        share = window_weights(stop - first)[:, None]  # (length, 1)
        rows = slice(first - self._num_done, stop - self._num_done)
        self._totals[rows] += share * probabilities
        self._weights[rows] += share

    def _show(self, num_rows: int) -> Iterator[Segment]:
        """Give the decoder the rows whose probabilities are complete."""
        count = num_rows - self._num_done
        if count <= 0:
            return
        if self._decoder is None:
            self._decoder = LiveDecoder(
                self._class_names,
                self._decoding,
                background=self._background,
                rows_per_window=self._grid.rows_per_window,
            )
        probabilities = self._totals[:count] / self._weights[:count]
        places = np.arange(self._num_done, num_rows)
        starts = self._grid.edges_seconds[places - self._grid.first]
        is_cut = np.isin(places, self._shown_cuts)
        self._totals, self._weights = self._totals[count:], self._weights[count:]
        self._num_done = num_rows
        self._shown_cuts = [cut for cut in self._shown_cuts if cut >= num_rows]
        yield from self._decoder.add(probabilities, starts, is_cut)

    def _drop(self) -> None:
        """Forget the rows that no window to come sees, and that decide on no cut."""
        first_seconds = float(self._grid.edges_seconds[self._num_done - self._grid.first])
        for name, rows in self._rows.items():
            keep = self._num_done if name == self._first else rows.before(first_seconds)
            if name == self._cuts.seen_by:
                keep = min(keep, self._cuts.num_decided - _ROWS_AROUND_CUT)
            rows.drop_before(keep - 1)
        self._grid.drop_before(self._num_done)


class _StreamRows:
    """The rows of one stream that are still needed."""

    def __init__(self) -> None:
        self.start = 0
        """The number of the first of them."""
        self.pts_seconds = np.empty(0)
        self.frame_index = np.empty(0, np.int64)
        self.features: NDArray[np.floating] = np.empty((0, 0), np.float32)

    @property
    def stop(self) -> int:
        """The rows so far, also those that were dropped."""
        return self.start + len(self.pts_seconds)

    def add(self, rows: NewRows) -> None:
        """Add the next rows."""
        self.pts_seconds = np.concatenate([self.pts_seconds, rows.pts_seconds])
        self.frame_index = np.concatenate([self.frame_index, rows.frame_index])
        self.features = np.concatenate([self.features, rows.features]) if len(self.features) else rows.features

    def before(self, seconds: float) -> int:
        """The number of the last row before a time."""
        return self.start + int(np.searchsorted(self.pts_seconds, seconds - ROUNDING_SECONDS)) - 1

    def drop_before(self, number: int) -> None:
        """Forget the rows before a number."""
        count = max(0, number - self.start)
        self.pts_seconds, self.frame_index = self.pts_seconds[count:], self.frame_index[count:]
        self.features = self.features[count:]
        self.start += count


class _LiveGrid:
    """The times of the first stream's rows, as `vidpipe.datasets.windows.grid_of` finds them for a whole video."""

    def __init__(self, sampling: Sampling, window_seconds: float) -> None:
        self._sampling, self._window_seconds = sampling, window_seconds
        self.start_seconds = 0.0
        self.frames_per_clip: int | None = None
        self.first = 0
        """The row that `edges_seconds` starts with."""
        self.edges_seconds = np.empty(0)
        """Where rows start; the last one is where the last complete row stops."""
        self._is_one_window = False
        self._row_seconds: float | None = None

    def is_known(self, rows: _StreamRows) -> bool:
        """Whether rows have times: a video no longer than a clip has them at its end only."""
        return self._sampling.method == "fps" or self.frames_per_clip is not None

    @property
    def rows_per_window(self) -> int:
        """At least 1."""
        if self._is_one_window:
            return len(self.edges_seconds) - 1
        if self._sampling.method == "fps":
            assert self._sampling.fps is not None
            return max(1, round(self._window_seconds * self._sampling.fps))
        assert self._sampling.num_frames is not None
        assert self.frames_per_clip is not None
        return min(self._sampling.num_frames, self.frames_per_clip)

    def extend(self, rows: _StreamRows) -> None:
        """Add the starts of the rows known."""
        count = self.first + len(self.edges_seconds)
        self.edges_seconds = np.append(self.edges_seconds, self._starts(rows, count))

    def _starts(self, rows: _StreamRows, count: int) -> NDArray[np.float64]:
        """The starts of the rows from a number on."""
        if self._sampling.method == "fps":
            return rows.pts_seconds[count - rows.start :]
        assert self._sampling.num_frames is not None
        assert self.frames_per_clip is not None
        frames_of_row = max(1.0, self.frames_per_clip / self._sampling.num_frames)
        starts: NDArray[np.float64] = np.interp(
            np.arange(count, rows.stop) * frames_of_row, rows.frame_index, rows.pts_seconds
        )
        if count == 0:
            starts[0] = self.start_seconds
        return starts

    def finish(self, rows: _StreamRows, stop_seconds: float) -> None:
        """Add the end of the video."""
        stop_seconds = max(stop_seconds, float(rows.pts_seconds[-1]) + ROUNDING_SECONDS)
        if not self.is_known(rows):
            self._is_one_window = True
            self.edges_seconds = np.linspace(self.start_seconds, stop_seconds, rows.stop + 1)
            return
        self.extend(rows)
        self.edges_seconds = np.append(self.edges_seconds, stop_seconds)

    def step(self, stride_seconds: float) -> int:
        """Rows from the start of a window to the start of the next."""
        if self._row_seconds is None:
            num_rows = len(self.edges_seconds) - 1
            self._row_seconds = float(self.edges_seconds[-1] - self.edges_seconds[0]) / num_rows
        return max(1, round(stride_seconds / self._row_seconds))

    def row_at(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """The rows at some times."""
        rows: NDArray[np.int64] = self.first + np.searchsorted(self.edges_seconds, seconds, side="right") - 1
        return rows

    def drop_before(self, row: int) -> None:
        """Forget the rows before a number."""
        self.edges_seconds = self.edges_seconds[row - self.first :]
        self.first = row


class _LiveCuts:
    """Finds cuts, as `vidpipe.datasets.windows.find_cuts` finds them in a whole video."""

    def __init__(self, seen_by: str | None, num_cells: int) -> None:
        self.seen_by = seen_by
        self._num_cells = num_cells
        self.num_decided = 1
        """Rows of the stream of which it is certain whether they are the first of a shot."""
        self._waiting = np.empty(0)
        """The times of cuts beyond the rows of the first stream."""
        self._last = 0

    def find(
        self, rows: Mapping[str, _StreamRows], grid: _LiveGrid, num_rows: int, *, is_end: bool
    ) -> tuple[list[int], int]:
        """Return the cuts that are new, and before which row all cuts are known."""
        if self.seen_by is None:
            return [], num_rows
        seen = rows[self.seen_by]
        self._waiting = np.append(self._waiting, self._new_times(seen, is_end=is_end))
        is_within = self._waiting < grid.edges_seconds[num_rows - grid.first]
        found = grid.row_at(self._waiting[is_within])
        self._waiting = self._waiting[~is_within]
        cuts = [cut for cut in np.unique(found).tolist() if self._last < cut < num_rows]
        self._last = cuts[-1] if cuts else self._last
        if is_end:
            return cuts, num_rows
        undecided = seen.pts_seconds[self.num_decided - seen.start :]
        return cuts, min(num_rows, int(grid.row_at(undecided[:1])[0])) if len(undecided) else num_rows

    def _new_times(self, seen: _StreamRows, *, is_end: bool) -> NDArray[np.float64]:
        num_decided = seen.stop if is_end else max(self.num_decided, seen.stop - 2)
        first = max(seen.start, self.num_decided - _ROWS_AROUND_CUT)
        width = seen.features.shape[1] // self._num_cells
        cuts = first + find_cuts(seen.features[first - seen.start :, :width])
        cuts = cuts[(cuts >= self.num_decided) & (cuts < num_decided)]
        self.num_decided = num_decided
        times: NDArray[np.float64] = seen.pts_seconds[cuts - seen.start]
        return times


class _Shot:
    """The shot that is recorded, and its windows."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._next = start
        """Where the next window starts."""

    def open_windows(self, num_rows: int, length: int, step: int) -> NDArray[np.int64]:
        """Return the windows that are certain if the shot has this number of rows or more, (W, 2), each once."""
        if not self._is_long(num_rows, length):
            return np.empty((0, 2), np.int64)
        first: NDArray[np.int64] = np.arange(self._next, num_rows - length + 1, step)
        self._next += len(first) * step
        return np.stack([first, first + length], axis=1)

    def num_complete(self, num_rows: int, length: int) -> int:
        """Return up to which row no other window is possible if the shot has this number of rows or more."""
        return num_rows - length if self._is_long(num_rows, length) else self.start

    def _is_long(self, num_rows: int, length: int) -> bool:
        """Whether it is more than one window."""
        return num_rows - self.start > MAX_WINDOWS_OF_SHOT * length

    def close(self, stop: int, length: int, step: int) -> NDArray[np.int64]:
        """Return the windows that are left if the shot stops, (W, 2)."""
        spans = spans_of_shot(self.start, stop, length, step)
        is_given = (spans[:, 0] < self._next) & ((spans[:, 0] - self.start) % step == 0)
        left: NDArray[np.int64] = spans[~is_given]
        return left
