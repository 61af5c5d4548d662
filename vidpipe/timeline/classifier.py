"""The features of a long video -> the probability of each class over its time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.config import Sampling
from vidpipe.datasets.rows import join_streams
from vidpipe.datasets.streams import kind_of
from vidpipe.datasets.windows import RowGrid, Windows, cut_windows, find_cuts, grid_of, grid_of_part, rows_between
from vidpipe.features.key import FeatureKey
from vidpipe.heads.rows import RowHead
from vidpipe.records import FeatureSequence
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.timeline.curves import join_windows

__all__ = ["RowClassifier", "RowCurve", "Spans", "WindowClassifier", "cut_clip", "stream_with_cuts"]

WINDOWS_AT_ONCE = 32
"""More take longer on a CPU: what they compute no longer fits its caches."""
Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(W,) the first row of each window, and (W,) the row after its last one."""


@dataclass(frozen=True)
class RowCurve:
    """The probability of each class in each row of a video."""

    probabilities: NDArray[np.float64]
    """(T, K)"""
    grid: RowGrid
    """The time of the rows."""
    cuts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """The first row of each shot but the first one."""


class WindowClassifier:
    """Classifies the windows of a video, and joins them into a curve.

    Args:
        classifier: of clips as long as a window.
        sampling: of the first stream's features.
        window_seconds: the length of a window.
        stride_seconds: from the start of a window to the start of the next.
        has_cuts: whether windows end at cuts. They are found in the first stream of an image backbone.
    """

    def __init__(
        self,
        classifier: SequenceClassifier,
        sampling: Sampling,
        window_seconds: float,
        stride_seconds: float,
        *,
        has_cuts: bool = True,
    ) -> None:
        self._classifier, self._sampling = classifier, sampling
        self._window_seconds, self._stride_seconds = window_seconds, stride_seconds
        self._seen_by = stream_with_cuts(classifier.keys) if has_cuts else None

    def curve(self, streams: Mapping[str, FeatureSequence], *, is_part: bool = False) -> RowCurve:
        """Return the curve of a video.

        Args:
            streams: its features; the windows are cut from the rows of the first stream.
            is_part: whether the rows are of a part of the video's time, as those of one person. It is one shot.

        Returns:
            The curve.

        Raises:
            UsageError: the features are of frames of scenes.
        """
        name = next(iter(streams))
        num_cells = self._classifier.keys[name].num_cells
        find_grid = grid_of_part if is_part else grid_of
        grid = find_grid(streams[name], self._sampling, self._window_seconds, num_cells=num_cells)
        cuts = np.empty(0, np.int64) if is_part else self._find_cuts(streams, grid)
        windows = cut_windows(grid, self._stride_seconds, cuts)
        return RowCurve(join_windows(windows, self.classify(streams, windows)), grid, cuts)

    def _find_cuts(self, streams: Mapping[str, FeatureSequence], grid: RowGrid) -> NDArray[np.int64]:
        """The cuts of a video that is longer than a window."""
        if self._seen_by is None or grid.num_rows <= grid.rows_per_window:
            return np.empty(0, np.int64)
        cuts = find_cuts(streams[self._seen_by].features[:: self._classifier.keys[self._seen_by].num_cells])
        if self._seen_by == next(iter(streams)):
            return cuts
        seconds = streams[self._seen_by].pts_seconds[:: self._classifier.keys[self._seen_by].num_cells][cuts]
        rows = np.unique(np.searchsorted(grid.edges_seconds, seconds, side="right") - 1)
        return rows[(rows > 0) & (rows < grid.num_rows)]

    def classify(self, streams: Mapping[str, FeatureSequence], windows: Windows) -> NDArray[np.float32]:
        """Return the probabilities of each window, (W, K).

        Args:
            streams: the video's features.
            windows: of the first stream's rows.

        Returns:
            The probabilities, calibrated.
        """
        rows = self._classifier.rows(streams)
        spans = {name: self._spans_in(name, streams, windows) for name in streams}
        by_length = np.argsort(windows.stop_row - windows.first_row, kind="stable")  # which leaves little to pad
        found = []
        for start in range(0, len(windows), WINDOWS_AT_ONCE):
            numbers = by_length[start : start + WINDOWS_AT_ONCE].tolist()
            found.append(self._classifier.probabilities([cut_clip(rows, spans, number) for number in numbers]).numpy())
        return np.concatenate(found)[np.argsort(by_length)]

    def _spans_in(self, name: str, streams: Mapping[str, FeatureSequence], windows: Windows) -> Spans:
        if name == next(iter(streams)):
            return windows.first_row, windows.stop_row
        return rows_between(streams[name].pts_seconds[:: self._classifier.keys[name].num_cells], windows)


class RowClassifier:
    """Labels each row of a video with a head that sees all of them.

    Args:
        head: fitted.
        keys: by stream, the key of its features.
        window_seconds: how much of a video counts as one piece of evidence.
        device: where the head runs.
    """

    def __init__(
        self, head: RowHead, keys: Mapping[str, FeatureKey], window_seconds: float, device: torch.device
    ) -> None:
        self._head, self._keys, self._device = head.to(device).eval(), keys, device
        self._window_seconds = window_seconds

    @torch.inference_mode()
    def curve(self, streams: Mapping[str, FeatureSequence], *, is_part: bool = False) -> RowCurve:
        """Return the curve of a video.

        Args:
            streams: its features.
            is_part: whether the rows are of a part of the video's time.

        Returns:
            The curve.

        Raises:
            UsageError: the features are of frames of scenes.
        """
        name, key = next(iter(self._keys.items()))
        rows = join_streams({stream: streams[stream] for stream in self._keys}, self._keys)
        sampling = key.resolve_sampling()
        find_grid = grid_of_part if is_part else grid_of
        grid = find_grid(streams[name], sampling, self._window_seconds, num_cells=key.num_cells)
        logits = self._head(rows[None].to(self._device), torch.tensor([len(rows)]))[-1, 0]  # (T, K)
        return RowCurve(logits.double().softmax(dim=1).cpu().numpy(), grid)


def stream_with_cuts(keys: Mapping[str, FeatureKey]) -> str | None:
    """Return the stream in which cuts are found: the first of an image backbone; None where there is none."""
    return next((name for name, key in keys.items() if kind_of(key) == "image"), None)


def cut_clip(rows: Mapping[str, Tensor], spans: Mapping[str, Spans], number: int) -> dict[str, Tensor]:
    """Return the rows that a window has of each stream.

    Args:
        rows: by stream, (T, C · D).
        spans: by stream, which rows each window has.
        number: the window.

    Returns:
        (length, C · D) by stream.
    """
    return {name: rows[name][int(first[number]) : int(stop[number])] for name, (first, stop) in spans.items()}
