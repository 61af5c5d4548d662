"""Parts of stored videos as if they were videos: windows of long videos to learn from. No feature is copied."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from vidpipe.features.shard import Shard, VideoRow
from vidpipe.features.store import FeatureStore

__all__ = ["Slice", "SlicedStore"]


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of a stored video."""

    id: str
    """Of the slice."""
    video_id: str
    first_row: int
    """As stored, with the rows of cells."""
    stop_row: int
    """The row after the last one."""
    duration_seconds: float


class SlicedStore(FeatureStore):
    """A store whose videos are slices of another store's videos.

    Args:
        store: the whole videos.
        slices: what to show of them.
    """

    def __init__(self, store: FeatureStore, slices: Iterable[Slice]) -> None:
        super().__init__(store.path, store.key)
        self.whole = store
        self._slices = tuple(slices)

    @cached_property
    def shards(self) -> Sequence[Shard]:
        """Those of the whole videos."""
        return self.whole.shards

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, VideoRow]]:
        """The place of each slice."""
        places = {}
        for one in self._slices:
            number, row = self.whole._places[one.video_id]
            info = replace(row.info, duration_seconds=one.duration_seconds)
            length = one.stop_row - one.first_row
            part = replace(row, id=one.id, start=row.start + one.first_row, length=length, info=info)
            places[one.id] = number, part
        return places
