"""What a stream saw of a video, divided by place: the parts of each row's feature, or of its share.

backbone                                feature                       parts
maps with average or maximum pooling    pooled channel by channel     exact: they add up to the feature
flow                                    histograms of 3 × 3 cells     exact: the cells, or the directions
transformers with a class token         attention mixes the patches   gradient × token (Selvaraju et al. 2017)
a layer                                 no place                      none
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidpipe.backbones.clip import ClipBackbone
from vidpipe.backbones.flow import NUM_HISTOGRAMS, FlowParameters, describe
from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.explain.shares import HeadShares, over_time

__all__ = ["FlowView", "NetworkView", "StreamView"]

BATCH_SIZE = 8
Weighted = Sequence[tuple[float, HeadShares]]
"""The heads that see a stream, each with the factor of its margin in that of the classifier."""


class StreamView(ABC):
    """What a stream saw of a video."""

    features: Tensor
    """(T, C · D)"""
    adds_up = True
    """Whether the shares of the places add up to the share of their row."""

    def rows(self, heads: Weighted) -> Tensor:
        """Return the share of each row, (T,)."""
        return self._shares(heads, lambda cell: self._cell(cell)[None])[0]

    @abstractmethod
    def places(self, heads: Weighted) -> Tensor | None:
        """Return the share of each place in each row, (T, h, w); None where the feature has no places."""

    def directions(self, heads: Weighted) -> Tensor | None:
        """Return the share of each direction of motion in each row, (T, directions + 1), stillness last; or None."""
        return None

    def _cell(self, cell: int) -> Tensor:
        """(T, D) the features of a cell."""
        return self.features.reshape(len(self.features), self._num_cells, -1)[:, cell]

    @property
    def _num_cells(self) -> int:
        return 1

    def _shares(self, heads: Weighted, parts: Callable[[int], Tensor]) -> Tensor:
        """(P, T) the shares of all heads in the parts (P, T, D) of each cell."""
        shares = [
            factor * head.of_parts(parts(cell), self._cell(cell), cell=cell)
            for factor, head in heads
            for cell in range(head.weights.shape[1])
        ]
        return torch.stack(shares).sum(dim=0)


class FlowView(StreamView):
    """Optical flow: the parts are the cells of its histograms.

    Args:
        windows: (T, W, 3, H, W) uint8 RGB.
        parameters: of the features.
    """

    def __init__(self, windows: NDArray[np.uint8], parameters: FlowParameters) -> None:
        self.features = torch.from_numpy(describe(windows, parameters))
        num_bins, num_cells = parameters.num_directions + 1, parameters.grid**2
        shape = (NUM_HISTOGRAMS, num_cells, num_bins)
        self._of_cells = torch.arange(num_cells)[None, :, None].expand(shape).flatten()
        self._of_directions = torch.arange(num_bins)[None, None, :].expand(shape).flatten()
        self._grid = parameters.grid

    def places(self, heads: Weighted) -> Tensor:
        """See `StreamView.places`."""
        return self._by(self._of_cells, heads).reshape(-1, self._grid, self._grid)

    def directions(self, heads: Weighted) -> Tensor:
        """See `StreamView.directions`."""
        return self._by(self._of_directions, heads)

    def _by(self, part_of: Tensor, heads: Weighted) -> Tensor:
        """(T, P) the shares of parts, where feature d belongs to part `part_of[d]`."""
        is_in_part = nn.functional.one_hot(part_of).T  # (P, D)
        return self._shares(heads, lambda cell: self.features * is_in_part[:, None]).T


class NetworkView(StreamView):
    """A network: the parts are the positions of its feature map.

    Args:
        backbone: the network.
        inputs: (T, 3, H, W) uint8 RGB; (T, W, 3, H, W) for a clip backbone.
    """

    def __init__(self, backbone: FrozenNetwork, inputs: NDArray[np.uint8]) -> None:
        self._backbone, self._inputs = backbone, inputs
        self.adds_up = backbone.pools_each_channel
        outputs, features = [], []
        with torch.no_grad():
            for batch in _batches(inputs):
                output = backbone.run(torch.from_numpy(batch))
                features.append(backbone.pool(output).flatten(1).float().cpu())
                if self.adds_up:
                    outputs.append(output)
        self.features = torch.cat(features)  # (T, C · D)
        self._outputs = outputs

    @property
    def _num_cells(self) -> int:
        return self.features.shape[1] // self._backbone.dim

    def places(self, heads: Weighted) -> Tensor | None:
        """See `StreamView.places`."""
        if self.adds_up:
            shape = self._maps(0).shape[-2:]
            return self._shares(heads, lambda cell: self._maps(cell).flatten(2).permute(2, 0, 1)).T.reshape(-1, *shape)
        layer = _last_attention(self._backbone)
        return None if layer is None else self._token_shares(heads, layer)

    def _maps(self, cell: int) -> Tensor:
        """(T, D, h, w) whose sum over the places is the feature of a cell."""
        return torch.cat([self._divide(output, cell) for output in self._outputs])

    def _divide(self, output: Tensor, cell: int) -> Tensor:
        """(N, D, h, w) Pooling is homogeneous, so its gradient times its input adds up to its output."""
        leaf = output.clone().requires_grad_()
        pooled = self._backbone.pool(leaf).reshape(len(output), self._num_cells, -1)
        (weights,) = torch.autograd.grad(pooled[:, cell].sum(), leaf)
        maps = self._backbone.as_map(output * weights).float().cpu()
        return maps if maps.ndim == 4 else maps.sum(dim=2)  # (N, D, t, h, w) -> (N, D, h, w)

    def _token_shares(self, heads: Weighted, layer: nn.Module) -> Tensor | None:
        """(T, h, w) gradient × token at the input of a layer of attention."""
        of_features = self._feature_gradient(heads)
        tokens, gradients = [], []
        for batch, wanted in zip(_batches(self._inputs), _batches(of_features), strict=True):
            with _TokenInput(layer) as tap:
                features = self._backbone(torch.from_numpy(batch)).flatten(1)
                (gradient,) = torch.autograd.grad(features, tap.tokens, wanted.to(features))
            tokens.append(tap.tokens.detach().float().cpu())
            gradients.append(gradient.float().cpu())
        shares = over_time(*(torch.cat(one).transpose(0, 1) for one in (gradients, tokens)))  # (T, L, D) -> (L, T)
        num_prefix_tokens = getattr(self._backbone.features, "num_prefix_tokens", 0)
        patches = shares[num_prefix_tokens:].T  # (T, h · w)
        side = math.isqrt(patches.shape[1])
        return patches.reshape(-1, side, side) if side * side == patches.shape[1] else None

    def _feature_gradient(self, heads: Weighted) -> Tensor:
        """(T, C · D) how the margin changes with each feature, with the weights of the heads as they are."""
        features = self.features.clone().requires_grad_()
        lengths = torch.tensor([len(features)])
        seen = [(factor * head.weights, head.motion(features[None], lengths)) for factor, head in heads]
        total = torch.stack([(weights.flatten() * rows.flatten()).sum() for weights, rows in seen]).sum()
        (gradient,) = torch.autograd.grad(total, features)
        return gradient


class _TokenInput:
    """Catches the tokens that go into a layer of attention, as a leaf of the gradient."""

    tokens: Tensor

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def __enter__(self) -> Self:
        self._handle = self._layer.register_forward_pre_hook(self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _catch(self, layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        self.tokens = arguments[0].detach().requires_grad_()
        return tuple(self.tokens if one is arguments[0] else one for one in arguments)  # query, key and value


def _last_attention(backbone: FrozenNetwork) -> nn.Module | None:
    """The last layer of attention of an image model, by its class: `Attention`, `MultiheadAttention`, …"""
    if isinstance(backbone, ClipBackbone):
        return None
    layers = [module for module in backbone.modules() if "Attention" in type(module).__name__]
    return layers[-1] if layers else None


def _batches(rows: Any) -> Iterator[Any]:
    """Yield `BATCH_SIZE` rows at a time."""
    for start in range(0, len(rows), BATCH_SIZE):
        yield rows[start : start + BATCH_SIZE]
