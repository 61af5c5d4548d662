"""Darknet's .weights files: a header, then the numbers of all layers one after the other.

int32 major, minor, revision · int64 (before version 0.2 int32) number of pictures seen in training
float32 of each layer, in the order of the .cfg:
  with batch normalisation   bias, weight, mean, variance, then the convolution's weights
  without                    the convolution's bias, then its weights
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from vidpipe.errors import WeightsError

__all__ = ["load_darknet_weights"]


def load_darknet_weights(network: nn.Module, path: Path) -> None:
    """Fill a network whose modules are in the order of its .cfg.

    Args:
        network: of convolutions, each with batch normalisation or with a bias.
        path: a .weights file.

    Raises:
        WeightsError: the file cannot be read, or belongs to another network.
    """
    tensors = list(_tensors_of(network))
    numbers, needed = _numbers_of(path), sum(tensor.numel() for tensor in tensors)
    if len(numbers) != needed:
        raise WeightsError(
            f"{path}: these are not Darknet's weights of this network: {len(numbers):,} numbers, and it has {needed:,}"
        )
    start = 0
    with torch.no_grad():
        for tensor in tensors:
            part = numbers[start : start + tensor.numel()]
            tensor.copy_(torch.from_numpy(part).view_as(tensor))
            start += tensor.numel()


def _tensors_of(network: nn.Module) -> Iterator[Tensor]:
    """The tensors in the order of the file."""
    for module in network.modules():
        if isinstance(module, Conv2dNormActivation):
            convolution, norm = module[0], module[1]
            yield from (norm.bias, norm.weight, norm.running_mean, norm.running_var, convolution.weight)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            yield from (module.bias, module.weight)


def _numbers_of(path: Path) -> NDArray[np.float32]:
    """All that follows the header; nothing where there is no header or a part of a number."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) < 20 or len(content) % 4:
        return np.zeros(0, np.float32)
    major, minor, _ = np.frombuffer(content, "<i4", 3).tolist()
    start = 20 if major * 10 + minor >= 2 else 16
    return np.frombuffer(content, "<f4", offset=start).astype(np.float32)
