"""What do classifiers of real clips go by? The background check on both data sets, with people painted out.

    python -m benchmarks.background            the table of RESULTS.md
    python -m benchmarks.background STORES     keeps the painted videos and the stores in STORES

Fight: 5 folds by source video. Interaction: one sequence left out at a time. A network of masks beside the
checkout finds the people; without it, no videos are painted.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from PIL import Image
from scipy.ndimage import maximum_filter

import vidpipe
from benchmarks.clips import SHARED_DATA, labelled_sets
from benchmarks.sampling import BACKBONES, PROTOCOLS
from tests.media import write_frames
from vidpipe.runs.background_check import CONTROLS
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames

MASK_NETWORK = SHARED_DATA / "models" / "person_mask.onnx"
MASK_PIXELS = 256
MARGIN_PIXELS = 8
"""Of 256, around what the network finds."""
PAINT = np.array((124, 116, 104), np.uint8)
"""The mean colour of ImageNet."""
ENCODING = {"crf": "10", "bf": "0", "threads": "1", "preset": "ultrafast"}
Masks = NDArray[np.bool_]
PAINTED: Mapping[str, Callable[[Masks], Masks]] = {
    "without_people": lambda masks: np.broadcast_to(masks.any(axis=0), masks.shape),
    "only_people": lambda masks: ~masks,
}
"""What is painted, from where people are in each frame, (T, H, W) -> (T, H, W): wherever a person is at any time, so
that no outline moves; and in each frame all else."""
STREAMS = ("efficientnet_lite0", BACKBONES)
HEADS = ("statistics", "default")


def people_of(network: InferenceSession, frames: NDArray[np.uint8]) -> Masks:
    """Return where people are, with a margin: (T, H, W, 3) -> (T, H, W)."""
    found = []
    for frame in frames:
        small = Image.fromarray(frame).resize((MASK_PIXELS, MASK_PIXELS))
        (shares,) = network.run(None, {"input_1:0": np.asarray(small, np.float32)[None] / 255})
        mask = Image.fromarray(maximum_filter(shares[0, :, :, 0], 2 * MARGIN_PIXELS + 1) > 0.5)
        found.append(np.asarray(mask.resize((frame.shape[1], frame.shape[0]))))
    return np.stack(found)


def paint(videos: Path, folder: Path) -> None:
    """Write painted copies of the videos, unless they are there, into a folder for each way to paint."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    network = InferenceSession(MASK_NETWORK, options)
    for video in find_videos([videos]):
        copies = {name: folder / name / video.path.relative_to(videos) for name in PAINTED}
        if all(copy.exists() for copy in copies.values()):
            continue
        _, frames = read_frames(video.path, lambda reader: np.arange(len(reader.pts_seconds)))
        people = people_of(network, frames)
        for name, choose in PAINTED.items():
            painted = np.where(choose(people)[..., None], PAINT, frames)
            write_frames(copies[name], painted, options=ENCODING)


def extract_views(labels: Path, folder: Path) -> None:
    """Extract the videos as they are and, if people can be found, painted: a folder of stores for each view."""
    views = {"whole": labels.parent}
    if MASK_NETWORK.exists():
        paint(labels.parent, folder / "painted")
        views |= {view: folder / "painted" / view for view in PAINTED}
    for view, videos in views.items():
        vidpipe.extract(videos, folder / view, backbone=BACKBONES, device="cpu")


def rows(labels: Path, folder: Path, streams: str, head: str) -> Iterator[str]:
    """Train on the stores in a folder, and yield the rows of the table."""
    settings: dict[str, Any] = {"streams": streams, "device": "cpu", "refit": False, **PROTOCOLS[labels.parent.name]}
    settings |= {view: folder / view for view in PAINTED if (folder / view).exists()}
    settings |= {} if head == "default" else {"head": head}
    with tempfile.TemporaryDirectory() as run:
        trained = vidpipe.train(
            folder / "whole", Path(run) / "run", labels=str(labels), check_background=True, **settings
        )
    found = trained.background_check
    assert found is not None
    scores = {"as they are": found.whole}
    scores |= {CONTROLS[control].title: score for control, score in found.controls.items()}
    for title, score in scores.items():
        top1 = f"{score.top1:.3f} {_ends(score.interval)}"
        difference = "" if title == "as they are" else f"{score.difference:+.3f} {_ends(score.difference_interval)}"
        cells = (labels.parent.name, streams.replace(",", " + "), head, title, top1, difference)
        line = f"| {' | '.join(cells)} |"
        print(line, file=sys.stderr, flush=True)
        yield line


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"({interval[0]:.3f} to {interval[1]:.3f})"


def run(stores: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = ["| set | streams | head | videos | top-1 | difference |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, labels in labelled_sets(Path(scratch)).items():
            folder = (stores or Path(scratch)) / name
            extract_views(labels, folder)
            for head in HEADS:
                for streams in STREAMS:
                    lines += rows(labels, folder, streams, head)
    return (
        "## What classifiers go by (`benchmarks/background.py`)\n\n"
        "`train --check-background`; 95 % CI by bootstrap over groups. fight: 5 folds by source video, chance 0.500; "
        "interaction: one sequence left out at a time, chance 0.167. The people are painted out wherever a person is "
        "at any time of the clip, so that no outline moves; all but the people is painted out in each frame.\n\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:])))
