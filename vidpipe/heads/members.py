"""The members of a run's classifier: which head sees which stream. Without torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vidpipe.config import LINEAR_HEADS, TrainConfig
from vidpipe.errors import UsageError

__all__ = [
    "BASELINE",
    "FUSED",
    "WITHOUT",
    "Member",
    "baseline_members",
    "headline_names",
    "name_classifier",
    "plan_members",
    "resolve_val_fraction",
    "with_heads",
]

BASELINE = "mean"
"""The head that is always trained too, and reported beside those asked for."""
VAL_FRACTION = 0.15
FUSED = "fusion"
"""The name of a classifier with several members."""


WITHOUT = "without "
"""Begins the name of a classifier that leaves a stream out."""


@dataclass(frozen=True)
class Member:
    """A head, and the stream that it sees; with early fusion, several streams."""

    streams: tuple[str, ...]
    head: str
    """One of `vidpipe.heads.heads.HEADS`."""

    @property
    def name(self) -> str:
        """`flow/lstm`; `efficientnet_lite0+flow/statistics` for early fusion."""
        return f"{'+'.join(self.streams)}/{self.head}"

    @property
    def is_linear(self) -> bool:
        """Whether its fit is convex, without epochs."""
        return self.head in LINEAR_HEADS


def plan_members(streams: Sequence[str], config: TrainConfig) -> tuple[Member, ...]:
    """Return the members that a training fits.

    Args:
        streams: their names.
        config: `heads` and `fusion`.

    Returns:
        The linear members first, each by stream; with early fusion, one for each linear head.

    Raises:
        UsageError: a fusion is asked for, and there is one stream and one head.
    """
    if config.fusion is not None and len(streams) == 1 and len(config.heads) == 1:
        raise UsageError(
            f"--fusion {config.fusion} goes with several streams or several heads; here are one stream "
            f"({streams[0]}) and one head ({config.head}): leave --fusion out, or train on another stream too"
        )
    members = []
    for head in sorted(config.heads, key=lambda head: head not in LINEAR_HEADS):
        if config.fusion == "early" and head in LINEAR_HEADS:
            members.append(Member(tuple(streams), head))
        else:
            members += [Member((stream,), head) for stream in streams]
    return tuple(members)


def with_heads(config: TrainConfig, head: str, num_streams: int) -> TrainConfig:
    """Return the config with the heads that were chosen; a fusion that does not go with them is dropped."""
    heads = head.split(",")
    has_several = num_streams > 1 or len(heads) > 1
    can_join = config.fusion != "early" or any(name in LINEAR_HEADS for name in heads)
    return replace(config, head=head, fusion=config.fusion if has_several and can_join else None)


def resolve_val_fraction(config: TrainConfig, num_streams: int) -> TrainConfig:
    """Return the config with a fraction for validation.

    Several members are trained for a fixed number of epochs and calibrated on folds, and need no validation set.

    Args:
        config: its own fraction, if it has one, stays.
        num_streams: of the training.

    Returns:
        The config.
    """
    if config.val_fraction is not None:
        return config
    is_fused = config.head != "auto" and (num_streams > 1 or len(config.heads) > 1)
    return replace(config, val_fraction=0.0 if is_fused else VAL_FRACTION)


def baseline_members(streams: Sequence[str]) -> tuple[Member, ...]:
    """Return the only member of the baseline: the head `mean` on the first stream."""
    return (Member((streams[0],), BASELINE),)


def headline_names(names: Iterable[str]) -> list[str]:
    """Return the names to print in a few lines: of the classifier, of each stream alone, and of the baseline.

    Args:
        names: of all that has metrics.

    Returns:
        These names without the members' and those with a stream left out.
    """
    return [name for name in names if "/" not in name and not name.startswith(WITHOUT)]


def name_classifier(members: Sequence[Member]) -> str:
    """Return the name of a classifier: `fusion`, or the name of the only head where it sees one stream."""
    return members[0].head if len(members) == 1 and len(members[0].streams) == 1 else FUSED
