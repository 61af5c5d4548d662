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
from vidpipe.runs.background_check import CONTROLS, BackgroundCheck, ControlScore
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames

MASK_NETWORK = SHARED_DATA / "models" / "person_mask.onnx"
MASK_PIXELS = 256
MARGIN_PIXELS = 8
"""Of 256, around what the network finds."""
PAINT = (124, 116, 104)
"""The mean colour of ImageNet."""
ENCODING = {"crf": "10", "bf": "0", "threads": "1", "preset": "ultrafast"}
Masks = NDArray[np.bool_]
PAINTED: Mapping[str, Callable[[Masks], Masks]] = {
    "without_people": lambda masks: np.broadcast_to(masks.any(axis=0), masks.shape),
    "without_outlines": lambda masks: masks,
    "only_people": lambda masks: ~masks,
}
"""What is painted, from where people are in each frame (T, H, W) -> (T, H, W): wherever a person is at any time, so
that no outline moves; where a person is in this frame; all else."""
STREAMS = ("efficientnet_lite0", BACKBONES)


def people_of(network: InferenceSession, frames: NDArray[np.uint8]) -> Masks:
    """Return where people are, with a margin: (T, H, W, 3) -> (T, H, W)."""
    found = []
    for frame in frames:
        small = Image.fromarray(frame).resize((MASK_PIXELS, MASK_PIXELS))
        (shares,) = network.run(None, {"input_1:0": np.asarray(small, np.float32)[None] / 255})
        mask = Image.fromarray(maximum_filter(shares[0, :, :, 0], 2 * MARGIN_PIXELS + 1) > 0.5)
        found.append(np.asarray(mask.resize((frame.shape[1], frame.shape[0]))))
    return np.stack(found)


def paint(videos: Path, folder: Path) -> dict[str, float]:
    """Write painted copies of the videos; return the mean share of the picture that is painted, by folder."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    network = InferenceSession(MASK_NETWORK, options)
    shares: dict[str, list[float]] = {name: [] for name in PAINTED}
    for video in find_videos([videos]):
        _, frames = read_frames(video.path, lambda reader: np.arange(len(reader.pts_seconds)))
        people = people_of(network, frames)
        for name, choose in PAINTED.items():
            mask = choose(people)
            shares[name].append(float(mask.mean()))
            copy = np.where(mask[..., None], np.uint8(PAINT), frames)
            write_frames(folder / name / video.path.relative_to(videos), copy, options=ENCODING)
    return {name: float(np.mean(one)) for name, one in shares.items()}


def check(labels: Path, folder: Path, masked: Mapping[str, Path], **settings: Any) -> BackgroundCheck:
    """Return the background check of a training on the stores in a folder."""
    protocol = {**PROTOCOLS[labels.parent.name], "device": "cpu", "refit": False, "check_background": True}
    with tempfile.TemporaryDirectory() as run:
        given = {"labels": str(labels), **protocol, **settings, **masked}
        found = vidpipe.train(folder / "whole", Path(run) / "run", **given).background_check
    assert found is not None
    return found


def rows(name: str, labels: Path, folder: Path) -> Iterator[str]:
    """Measure one data set, and yield the rows of the table."""
    views = {"whole": labels.parent}
    if MASK_NETWORK.exists():
        painted = folder / "painted"
        if not painted.exists():
            print(f"{name}: {paint(labels.parent, painted)}", file=sys.stderr, flush=True)
        views |= {view: painted / view for view in PAINTED}
    for view, videos in views.items():
        vidpipe.extract(videos, folder / view, backbone=BACKBONES, device="cpu")
    masked = {view: folder / view for view in views if view in CONTROLS}
    for streams in STREAMS:
        found = check(labels, folder, masked, streams=streams)
        yield row(name, streams, "as they are", found.whole)
        for control, score in found.controls.items():
            yield row(name, streams, CONTROLS[control].title, score)
    if MASK_NETWORK.exists():
        for streams in STREAMS:
            for view in ("without_people", "without_outlines"):
                found = check(labels, folder, {"without_people": folder / view}, streams=streams, head="statistics")
                print(f"{name}, {streams}, statistics: {view} {found.controls['without_people']}", file=sys.stderr)


def row(name: str, streams: str, title: str, score: ControlScore) -> str:
    """Return a row of the table."""
    cells = [f"{score.top1:.3f} {ends(score.interval)}", f"{score.difference:+.3f} {ends(score.difference_interval)}"]
    line = f"| {name} | {streams.replace(',', ' + ')} | {title} | {' | '.join(cells)} |"
    print(line, file=sys.stderr, flush=True)
    return line


def ends(interval: tuple[float, float] | None) -> str:
    """Return an interval in brackets."""
    return "" if interval is None else f"({interval[0]:.3f} to {interval[1]:.3f})"


def run(stores: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = ["| set | streams | videos | top-1 | difference |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, labels in labelled_sets(Path(scratch)).items():
            lines += rows(name, labels, (stores or Path(scratch)) / name)
    return (
        "## What classifiers go by (`benchmarks/background.py`)\n\n"
        "The default classifier, `train --check-background`; 95 % CI by bootstrap over groups. fight: 5 folds by "
        "source video, chance 0.500; interaction: one sequence left out at a time, chance 0.167. The people are "
        "painted out wherever a person is at any time of the clip, so that no outline moves; all but the people is "
        "painted out in each frame.\n\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:])))
