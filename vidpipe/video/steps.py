"""Progress of a reader: it calls `on_step(n)` for what it has read, which distinguishes slow decoding from a hang."""

from collections.abc import Callable

__all__ = ["STEPS_PER_CHUNK", "OnStep", "no_step"]

OnStep = Callable[[int], None]
"""Takes the number of packets or frames read since the last call."""

STEPS_PER_CHUNK = 128
"""The steps of one chunk, which `--timeout` limits. A native call without progress of its own counts as one chunk."""


def no_step(num_steps: int) -> None:
    """Ignore a reader's progress."""
