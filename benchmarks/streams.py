"""Two backbones in one extraction, compared with one backbone and with two extractions.

    python -m benchmarks.streams            60 videos
    python -m benchmarks.streams 200        so many

Whole processes, start-up included, take turns on the same videos. The export to ONNX, which is kept, is made before.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.clips import labelled_sets
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames
from vidpipe.video.resize import resize_and_crop

NUM_ROUNDS = 3
CASES = {
    "efficientnet_lite0": ("efficientnet_lite0",),
    "flow": ("flow",),
    "both, one decode": ("efficientnet_lite0,flow",),
    "both, one after the other": ("efficientnet_lite0", "flow"),
}
"""By description, the backbones of each command."""
NUM_FRAMES = 16


def seconds_of(case: str, videos: list[str], folder: Path) -> float:
    """Return the seconds that the commands of a case take."""
    start = time.perf_counter()
    for number, backbones in enumerate(CASES[case]):
        program = [sys.executable, "-m", "vidpipe", "extract", *videos, "-o", str(folder / str(number))]
        command = [*program, "--backbone", backbones, "--device", "cpu", "--engine", "auto", "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def seconds_a_video(name: str, path: Path) -> float:
    """Return the least seconds that a backbone takes for the sampled frames of one video."""
    stream = Stream.of(ExtractConfig(backbone=name, num_frames=NUM_FRAMES))
    engine = stream.load_engine(device="cpu", engine="auto", num_videos=10**6)
    window = stream.spec.window.num_frames if stream.spec.window else 1
    _, frames = read_frames(path, lambda reader: np.arange(NUM_FRAMES * window))
    pictures = resize_and_crop(frames, engine.preprocessing)
    inputs = pictures.reshape(NUM_FRAMES, window, *pictures.shape[1:]) if window > 1 else pictures
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for first in range(0, NUM_FRAMES, 8):
            engine.start(inputs[first : first + 8])()
        times.append(time.perf_counter() - start)
    return min(times)


def run(num_videos: int = 60) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        labels = next(iter(labelled_sets(folder).values()))
        found = find_videos([labels.parent])
        videos = [str(video.path) for video in found][:: max(1, len(found) // num_videos)][:num_videos]
        ratio = seconds_a_video("flow", Path(videos[0])) / seconds_a_video("efficientnet_lite0", Path(videos[0]))
        seconds: dict[str, list[float]] = {case: [] for case in CASES}
        for number in range(NUM_ROUNDS):
            for case, taken in seconds.items():
                taken.append(seconds_of(case, videos, folder / f"{case}{number}"))
    alone = seconds["efficientnet_lite0"]
    lines = ["| | seconds | to efficientnet_lite0 alone |", "|---|---|---|"]
    for case, taken in seconds.items():
        ratios = [one / other for one, other in zip(taken, alone, strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        lines.append(f"| {case} | {statistics.median(taken):.1f} | {middle:.2f} × ({low:.2f} to {high:.2f}) |")
    return (
        "## Two backbones in one extraction (`benchmarks/streams.py`)\n\n"
        f"{len(videos)} videos, uniform {NUM_FRAMES}, CPU, start-up included; medians of {NUM_ROUNDS} rounds. For the "
        f"frames of one video, without decoding, flow takes {ratio:.2f} times as long as efficientnet_lite0.\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*map(int, sys.argv[1:])))
