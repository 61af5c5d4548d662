"""How large a backbone is and what one frame costs: counted on torch's device without memory.

`python -m tools.count_sizes` counts the whole table and writes sizes.csv, which the listing reads.
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
    """What a network is made of and does for one frame."""

    num_parameters: int
    gmacs: float
    """Multiplications with addition, in billions, of convolutions, matrix products and attention."""


def count(network: "nn.Module", side: int) -> Size:
    """The size of a network that takes normalised frames of `side` × `side` pixels; both on the device `meta`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        network(torch.empty(1, 3, side, side))
    return Size(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() / 2e9)


@cache
def written_sizes() -> Mapping[str, Size]:
    """The sizes of the table's backbones, as they were counted last."""
    with SIZES.open(newline="", encoding="utf-8") as stream:
        return {row["name"]: Size(int(row["parameters"]), float(row["gmacs"])) for row in csv.DictReader(stream)}


def size_of(spec: BackboneSpec) -> Size:
    """A backbone's size, its classifier left out: read where it was counted before, else counted."""
    return written_sizes().get(spec.name) or count_backbone(spec)


def count_backbone(spec: BackboneSpec) -> Size:
    """A backbone's size, its classifier left out."""
    from vidpipe.backbones.image import meta_backbone

    return count(meta_backbone(spec).features, spec.input_size)
