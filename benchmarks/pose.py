"""Key points of people as a stream: alone, with flow, with efficientnet_lite0 and with both, by cross-validation over
groups; and the time that finding them takes.

    python -m benchmarks.pose             everything; without ../shared/data there is no detector to measure
    python -m benchmarks.pose STORES      with existing stores STORES/fight and STORES/interaction of the three streams
    python -m benchmarks.pose STORES statistics     with another head than the default
    python -m benchmarks.pose time        only the time

Fight: 5 folds by source video, 3 seeds. Interaction: one sequence left out at a time.
"""

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import SHARED_DATA, labelled_sets
from benchmarks.heads import LabelledSet
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import find_weights
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.features.streams import find_stores
from vidpipe.records import Preprocessing
from vidpipe.regions.load import load_detector
from vidpipe.regions.pose import pose_row
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights
from vidpipe.stages.extract import extract
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames
from vidpipe.video.resize import resize_and_crop
from vidpipe.video.sampling import uniform_indices

STREAMS = ("efficientnet_lite0", "flow", "pose")
MOVENET = SHARED_DATA / "models" / "movenet_multipose.onnx"
SHOWN = {
    "pose": "pose",
    "without efficientnet_lite0": "pose, flow",
    "without flow": "pose, efficientnet_lite0",
    "without pose": "flow, efficientnet_lite0",
    "fusion": "all three",
}
"""By name of a part of the classifier, the streams that it sees."""
NUM_CLIPS, NUM_RUNS = 5, 2
SIZES = (192, 256)
PROTOCOL = (
    "MoveNet (../shared/data/models), uniform 16, the head {head}; top-1 ± deviation between the folds. fight: 5 "
    "folds by source video, 3 seeds; interaction: one sequence left out at a time. What heads see of key points was "
    "chosen on these two sets."
)


def load_sets(folder: Path) -> Iterator[LabelledSet]:
    """Return the data sets; extract them unless the folder has their stores."""
    config = ExtractConfig(backbone=",".join(STREAMS), detector="movenet", detector_weights=str(MOVENET))
    for name, labels in labelled_sets(folder).items():
        extract(find_videos([labels.parent]), folder / name, config=config)
        stores = {store.path.name: store for store in find_stores(folder / name).stores}
        yield LabelledSet(name, {stream: stores[stream] for stream in STREAMS}, labels)


def accuracy_table(sets: Sequence[LabelledSet], head: str) -> list[str]:
    """Return a row for each set: top-1 ± deviation between folds of the streams together and alone."""
    lines = [f"| set | {' | '.join(SHOWN.values())} |", f"|---|{'---|' * len(SHOWN)}"]
    for labelled in sets:
        found = labelled.validate_streams(TrainConfig(head=head, device="cpu"))
        lines.append(f"| {labelled.name} | {' | '.join(found.estimate(name).short for name in SHOWN)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def clips_of(labels: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames (16, H, W, 3) of some clips, evenly from all."""
    videos = find_videos([labels.parent])
    for video in videos[:: max(1, len(videos) // NUM_CLIPS)][:NUM_CLIPS]:
        yield read_frames(video.path, lambda reader: uniform_indices(len(reader.pts_seconds), 16))[1]


def processor_seconds(work: Callable[[NDArray[np.uint8]], object], clips: Sequence[NDArray[np.uint8]]) -> float:
    """Return the processor time of a clip, the lowest of some runs."""
    work(clips[0])
    seconds = []
    for _ in range(NUM_RUNS):
        started = time.process_time()
        for frames in clips:
            work(frames)
        seconds.append((time.process_time() - started) / len(clips))
    return min(seconds)


def _extractor(engine: Engine, preprocessing: Preprocessing) -> Callable[[NDArray[np.uint8]], object]:
    return lambda frames: engine.start(resize_and_crop(frames, preprocessing))()


def _pose_finder(longer_side: int) -> Callable[[NDArray[np.uint8]], object]:
    spec = find_detector("movenet")
    weights = find_detector_weights(spec, str(MOVENET))
    detector = load_detector(spec, weights, num_threads=1, longer_side=longer_side)
    return lambda frames: [pose_row(one) for one in detector.detect(frames.transpose(0, 3, 1, 2))]


def time_table() -> list[str]:
    """Return a row for each set: the time of MoveNet and of efficientnet_lite0 for 16 frames, without decoding."""
    spec = BACKBONES["efficientnet_lite0"]
    weights = find_weights(spec, "default")
    engines = {
        name: load_engine(spec, weights=weights, pool="auto", device="cpu", engine=name, num_frames=0)
        for name in ("onnx", "torch")
    }

    lines = [
        "| set | frames | MoveNet at | ms a clip | lite0 by ONNX Runtime | lite0 by PyTorch | ratio | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for name, labels in labelled_sets(Path(scratch)).items():
            clips = list(clips_of(labels))
            theirs = [processor_seconds(_extractor(engine, spec.preprocessing), clips) for engine in engines.values()]
            size, times = "×".join(map(str, clips[0].shape[2:0:-1])), " | ".join(f"{1000 * one:.0f}" for one in theirs)
            for pixels in SIZES:
                ours = processor_seconds(_pose_finder(pixels), clips)
                ratios = " | ".join(f"{ours / one:.2f} ×" for one in theirs)
                lines.append(f"| {name} | {size} | {pixels} | {1000 * ours:.0f} | {times} | {ratios} |")
    return lines


def run(what: str = "", head: str = TrainConfig().head) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    title = "## Key points of people (`python -m benchmarks.pose`)"
    if not MOVENET.exists():
        return f"{title}\n\nNot measured: there is no {MOVENET}."
    times = "\n".join(
        ["Processor time of 16 frames, resizing included, decoding not; one thread in MoveNet.", "", *time_table()]
    )
    if what == "time":
        return f"{title}\n\n{times}"
    with tempfile.TemporaryDirectory() as scratch:
        table = "\n".join(accuracy_table(list(load_sets(Path(what or scratch))), head))
    return f"{title}\n\n{PROTOCOL.format(head=head)}\n\n{table}\n\n{times}"


if __name__ == "__main__":
    print(run(*sys.argv[1:3]))
