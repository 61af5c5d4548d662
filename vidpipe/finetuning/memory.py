"""Memory: what a step of fine-tuning needs at least, what is free, and what would fit.

    two moments of AdamW, the moving average, the best weights      4 × the trained parameters
    what autograd keeps of each row that is computed at once        measured on one and on two rows

The rest is not counted: frames, gradients (activations go as they come), buffers of libraries, the file of a
checkpoint. So a step that does not fit by this estimate does not fit, and one that fits may still be too large.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from vidpipe.config import FinetuneConfig
from vidpipe.errors import TrainingError, count_of
from vidpipe.finetuning.backbone import TunedBackbone

__all__ = ["StepMemory", "check_memory", "free_below", "free_bytes"]

NUM_COPIES = 4
"""Of the trained parameters, beside themselves: two moments, average, best."""
GB = 1e9


@dataclass(frozen=True)
class StepMemory:
    """What a step needs at least, beside the parameters."""

    backbone: TunedBackbone
    num_rows: Sequence[int]
    """Frames or windows of each video."""
    fixed_bytes: int
    row_bytes: int
    """For each frame or window that is computed at once."""

    @classmethod
    def measure(cls, backbone: TunedBackbone, num_rows: Sequence[int], *, num_stages: int | None = None) -> Self:
        """Measure what a backbone needs.

        Args:
            backbone: some of whose stages learn.
            num_rows: frames or windows of each video, at least one.
            num_stages: as if only the last ones of these stages learned; None for all of them.

        Returns:
            The measured memory.
        """
        stages = backbone.by_stage[:num_stages]
        one, two = (backbone.saved_bytes(number, len(stages)) for number in (1, 2))
        trained = sum(parameter.nbytes for parameters in stages for parameter in parameters)
        return cls(backbone, num_rows, NUM_COPIES * trained + max(0, 2 * one - two), max(0, two - one))

    def num_bytes(self, num_videos: int, *, checkpointing: bool) -> int:
        """Return what a step needs.

        Args:
            num_videos: that are computed at once.
            checkpointing: whether the backbone is computed again for its gradients.

        Returns:
            The bytes in the largest part of an epoch, or in an average one where that is not known.
        """
        longest = max(self.num_rows)
        if checkpointing:
            rows: float = self.backbone.checkpointed_rows(longest)
        else:
            rows = max(longest, num_videos * sum(self.num_rows) / len(self.num_rows))
        return self.fixed_bytes + round(rows * self.row_bytes)


def check_memory(
    backbone: TunedBackbone, num_rows: Sequence[int], *, config: FinetuneConfig, num_parts: int, num_processes: int
) -> None:
    """Refuse a training whose steps clearly do not fit into the memory that is free.

    Args:
        backbone: some of whose stages learn.
        num_rows: frames or windows of each training video, at least one.
        config: `batch_size` and `checkpointing`.
        num_parts: into how many parts a step is divided.
        num_processes: that train together; on a CPU they share its memory.

    Raises:
        TrainingError: the memory is too small; the message says what would fit.
    """
    free = free_bytes(backbone.device)
    if free is None:
        return
    free //= num_processes if backbone.device.type == "cpu" else 1
    own = math.ceil(min(config.batch_size, len(num_rows)) / num_processes)
    num_videos = math.ceil(own / num_parts)
    memory = StepMemory.measure(backbone, num_rows)
    needed = memory.num_bytes(num_videos, checkpointing=config.checkpointing)
    if needed <= free:
        return
    remedies = _remedies(memory, own, num_videos, config)
    remedy = next(
        (f"{options} needs {_gb(its)}" for options, its in remedies if its <= free),
        "a run with fewer --num-frames, or of a smaller backbone, needs less",
    )
    raise TrainingError(
        f"too little memory: a step with {count_of(num_videos, 'video')} at once needs at least {_gb(needed)}, and "
        f"{_gb(free)} are free; {remedy}"
    )


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that a process can still take.

    Args:
        device: a GPU; or the CPU, whose memory counts with its swap, within the limits of control groups.

    Returns:
        The bytes, or None where that is not known.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return None
    sizes = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    of_machine = 1024 * sum(int(sizes[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    return min([of_machine, *_free_in_groups()])


def _remedies(memory: StepMemory, own: int, num_videos: int, config: FinetuneConfig) -> Iterator[tuple[str, int]]:
    """Options that need less, the smallest change first, and the bytes of a step with them."""
    if not config.checkpointing:
        for fewer in range(num_videos - 1, 0, -1):
            yield f"--accumulate {math.ceil(own / fewer)}", memory.num_bytes(fewer, checkpointing=False)
        yield "--checkpointing", memory.num_bytes(1, checkpointing=True)
    for fewer in range(len(memory.backbone.by_stage) - 1, 0, -1):
        smaller = StepMemory.measure(memory.backbone, memory.num_rows, num_stages=fewer)
        yield f"--checkpointing --unfreeze {fewer}", smaller.num_bytes(1, checkpointing=True)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / GB:.1f} GB"


def _free_in_groups() -> Iterator[int]:
    """What the control groups of this process leave; files in their cache can be dropped."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            yield from free_below(Path("/sys/fs/cgroup"), path, limit="memory.max", usage="memory.current", prefix="")
        elif "memory" in controllers.split(","):
            yield from free_below(
                Path("/sys/fs/cgroup/memory"),
                path,
                limit="memory.limit_in_bytes",
                usage="memory.usage_in_bytes",
                prefix="total_",
            )


def free_below(root: Path, path: str, *, limit: str, usage: str, prefix: str) -> Iterator[int]:
    """Return what a control group and each of those that it is in leave.

    Args:
        root: of the groups.
        path: of the group, from the root.
        limit: the file with the most bytes that a group may take.
        usage: the file with the bytes that it takes.
        prefix: of names in `memory.stat`.

    Yields:
        The bytes of each group with a limit.
    """
    group = root / path.lstrip("/")
    for folder in (group, *(one for one in group.parents if one.is_relative_to(root))):
        most, used = _read(folder / limit).strip(), _read(folder / usage).strip()
        if most.isdigit() and used.isdigit():
            numbers = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
            cached = sum(int(numbers.get(f"{prefix}{name}_file", 0)) for name in ("active", "inactive"))
            yield max(0, int(most) - int(used) + cached)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
