"""The people of videos: which rows of each stream are whose.

stream   whole   ────────────────   the same rows for each person
stream   tracks  1 1 2 1 2 2 1 2    rows of person 1, rows of person 2
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.errors import UsageError
from vidpipe.features.key import KINDS_BY_PERSON, FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence

__all__ = ["PersonRows", "check_same_tracks", "common_people", "has_tracks", "person_in_time", "split_people"]


def has_tracks(key: FeatureKey) -> bool:
    """Return whether the rows of features are of single people."""
    return key.regions is not None and key.regions.get("kind") in KINDS_BY_PERSON


def check_same_tracks(stores: Mapping[str, FeatureStore]) -> None:
    """Check that person 1 of a video is the same person in all streams.

    Args:
        stores: by stream.

    Raises:
        UsageError: two streams have tracks of different detectors or settings.
    """
    tracked = {name: store.key for name, store in stores.items() if has_tracks(store.key)}
    for name, key in list(tracked.items())[1:]:
        first = next(iter(tracked))
        if key.regions != tracked[first].regions:
            raise UsageError(
                f"the streams {first} and {name} have tracks of different detectors or settings, so their people are "
                "not the same; extract both with the same --detector, or choose one with --streams"
            )


def common_people(tracks: Iterable[NDArray[np.int32] | None]) -> tuple[int, ...]:
    """Return the people who have rows in every stream with people.

    Args:
        tracks: of each stream, (T,) the number of the person in each row; None where rows are not of single people.

    Returns:
        Their numbers, increasing; empty where there are none.
    """
    numbers = [set(np.unique(one).tolist()) for one in tracks if one is not None]
    return tuple(sorted(set.intersection(*numbers))) if numbers else ()


def split_people(streams: Mapping[str, FeatureSequence]) -> dict[int, dict[str, FeatureSequence]]:
    """Return the sequences of each person of a video.

    Args:
        streams: the video's features.

    Returns:
        By the person's number, the sequences of all streams; a stream without people gives its own to each. Empty
        where nobody was found.
    """
    people = common_people(sequence.rows.track for sequence in streams.values())
    return {number: {name: one.person(number) for name, one in streams.items()} for number in people}


def person_in_time(streams: Mapping[str, FeatureSequence]) -> dict[str, FeatureSequence]:
    """Cut the sequences of streams without people to the time in which a person is there.

    Args:
        streams: of one person, from `split_people`.

    Returns:
        The sequences; each has at least one row.
    """
    tracked = [one for one in streams.values() if one.rows.track is not None]
    start = min(float(one.start_seconds[0]) for one in tracked)
    stop = max(float(one.stop_seconds[-1]) for one in tracked)
    return {name: one if one.rows.track is not None else _between(one, start, stop) for name, one in streams.items()}


def _between(sequence: FeatureSequence, start: float, stop: float) -> FeatureSequence:
    index = np.flatnonzero((sequence.pts_seconds >= start) & (sequence.pts_seconds < stop))
    if not len(index):
        index = np.abs(sequence.pts_seconds - (start + stop) / 2).argsort()[:1]
    return replace(sequence, features=sequence.features[index], rows=sequence.rows.select(index))


class PersonRows(Sequence[Tensor]):
    """The rows of people, read from their videos when they are asked for.

    Args:
        videos: N videos, (T, D) each.
        tracks: of each, (T,) the number of the person in each row; None gives all rows to each person.
        people: S pairs: the number of a video, and of a person in it; 0 for all rows.
    """

    def __init__(
        self,
        videos: Sequence[Tensor],
        tracks: Sequence[NDArray[np.int32] | None],
        people: Sequence[tuple[int, int]],
    ) -> None:
        self._videos, self._tracks, self._people = videos, tracks, people

    def __len__(self) -> int:
        return len(self._people)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...

    @overload
    def __getitem__(self, number: slice) -> list[Tensor]: ...

    def __getitem__(self, number: int | slice) -> Tensor | list[Tensor]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        video, person = self._people[number]
        rows, track = self._videos[video], self._tracks[video]
        return rows if person == 0 or track is None else rows[torch.from_numpy(track == person)]
