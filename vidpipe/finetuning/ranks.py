"""Several processes that train one model: started by `torchrun`, each with its own GPU or share of the CPU.

Each process computes its share of the videos of a step. Their gradients are added, so that all change their weights
alike. The first process alone decodes, validates and writes.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

__all__ = ["ONE_PROCESS", "Ranks", "open_ranks"]


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is."""

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process decodes, validates and writes."""
        return self.number == 0

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            torch.distributed.barrier()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes, in each of them."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # this process had no video of the step
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def add_numbers(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all processes."""
        if self.count == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(total)
        return [float(one) for one in total.tolist()]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), src=0)

    @property
    def _device(self) -> str:
        return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


ONE_PROCESS = Ranks()


@contextmanager
def open_ranks(*, uses_gpu: bool) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; without it, there is one.

    Args:
        uses_gpu: whether each process has a GPU: the one of its local number.

    Yields:
        Which process this is.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ONE_PROCESS
        return
    if uses_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if uses_gpu else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()
