"""How well `vidpipe extract` uses the machine: decoding and image model together, compared with each alone.

    python -m benchmarks.utilisation        what `make bench` runs
    python -m benchmarks.utilisation 200    with 200 videos

Decoding alone uses a process on each core; the image model alone uses all cores, with frames in memory. A perfect
extraction takes the sum of both: the table shows the ratio to it, by number of decoding processes.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.clips import labelled_sets
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.execution.loaded import LoadedStream
from vidpipe.execution.local import iter_features
from vidpipe.records import FrameBatch, VideoFeatures, VideoFile
from vidpipe.video.decoding import decode_videos
from vidpipe.video.files import find_videos
from vidpipe.video.view import View

NUM_ROUNDS = 3
NUM_VIDEOS = 60
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CONFIG = ExtractConfig(backbone="efficientnet_lite0", engine="onnx", device="cpu", batch_size=8)
STREAM = Stream.of(CONFIG)


def decode(videos: list[VideoFile], workers: int) -> int:
    """Decode, and return the number of frames."""
    batches = decode_videos(
        videos,
        {"": View(CONFIG.resolve_sampling(), STREAM.spec.preprocessing)},
        workers=workers,
        timeout_seconds=CONFIG.timeout,
    )
    with closing(batches):
        return sum(len(batch.pictures) for batch in batches if isinstance(batch, FrameBatch))


def model(engine: Engine, num_frames: int) -> int:
    """Run the image model, and return the number of frames."""
    frames = np.random.default_rng(0).integers(
        0, 256, (CONFIG.batch_size or 1, 3, *engine.preprocessing.size), dtype=np.uint8
    )
    num_batches = -(-num_frames // len(frames))
    for _ in range(num_batches):
        engine.start(frames)()
    return num_batches * len(frames)


def extract(videos: list[VideoFile], engine: Engine, workers: int) -> int:
    """Extract, and return the number of frames."""
    config = ExtractConfig(**{**vars(CONFIG), "workers": workers})
    with closing(iter_features(videos, {"": LoadedStream(engine, STREAM.key)}, config=config)) as results:
        return sum(len(result) for result in results if isinstance(result, VideoFeatures))


def measure(num_videos: int, folder: Path) -> dict[str, list[float]]:
    """Return the seconds of each round, by what was measured."""
    labels = next(iter(labelled_sets(folder).values()))
    found = find_videos([labels.parent])
    videos = found[:: max(1, len(found) // num_videos)][:num_videos]
    num_frames = decode(videos, CORES)
    engine = STREAM.load_engine(device=CONFIG.device, engine=CONFIG.engine, num_videos=len(videos))
    work: dict[str, Callable[[], int]] = {
        "decoding alone": lambda: decode(videos, CORES),
        "image model alone": lambda: model(engine, num_frames),
    }
    for workers in sorted({1, max(1, CORES // 2), CORES}):
        work[f"extract --workers {workers}"] = lambda workers=workers: extract(videos, engine, workers)  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(NUM_ROUNDS):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            seconds[name].append((time.perf_counter() - started) / len(videos))
    return seconds


def run(num_videos: int = NUM_VIDEOS) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(num_videos, Path(folder))
    both = [sum(pair) for pair in zip(seconds["decoding alone"], seconds["image model alone"], strict=True)]
    lines = []
    for name, measured in seconds.items():
        ratios = [one / other for one, other in zip(measured, both, strict=True)]
        against = f"{statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name} | {1000 * statistics.median(measured):.0f} | {against} |")
    decoding, modelling = (CORES * statistics.median(seconds[f"{name} alone"]) for name in ("decoding", "image model"))
    return (
        "## Utilisation of the machine (`benchmarks/utilisation.py`)\n\n"
        f"{num_videos} videos, efficientnet_lite0 by ONNX Runtime, uniform 16, {CORES} cores; including the start of "
        f"the decoding processes. Median of {NUM_ROUNDS} rounds (lowest to highest).\n\n"
        "| | ms per video | relative to the sum of both alone |\n|---|---|---|\n"
        + "\n".join(lines)
        + f"\n\nEstimate: a video costs {decoding:.3f} core-seconds of decoding and {modelling:.3f} of the "
        f"image model. A million of these take {_days(decoding + modelling, CORES)} on this machine, "
        f"{_days(decoding + modelling, 64)} on 64 such cores; beside a GPU that keeps up, decoding alone takes "
        f"{_days(decoding, 16)} on 16 such cores, {_days(decoding, 64)} on 64."
    )


def _days(core_seconds: float, cores: int, num_videos: int = 1_000_000) -> str:
    hours = core_seconds * num_videos / cores / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


if __name__ == "__main__":
    print(run(*map(int, sys.argv[1:])))
