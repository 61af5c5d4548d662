"""Frozen clip backbones in PyTorch: windows of uint8 frames in, a feature of each window out.

There is a class for each kind of output: a feature map over time and space (`ClipBackbone`), and the tokens of a
transformer (`TokenClipBackbone`).
"""

from itertools import takewhile

import torch
from torch import Tensor, nn

from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.errors import UsageError

__all__ = ["ClipBackbone", "TokenClipBackbone", "freeze_clip"]


class ClipBackbone(FrozenNetwork):
    """A frozen video model whose feature is pooled from the last feature map.

    Its pooling is `avg`, which is what the network's own classifier is given, or `max`.
    """

    memory_format = torch.channels_last_3d
    features: "_Maps"

    @property
    def pools_each_channel(self) -> bool:
        """See `FrozenNetwork.pools_each_channel`."""
        return True

    def run(self, frames: Tensor) -> Tensor:
        """See `FrozenNetwork.run`: (N, W, 3, H, W) uint8 RGB -> (N, D, t, h, w) float32, or tokens"""
        output: Tensor = self.features(self.normalise(frames).transpose(1, 2))  # -> (N, 3, W, H, W)
        return output

    def pool(self, output: Tensor) -> Tensor:
        """See `FrozenNetwork.pool`: (N, D, t, h, w) -> (N, D)"""
        if self.pooling == "max":
            return output.amax(dim=(2, 3, 4))
        averaged: Tensor = self.features.average(output)
        return averaged.mean(dim=(2, 3, 4))


class TokenClipBackbone(ClipBackbone):
    """A video transformer: (N, T, D) tokens, first the class token where it has one.

    Its pooling is `token` (the class token), `tokens` (the mean over all others) or `attention` (a layer of its own).
    """

    features: "_Tokens"  # type: ignore[assignment]

    @property
    def pools_each_channel(self) -> bool:
        """See `FrozenNetwork.pools_each_channel`."""
        return False

    def as_map(self, output: Tensor) -> Tensor:
        """Raise UsageError: its tokens are no map."""
        raise UsageError("it gives tokens, not a feature map; r3d_18 is a video model with one")

    def pool(self, output: Tensor) -> Tensor:
        """See `FrozenNetwork.pool`: (N, T, D) -> (N, D)"""
        if self.pooling == "token":
            return output[:, 0]
        if self.pooling == "attention":
            attended: Tensor = self.features.attention(output)
            return attended
        pooled: Tensor = self.features.after_pooling(output[:, self.features.num_prefix_tokens :].mean(dim=1))
        return pooled


class _Maps(nn.Module):
    """A torchvision model up to its last feature map, (N, D, t, h, w), and the layer that averages the map."""

    def __init__(self, model: nn.Module, last: str) -> None:
        super().__init__()
        layers = dict(model.named_children())
        names = (*takewhile(lambda name: name != last, layers), last)
        self.layers = nn.Sequential(*(layers[name] for name in names))
        self.channels_last = isinstance(layers[last], nn.LayerNorm)
        self.average = layers["avgpool"]  # S3D's overlaps in time, so that the first and last steps count half

    def forward(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.layers(pixels)
        return maps.movedim(-1, 1) if self.channels_last else maps


class _Tokens(nn.Module):
    """A network whose output is its tokens, (N, T, D), and the layers that its library applies to them."""

    num_prefix_tokens = 0
    """Tokens that stand for no patch, before all others."""

    def __init__(
        self, model: nn.Module, *, attention: nn.Module | None = None, after_pooling: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.attention = attention or nn.Identity()
        self.after_pooling = after_pooling or nn.Identity()


class _MViTTokens(_Tokens):
    """torchvision's multiscale vision transformers up to the last normalisation."""

    num_prefix_tokens = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.model.head = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """As `torchvision.models.video.MViT.forward`, which returns the class token alone."""
        model, positions = self.model, self.model.pos_encoding
        tokens = model.conv_proj(pixels).flatten(2).transpose(1, 2)  # type: ignore[operator]  # (N, D, t, h, w) -> (N, T, D)
        tokens = positions(tokens)  # type: ignore[operator]
        shape = (positions.temporal_size, *positions.spatial_size)  # type: ignore[misc, union-attr]
        for block in model.blocks:  # type: ignore[union-attr]
            tokens, shape = block(tokens, shape)
        normed: Tensor = model.norm(tokens)  # type: ignore[operator]
        return normed


class _VideoMAETokens(_Tokens):
    """VideoMAE of transformers: the mean of its tokens is normalised where it was fine-tuned."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(getattr(model, "videomae", model), after_pooling=getattr(model, "fc_norm", None))

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.model(pixels.transpose(1, 2)).last_hidden_state  # (N, 3, W, H, W) -> (N, T, D)
        return tokens


class _VJEPA2Tokens(_Tokens):
    """V-JEPA 2 of transformers: its classifier has an attentive pooler over the tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(getattr(model, "vjepa2", model), attention=getattr(model, "pooler", None))

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.model(pixels.transpose(1, 2), skip_predictor=True)  # (N, 3, W, H, W) -> (N, T, D)
        tokens: Tensor = output.last_hidden_state
        return tokens


def _features(spec: BackboneSpec, model: nn.Module) -> _Maps | _Tokens:
    """A network up to what is pooled."""
    if spec.library == "transformers":
        return _VJEPA2Tokens(model) if model.base_model_prefix == "vjepa2" else _VideoMAETokens(model)
    return _Maps(model, spec.feature_map) if spec.kind == "map" else _MViTTokens(model)


def freeze_clip(spec: BackboneSpec, model: nn.Module, *, pooling: str, weights_id: str) -> ClipBackbone:
    """Return a video network without its classifier.

    Args:
        spec: the backbone.
        model: the whole network, as its library builds it.
        pooling: one of `spec.poolings`.
        weights_id: the sha256 of the weights' file, or `random`.

    Returns:
        The frozen backbone.
    """
    kind = ClipBackbone if spec.kind == "map" else TokenClipBackbone
    return kind(
        _features(spec, model), dim=spec.dim, pool=pooling, preprocessing=spec.preprocessing, weights_id=weights_id
    )
