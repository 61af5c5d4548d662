"""The stages of a network, and what their channels answer to a picture.

A stage is a module whose output is a map: channels over places. By default the stages are the network's blocks, and one
layer of each size outside of them:

    conv1 bn1 relu │ maxpool │ layer1 … layer4 │ avgpool fc
              ────              ──────   ──────                  the stages; no weights: maxpool; no map: avgpool, fc
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from vidpipe.backbones.image import WholeNetwork
from vidpipe.errors import UsageError, unknown_name

__all__ = ["Stage", "activations", "find_stages", "output_map", "run_up_to"]

MIN_BLOCKS = 3
"""A level of the network with fewer blocks is entered: `features` of torchvision, `blocks` of timm."""
_ACTIVATIONS = "torch.nn.modules.activation"
"""The module of torch with the classes of layers without weights that belong to the layer before them."""


@dataclass(frozen=True)
class Stage:
    """A module of a network whose output is a map."""

    name: str
    """The network's own: `layer1`, `features.3`, `blocks.2`."""
    kind: str
    """The module's class."""
    num_channels: int
    height: int
    width: int
    """Of the map, in places."""


def output_map(output: Any, num_pictures: int, num_prefix_tokens: int) -> Tensor | None:
    """Return a module's output as maps.

    Args:
        output: (N, C, h, w), (N, h, w, C), the same with time before the places, or (N, T, C) tokens of a square.
        num_pictures: N; windows of an attention layer are another number.
        num_prefix_tokens: tokens that stand for no place, before all others.

    Returns:
        (N, C, h, w), or (N, C, t, h, w); None where the output is no map, or has a single place.
    """
    if not isinstance(output, Tensor) or output.ndim not in (3, 4, 5) or len(output) != num_pictures:
        return None
    if output.ndim == 3:
        return _map_of_tokens(output, num_prefix_tokens)
    *_, third, second, last = output.shape
    is_channels_last = third == second != last
    maps = output.movedim(-1, 1) if is_channels_last else output
    return maps if maps.shape[-1] * maps.shape[-2] > 1 else None


def _map_of_tokens(tokens: Tensor, num_prefix_tokens: int) -> Tensor | None:
    """(N, T, C) -> (N, C, h, w); the embedding of the patches has no prefix yet"""
    for num_skipped in (num_prefix_tokens, 0):
        patches = tokens[:, num_skipped:]
        side = isqrt(patches.shape[1])
        if side > 1 and side * side == patches.shape[1]:
            return patches.transpose(1, 2).reshape(len(patches), -1, side, side)
    return None


def find_stages(network: WholeNetwork, frames: Tensor, names: Sequence[str] = ()) -> list[Stage]:
    """Find the stages of a network, in the order in which it computes them.

    Args:
        network: the network.
        frames: (1, 3, H, W) uint8 RGB, or (1, W, 3, H, W).
        names: modules to take; empty for the blocks of the network.

    Returns:
        The stages.

    Raises:
        UsageError: the network has no such module, or its output is no map.
    """
    found = _trace(network, frames)
    chosen = _default_names(network.features, found)
    for name in names:
        if name not in found:
            raise UsageError(f"{_network_name(network)}: {_why_no_stage(network, name, chosen)}")
    return [stage for name, stage in found.items() if name in (names or chosen)]


def _network_name(network: WholeNetwork) -> str:
    """Return the class of the library's network, for messages."""
    return type(network.features).__name__


def _why_no_stage(network: WholeNetwork, name: str, known: Sequence[str]) -> str:
    if name in dict(network.features.named_modules()):
        return f"--stage {name}: the output of this module is no map of one picture; stages: {', '.join(known)}"
    return unknown_name("stage", name, known)


def activations(network: WholeNetwork, frames: Tensor, stages: Sequence[Stage]) -> dict[str, Tensor]:
    """Compute the maps of stages.

    Args:
        network: the network.
        frames: (1, 3, H, W) uint8 RGB, or (1, W, 3, H, W).
        stages: from `find_stages`.

    Returns:
        By the name of the stage, (C, h, w) float32 on the CPU; of a window of frames, the step in the middle.
    """
    maps: dict[str, Tensor] = {}
    wanted = {stage.name for stage in stages}

    def keep(name: str, output: Any) -> None:
        if name in wanted:
            whole = output_map(output, 1, network.num_prefix_tokens)
            assert whole is not None
            # A copy, because the next layer may work in place.
            maps[name] = _middle_step(whole)[0].float().cpu().clone()

    with torch.inference_mode(), _watched(network.features, keep):
        network.run(frames)
    return maps


