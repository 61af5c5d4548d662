"""Reading a store for training against `cat` of the same files to /dev/null, both from the page cache.

    python -m benchmarks.store_reading

Each round is one `cat`, one filling of as much fresh memory, and one reading of everything that training holds in
memory, in turn; the store is opened anew each time, tables and checks included.
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
    """A video's features, which mean nothing, but for their first column, which tells its class; `path` is its file."""
    sequence = make_sequence(video_name(number), NUM_STEPS, dim, seed=number, path=path)
    sequence.features[:, 0] = number % NUM_CLASSES
    return sequence


def video_name(number: int) -> str:
    """`class3/00013.mp4`"""
    return f"class{number % NUM_CLASSES}/{number:05}.mp4"


def write_store(path: Path, num_videos: int = NUM_VIDEOS) -> FeatureStore:
    """A store of so many videos as a float32 backbone of `DIM` features fills it."""
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
    """All of a store, as `vidpipe train` holds it."""
    store = FeatureStore.open(path)
    videos = [LabeledVideo(video_id, video_id.split("/")[0]) for video_id in store.ids]
    return SequenceDataset(store, videos, sorted({video.label for video in videos}))


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values: list[float], digits: int = 2) -> str:
    """`2.31 (2.20 to 2.56)`: median, minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def run() -> str:
    """A section of RESULTS.md."""
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
        "## Reading a store for training against `cat` (`benchmarks/store_reading.py`)\n\n"
        f"{NUM_VIDEOS} sequences of {NUM_STEPS} × {DIM} float32, {gigabytes:.2f} GB in {len(files)} shards, in the "
        f"page cache. Reading them into one array takes {spread(ratios)} × the time of `cat` (median of {NUM_ROUNDS} "
        f"rounds, minimum and maximum): {spread(reads)} s against {spread(cats)} s, with opening, checking and looking "
        f"for what is not finite. To fill as much fresh memory with zeros alone takes {spread(fills)} s."
    )


if __name__ == "__main__":
    print(run())
