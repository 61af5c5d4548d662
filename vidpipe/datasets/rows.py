"""Long videos as sequences of rows with a label each: what frame-level heads learn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.datasets.sequences import join_cells
from vidpipe.datasets.windows import RowGrid, grid_of
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, Timeline

__all__ = ["LabelledRows", "join_streams", "label_rows"]


@dataclass(frozen=True)
class LabelledRows:
    """A long video."""

    video_id: str
    features: Tensor
    """(T, D) of all streams, side by side."""
    class_index: Tensor
    """(T,) int64"""


def join_streams(streams: Mapping[str, FeatureSequence], keys: Mapping[str, FeatureKey]) -> Tensor:
    """Join the rows of several streams: those of the others that are nearest in time to each row of the first.

    Args:
        streams: the features of a video.
        keys: of the streams.

    Returns:
        (T, D) with the features of all streams side by side.

    Raises:
        StoreError: the rows of a stream are not a whole number of pictures.
    """
    rows = {
        name: join_cells(sequence.features, keys[name].num_cells, owner=sequence.video_id).float()
        for name, sequence in streams.items()
    }
    times = {name: sequence.pts_seconds[:: keys[name].num_cells] for name, sequence in streams.items()}
    first = next(iter(times.values()))
    return torch.cat([rows[name][_nearest(first, times[name])] for name in streams], dim=1)


def _nearest(wanted: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """The numbers of the times that are nearest to those wanted; both increase."""
    after = np.searchsorted(times, wanted).clip(1, max(1, len(times) - 1))
    if len(times) < 2:
        return np.zeros(len(wanted), np.int64)
    is_before = wanted - times[after - 1] <= times[after] - wanted
    return np.asarray(np.where(is_before, after - 1, after))


def label_rows(
    stores: Mapping[str, FeatureStore], truth: Timeline, class_names: Sequence[str], background: str
) -> LabelledRows:
    """Read a long video, and label each row with the interval that its centre lies in, the shortest of several.

    Args:
        stores: by stream.
        truth: its intervals.
        class_names: K names.
        background: the class of rows in no interval.

    Returns:
        The video.
    """
    keys = {name: store.key for name, store in stores.items()}
    streams = {name: store[truth.video_id] for name, store in stores.items()}
    name = next(iter(streams))
    grid = grid_of(streams[name], keys[name].resolve_sampling(), 1.0, num_cells=keys[name].num_cells)
    index_of = {label: index for index, label in enumerate(class_names)}
    class_index = torch.full((grid.num_rows,), index_of.get(background, 0), dtype=torch.int64)
    for segment in sorted(truth.segments, key=lambda one: -one.duration_seconds):
        if segment.label in index_of:
            class_index[_inside(grid, segment.start_seconds, segment.stop_seconds)] = index_of[segment.label]
    return LabelledRows(truth.video_id, join_streams(streams, keys), class_index)


def _inside(grid: RowGrid, start_seconds: float, stop_seconds: float) -> Tensor:
    centres = (grid.edges_seconds[1:] + grid.edges_seconds[:-1]) / 2
    return torch.from_numpy((centres >= start_seconds) & (centres < stop_seconds))
