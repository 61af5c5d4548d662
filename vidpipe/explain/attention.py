"""What the class token of a transformer looks at: its attention over the patches, block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from vidpipe.backbones.image import WholeNetwork

__all__ = ["ClassAttention", "class_attention"]

ROLLOUT_IDENTITY = 0.5
"""The share of a token that goes around the attention, through the residual connection (Abnar & Zuidema 2020)."""


@dataclass(frozen=True)
class ClassAttention:
    """How the attention of the class token is divided over the patches of a picture."""

    names: tuple[str, ...]
    """Of the attention layers, in the order of the blocks."""
    blocks: Tensor
    """(B, h, w) the mean over the heads of each block; with the shares of the class token and of registers, one map
    adds up to 1."""
    heads: Tensor
    """(A, h, w) each head of the last block."""
    rollout: Tensor
    """(h, w) the attention of all blocks, multiplied (Abnar & Zuidema 2020)."""


def class_attention(network: WholeNetwork, frames: Tensor) -> ClassAttention | None:
    """Compute the attention of the class token.

    Args:
        network: a transformer of torchvision or timm whose first token is the class token.
        frames: (1, 3, H, W) uint8 RGB.

    Returns:
        The attention; None where the network has no attention layer from which it can be read.
    """
    weights: dict[str, Tensor] = {}
    with torch.inference_mode(), _recorded(network.features, weights):
        network.run(frames)
    num_prefix = network.num_prefix_tokens
    num_tokens = {one.shape[-1] for one in weights.values()}
    side = isqrt(max(num_tokens, default=0) - num_prefix) if num_tokens else 0
    if len(num_tokens) != 1 or num_tokens != {num_prefix + side * side}:
        return None
    means = [one.mean(dim=0) for one in weights.values()]  # (A, T, T) -> (T, T)

    def over_patches(rows: Tensor) -> Tensor:
        return rows[..., num_prefix:].reshape(*rows.shape[:-1], side, side)

    last = list(weights.values())[-1]
    return ClassAttention(
        tuple(weights),
        over_patches(torch.stack([one[0] for one in means])),
        over_patches(last[:, 0]),
        over_patches(_rollout(means)[0]),
    )


def _rollout(means: list[Tensor]) -> Tensor:
    """(T, T), …, the first block first -> (T, T) what each token at the end has of each token at the start"""
    identity = torch.eye(len(means[0]))
    rolled = identity
    for one in means:
        rolled = (ROLLOUT_IDENTITY * identity + (1 - ROLLOUT_IDENTITY) * one) @ rolled
    return rolled


@contextmanager
def _recorded(model: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """Have each attention layer compute its weights as a matrix, and note the (A, T, T) of one picture."""
    hooks, fused = [], []

    def note(name: str, matrix: Any) -> None:
        if isinstance(matrix, Tensor) and matrix.ndim == 4 and len(matrix) == 1:
            weights[name] = matrix[0].float().cpu()

    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):  # torchvision's
            hooks.append(module.register_forward_pre_hook(_ask_for_weights, with_kwargs=True))
            hooks.append(module.register_forward_hook(lambda _, __, output, name=name: note(name, output[1])))
        elif hasattr(module, "fused_attn") and hasattr(module, "attn_drop"):  # timm's: the weights pass a dropout
            fused.append((module, module.fused_attn))
            module.fused_attn = False
            dropout = module.attn_drop
            hooks.append(dropout.register_forward_hook(lambda _, __, output, name=name: note(name, output)))
    try:
        yield
    finally:
        for module, was_fused in fused:
            module.fused_attn = was_fused
        for hook in hooks:
            hook.remove()


def _ask_for_weights(
    module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return inputs, {**named, "need_weights": True, "average_attn_weights": False}
