"""What a format cannot hold of timelines."""

from collections.abc import Callable, Collection, Mapping, Sequence

from vidpipe.errors import count_of, first_few
from vidpipe.records import Segment, Timeline

__all__ = ["describe_losses"]

_OF_VIDEOS: Mapping[str, tuple[str, Callable[[Timeline], bool]]] = {
    "duration": ("the videos' duration", lambda one: one.duration_seconds is not None),
    "curve": ("probabilities over time", lambda one: one.curve is not None),
    "split": ("splits", lambda one: one.split is not None),
    "group": ("groups", lambda one: one.group is not None),
    "path": ("the videos' paths", lambda one: one.path is not None and one.path != one.video_id),
    "failure": ("why videos failed", lambda one: one.error is not None),
    "empty": ("videos without segments; left out", lambda one: not one.segments),
}
"""By what a format may hold: its name in messages, and whether a timeline has it."""
_OF_SEGMENTS: Mapping[str, tuple[str, Callable[[Segment], bool]]] = {
    "probability": ("probabilities of segments", lambda one: one.probability is not None),
    "person": ("which person a segment is of", lambda one: one.person is not None),
    "exact": ("times finer than milliseconds; rounded", lambda one: not _is_whole(one)),
}


def describe_losses(name: str, timelines: Sequence[Timeline], *, holds: Collection[str] = ()) -> list[str]:
    """Return a sentence for each thing that a format cannot hold and that the timelines have.

    Args:
        name: the format's name, for messages.
        timelines: what is written.
        holds: what the format can hold: `duration`, `curve`, `split`, `group`, `path`, `failure`, `empty`,
            `probability`, `person`, `exact`.

    Returns:
        The sentences.
    """
    sentences = []
    for what, (words, has) in _OF_VIDEOS.items():
        if what not in holds and (lost := [one.video_id for one in timelines if has(one)]):
            sentences.append(f"{name} cannot hold {words} ({count_of(len(lost), 'video')}: {first_few(lost)})")
    segments = [one for timeline in timelines for one in timeline.segments]
    for what, (words, has_one) in _OF_SEGMENTS.items():
        if what not in holds and (num_lost := sum(map(has_one, segments))):
            sentences.append(f"{name} cannot hold {words} ({count_of(num_lost, 'segment')})")
    return sentences


def _is_whole(segment: Segment) -> bool:
    return all(
        abs(second * 1000 - round(second * 1000)) < 1e-6 for second in (segment.start_seconds, segment.stop_seconds)
    )
