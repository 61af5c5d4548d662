"""LoRA: low-rank changes of the linear layers of a network, which are added to its weights at the end.

Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models.

    layer that the network calls            W x + 2 B (A x)       peft
    weight that only a function reads       W + 2 B A             a parametrisation of the weight

Functions read the projections of torch's attention (torchvision's ViTs) and of torchvision's Swin.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vidpipe.backbones.stages import BackboneStage
from vidpipe.errors import UsageError

__all__ = ["add_lora", "merge_lora"]

SCALE = 2.0
"""Of the change: α / r of the paper."""


class _LowRank(nn.Module):
    """A weight with a low-rank change, which is zero at first.

    Args:
        weight: (out, in)
        rank: r.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as peft does

    def forward(self, weight: Tensor) -> Tensor:
        return weight + SCALE * (self.up @ self.down)


@dataclass(frozen=True)
class _Place:
    """A weight in a network."""

    module: str
    """The name of the module that holds it."""
    name: str
    """Its own."""
    weight: nn.Parameter


def add_lora(
    network: nn.Module,
    model: nn.Module,
    stages: Sequence[BackboneStage],
    rank: int,
    *,
    frames: Tensor,
    owner: str,
    seed: int,
) -> list[list[nn.Parameter]]:
    """Add low-rank changes, zero at first, to the linear layers of stages.

    Args:
        network: the backbone, frozen.
        model: the library's network, whose layers the backbone has.
        stages: of the backbone.
        rank: r.
        frames: one input of the backbone, to see which layers it calls. Layers that its features do not depend on get
            no change.
        owner: the name of the backbone, for messages.
        seed: of the changes.

    Returns:
        The new parameters of each stage.

    Raises:
        UsageError: the stages have no linear layers, or peft is not installed.
    """
    linear = {id(weight) for weight in _linear_weights(model)}
    stage_of = {id(weight): number for number, stage in enumerate(stages) for weight in stage.parameters}
    places = [place for place in _places(network) if id(place.weight) in linear & stage_of.keys()]
    called, used = _trace(network, places, frames)
    if not used:
        raise UsageError(
            f"--lora: the stages {', '.join(stage.name for stage in stages)} of {owner} have no linear layers: it goes "
            "with transformers; leave it out to train a convolutional network's own weights"
        )
    found: list[list[nn.Parameter]] = [[] for _ in stages]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _adapt_layers(network, [place.module for place in used if place.module in called], rank)
        for place in used:
            change = network.get_submodule(place.module)
            if place.module not in called:
                layer, change = change, _LowRank(place.weight, rank).to(place.weight.device)
                parametrize.register_parametrization(layer, place.name, change)
            found[stage_of[id(place.weight)]] += [one for one in change.parameters() if id(one) not in stage_of]
    return found


def merge_lora(network: nn.Module) -> None:
    """Add the changes to the weights."""
    for module in list(network.modules()):
        if hasattr(module, "lora_A"):
            module.merge()  # type: ignore[operator]
        elif parametrize.is_parametrized(module):
            for name, its in list(module.parametrizations.items()):  # type: ignore[operator, union-attr]
                with torch.no_grad():
                    its.original.copy_(getattr(module, name))
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def _linear_weights(model: nn.Module) -> Iterator[Tensor]:
    """The weights, (out, in), of linear layers, and of the joint projection of torch's attention."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            yield module.weight
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield module.in_proj_weight


def _places(network: nn.Module) -> Iterator[_Place]:
    for module_name, module in network.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            yield _Place(module_name, name, weight)


def _trace(network: nn.Module, places: Sequence[_Place], frames: Tensor) -> tuple[set[str], list[_Place]]:
    """The modules of these weights that the network calls, and the weights that its features depend on."""
    called: set[str] = set()
    if not places:
        return called, []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        return network.get_submodule(name).register_forward_pre_hook(lambda module, inputs: called.add(name))

    layers = {place.module for place in places if place.name == "weight"}
    handles = [watch(name) for name in layers]
    weights = [place.weight.requires_grad_(True) for place in places]
    gradients = torch.autograd.grad(network(frames).sum(), weights, allow_unused=True)
    for weight in weights:
        weight.requires_grad_(False)
    for handle in handles:
        handle.remove()
    return called, [place for place, gradient in zip(places, gradients, strict=True) if gradient is not None]


def _adapt_layers(network: nn.Module, names: Sequence[str], rank: int) -> None:
    """Replace linear layers by peft's."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError("--lora: pip install 'vidpipe[finetune]' first") from error
    if names:
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=list(names)), network)
