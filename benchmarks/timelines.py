"""Timelines of videos joined from clips, against the labels of the clips: decoders compared.

    python -m benchmarks.timelines             both sets, 3 folds by group
    python -m benchmarks.timelines SCRATCH     keep stores, runs and videos in SCRATCH, and use what is there

Each fold trains on the clips of the other groups, and joins its own clips, 10 a video, in random order with hard cuts.
"""

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

import vidpipe
from benchmarks.clips import labelled_sets
from vidpipe.config import ExtractConfig, TimelineConfig
from vidpipe.csv_files import read_table
from vidpipe.errors import LabelsError
from vidpipe.records import Segment, Timeline
from vidpipe.runs.run import Run
from vidpipe.stages.timeline import predict_timelines
from vidpipe.timeline.score import score_timelines
from vidpipe.video.files import find_videos

NUM_FOLDS, CLIPS_PER_VIDEO = 3, 10
FPS, WIDTH, HEIGHT = 25, 640, 360
BACKBONES = "efficientnet_lite0,flow"
DECODERS: Mapping[str, TimelineConfig] = {
    "viterbi (default)": TimelineConfig(),
    "viterbi, cost 0": TimelineConfig(change_cost=0.0),
    "viterbi, cost 0.5": TimelineConfig(change_cost=0.5),
    "viterbi, cost 2": TimelineConfig(change_cost=2.0),
    "threshold": TimelineConfig(method="threshold"),
    "viterbi, half windows": TimelineConfig(stride=None),
}
Row = tuple[str, str, str]
"""Video, label and group of a clip."""


def read_rows(labels: Path) -> list[Row]:
    """Return the clips of a labels file."""
    rows = read_table(labels, error=LabelsError).rows()
    return [(row.cells["video"], row.cells["label"], row.cells["group"]) for row in rows]


def folds_of(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yield the clips to train on and those to test, of each fold."""
    labels, groups = [row[1] for row in rows], [row[2] for row in rows]
    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0)
    for others, inside in splitter.split(labels, labels, groups):
        yield [rows[n] for n in others], [rows[n] for n in inside]


def join_clips(folder: Path, rows: Sequence[Row], output: Path, seed: int) -> list[Timeline]:
    """Join clips in random order, 10 a video; return the truth. What is there is not written again."""
    output.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    truth = []
    for number, start in enumerate(range(0, len(order) - len(order) % CLIPS_PER_VIDEO, CLIPS_PER_VIDEO)):
        chosen = [rows[index] for index in order[start : start + CLIPS_PER_VIDEO]]
        name = output / f"joined{number:02}"
        if not name.with_suffix(".json").exists():
            write_joined(folder, chosen, name)
        times = json.loads(name.with_suffix(".json").read_text())
        segments = tuple(Segment(span[0], span[1], row[1]) for span, row in zip(times, chosen, strict=True))
        truth.append(Timeline(f"{name.name}.mp4", _merged(segments), times[-1][1]))
    return truth


def _merged(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Neighbours of one label are one segment."""
    merged: list[Segment] = []
    for one in segments:
        if merged and merged[-1].label == one.label:
            one = Segment(merged.pop().start_seconds, one.stop_seconds, one.label)
        merged.append(one)
    return tuple(merged)


def write_joined(folder: Path, rows: Sequence[Row], name: Path) -> None:
    """Write one video of several clips, and the time of each."""
    num_frames, times = 0, []
    with av.open(name.with_suffix(".mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for video, *_ in rows:
            first = num_frames
            for picture in frames_at(folder / video):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = num_frames
                num_frames += 1
                container.mux(stream.encode(frame))
            times.append([first / FPS, num_frames / FPS])
        container.mux(stream.encode())
    name.with_suffix(".json").write_text(json.dumps(times))


def frames_at(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield a clip's frames at FPS, scaled to fit, on black."""
    with av.open(path) as container:
        shown = [(float(frame.time or 0), frame) for frame in container.decode(video=0)]
    rate = len(shown) / (shown[-1][0] - shown[0][0]) * (len(shown) - 1) / len(shown)
    ends = shown[-1][0] + 1 / rate - shown[0][0]
    times = np.array([when for when, _ in shown]) - shown[0][0]
    for tick in np.arange(0, ends - 1e-6, 1 / FPS):
        frame = shown[int(np.searchsorted(times, tick + 1e-6, side="right")) - 1][1]
        scale = min(WIDTH / frame.width, HEIGHT / frame.height)
        width, height = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
        small = frame.reformat(width, height, format="rgb24").to_ndarray()
        picture[top : top + height, left : left + width] = small
        yield picture


def measure(name: str, labels: Path, scratch: Path) -> Iterator[str]:
    """Yield rows of the table."""
    folder, rows = labels.parent, read_rows(labels)
    store = scratch / f"{name}_clips"
    vidpipe.extract(folder, store, backbone=BACKBONES, device="cpu")
    found: dict[str, list[tuple[float, ...]]] = {}
    for fold, (others, inside) in enumerate(folds_of(rows)):
        run_path = scratch / f"{name}_run{fold}"
        if not run_path.exists():
            listed = scratch / f"{name}_train{fold}.csv"
            listed.write_text("video,label,group\n" + "".join(",".join(row) + "\n" for row in others))
            vidpipe.train(store, run_path, labels=str(listed), test_fraction=0.0, device="cpu")
        clips = [one.label for one in vidpipe.predict(run_path, [folder / row[0] for row in inside], store=store)]
        clips_right = float(np.mean([one == row[1] for one, row in zip(clips, inside, strict=True)]))
        truth = join_clips(folder, inside, scratch / f"{name}_joined{fold}", seed=fold)
        videos = find_videos([scratch / f"{name}_joined{fold}"])
        for decoder, config in DECODERS.items():
            timelines = list(
                predict_timelines(
                    Run.open(run_path),
                    videos,
                    timeline=config,
                    store_path=scratch / f"{name}_dense{fold}",
                    config=ExtractConfig(device="cpu"),
                )
            )
            scores = score_timelines(truth, timelines, fps=FPS).segmentation
            found.setdefault(decoder, []).append((clips_right, scores.frame_accuracy, scores.f1[50], scores.edit))
    for decoder, values in found.items():
        mean = np.mean(values, axis=0)
        yield f"| {name} | {decoder} | " + " | ".join(f"{value:.3f}" for value in mean) + " |"


def run(scratch: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = ["| set | decoder | clips' top-1 | frame accuracy | F1@50 | edit |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as temporary:
        for name, labels in labelled_sets(Path(temporary)).items():
            for line in measure(name, labels, scratch or Path(temporary)):
                lines.append(line)
                print(line, file=sys.stderr, flush=True)
    return "## Timelines (`benchmarks/timelines.py`)\n\n" + "\n".join(lines)


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:])))
