"""Signs of life: a reader calls `on_step(n)` for what it has read, so that one who watches can tell slow from stuck."""

from collections.abc import Callable

__all__ = ["STEPS_PER_CHUNK", "OnStep", "no_step"]

OnStep = Callable[[int], None]
"""Takes the number of packets or frames read since the last call."""

STEPS_PER_CHUNK = 128
"""One chunk of work: what `--timeout` limits. A native call that cannot be looked into counts as one."""


def no_step(num_steps: int) -> None:
    """For a reader that nobody watches."""
