"""Where the class token of a transformer looks: its attention to each patch, block by block."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vidpipe.explain.network import Network

__all__ = ["class_attention", "read_attention", "roll_out"]


@torch.no_grad()
def read_attention(network: Network, pixels: Tensor) -> dict[str, Tensor]:
    """Compute the attention of each block of an image transformer of timm or torchvision.

    Args:
        network: any network.
        pixels: (1, 3, H, W) RGB, 0 to 1, on the network's device.

    Returns:
        By the name of the attention module, in the order of the blocks: (heads, T, T), each row the attention of a
        token, which sums to 1. Empty for networks without attention between all tokens.
    """
    found: dict[str, Tensor] = {}
    with _keeping(network.model, found):
        network(pixels)
    whole = [one for one in found.values() if one.shape[0] == 1 and one.shape[-1] == one.shape[-2]]
    num_tokens = {one.shape[-1] for one in whole}
    if len(num_tokens) != 1 or len(whole) != len(found):  # windows, or a network that merges tokens
        return {}
    return {name: one[0] for name, one in found.items()}


@contextmanager
def _keeping(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    """Put the attention (N, heads, T, T) of each module that runs into `found`."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                _keep_of_torch(name, module, found, stack)
            elif isinstance(getattr(module, "fused_attn", None), bool) and hasattr(module, "attn_drop"):
                _keep_of_timm(name, module, found, stack)
        yield


def _keep_of_torch(name: str, module: nn.Module, found: dict[str, Tensor], stack: ExitStack) -> None:
    def ask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(_: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        found[name] = output[1]

    stack.callback(module.register_forward_pre_hook(ask, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(keep).remove)


def _keep_of_timm(name: str, module: nn.Module, found: dict[str, Tensor], stack: ExitStack) -> None:
    """timm computes softmax and then `attn_drop`, unless a fused kernel does both."""

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[name] = args[0]

    stack.callback(setattr, module, "fused_attn", module.fused_attn)
    module.fused_attn = False  # type: ignore[assignment]
    stack.callback(module.attn_drop.register_forward_pre_hook(keep).remove)  # type: ignore[operator, union-attr]


def class_attention(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the attention of the class token to each patch.

    Args:
        attention: (…, T, T) rows that sum to 1; the first token is the class token, the last h · w are the patches.
        grid: h and w.

    Returns:
        (…, h, w)
    """
    height, width = grid
    return attention[..., 0, attention.shape[-1] - height * width :].unflatten(-1, grid)


def roll_out(attention: Mapping[str, Tensor]) -> Tensor:
    """Return attention rollout: what reaches each token of the last block from each token of the input.

    Heads are averaged, and half of each token is itself, because of the residual connections (Abnar & Zuidema 2020,
    "Quantifying Attention Flow in Transformers").

    Args:
        attention: of each block in order, (heads, T, T); rows sum to 1.

    Returns:
        (T, T) rows that sum to 1.
    """
    rolled = torch.tensor(1.0)
    for block in attention.values():
        mean = block.mean(dim=0)  # (heads, T, T) -> (T, T)
        identity = torch.eye(len(mean), device=mean.device)
        step = 0.5 * mean + 0.5 * identity
        rolled = step if rolled.ndim == 0 else step @ rolled
    return rolled
