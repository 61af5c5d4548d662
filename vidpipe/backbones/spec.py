"""What is known of a backbone before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass

from vidpipe.errors import UsageError
from vidpipe.records import Preprocessing

__all__ = ["EXTERNAL_LIBRARIES", "OFFLINE_BACKBONE", "POOLINGS", "BackboneSpec"]

POOLINGS: Mapping[str, tuple[str, ...]] = {
    "map": ("avg", "max"),
    "class token": ("token", "tokens"),
    "attention": ("attention", "tokens"),
    "tokens": ("tokens",),
    "layer": ("none",),
}
"""What a feature is made from -> the poolings that go with it, the one that the weights were trained for first."""

EXTERNAL_LIBRARIES = ("timm", "torchvision")
"""`timm/NAME` and `torchvision/NAME` are backbones too."""
OFFLINE_BACKBONE = "efficientnet_lite0"
"""The one whose weights come with a package, so that nothing has to be downloaded."""


@dataclass(frozen=True)
class BackboneSpec:
    """A line of the table of backbones, or what a library's own model would have there."""

    name: str
    dim: int
    """D, the size of its feature."""
    preprocessing: Preprocessing
    library: str
    """`torchvision`, `timm` or `vidpipe`: who builds it."""
    builder: str
    """The model's name there."""
    feature_map: str
    """The node whose output is pooled, (N, D, h, w) or (N, T, D); `forward_features` for timm."""
    weights: str
    """Where the default weights come from: an address, `package:NAME`, or `shipped:FILE`; empty: there are none."""
    weights_licence: str
    kind: str = "map"
    """What its feature is made from: a key of `POOLINGS`."""
    top1: float | None = None
    """Accuracy on ImageNet-1k's validation set in percent, as published."""
    top1_source: str = ""

    @property
    def input_size(self) -> int:
        """Pixels of each side of a frame."""
        return self.preprocessing.crop

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings that it knows, the one that its weights were trained for first."""
        return POOLINGS[self.kind]

    def resolve_pool(self, pool: str) -> str:
        """`auto` becomes the pooling that the weights were trained for.

        Raises:
            UsageError: the pooling does not go with this backbone.
        """
        if pool == "auto":
            return self.poolings[0]
        if pool not in self.poolings:
            raise UsageError(
                f"--pool {pool} does not go with {self.name}, whose feature is made from its {self.kind}; "
                f"--pool {' or '.join(self.poolings)}"
            )
        return pool
