"""What an extraction costs at scale, computed from parts that other benchmarks measured. It measures nothing itself.

    python -m benchmarks.cost_model       prints the tables of docs/scale.md

Assumed: machines of `CORES_A_MACHINE` cores with one process each, cores as fast as those of the measurements, an image
model and decoding that go on scaling with cores, and a file system that keeps up. Videos are short clips, of which 16
frames are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cost", "cpu_cost", "cpu_table", "gpu_cost", "gpu_table", "part_table", "run"]

CORES = (2, 64, 1024)
CORES_A_MACHINE = 64
GPUS = (1, 8, 64)
CORES_A_GPU = 16
NUM_VIDEOS = (10**5, 10**7, 10**9)

DECODING_SECONDS, MODEL_SECONDS = 0.189, 0.167
"""Core-seconds a video: RESULTS.md, "Utilisation of the machine". Decoding includes opening, colours and resizing."""
OVERLAP = 1.11
"""Time of the whole relative to the sum of decoding and model: the same section, two decoding processes."""
MAIN_SECONDS = 0.0035
"""A video, in the one process that feeds the model: RESULTS.md, "Time by stage", everything else."""
LISTING_SECONDS, LISTING_BYTES = 8.6e-6, 550
"""A file: RESULTS.md, "Stores of many videos"."""
PLANNING_SECONDS = 20e-6
"""A file that the store has, with its index: the same section."""
INDEX_SECONDS, INDEX_BYTES = 3.5e-5, 440
"""A video, at the first opening (100 videos a shard), and on the disk: the same section."""
STORED_BYTES = 82_432
"""A video: 16 rows of 1280 float32 in shards of 256 videos."""
VIDEOS_A_SHARD = 256
GPU_IMAGES_A_SECOND, FRAMES_A_VIDEO = 3249, 16
"""Assumed, not measured: ResNet-50 with automatic mixed precision on a V100, by NVIDIA's DeepLearningExamples."""


@dataclass(frozen=True)
class Cost:
    """What an extraction takes."""

    listing_seconds: float
    """To list the inputs and look each up in the store, in every process."""
    work_seconds: float
    """To decode the videos, run the model and write."""
    process_bytes: float
    """The list of the inputs, in every process."""

    @property
    def seconds(self) -> float:
        """All together."""
        return self.listing_seconds + self.work_seconds


def cpu_cost(num_videos: int, cores: int) -> Cost:
    """Return the cost on machines without a GPU.

    Args:
        num_videos: of the extraction.
        cores: of all machines together.

    Returns:
        The cost, where each machine extracts its part.
    """
    machines = max(1, cores // CORES_A_MACHINE)
    by_cores = num_videos * OVERLAP * (DECODING_SECONDS + MODEL_SECONDS) / cores
    return _cost(num_videos, max(by_cores, num_videos * MAIN_SECONDS / machines))


def gpu_cost(num_videos: int, gpus: int) -> Cost:
    """Return the cost beside GPUs, one process and `CORES_A_GPU` cores each.

    Args:
        num_videos: of the extraction.
        gpus: of all machines together.

    Returns:
        The cost.
    """
    return _cost(num_videos, num_videos * max(_gpu_parts().values()) / gpus)


def _gpu_parts() -> dict[str, float]:
    """Seconds a video of what goes on at once beside one GPU; the longest is the bottleneck."""
    return {
        "decoding": DECODING_SECONDS / CORES_A_GPU,
        "the GPU": FRAMES_A_VIDEO / GPU_IMAGES_A_SECOND,
        "the process that feeds it": MAIN_SECONDS,
    }


def _cost(num_videos: int, work_seconds: float) -> Cost:
    return Cost(num_videos * (LISTING_SECONDS + PLANNING_SECONDS), work_seconds, num_videos * LISTING_BYTES)


def cpu_table() -> str:
    """Return the table of machines without a GPU, in Markdown."""
    lines = [[f"{cores:,}", *(_cell(cpu_cost(number, cores)) for number in NUM_VIDEOS)] for cores in CORES]
    return _table(["cores", *map(_power, NUM_VIDEOS)], lines)


def gpu_table() -> str:
    """Return the table of GPUs, in Markdown."""
    lines = [[f"{gpus:,}", *(_cell(gpu_cost(number, gpus)) for number in NUM_VIDEOS)] for gpus in GPUS]
    return _table(["GPUs", *map(_power, NUM_VIDEOS)], lines)


def part_table() -> str:
    """Return the table of what each number of videos takes beside the work, in Markdown."""
    lines = [
        ["listing and looking up, in each process", *(_duration(_cost(one, 0).seconds) for one in NUM_VIDEOS)],
        ["memory of the list, in each process", *(_size(one * LISTING_BYTES) for one in NUM_VIDEOS)],
        ["features on the disk", *(_size(one * STORED_BYTES) for one in NUM_VIDEOS)],
        ["shards of 256 videos", *(f"{one // VIDEOS_A_SHARD:,}" for one in NUM_VIDEOS)],
        ["first index, shards of 100 videos", *(_duration(one * INDEX_SECONDS) for one in NUM_VIDEOS)],
        ["index on the disk", *(_size(one * INDEX_BYTES) for one in NUM_VIDEOS)],
    ]
    return _table(["", *map(_power, NUM_VIDEOS)], lines)


def _cell(cost: Cost) -> str:
    return _duration(cost.seconds)


def _power(number: int) -> str:
    """`10^7 videos`"""
    return f"10^{len(str(number)) - 1} videos"


def _duration(seconds: float) -> str:
    """`4 s`, `12 min`, `5.5 h`, `22 days`, `12 years`"""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800), ("days", 86_400, 63e6)):
        if seconds < limit:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 31_557_600)} years"


def _size(num_bytes: float) -> str:
    """`55 MB`, `5.5 GB`, `82 TB`"""
    for unit, size in (("MB", 1e6), ("GB", 1e9)):
        if num_bytes < 1000 * size:
            return f"{_digits(num_bytes / size)} {unit}"
    return f"{_digits(num_bytes / 1e12)} TB"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def run() -> str:
    """Compute, and return a section of RESULTS.md."""
    parts = _gpu_parts()
    bottleneck = max(parts, key=parts.__getitem__)
    return (
        "## Cost at scale, computed (`benchmarks/cost_model.py`)\n\n"
        "Time of an extraction without a GPU, from measured parts.\n\n"
        f"{cpu_table()}\n\n"
        f"Beside GPUs, each with {CORES_A_GPU} cores. The speed of the GPU is assumed, not measured: "
        f"{GPU_IMAGES_A_SECOND} images a second. The bottleneck is {bottleneck}: {1 / parts[bottleneck]:.0f} videos a "
        f"second for each GPU, which could take {1 / parts['the GPU']:.0f}.\n\n"
        f"{gpu_table()}\n\n"
        f"What grows with the number of videos.\n\n{part_table()}"
    )


if __name__ == "__main__":
    print(run())
