"""The stages of a backbone, from its input to its output, and which of them are fine-tuned.

Stages are the blocks of the library's network, under the library's names. Layers before the first block are stages of
their own; layers after the last block of a trunk belong to it, and so do layers that only scale to the one before.

    torchvision resnet18            conv1 layer1 layer2 layer3 layer4
    timm efficientnet_lite0         conv_stem blocks.0 … blocks.5 blocks.6 (with conv_head and bn2)
    torchvision vit_b_16            conv_proj encoder.layers.encoder_layer_0 … encoder_layer_11 (with encoder.ln)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from vidpipe.backbones.image import without_classifier
from vidpipe.errors import UsageError, count_of, unknown_name

__all__ = ["BackboneStage", "choose_stages", "find_backbone_stages"]

TRUNKS = (
    *("features", "blocks", "layers", "stages", "encoder", "layer", "trunk_output", "trunk"),
    *("videomae", "vjepa2"),
)
"""Modules that hold a sequence of blocks, by their last name."""
POOLERS = ("attn_pool", "pooler", "fc_norm")
"""Modules after the last block, by their first name: they belong to it."""


@dataclass(frozen=True)
class BackboneStage:
    """A block of a network, with the layers that belong to it."""

    name: str
    """The block's own."""
    parameters: tuple[nn.Parameter, ...]

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(parameter.numel() for parameter in self.parameters)


@dataclass
class _Unit:
    """A module that is not divided further."""

    name: str
    parameters: list[nn.Parameter]
    is_block: bool
    """Whether it has modules of its own; otherwise it is one layer."""

    @property
    def is_norm(self) -> bool:
        """Whether it is a layer that only scales and shifts."""
        return not self.is_block and all(parameter.ndim < 2 for parameter in self.parameters)


def find_backbone_stages(network: nn.Module, model: nn.Module) -> tuple[BackboneStage, ...]:
    """Find the stages of a backbone.

    Args:
        network: the backbone.
        model: the library's network, whose layers the backbone has; see `vidpipe.backbones.image.load_with_model`.

    Returns:
        The stages in the order in which the network computes them; each parameter of the backbone is in one of them.
    """
    used = {id(parameter) for parameter in network.parameters()}
    needed = without_classifier(model, dict(model.named_parameters()))
    names = {id(parameter): name for name, parameter in needed.items() if id(parameter) in used}
    units: list[_Unit] = []
    for unit in _units(model, "", names):
        if units and (unit.is_norm or unit.name in POOLERS):
            units[-1].parameters += unit.parameters
        else:
            units.append(unit)
    in_trunk = [number for number, unit in enumerate(units) if unit.is_block and "." in unit.name]
    last = max(in_trunk, default=len(units) - 1)
    for unit in units[last + 1 :]:
        units[last].parameters += unit.parameters
    return tuple(BackboneStage(unit.name, tuple(unit.parameters)) for unit in units[: last + 1])


def _units(module: nn.Module, prefix: str, used: dict[int, str]) -> Iterator[_Unit]:
    """The blocks and layers of a module in order; parameters of the module itself belong to its first one."""
    own = [one for one in module.parameters(recurse=False) if id(one) in used]
    for name, child in module.named_children():
        parameters = [one for one in child.parameters() if id(one) in used]
        if not parameters:
            continue
        is_block = any(True for inner in child.children() for _ in inner.parameters())
        if name in TRUNKS and is_block:
            inner = list(_units(child, f"{prefix}{name}.", used))
        else:
            inner = [_Unit(f"{prefix}{name}", parameters, is_block)]
        inner[0].parameters += own
        own = []
        yield from inner
    if own:
        yield _Unit(used[id(own[0])], own, is_block=False)


def choose_stages(stages: Sequence[BackboneStage], unfreeze: str, *, owner: str) -> tuple[BackboneStage, ...]:
    """Return the stages to train: the last ones.

    Args:
        stages: all stages of a backbone.
        unfreeze: how many; or the name of the first one; or `all`.
        owner: the name of the backbone, for messages.

    Returns:
        These stages, in order.

    Raises:
        UsageError: the backbone has no such stage, or fewer.
    """
    names = [stage.name for stage in stages]
    if unfreeze == "all":
        return tuple(stages)
    if unfreeze.isdigit():
        if not 1 <= int(unfreeze) <= len(stages):
            raise UsageError(
                f"--unfreeze {unfreeze}: {owner} has {count_of(len(stages), 'stage')} ({', '.join(names)}); give a "
                f"number from 1 to {len(stages)}, a name or `all`"
            )
        return tuple(stages[-int(unfreeze) :])
    if unfreeze not in names:
        raise UsageError(f"--unfreeze: {owner}: {unknown_name('stage', unfreeze, names)}")
    return tuple(stages[names.index(unfreeze) :])
