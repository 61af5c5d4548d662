"""`vidpipe extract` compared with a plain loop: decode, preprocess, eager model, one file per video.

    python -m benchmarks.extract_speed                          what `make bench` runs
    python -m benchmarks.extract_speed efficientnet_lite0 200   one backbone, 200 videos

Both are whole processes, start-up included, and take turns on the same videos; the result is the ratio of each pair.
The export to ONNX, which is kept, is made before. resnet50 has random weights, the same in both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.clips import labelled_sets
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import default_weights_path
from vidpipe.features.store import FeatureStore
from vidpipe.video.files import find_videos

CASES = {"efficientnet_lite0": 60, "resnet50": 15}
"""Videos of each."""
NUM_PAIRS = 3

PLAIN_LOOP = """
import sys
from pathlib import Path

import decord
import numpy as np
import timm
import torch
import torchvision
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

name, weights, output, *videos = sys.argv[1:]
tensors = torch.load(weights, weights_only=True)
if name == "resnet50":
    whole = torchvision.models.resnet50()
    whole.load_state_dict(tensors)
    model = torch.nn.Sequential(*list(whole.children())[:-2]).eval()
    size, mode, mean, std = 232, InterpolationMode.BILINEAR, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
else:
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values())))
    model = whole.forward_features
    size, mode, mean, std = 256, InterpolationMode.BICUBIC, [0.5] * 3, [0.5] * 3
for number, path in enumerate(videos):
    reader = decord.VideoReader(path)
    index = [int((i + 0.5) * len(reader) / 16) for i in range(16)]
    frames = torch.from_numpy(reader.get_batch(index).asnumpy()).permute(0, 3, 1, 2)
    frames = functional.resize(frames, [size], mode, antialias=True)
    pixels = functional.normalize(functional.center_crop(frames, [224]) / 255, mean, std)
    with torch.no_grad():
        np.save(Path(output, f"{number}.npy"), model(pixels).mean((2, 3)).numpy())
"""


def seconds(command: list[str], torch_home: Path) -> float:
    """Return the seconds that a whole process takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TORCH_HOME": str(torch_home)})
    return time.perf_counter() - start


def _weights(name: str, folder: Path) -> Path:
    """A weights file: the package's, or random."""
    if name == "resnet50":
        program = "import sys, torch, torchvision; torch.manual_seed(0); "
        program += "torch.save(torchvision.models.resnet50().state_dict(), sys.argv[1])"
        subprocess.run([sys.executable, "-c", program, str(folder / "resnet50.pth")], check=True)
        return folder / "resnet50.pth"
    path = default_weights_path(BACKBONES[name])
    assert path is not None
    return path


def compare(name: str, num_videos: int, folder: Path) -> str:
    """Return a row of the table."""
    labels = next(iter(labelled_sets(folder).values()))
    paths = [str(video.path) for video in find_videos([labels.parent])]
    paths = paths[:: max(1, len(paths) // num_videos)][:num_videos]
    weights = _weights(name, folder)
    extract = [sys.executable, "-m", "vidpipe", "extract", "--backbone", name, "--device", "cpu", "--num-frames", "16"]
    extract += ["--weights", "default" if name != "resnet50" else str(weights)]
    seconds([*extract, "--engine", "onnx", paths[0], "-o", str(folder / "warm")], folder)
    ratios, rates, difference = [], [], 0.0
    for number in range(NUM_PAIRS):
        store, output = folder / f"store{number}", folder / f"loop{number}"
        output.mkdir()
        ours = seconds([*extract, *paths, "-o", str(store)], folder)
        theirs = seconds([sys.executable, "-c", PLAIN_LOOP, name, str(weights), str(output), *paths], folder)
        ratios.append(theirs / ours)
        rates.append(len(paths) / ours)
        difference = max(difference, _difference(FeatureStore.open(store), paths, output))
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    rate = statistics.median(rates)
    return f"| {name} | {len(paths)} | {middle:.2f} × ({low:.2f} to {high:.2f}) | {rate:.2f} | {difference:.1e} |"


def _difference(store: FeatureStore, paths: list[str], output: Path) -> float:
    """The largest difference of a feature, relative to the largest feature."""
    differences, largest = [], 1e-9
    for number, path in enumerate(paths):
        (video_id,) = [video_id for video_id in store if path.endswith(f"/{video_id}")]
        theirs = np.load(output / f"{number}.npy")
        differences.append(float(np.abs(store[video_id].features - theirs).max()))
        largest = max(largest, float(np.abs(theirs).max()))
    return max(differences) / largest


def run(*arguments: str) -> str:
    """Measure, and return a section of RESULTS.md."""
    cases = {arguments[0]: int(arguments[1])} if arguments else CASES
    lines = ["| backbone | videos | vidpipe / plain loop | videos/s | features differ by |", "|---|---|---|---|---|"]
    for name, num_videos in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            lines.append(compare(name, num_videos, Path(folder)))
    return (
        "## Whole extraction, compared with a plain loop (`benchmarks/extract_speed.py`)\n\n"
        f"Uniform 16, CPU, start-up of both included; median of {NUM_PAIRS} pairs (lowest to highest).\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
