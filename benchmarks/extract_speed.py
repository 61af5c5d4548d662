"""`vidpipe extract` against the plain loop that people write: decode, preprocess, eager model, one file a video.

Both run as whole processes, in turn, on the same videos; the ratio of a pair is what counts.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.clips import labelled_sets
from vidpipe.video.files import find_videos

NUM_VIDEOS, NUM_PAIRS = 25, 3

PLAIN_LOOP = """
import sys
from pathlib import Path

import decord
import numpy as np
import timm
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from vidpipe.models.backbones import BACKBONES
from vidpipe.models.weights import default_weights_path

model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
tensors = torch.load(default_weights_path(BACKBONES["efficientnet_lite0"]), weights_only=True).values()
model.load_state_dict(dict(zip(model.state_dict(), tensors)))
output, *videos = sys.argv[1:]
for number, path in enumerate(videos):
    reader = decord.VideoReader(path)
    index = [int((i + 0.5) * len(reader) / 16) for i in range(16)]
    frames = torch.from_numpy(reader.get_batch(index).asnumpy()).permute(0, 3, 1, 2)
    frames = functional.resize(frames, [256], InterpolationMode.BICUBIC, antialias=True)
    pixels = functional.normalize(functional.center_crop(frames, [224]) / 255, [0.5] * 3, [0.5] * 3)
    with torch.no_grad():
        np.save(Path(output, f"{number}.npy"), model.forward_features(pixels).mean((2, 3)).numpy())
"""


def seconds(command: list[str]) -> float:
    """How long a whole process takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def run() -> str:
    """A section of RESULTS.md."""
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        labels = next(iter(labelled_sets(folder).values()))
        paths = [str(video.path) for video in find_videos([labels.parent])]
        paths = paths[:: max(1, len(paths) // NUM_VIDEOS)][:NUM_VIDEOS]
        for number in range(NUM_PAIRS):
            store, output = folder / f"store{number}", folder / f"loop{number}"
            output.mkdir()
            extract = ["extract", *paths, "-o", str(store), "--backbone", "efficientnet_lite0", "--device", "cpu"]
            ours = seconds([sys.executable, "-m", "vidpipe", *extract])
            ratios.append(seconds([sys.executable, "-c", PLAIN_LOOP, str(output), *paths]) / ours)
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    return (
        "## Whole extraction against a plain loop (`benchmarks/extract_speed.py`)\n\n"
        f"{len(paths)} videos, efficientnet_lite0, uniform 16, CPU: vidpipe does {middle:.2f} × the videos per second "
        f"of the loop (median of {NUM_PAIRS} pairs; {low:.2f} to {high:.2f}), start-up of both counted."
    )
