"""What all frozen networks have in common: features, normalisation, pooling, weights that never change."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from vidpipe.records import Preprocessing

__all__ = ["FrozenNetwork"]


class FrozenNetwork(nn.Module):
    """A network without its classifier, in evaluation mode and without gradients.

    Args:
        features: the network up to what is pooled.
        dim: D.
        pool: a pooling of the network's kind.
        preprocessing: of the weights; frames must be resized and cropped already.
        weights_id: the sha256 of the weights' file, or `random`.
    """

    memory_format: ClassVar[torch.memory_format] = torch.channels_last
    """The layout in which a GPU computes fastest."""

    def __init__(
        self, features: nn.Module, *, dim: int, pool: str, preprocessing: Preprocessing, weights_id: str = "random"
    ) -> None:
        super().__init__()
        self.features = features
        self.dim = dim
        self.pooling = pool
        self.preprocessing = preprocessing
        self.weights_id = weights_id
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def input_size(self) -> int:
        """Pixels of each side of a frame."""
        return min(self.preprocessing.size)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.get_buffer("mean").device

    @property
    def pools_each_channel(self) -> bool:
        """Whether each feature is pooled from one channel of the feature map: the sum, or the largest, of its parts."""
        return False

    def forward(self, frames: Tensor) -> Tensor:
        """Compute features: the output of `run`, pooled."""
        return self.pool(self.run(frames))

    def run(self, frames: Tensor) -> Tensor:
        """Compute what is pooled.

        Args:
            frames: (N, 3, H, W) uint8 RGB; (N, W, 3, H, W) for a clip backbone.

        Returns:
            The output of `features`: maps, tokens or a layer.
        """
        raise NotImplementedError

    def pool(self, output: Tensor) -> Tensor:
        """Pool the output of `run`.

        Args:
            output: maps, tokens or a layer of N pictures or windows.

        Returns:
            (N, D) float32; with a grid (N, 1 + G², D), the whole picture first.
        """
        raise NotImplementedError

    def as_map(self, output: Tensor) -> Tensor:
        """Return the output of `run` as feature maps.

        Args:
            output: maps or tokens.

        Returns:
            (N, D, h, w); (N, D, t, h, w) for a clip backbone.

        Raises:
            UsageError: the backbone has no feature map.
        """
        return output

    def feature_map(self, frames: Tensor) -> Tensor:
        """Compute feature maps.

        Args:
            frames: (N, 3, H, W) uint8 RGB; (N, W, 3, H, W) for a clip backbone.

        Returns:
            (N, D, h, w) float32; (N, D, t, h, w) for a clip backbone.

        Raises:
            UsageError: the backbone has no feature map.
        """
        return self.as_map(self.run(frames))

    def normalise(self, frames: Tensor) -> Tensor:
        """Return frames as the weights expect them.

        Args:
            frames: (…, 3, H, W) uint8 RGB.

        Returns:
            (…, 3, H, W) float, on the network's device.
        """
        pixels = frames.to(self.get_buffer("mean"), non_blocking=True) / 255
        return (pixels - self.get_buffer("mean")) / self.get_buffer("std")
