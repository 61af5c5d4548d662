"""Runs a backbone with PyTorch, on the CPU or a GPU."""

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.cuda_graphs import Compute, GraphedNetwork
from vidpipe.backbones.engines.engine import Finish

if TYPE_CHECKING:
    from torch import Tensor

    from vidpipe.backbones.frozen import FrozenNetwork

__all__ = ["TorchEngine"]


class TorchEngine:
    """Runs a backbone with PyTorch.

    Args:
        backbone: on the device on which to run it.
        precision: `full`, or `half` for float16: about twice as fast on a GPU, features within 1 % (relative norm).
        cuda_graphs: on a GPU, replay the backbone as a CUDA graph where that is measured to be faster.
    """

    name = "torch"

    def __init__(self, backbone: "FrozenNetwork", *, precision: str = "full", cuda_graphs: bool = False) -> None:
        self.device = backbone.device.type
        self.dim, self.preprocessing = backbone.dim, backbone.preprocessing
        self.max_in_flight = 2 if self.device == "cuda" else 0
        self._backbone = backbone.half() if precision == "half" else backbone
        if self.device == "cuda":
            self._backbone = self._backbone.to(memory_format=backbone.memory_format)
        self._compute: Compute = self._backbone
        if cuda_graphs and self.device == "cuda":
            self._compute = GraphedNetwork(self._backbone)

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        """See `Engine.start`."""
        import torch

        with torch.inference_mode():
            if self.device == "cuda":
                return self._start_on_gpu(torch.from_numpy(frames))
            started = time.perf_counter()
            features: NDArray[np.float32] = self._backbone(torch.from_numpy(frames)).float().numpy()
        seconds = time.perf_counter() - started
        return lambda: (features, seconds)

    def _start_on_gpu(self, frames: "Tensor") -> Finish:
        """Start without waiting: the copies use pinned memory, and the kernels are only launched."""
        import torch

        begin, end, copied = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):  # full precision is float32
            on_device = frames.pin_memory().to("cuda", non_blocking=True)
            begin.record()
            if on_device.ndim == 4:  # (N, W, 3, H, W) windows are laid out by the backbone
                on_device = on_device.contiguous(memory_format=torch.channels_last)
            rows = self._compute(on_device).float()
            end.record()
        features = torch.empty(rows.shape, pin_memory=True).copy_(rows, non_blocking=True)
        copied.record()

        def finish() -> tuple[NDArray[np.float32], float]:
            copied.synchronize()
            return features.numpy(), begin.elapsed_time(end) / 1000

        return finish
