"""Auxiliary classifiers: GoogLeNet learns from random weights with two more classifiers in its middle.

Szegedy et al. 2015, Going Deeper with Convolutions, section 5. Their losses count 0.3 each, and they are dropped
afterwards:

    … inception4a ─ 4b ─ 4c ─ 4d ─ 4e … inception5b ─ pooling ─ heads       loss
           └ aux1               └ aux2                                 0.3 · (loss1 + loss2)
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["AUXILIARY_WEIGHT", "AuxiliaryClassifiers", "auxiliary_of"]

AUXILIARY_WEIGHT = 0.3
PLACES: Mapping[str, Mapping[str, int]] = {
    "googlenet": {"inception4b.branch1.conv": 512, "inception4e.branch1.conv": 528},
}
"""By torchvision's builder: the layers whose input is classified, the outputs of 4a and 4d, and its channels. Only
layers are called by a network that torchvision has cut."""


class AuxiliaryClassifiers(nn.Module):
    """Classifiers of what a network computes in its middle. They see it each time that the network runs.

    Args:
        network: the backbone.
        builder: its name in torchvision.
        num_classes: K.
        seed: of their weights.
    """

    def __init__(self, network: nn.Module, builder: str, *, num_classes: int, seed: int) -> None:
        from torchvision.models.googlenet import BasicConv2d, InceptionAux

        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.classifiers = nn.ModuleList(
                InceptionAux(num_channels, num_classes, BasicConv2d) for num_channels in PLACES[builder].values()
            )
        self._maps: list[list[Tensor]] = [[] for _ in self.classifiers]
        for number, place in enumerate(PLACES[builder]):
            self._watch(network, place, number)

    def _watch(self, network: nn.Module, place: str, number: int) -> None:
        """Keep the input of a layer: (n, C, h, w), for each part of a batch."""

        def keep(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if torch.is_grad_enabled():
                self._maps[number].append(inputs[0])

        (layer,) = (one for name, one in network.named_modules() if f".{name}".endswith(f".{place}"))
        layer.register_forward_pre_hook(keep)

    def clear(self) -> None:
        """Forget what the network has computed."""
        for maps in self._maps:
            maps.clear()

    def loss(self, lengths: Tensor, truth: Tensor, *, label_smoothing: float) -> Tensor:
        """Return the weighted losses of what the network has computed since `clear`.

        Args:
            lengths: (n,) frames of each video, in the order in which the network has seen them.
            truth: (n,) int64 class indices.
            label_smoothing: as for the heads.

        Returns:
            A scalar: the weighted sum over classifiers and videos. The logits of a video are the mean over its frames.
        """
        total = torch.zeros((), device=truth.device)
        for classifier, maps in zip(self.classifiers, self._maps, strict=True):
            by_frame: Tensor = classifier(torch.cat(maps).float())  # (frames, C, h, w) -> (frames, K)
            logits = torch.stack([frames.mean(dim=0) for frames in torch.split(by_frame, lengths.tolist())])
            total = total + cross_entropy(logits, truth, label_smoothing=label_smoothing, reduction="sum")
        return AUXILIARY_WEIGHT * total


def auxiliary_of(network: nn.Module, builder: str, *, num_classes: int, seed: int) -> AuxiliaryClassifiers | None:
    """Return the auxiliary classifiers with which a network was published; None where it has none."""
    if builder not in PLACES:
        return None
    return AuxiliaryClassifiers(network, builder, num_classes=num_classes, seed=seed)