def _middle_step(maps: Tensor) -> Tensor:
    """(N, C, t, h, w) or (N, C, h, w) -> (N, C, h, w)"""
    return maps if maps.ndim == 4 else maps[:, :, maps.shape[2] // 2]


class _ReachedError(Exception):
    """Carries the output of a module out of its network."""

    def __init__(self, output: Any) -> None:
        self.output = output


def run_up_to(network: WholeNetwork, pixels: Tensor, name: str) -> Tensor:
    """Compute the maps of one stage and no layer after it, with gradients.

    Args:
        network: the network.
        pixels: (N, 3, H, W) or (N, W, 3, H, W) float RGB, 0 to 255.
        name: of the stage.

    Returns:
        (N, C, h, w), or (N, C, t, h, w); of a picture that is too small, one place.
    """

    def leave(one: str, output: Any) -> None:
        raise _ReachedError(output)

    try:
        with _watched(network.features, leave, only=name):
            network.run(pixels)
    except _ReachedError as reached:
        maps = output_map(reached.output, len(pixels), network.num_prefix_tokens)
        output: Tensor = reached.output
        return output if maps is None else maps
    raise AssertionError(f"{name} is no stage")


@contextmanager
def _watched(model: nn.Module, see: Callable[[str, Any], None], *, only: str | None = None) -> Iterator[None]:
    """Call `see` with the name and the output of each module that ends."""
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: see(name, output))
        for name, module in model.named_modules()
        if name and only in (None, name)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _trace(network: WholeNetwork, frames: Tensor) -> dict[str, Stage]:
    """All modules that give a map once, in the order in which they end."""
    modules = dict(network.features.named_modules())
    found: dict[str, Stage] = {}
    calls: Counter[str] = Counter()

    def note(name: str, output: Any) -> None:
        calls[name] += 1
        maps = output_map(output, 1, network.num_prefix_tokens)
        if maps is not None:
            found[name] = Stage(name, type(modules[name]).__name__, maps.shape[1], maps.shape[-2], maps.shape[-1])

    with torch.inference_mode(), _watched(network.features, note):
        network.run(frames)
    return {name: stage for name, stage in found.items() if calls[name] == 1}


def _default_names(model: nn.Module, found: dict[str, Stage]) -> list[str]:
    """The blocks of a network, and one layer of each size between them."""
    modules = dict(model.named_modules())
    level = _children("", modules, found)
    while True:
        blocks = [name for name in level if _num_layers(modules[name]) > 1]
        entered = max(blocks, key=lambda name: _num_weights(modules[name]), default=None)
        if entered is None or len(blocks) >= MIN_BLOCKS:
            break
        inside = _children(entered, modules, found)
        if not inside:
            break
        level = [one for name in level for one in (inside if name == entered else [name])]
    return _one_of_each_size([name for name in found if name in level], modules, found)


def _children(parent: str, modules: dict[str, nn.Module], found: dict[str, Stage]) -> list[str]:
    """The children of a module that are stages; in place of a list of modules, which is not called, its own."""
    names = [f"{parent}.{name}" if parent else name for name, _ in modules[parent].named_children()]
    lists = [name for name in names if isinstance(modules[name], nn.ModuleList)]
    inside = {name: _children(name, modules, found) for name in lists}
    return [one for name in names for one in inside.get(name, [name]) if one in found]


def _num_layers(module: nn.Module) -> int:
    """Layers with weights of their own."""
    return sum(any(True for _ in one.parameters(recurse=False)) for one in module.modules())


def _num_weights(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def _one_of_each_size(names: Sequence[str], modules: dict[str, nn.Module], found: dict[str, Stage]) -> list[str]:
    """All blocks; of neighbouring single layers of one size the last that has weights or is an activation."""

    def kind(name: str) -> tuple[str, int, int]:
        return name if _num_layers(modules[name]) > 1 else "", found[name].height, found[name].width

    layers = [name for name in names if _num_layers(modules[name]) or type(modules[name]).__module__ == _ACTIVATIONS]
    return [list(run)[-1] for _, run in groupby(layers, kind)]
