"""The whole stretch that two long sequences share, from an alignment of a short piece of each."""

from dataclasses import replace

from vidpipe.similarity.alignment import Alignment, Changes, realign
from vidpipe.similarity.sequences import HOP_ROWS, PIECE_ROWS

__all__ = ["extend"]

MIN_SHARE = 0.5
"""A stretch grows while the next rows have at least this share of the correlation of the first pieces."""


def extend(one: Changes, other: Changes, found: Alignment) -> Alignment:
    """Follow an alignment of two pieces in both directions, while the sequences go on alike.

    Args:
        one: the changes of a whole sequence.
        other: those of the other whole sequence.
        found: of a piece of each.

    Returns:
        The alignment over the whole stretch: the line through its ends.
    """
    if max(len(one), len(other)) <= PIECE_ROWS:
        return found
    start, other_start = _follow(one, other, found, -1)
    stop, other_stop = _follow(one, other, found, 1)
    speed = (other_stop - other_start) / (stop - start)
    return replace(
        found, speed=speed, offset_seconds=other_start - speed * start, start_seconds=start, stop_seconds=stop
    )


def _follow(one: Changes, other: Changes, found: Alignment, direction: int) -> tuple[float, float]:
    """Where the stretch ends, in either sequence, in a direction: 1 or -1."""
    spacing = max(one.spacing_seconds, other.spacing_seconds / found.speed)
    step, overlap = direction * HOP_ROWS * spacing, direction * HOP_ROWS / 2 * spacing
    edge, line = found.start_seconds if direction < 0 else found.stop_seconds, found
    while True:
        first, last = sorted((edge - overlap, edge + step))
        next_one = one.between(first, last)
        near = 2 * spacing * found.speed
        next_other = other.between(line.other_time(first) - near, line.other_time(last) + near)
        following = realign(next_one, next_other, line)
        if following is None or following.correlation < MIN_SHARE * found.correlation:
            return edge, line.other_time(edge)
        further = following.start_seconds if direction < 0 else following.stop_seconds
        if (further - edge) * direction <= spacing / 2:
            return edge, line.other_time(edge)
        edge, line = further, following
