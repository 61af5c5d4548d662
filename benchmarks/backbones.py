"""Frames per second of small image models, and of some well-known large ones, on this machine's CPU.

    python -m benchmarks.backbones                all of them
    python -m benchmarks.backbones resnet50 3     those named, for 3 seconds each

Batches of 8 frames at the model's own size, already decoded and cropped, on all cores, with random weights. Each engine
runs for a few seconds after a warm-up batch; the result is the median batch.
"""

import statistics
import sys
import time

import numpy as np

from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.sizes import size_of
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import WeightsFile
from vidpipe.execution.loaded import DEFAULT_BATCH_SIZE

SMALL_GMACS = 1.0
COMPARED = ("resnet50", "inception_v3", "dinov2_small")
SECONDS = 5.0


def names() -> list[str]:
    """The backbones to measure: small ones, and those to compare with."""
    small = [name for name, spec in BACKBONES.items() if size_of(spec).gmacs < SMALL_GMACS]
    return [*small, *COMPARED]


def frames_per_second(engine: Engine, side: int, seconds: float) -> float:
    """Return the median over batches."""
    size = DEFAULT_BATCH_SIZE["cpu"]
    frames = np.random.default_rng(0).integers(0, 256, (size, 3, side, side), dtype=np.uint8)
    engine.start(frames)()
    took: list[float] = []
    while sum(took) < seconds:
        start = time.perf_counter()
        engine.start(frames)()
        took.append(time.perf_counter() - start)
    return size / statistics.median(took)


def measure(name: str, seconds: float) -> str:
    """Return a row of the table."""
    spec = find_backbone(name)
    rates = []
    for engine in ("torch", "onnx"):
        weights = WeightsFile("random", None, "random")
        ready = load_engine(spec, weights=weights, pool="auto", device="cpu", engine=engine, num_frames=1)
        rates.append(frames_per_second(ready, spec.input_size, seconds))
    size = size_of(spec)
    return (
        f"| {name} | {spec.dim} | {spec.input_size} | {size.num_parameters / 1e6:.1f} M | {size.gmacs:.2f} | "
        f"{rates[0]:.0f} | {rates[1]:.0f} |"
    )


def run(*chosen: str, seconds: float = SECONDS) -> str:
    """Measure, and return a section of RESULTS.md."""
    lines = [measure(name, seconds) for name in chosen or names()]
    return (
        "## Image models on the CPU (`benchmarks/backbones.py`)\n\n"
        f"Frames per second, batches of {DEFAULT_BATCH_SIZE['cpu']}, median batch of {seconds:g} s.\n\n"
        "| backbone | D | input | parameters | GMACs | PyTorch | ONNX Runtime |\n|---|---|---|---|---|---|---|\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    *backbones, last = sys.argv[1:] or [""]
    print(run(*backbones, seconds=float(last)) if backbones else run())
