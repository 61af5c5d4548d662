"""A library's whole network with names of its own, its stages, and runs that stop at a stage.

A stage is a part of the network as its library names it: `layer1`, `features.3`, `blocks.2`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from vidpipe.backbones.image import load_network
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError, unknown_name

__all__ = ["Network", "Stage", "find_stages", "load_library_network", "run_stages", "run_to_stage"]

MIN_SHARE_TO_OPEN = 0.9
"""A part with this share of the network's layers is only a container: its own parts are the stages."""
MAX_PREFIX_TOKENS = 16
"""Class token and registers of any published transformer are fewer."""
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
NEVER_STAGES = (
    nn.Identity,
    nn.Dropout,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AvgPool3d,
)
"""Modules that change nothing, and the pooling before the classifier."""


class Network(nn.Module):
    """A whole network on pixels: (N, 3, H, W), or (N, W, 3, H, W) of a clip backbone.

    Args:
        model: as its library builds it, frozen.
        mean: of each colour.
        std: of each colour.
        frames_second: the model's input is (N, 3, W, H, W), as torchvision's video models have it.
        arguments: further arguments of the model's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        frames_second: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self._frames_second = frames_second
        self._arguments = dict(arguments or {})
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.get_buffer("mean").device

    def forward(self, pixels: Tensor) -> Any:
        """(N, …, 3, H, W) float RGB, 0 to 1 -> what the model returns"""
        normed = (pixels - self.get_buffer("mean")) / self.get_buffer("std")
        if self._frames_second:
            normed = normed.transpose(1, 2)  # (N, W, 3, H, W) -> (N, 3, W, H, W)
        return self.model(normed, **self._arguments)


@dataclass(frozen=True)
class Stage:
    """A part of a network whose output is maps."""

    name: str
    """As the network names the module."""
    shape: tuple[int, ...]
    """(C, h, w); (C, t, h, w) for a clip backbone."""


class _ReachedError(Exception):
    """Carries the output of a stage out of the network."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps


class _Reader:
    """Reads the outputs of modules as maps.

    The tokens of a transformer are maps over the grid of its patches: the output of the last convolution before them.
    """

    def __init__(self) -> None:
        self._grid: tuple[int, ...] = ()

    def read(self, module: nn.Module, output: Any) -> Tensor | None:
        """Return an output as (N, C, h, w) or (N, C, t, h, w), without class token; None where it is no map."""
        grid = self._grid
        if isinstance(output, tuple) and output:  # of torchvision's MViT: tokens, and the grid of their patches
            if len(output) == 2 and isinstance(output[1], tuple):
                grid = output[1]
            output = output[0]
        if not isinstance(output, Tensor):
            return None
        if output.ndim == 3:
            return _tokens_as_maps(output, grid)
        maps = _channels_first(output)
        if maps is not None and isinstance(module, CONVOLUTIONS):
            self._grid = tuple(maps.shape[2:])
        return maps


def _channels_first(output: Tensor) -> Tensor | None:
    """(N, C, …, h, w), or (N, …, h, w, C), as Swin transformers have it -> (N, C, …, h, w)"""
    if output.ndim not in (4, 5):
        return None
    if output.shape[-1] == output.shape[-2]:
        return output
    return output.movedim(-1, 1) if output.shape[-2] == output.shape[-3] else None


def _tokens_as_maps(tokens: Tensor, grid: tuple[int, ...]) -> Tensor | None:
    """(N, T, D) -> (N, D, h, w), without the tokens that stand for no patch"""
    num_prefix = tokens.shape[1] - prod(grid)
    if not grid or not 0 <= num_prefix <= MAX_PREFIX_TOKENS:
        return None
    return tokens[:, num_prefix:].transpose(1, 2).unflatten(2, grid)


def load_library_network(spec: BackboneSpec, *, weights: WeightsFile, device: str = "auto") -> Network:
    """Load a backbone's network as its library builds it.

    Args:
        spec: from `vidpipe.backbones.table.find_backbone`.
        weights: from `vidpipe.backbones.weights.find_weights`.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The network, on the device.

    Raises:
        UsageError: the backbone has no layers, or the device is not available.
        WeightsError: the weights belong to another model.
    """
    if spec.family == "motion":
        raise UsageError(
            f"{spec.name} computes optical flow and has no layers; `vidpipe explain run` shows its cells and directions"
        )
    model = load_network(spec, weights=weights, device=device)
    skips = getattr(model, "base_model_prefix", "") == "vjepa2" and not hasattr(model, "vjepa2")
    network = Network(
        model,
        mean=spec.preprocessing.mean,
        std=spec.preprocessing.std,
        frames_second=spec.window is not None and spec.library == "torchvision",
        arguments={"skip_predictor": True} if skips else None,
    )
    return network.to(next(model.parameters()).device).eval()


