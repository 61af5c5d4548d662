"""Masks refined by the conditional random field: how near they come to what was drawn, and the time of a frame.

python -m benchmarks.masks
"""

import resource
import time

import numpy as np
import torch

from tests.masks import coarse, drawn_figure, iou, patchy
from vidpipe.regions.crf import Crf, refine_mask
from vidpipe.regions.load import load_detector
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights

NUM_FIGURES = 8
SIZES = ((240, 320), (480, 640), (1080, 1920))
NETWORKS = ("fcn8s", "unet", "deeplab_mobilenet")
CPU = torch.device("cpu")


def quality() -> list[str]:
    """Return a row for each kind of mask: the mean IoU with what was drawn, before and after."""
    figures = [drawn_figure(seed) for seed in range(NUM_FIGURES)]
    rows = []
    for words, spoil in (("resolution of 16 pixels", coarse), ("holes and spots", patchy)):
        masks = [spoil(drawn) for _, drawn in figures]
        refined = [
            refine_mask(mask, frame, crf=Crf(), device=CPU) for mask, (frame, _) in zip(masks, figures, strict=True)
        ]
        before, after = (
            np.mean([iou(mask >= 0.5, drawn) for mask, (_, drawn) in zip(several, figures, strict=True)])
            for several in (masks, refined)
        )
        rows.append(f"| {words} | {before:.2f} | {after:.2f} |")
    return rows


def refining_seconds(height: int, width: int) -> float:
    """Return the processor time of a frame."""
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = random.uniform(0, 1, (height, width)).astype(np.float32)
    took = []
    for _ in range(3):
        start = time.process_time()
        refine_mask(mask, frame, crf=Crf(), device=CPU)
        took.append(time.process_time() - start)
    return min(took)


def detecting_seconds(name: str) -> float:
    """Return the processor time of a frame of 640 × 480, with random weights, after a first frame."""
    spec = find_detector(name)
    detector = load_detector(spec, find_detector_weights(spec, "random"), device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, 480, 640), dtype=np.uint8)
    detector.detect(frames)
    start = time.process_time()
    detector.detect(frames)
    return time.process_time() - start


def run() -> str:
    """Measure, and return a section of RESULTS.md."""
    torch.set_num_threads(1)
    times = [f"| {height} × {width} | {refining_seconds(height, width):.2f} |" for height, width in SIZES]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    networks = [f"| {name} | {detecting_seconds(name):.2f} |" for name in NETWORKS]
    return (
        "## Masks (`benchmarks/masks.py`)\n\n"
        f"`--refine crf` on {NUM_FIGURES} drawn figures of 320 × 240: mean IoU of the mask with what was drawn.\n\n"
        "| mask | as it is | refined |\n|---|---|---|\n" + "\n".join(quality()) + "\n\n"
        f"Seconds of one core for a frame; the process, torch included, takes {peak_mb:.0f} MB at most.\n\n"
        "| height × width | refining |\n|---|---|\n" + "\n".join(times) + "\n\n"
        "| network, 640 × 480, random weights | detecting |\n|---|---|\n" + "\n".join(networks)
    )


if __name__ == "__main__":
    print(run())
