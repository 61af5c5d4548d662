"""Replaying a network as a CUDA graph, where that is measured to be faster.

A graph launches all kernels of a network at once, for inputs of one shape. It helps where kernels are so short that the
processor cannot launch them in time: small networks, small batches. An extraction has batches of one shape, but for the
last one.

Not measured: no GPU was at hand when this was written. `benchmarks/gpu.py` measures it.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EAGER_BATCHES", "Compute", "GraphedNetwork", "capture_graph", "seconds_on_gpu"]

logger = logging.getLogger(__name__)

Compute = Callable[["Tensor"], "Tensor"]
"""(N, …) inputs -> (N, …) features."""

EAGER_BATCHES = 3
"""Batches of one shape before a graph is captured: cuDNN chooses its kernels, and few batches do not pay."""
TIMED_BATCHES = 5
MIN_GAIN = 1.02
"""How many times as fast a graph must be."""


class GraphedNetwork:
    """Runs a network as it is, and after some batches of one shape by a graph if that is faster.

    Args:
        network: what to run.
        capture: makes a graph of the network for inputs like the given one.
        measure: returns the seconds that a batch takes.
    """

    def __init__(
        self,
        network: Compute,
        *,
        capture: "Callable[[Compute, Tensor], Compute] | None" = None,
        measure: "Callable[[Compute, Tensor], float] | None" = None,
    ) -> None:
        self._network = network
        self._capture, self._measure = capture or capture_graph, measure or seconds_on_gpu
        self._num_batches: dict[tuple[int, ...], int] = {}
        self._graph: tuple[tuple[int, ...], Compute] | None = None
        self._is_decided = False

    def __call__(self, batch: "Tensor") -> "Tensor":
        """Compute the features of a batch, as the network does."""
        shape = tuple(batch.shape)
        if not self._is_decided:
            self._num_batches[shape] = self._num_batches.get(shape, 0) + 1
            if self._num_batches[shape] > EAGER_BATCHES:
                self._decide(batch)
        if self._graph is not None and self._graph[0] == shape:
            return self._graph[1](batch)
        return self._network(batch)

    def _decide(self, batch: "Tensor") -> None:
        """Capture a graph for batches like this one, and keep it if it is faster."""
        self._is_decided = True
        try:
            replay = self._capture(self._network, batch)
        except RuntimeError as error:  # the network waits for the GPU, or chooses by its values
            logger.info("no CUDA graph: %s", str(error).split("\n", 1)[0])
            return
        eager, graphed = self._measure(self._network, batch), self._measure(replay, batch)
        logger.info("a batch takes %.2f ms, and %.2f ms as a CUDA graph", 1000 * eager, 1000 * graphed)
        if eager >= MIN_GAIN * graphed:
            self._graph = tuple(batch.shape), replay


def capture_graph(network: Compute, example: "Tensor") -> Compute:
    """Capture a CUDA graph of a network.

    Args:
        network: on the GPU.
        example: an input on the GPU; the graph takes inputs of its shape, type and layout.

    Returns:
        A function that replays the graph. Its results stay valid after the next call.

    Raises:
        RuntimeError: the network cannot be captured.
    """
    import torch

    given = example.clone()
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(EAGER_BATCHES):  # allocates memory and chooses kernels, which a capture must not
            network(given)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = network(given)

    def replay(batch: "Tensor") -> "Tensor":
        given.copy_(batch)
        graph.replay()
        return result.clone()

    return replay


def seconds_on_gpu(compute: Compute, batch: "Tensor") -> float:
    """Measure how long a batch takes on the GPU.

    Args:
        compute: what to measure.
        batch: its input, on the GPU.

    Returns:
        Seconds a batch, the mean of some.
    """
    import torch

    compute(batch)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(TIMED_BATCHES):
        compute(batch)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / TIMED_BATCHES
