"""Reading a store for training, compared with `cat` of the same files to /dev/null, both from the page cache.

    python -m benchmarks.store_reading

Each round runs `cat`, fills as much new memory, and reads everything that training keeps in memory. Reading includes
opening the store and checking its tables.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.stores import make_sequence
from vidpipe.backbones.table import find_backbone
from vidpipe.config import ExtractConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, LabeledVideo

NUM_VIDEOS, NUM_STEPS, DIM, NUM_CLASSES = 10_000, 16, 2048, 10
NUM_ROUNDS = 7


def random_sequence(number: int, dim: int = DIM, path: Path | None = None) -> FeatureSequence:
    """Return random features of a video; the first column depends on its class. `path` is its file."""
    sequence = make_sequence(video_name(number), NUM_STEPS, dim, seed=number, path=path)
    sequence.features[:, 0] = number % NUM_CLASSES
    return sequence


def video_name(number: int) -> str:
    """`class3/00013.mp4`"""
    return f"class{number % NUM_CLASSES}/{number:05}.mp4"


def write_store(path: Path, num_videos: int = NUM_VIDEOS) -> FeatureStore:
    """Write a store of float32 features of size `DIM`."""
    config, backbone = ExtractConfig(), find_backbone("resnet50")
    key = FeatureKey.of(
        config.resolve_sampling(),
        backbone=backbone.name,
        weights_id="random",
        pooling="avg",
        preprocessing=backbone.preprocessing,
        dtype="float32",
    )
    store = FeatureStore.create(path, key)
    with store.writer() as writer:
        for number in range(num_videos):
            writer.add(random_sequence(number))
    return FeatureStore.open(path)


def read_for_training(path: Path) -> SequenceDataset:
    """Read a store as `vidpipe train` does."""
    store = FeatureStore.open(path)
    videos = [LabeledVideo(video_id, video_id.split("/")[0]) for video_id in store.ids]
    return SequenceDataset(store, videos, sorted({video.label for video in videos}))


def seconds(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values: list[float], digits: int = 2) -> str:
    """`2.31 (2.20 to 2.56)`: median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def run() -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "store")
        files = [str(file) for file in write_store(path).shard_paths]
        gigabytes = sum(Path(file).stat().st_size for file in files) / 1e9
        rounds = []
        for _ in range(1 + NUM_ROUNDS):
            cat = seconds(lambda: subprocess.run(["cat", *files], check=True, stdout=subprocess.DEVNULL))
            fill = seconds(lambda: np.empty(NUM_VIDEOS * NUM_STEPS * DIM, np.float32).fill(0))
            rounds.append((cat, fill, seconds(lambda: read_for_training(path))))
    cats, fills, reads = map(list, zip(*rounds[1:], strict=True))
    ratios = [read / cat for cat, _, read in rounds[1:]]
    return (
        "## Reading a store for training, compared with `cat` (`benchmarks/store_reading.py`)\n\n"
        f"{NUM_VIDEOS} sequences of {NUM_STEPS} × {DIM} float32, {gigabytes:.2f} GB in {len(files)} shards, in the "
        f"page cache. Reading them into one array takes {spread(ratios)} × the time of `cat` (median of {NUM_ROUNDS} "
        f"rounds, minimum and maximum): {spread(reads)} s and {spread(cats)} s, including opening and checks. "
        f"Filling as much new memory with zeros takes {spread(fills)} s."
    )


if __name__ == "__main__":
    print(run())
