"""Deformable convolution: a 3 × 3 convolution that learns where it samples (Dai et al. 2017).

Each output place has an offset and a weight for each of the nine samples; a convolution beside the own one computes
them from the same input (modulated, version 2: Zhu et al. 2019).

    plain     deformable
    . . .      .   .
    . x .        x  .
    . . .     .  . .  .

Offsets begin at zero and weights at one, so that a network begins as it was. A weights file of such a network has the
tensors `LAYER.offsets.weight`: they say which layers are deformable.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from vidpipe.errors import UsageError, unknown_name

__all__ = ["DeformableConv2d", "deform_layers", "deform_stages"]

RESNETS = ("ResNet", "SENet")
"""The classes of torchvision and timm: ResNet, ResNeXt, Wide ResNet; SE-ResNet and SENet."""
OFFSETS = ".offsets.weight"


class DeformableConv2d(DeformConv2d):  # type: ignore[misc]
    """A modulated deformable convolution that begins as a plain one.

    Args:
        plain: whose weights, stride, padding, dilation and groups it takes.
    """

    def __init__(self, plain: nn.Conv2d) -> None:
        window: Any = (plain.kernel_size, plain.stride, plain.padding, plain.dilation)
        super().__init__(plain.in_channels, plain.out_channels, *window, plain.groups, bias=plain.bias is not None)
        self.weight, self.bias = plain.weight, plain.bias
        self.offsets = nn.Conv2d(plain.in_channels, 3 * self.num_samples, *window)
        for parameter in self.offsets.parameters():
            nn.init.zeros_(parameter)
        self.to(plain.weight.device, plain.weight.dtype)

    @property
    def num_samples(self) -> int:
        """S, of each output place: nine of a 3 × 3 convolution."""
        return int(self.kernel_size[0] * self.kernel_size[1])

    def sampling(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each output place samples its input.

        Args:
            maps: (N, C, h, w)

        Returns:
            Offsets (N, 2 · S, h', w') in places of the input, down and to the right for each sample; and weights
            (N, S, h', w') from 0 to 2.
        """
        computed: Tensor = self.offsets(maps)
        num_offsets = 2 * self.num_samples
        return computed[:, :num_offsets], 2 * torch.sigmoid(computed[:, num_offsets:])

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h', w')"""
        offsets, weights = self.sampling(maps)
        convolved: Tensor = super().forward(maps, offsets, weights)
        return convolved


def deform_stages(model: nn.Module, stages: Sequence[str], *, owner: str) -> tuple[str, ...]:
    """Replace the 3 × 3 convolutions of some stages of a ResNet by deformable ones.

    Args:
        model: the library's network.
        stages: names of modules, such as `layer4`.
        owner: the name of the backbone, for messages.

    Returns:
        The names of the layers.

    Raises:
        UsageError: the network is no ResNet, or has no such stage.
    """
    if type(model).__name__ not in RESNETS:
        raise UsageError(f"--deformable goes with ResNets, and {owner} is none; resnet18, resnet50 and se_resnet50 are")
    known = [name for name, child in model.named_children() if _is_stage(child)]
    modules = dict(model.named_modules())
    for name in stages:
        if name not in modules or not any(map(_can_deform, modules[name].modules())):
            raise UsageError(f"--deformable: {owner}: {unknown_name('stage', name, known)}")
    layers = tuple(
        name
        for name, module in modules.items()
        if _can_deform(module)
        and ".downsample." not in name
        and not name.endswith(OFFSETS.removesuffix(".weight"))
        and any(f"{name}.".startswith(f"{stage}.") for stage in stages)
    )
    _replace(model, layers)
    return layers


def deform_layers(model: nn.Module, names: Iterable[str]) -> None:
    """Make the layers deformable that are so in a weights file.

    Args:
        model: the library's network.
        names: of the file's tensors. Layers that cannot be deformable stay as they are.
    """
    modules = dict(model.named_modules())
    layers = [name.removesuffix(OFFSETS) for name in names if name.endswith(OFFSETS)]
    _replace(model, [name for name in layers if name in modules and _can_deform(modules[name])])


def _replace(model: nn.Module, layers: Iterable[str]) -> None:
    for name in layers:
        plain = model.get_submodule(name)
        assert isinstance(plain, nn.Conv2d)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, DeformableConv2d(plain))


def _can_deform(module: nn.Module) -> bool:
    return type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.padding_mode == "zeros"


def _is_stage(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and any(map(_can_deform, module.modules()))
