"""What a backbone sees of one input: the strongest channels of each stage, what they look for, and its attention."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.image import WholeNetwork, load_whole
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import UsageError
from vidpipe.explain.attention import ClassAttention, class_attention
from vidpipe.explain.filters import Filters, find_filters, is_convolutional
from vidpipe.explain.layers import Stage, activations, find_stages
from vidpipe.explain.offsets import SamplingPoints, find_sampling_points
from vidpipe.explain.seen_input import SeenInput, read_input

__all__ = ["ExplainedBackbone", "SeenStage", "explain_backbone"]

DEFAULT_FILTERS = 4


@dataclass(frozen=True)
class SeenStage:
    """The strongest channels of a stage."""

    stage: Stage
    channels: tuple[int, ...]
    """Strongest first, by the mean of the absolute activation over the places."""
    maps: NDArray[np.float32]
    """(N, h, w) the activations of these channels."""
    filters: Filters | None
    """Of the first of these channels; None where none are found."""


@dataclass(frozen=True)
class ExplainedBackbone:
    """What a backbone sees of a picture."""

    backbone: str
    weights: str
    """Where they come from."""
    seen: SeenInput
    stages: tuple[SeenStage, ...]
    attention: ClassAttention | None
    offsets: tuple[SamplingPoints, ...]
    """Of deformable convolutions; empty where there are none."""
    notes: tuple[str, ...]
    """Why there are no filters, or no attention."""


def explain_backbone(
    spec: BackboneSpec,
    path: Path,
    *,
    weights: str = "default",
    device: str = "auto",
    at_seconds: float | None = None,
    stages: tuple[str, ...] = (),
    num_channels: int = 16,
    num_filters: int | None = None,
    num_steps: int = 32,
    seed: int = 0,
) -> ExplainedBackbone:
    """Show a picture or a frame to a backbone, and look into it.

    Args:
        spec: from `vidpipe.backbones.table.find_backbone`.
        path: a JPEG, a PNG or a video.
        weights: `default`, `random` or a file's path.
        device: `auto`, `cpu` or `cuda`.
        at_seconds: the time of the frame in a video; None for its middle.
        stages: names of modules; empty for the blocks of the network.
        num_channels: of each stage, the strongest; fewer where the stage has fewer.
        num_filters: of each stage, the channels whose filters are found; None for the default of the backbone's kind.
        num_steps: of gradient ascent.
        seed: of the filters.

    Returns:
        What it sees.

    Raises:
        UsageError: the backbone has no layers to look into, or no such stage or filters, or an argument does not fit
            the input.
        InputError: the picture or the video cannot be read.
        WeightsError: the weights cannot be downloaded or read.
    """
    _check_has_layers(spec)
    seen = read_input(path, spec, at_seconds=at_seconds)
    network = load_whole(spec, weights=(found := find_weights(spec, weights)), device=device)
    num_filters, notes = _resolve_filters(spec, network, num_filters, num_channels)
    chosen = find_stages(network, seen.frames, stages)
    maps = activations(network, seen.frames, chosen)
    shown = []
    for stage in chosen:
        own = maps[stage.name].numpy()  # (C, h, w)
        channels = np.argsort(-np.abs(own).mean(axis=(1, 2)), kind="stable")[:num_channels].tolist()
        filters = None
        if num_filters:
            filters = find_filters(network, stage, channels[:num_filters], num_steps=num_steps, seed=seed)
        shown.append(SeenStage(stage, tuple(channels), own[channels], filters))
    attention = class_attention(network, seen.frames) if spec.kind == "class token" else None
    if spec.kind != "class token":
        notes += (f"{spec.name} has no class token, so there is no attention of one to show.",)
    elif attention is None:
        notes += (f"The attention layers of {spec.name} give no matrix over the patches, so no attention is shown.",)
    offsets = find_sampling_points(network, seen.frames)
    return ExplainedBackbone(spec.name, found.source, seen, tuple(shown), attention, offsets, notes)


def _check_has_layers(spec: BackboneSpec) -> None:
    if spec.kind == "pose":
        raise UsageError(f"{spec.name} is what a detector finds, and has no layers to look into")
    if spec.kind == "motion":
        raise UsageError(
            f"{spec.name} has no layers to look into; `vidpipe explain run` shows its cells and directions of motion"
        )
    if spec.window is not None and spec.kind != "map":
        raise UsageError(
            f"{spec.name} gives tokens over space and time, which are not shown; r3d_18 is a video model with maps"
        )


def _resolve_filters(
    spec: BackboneSpec, network: WholeNetwork, num_filters: int | None, num_channels: int
) -> tuple[int, tuple[str, ...]]:
    """The number of filters of each stage, and why there are none."""
    if num_filters is not None and num_filters > num_channels:
        raise UsageError(
            f"--filters {num_filters}: filters are found for the channels that are shown, and --channels is "
            f"{num_channels}; give a larger --channels, or fewer filters"
        )
    if not is_convolutional(network):
        if num_filters:
            raise UsageError(
                f"--filters {num_filters}: {spec.name} is no convolutional network, and filters are found for those; "
                "leave --filters out"
            )
        return 0, (f"{spec.name} is no convolutional network; filters are found only for those.",)
    if num_filters is None and spec.window is not None:
        note = (
            f"{spec.name} sees windows of frames, whose filters take minutes: --filters {DEFAULT_FILTERS} finds them."
        )
        return 0, (note,)
    return min(DEFAULT_FILTERS, num_channels) if num_filters is None else num_filters, ()
