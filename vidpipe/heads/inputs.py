"""What the heads see of a stream by default: it depends on the kind of the stream's backbone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from vidpipe.config import TrainConfig

__all__ = ["HEAD_INPUTS", "HeadInput", "input_of", "resolve_input"]


@dataclass(frozen=True)
class HeadInput:
    """Settings of `TrainConfig` that depend on the stream."""

    motion: str
    statistics: str
    unit_frames: bool
    scale_sharing: float
    C: float


HEAD_INPUTS: Mapping[str, HeadInput] = {
    "image": HeadInput("centred,magnitude", "deviation,thirds", unit_frames=True, scale_sharing=1.0, C=30.0),
    "clip": HeadInput("raw,centred", "mean,thirds", unit_frames=True, scale_sharing=1.0, C=30.0),
    "motion": HeadInput("raw,magnitude", "mean,deviation,thirds", unit_frames=False, scale_sharing=0.5, C=10.0),
    "pose": HeadInput("raw,magnitude", "mean,deviation,thirds", unit_frames=False, scale_sharing=0.5, C=10.0),
}
"""By the kind of the backbone: one that sees single frames, one that sees windows of frames, optical flow, and key
points of people."""


def resolve_input(config: TrainConfig, kind: str) -> TrainConfig:
    """Return a config in which no setting of `HeadInput` is None.

    Args:
        config: a setting that is given holds for every stream.
        kind: a key of `HEAD_INPUTS`.

    Returns:
        The config; the missing values are those of the kind.
    """
    return replace(config, **input_of(config, kind))


def input_of(config: TrainConfig, kind: str) -> dict[str, Any]:
    """Return the settings of `HeadInput` by name: those that are given, else those of the kind."""
    given = {field.name: getattr(config, field.name) for field in fields(HeadInput)}
    return {name: getattr(HEAD_INPUTS[kind], name) if value is None else value for name, value in given.items()}