@torch.no_grad()
def find_stages(network: Network, pixels: Tensor) -> tuple[Stage, ...]:
    """Find the stages of a network: its parts, and the parts of a part that has nearly all layers.

    Of layers in a row that give maps of one size, such as a convolution, its normalisation and its activation, the last
    one is a stage.

    Args:
        network: the network.
        pixels: (1, …, 3, H, W) an input of the network, 0 to 1.

    Returns:
        The stages, in the order in which they are computed.

    Raises:
        UsageError: no part of the network gives maps.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    layers: set[str] = set()
    reader = _Reader()

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 2 and _is_layer(module):  # classifiers give (N, K)
            layers.add(name)
        maps = reader.read(module, output)
        if maps is not None and len(maps) == 1:
            shapes.pop(name, None)  # in the order of last calls
            shapes[name] = tuple(maps.shape[1:])

    with _watching(network.model, dict(network.model.named_modules()), note):
        network(pixels)
    stages = _choose_stages(network.model, shapes, layers)
    if not stages:
        raise UsageError("no part of this network gives maps over the picture; resnet18 is a small backbone with maps")
    return stages


def _choose_stages(
    model: nn.Module, shapes: Mapping[str, tuple[int, ...]], layers: Collection[str]
) -> tuple[Stage, ...]:
    modules = dict(model.named_modules())
    parts = _parts(model, layers)
    found = [
        (Stage(name, shape), _num_within(name, layers))
        for name, shape in shapes.items()
        if name in parts and not isinstance(modules[name], NEVER_STAGES) and prod(shape[1:]) > 1
    ]
    return tuple(
        stage
        for (stage, num_layers), (following, num_following) in zip(found, [*found[1:], (None, 2)], strict=True)
        if num_layers > 1 or num_following > 1 or following is None or following.shape[1:] != stage.shape[1:]
    )


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a convolution or a linear layer."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1


def _num_within(part: str, layers: Collection[str]) -> int:
    return sum(layer == part or layer.startswith(f"{part}.") for layer in layers)


def _parts(model: nn.Module, layers: Collection[str]) -> list[str]:
    """The children of a network; in place of a child with nearly all layers its own children."""
    parts = [name for name, _ in model.named_children()]
    while True:
        large = [name for name in parts if _num_within(name, layers) >= MIN_SHARE_TO_OPEN * len(layers)]
        if not large or not list(model.get_submodule(large[0]).children()):
            return parts
        place = parts.index(large[0])
        parts[place : place + 1] = [f"{large[0]}.{name}" for name, _ in model.get_submodule(large[0]).named_children()]


@torch.no_grad()
def run_stages(network: Network, pixels: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Compute the maps of several stages in one pass.

    Args:
        network: the network.
        pixels: (N, …, 3, H, W) RGB, 0 to 1, on the network's device.
        names: of modules.

    Returns:
        By name, (N, C, h, w), or (N, C, t, h, w) for a clip backbone.

    Raises:
        UsageError: a module does not exist, or gives no maps.
    """
    outputs: dict[str, Tensor] = {}
    reader = _Reader()

    def keep(name: str, module: nn.Module, output: Any) -> None:
        maps = reader.read(module, output)
        if maps is not None and name in names:
            outputs[name] = maps.clone()  # the next module may change it in place

    with _watching(network.model, _watched(network.model, names), keep):
        network(pixels)
    for name in names:
        if name not in outputs:
            raise UsageError(f"{name!r} gives no maps over the picture; choose another stage")
    return {name: outputs[name] for name in names}


def run_to_stage(network: Network, pixels: Tensor, name: str) -> Tensor:
    """Compute the maps of a stage, with gradients to the pixels, and nothing after it.

    Args:
        network: the network.
        pixels: (N, …, 3, H, W) RGB, 0 to 1, on the network's device.
        name: of a module.

    Returns:
        (N, C, h, w), or (N, C, t, h, w) for a clip backbone.

    Raises:
        UsageError: the module does not exist, or gives no maps.
    """
    reader = _Reader()

    def stop(found: str, module: nn.Module, output: Any) -> None:
        maps = reader.read(module, output)
        if maps is not None and found == name:
            raise _ReachedError(maps)

    try:
        with _watching(network.model, _watched(network.model, [name]), stop):
            network(pixels)
    except _ReachedError as reached:
        return reached.maps
    raise UsageError(f"{name!r} gives no maps over the picture; choose another stage")


def _watched(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules of these names, and the convolutions, whose maps give the grid of tokens."""
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise UsageError(unknown_name("stage", name, [one for one, _ in model.named_children()]))
    return {name: one for name, one in modules.items() if name in names or isinstance(one, CONVOLUTIONS)}


@contextmanager
def _watching(
    model: nn.Module, modules: Mapping[str, nn.Module], see: Callable[[str, nn.Module, Any], None]
) -> Iterator[None]:
    """Call `see` with the name and the output of each module that runs."""
    with ExitStack() as stack:
        for name, module in modules.items():
            if module is not model:
                hook = module.register_forward_hook(
                    cast("Any", lambda one, _, output, name=name: see(name, one, output))
                )
                stack.callback(hook.remove)
        yield
