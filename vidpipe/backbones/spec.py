"""The description of a backbone: what is known before it is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidpipe.errors import UsageError
from vidpipe.records import Preprocessing, Window

__all__ = ["EXTERNAL_LIBRARIES", "OFFLINE_BACKBONE", "POOLINGS", "BackboneSpec"]

POOLINGS: Mapping[str, tuple[str, ...]] = {
    "map": ("avg", "max"),
    "class token": ("token", "tokens"),
    "attention": ("attention", "tokens"),
    "tokens": ("tokens",),
    "layer": ("none",),
    "motion": ("none",),
    "pose": ("none",),
}
"""By what a feature is made from: the poolings that fit, first the one that the weights were trained with."""

EXTERNAL_LIBRARIES = ("timm", "torchvision")
"""Any model of these libraries is a backbone too, as `timm/NAME` or `torchvision/NAME`."""
OFFLINE_BACKBONE = "efficientnet_lite0"
"""The backbone whose weights come with a package, for machines that can download nothing."""


@dataclass(frozen=True)
class BackboneSpec:
    """A row of the table of backbones, or the same facts about another model of a library."""

    name: str
    dim: int
    """D, the size of a feature."""
    preprocessing: Preprocessing
    library: str
    """`torchvision`, `timm`, `transformers`, `opencv` or `vidpipe`: what builds it; `detector`: what `--detector`
    names."""
    builder: str
    """The model's name in the library."""
    feature_map: str
    """The node whose output is pooled, (N, D, h, w) or (N, T, D); `forward_features` for timm."""
    weights: str
    """Where the default weights come from: a URL, `package:NAME`, `shipped:FILE` or `file:PATH`; empty where there are
    none."""
    weights_licence: str
    kind: str = "map"
    """What a feature is made from: a key of `POOLINGS`."""
    window: Window | None = None
    """The frames that the backbone sees together; None for one that sees single frames."""
    parameters: Mapping[str, Any] | None = None
    """What the features of a motion backbone or of key points depend on; None for networks of images and windows."""
    top1: float | None = None
    """Accuracy on the validation set of `top1_dataset` in percent, as published."""
    top1_source: str = ""
    top1_dataset: str = "ImageNet-1k"

    @property
    def family(self) -> str:
        """`image`, `clip`, `motion` or `pose`: what it sees of a video."""
        if self.kind in ("motion", "pose"):
            return self.kind
        return "image" if self.window is None else "clip"

    @property
    def has_weights(self) -> bool:
        """Whether it is a network with weights of its own."""
        return self.family in ("image", "clip")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(3, H, W) of a frame, or (W, 3, H, W) of a window of frames."""
        frame = (3, *self.preprocessing.size)
        return frame if self.window is None else (self.window.num_frames, *frame)

    @property
    def input_size(self) -> int:
        """Pixels of the shorter side of a frame."""
        return min(self.preprocessing.size)

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings that fit, first the one that the weights were trained with."""
        return POOLINGS[self.kind]

    def resolve_pool(self, pool: str) -> str:
        """Replace `auto` by the pooling that the weights were trained with.

        Args:
            pool: a pooling, or `auto`.

        Returns:
            The pooling.

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
