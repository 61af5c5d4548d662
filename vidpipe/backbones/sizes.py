"""The size of a backbone and the cost of a frame or a window, counted on torch's device `meta`, which computes nothing.

`python -m tools.count_sizes` counts the whole table and writes sizes.csv, which `vidpipe backbones` reads.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vidpipe.backbones.spec import BackboneSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SIZES", "Size", "count", "count_backbone", "size_of", "written_sizes"]

SIZES = Path(__file__).with_name("sizes.csv")


@dataclass(frozen=True)
class Size:
    """A network's size, and its work for one frame, or for one window of frames."""

    num_parameters: int
    gmacs: float
    """Billions of multiply-accumulate operations in convolutions, matrix products and attention."""


def count(network: "nn.Module", *input_shape: int) -> Size:
    """Return the size of a network, on the device `meta`, for one normalised input of this shape: 3, H, W."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        network(torch.empty(1, *input_shape))
    return Size(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() / 2e9)


@cache
def written_sizes() -> Mapping[str, Size]:
    """Return the sizes of the table's backbones, from sizes.csv."""
    with SIZES.open(newline="", encoding="utf-8") as stream:
        return {row["name"]: Size(int(row["parameters"]), float(row["gmacs"])) for row in csv.DictReader(stream)}


def size_of(spec: BackboneSpec) -> Size:
    """Return a backbone's size without its classifier: from sizes.csv, else counted; nothing where it is no network."""
    if not spec.has_weights:
        return Size(0, 0.0)
    return written_sizes().get(spec.name) or count_backbone(spec)


def count_backbone(spec: BackboneSpec) -> Size:
    """Count a backbone's size without its classifier."""
    from vidpipe.backbones.image import meta_backbone

    shape = (3, *spec.input_shape[:-3], *spec.preprocessing.size)  # a window is (3, W, H, W) inside the network
    return count(meta_backbone(spec).features, *shape)
