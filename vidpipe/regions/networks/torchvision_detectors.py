"""torchvision's detectors of objects for one's own classes, and their own losses.

The two stages of Faster R-CNN learn together, with the sum of their losses: approximate joint training (Ren et al.
2015, section 3.2, https://arxiv.org/abs/1506.01497). The four-step alternate training of that paper is history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from vidpipe.regions.detections import Detections
from vidpipe.regions.masks import MASK_THRESHOLD
from vidpipe.regions.networks.settings import NetworkSettings

__all__ = ["ObjectSettings", "build", "loss"]


@dataclass(frozen=True)
class ObjectSettings(NetworkSettings):
    """What a network needs to be built."""

    builder: str
    """The model's name in torchvision."""
    class_ids: tuple[int, ...]
    """The class of each of the network's labels, from 1; 0 is the background."""
    size: int
    """The longer side of the frames that it sees, in pixels."""


def build(settings: ObjectSettings) -> nn.Module:
    """Build a network with random weights.

    Args:
        settings: its classes and size.

    Returns:
        The network, in training mode; `settings` is one of its attributes.
    """
    fixed = settings.builder.startswith("ssd")
    sizes = {} if fixed else {"min_size": settings.size, "max_size": settings.size}
    network: Any = get_model(
        settings.builder, weights=None, weights_backbone=None, num_classes=1 + len(settings.class_ids), **sizes
    )
    if fixed:
        network.transform.fixed_size = (settings.size, settings.size)
    network.settings = settings
    return network  # type: ignore[no-any-return]


def loss(network: nn.Module, pixels: Tensor, truths: Sequence[Detections]) -> Tensor:
    """Compute the sum of the network's own losses.

    Args:
        network: of `build`, in training mode.
        pixels: (N, 3, H, W) float32, 0 to 1.
        truths: N records, with boxes in pixels of these pictures and the network's classes, and with masks or key
            points where the network learns them.

    Returns:
        A scalar.
    """
    settings: Any = network.settings
    targets = [_target(truth, settings.class_ids, pixels.device) for truth in truths]
    losses: dict[str, Tensor] = network(list(pixels), targets)
    return torch.stack(list(losses.values())).sum()


def _target(truth: Detections, class_ids: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    labels = [1 + class_ids.index(number) for number in truth.classes.tolist()]
    target = {
        "boxes": torch.from_numpy(truth.boxes),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }
    if truth.masks is not None:
        target["masks"] = torch.from_numpy(truth.masks >= MASK_THRESHOLD).byte()
    if truth.key_points is not None:
        target["keypoints"] = torch.from_numpy(truth.key_points)
    return {name: tensor.to(device) for name, tensor in target.items()}
