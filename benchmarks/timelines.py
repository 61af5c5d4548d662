"""Timelines of videos joined from clips, against the labels of the clips: decoders compared.

    python -m benchmarks.timelines             both sets, 3 folds by group
    python -m benchmarks.timelines SCRATCH     keep stores, runs and videos in SCRATCH, and use what is there

Each fold trains on the clips of the other groups, and joins its own clips, 10 a video, in random order with hard cuts.
The rows "from intervals" train on videos that are joined from the other groups' clips, 8 frames a second.
"""

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from vidpipe.timeline.exchange import write_timelines
from vidpipe.timeline.score import score_timelines
from vidpipe.video.files import find_videos

NUM_FOLDS, CLIPS_PER_VIDEO = 3, 10
FPS, WIDTH, HEIGHT = 25, 640, 360
BACKBONES = "efficientnet_lite0,flow"
DECODERS: Mapping[str, TimelineConfig] = {
    "cuts, smoothing, viterbi (default)": TimelineConfig(),
    "cuts, smoothing": TimelineConfig(change_cost=0.0),
    "cuts, threshold": TimelineConfig(method="threshold"),
    "smoothing, viterbi": TimelineConfig(cuts=False),
    "smoothing": TimelineConfig(cuts=False, change_cost=0.0),
    "threshold": TimelineConfig(cuts=False, method="threshold"),
}
FROM_INTERVALS: Mapping[str, Mapping[str, Any]] = {
    "from intervals: windows": {},
    "from intervals: windows, linear heads": {"head": "statistics"},
    "from intervals: rows, tcn": {"targets": "rows", "head": "tcn"},
    "from intervals: rows, bilstm": {"targets": "rows", "head": "bilstm"},
}
PLAIN = "windows that do not overlap, most probable class"
TRUE_CUTS = "the clips' own predictions at the true cuts"
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


def chosen_clips(rows: Sequence[Row], seed: int) -> list[list[Row]]:
    """Return the clips of each joined video, in random order."""
    order = np.random.default_rng(seed).permutation(len(rows))
    starts = range(0, len(order) - len(order) % CLIPS_PER_VIDEO, CLIPS_PER_VIDEO)
    return [[rows[index] for index in order[start : start + CLIPS_PER_VIDEO]] for start in starts]


def join_clips(folder: Path, videos: Sequence[Sequence[Row]], output: Path) -> list[list[tuple[float, float]]]:
    """Write a video for each list of clips, unless it is there; return the start and stop of each clip."""
    output.mkdir(parents=True, exist_ok=True)
    times = []
    for number, clips in enumerate(videos):
        name = output / f"joined{number:02}"
        if not name.with_suffix(".json").exists():
            write_joined(folder, clips, name)
        times.append([(start, stop) for start, stop in json.loads(name.with_suffix(".json").read_text())])
    return times


def timelines_of(times: Sequence[Sequence[tuple[float, float]]], labels: Sequence[Sequence[str]]) -> list[Timeline]:
    """Return the timelines of joined videos whose clips have these labels."""
    return [
        Timeline(
            f"joined{number:02}.mp4",
            _merged([Segment(*span, label) for span, label in zip(spans, names, strict=True)]),
            spans[-1][1],
        )
        for number, (spans, names) in enumerate(zip(times, labels, strict=True))
    ]


def _merged(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Neighbours of one label are one segment."""
    merged: list[Segment] = []
    for one in segments:
        if merged and merged[-1].label == one.label:
            one = Segment(merged.pop().start_seconds, one.stop_seconds, one.label)
        merged.append(one)
    return tuple(merged)


def write_joined(folder: Path, rows: Sequence[Row], name: Path, *, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Write one video of several clips, and the time of each."""
    num_frames, times = 0, []
    with av.open(name.with_suffix(".mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for video, *_ in rows:
            first = num_frames
            for picture in frames_at(folder / video, width, height):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = num_frames
                num_frames += 1
                container.mux(stream.encode(frame))
            times.append([first / FPS, num_frames / FPS])
        container.mux(stream.encode())
    name.with_suffix(".json").write_text(json.dumps(times))


def frames_at(path: Path, width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a clip's frames at FPS, scaled to fit, on black."""
    with av.open(path) as container:
        shown = [(float(frame.time or 0), frame) for frame in container.decode(video=0)]
    rate = len(shown) / (shown[-1][0] - shown[0][0]) * (len(shown) - 1) / len(shown)
    ends = shown[-1][0] + 1 / rate - shown[0][0]
    times = np.array([when for when, _ in shown]) - shown[0][0]
    for tick in np.arange(0, ends - 1e-6, 1 / FPS):
        frame = shown[int(np.searchsorted(times, tick + 1e-6, side="right")) - 1][1]
        scale = min(width / frame.width, height / frame.height)
        inner_width, inner_height = int(frame.width * scale) // 2 * 2, int(frame.height * scale) // 2 * 2
        picture = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        small = frame.reformat(inner_width, inner_height, format="rgb24").to_ndarray()
        picture[top : top + inner_height, left : left + inner_width] = small
        yield picture


def measure(name: str, labels: Path, scratch: Path) -> Iterator[str]:
    """Yield rows of the table."""
    folder, rows = labels.parent, read_rows(labels)
    vidpipe.extract(folder, scratch / f"{name}_clips", backbone=BACKBONES, device="cpu")
    found: dict[str, list[tuple[float, ...]]] = {}
    for fold, (others, inside) in enumerate(folds_of(rows)):
        run_path = trained(name, fold, others, scratch)
        predicted = vidpipe.predict(run_path, [folder / row[0] for row in inside], store=scratch / f"{name}_clips")
        label_of = {row[0]: str(one.label) for row, one in zip(inside, predicted, strict=True)}
        clips = chosen_clips(inside, fold)
        times = join_clips(folder, clips, scratch / f"{name}_joined{fold}")
        truth = timelines_of(times, [[row[1] for row in video] for video in clips])
        right = float(np.mean([label_of[row[0]] == row[1] for video in clips for row in video]))
        for decoder, timelines in {
            TRUE_CUTS: timelines_of(times, [[label_of[row[0]] for row in video] for video in clips]),
            **dict(decoded(run_path, scratch / f"{name}_joined{fold}", scratch / f"{name}_dense{fold}")),
            **dict(from_intervals(folder, others, scratch / f"{name}_joined{fold}", scratch / f"{name}_long{fold}")),
        }.items():
            scores = score_timelines(truth, timelines, fps=FPS).segmentation
            found.setdefault(decoder, []).append((right, scores.frame_accuracy, scores.f1[50], scores.edit))
    for decoder, values in found.items():
        yield f"| {name} | {decoder} | " + " | ".join(f"{value:.3f}" for value in np.mean(values, axis=0)) + " |"


def trained(name: str, fold: int, rows: Sequence[Row], scratch: Path) -> Path:
    """Train a run on the clips of the other folds, unless it is there."""
    run_path = scratch / f"{name}_run{fold}"
    if not run_path.exists():
        listed = scratch / f"{name}_train{fold}.csv"
        listed.write_text("video,label,group\n" + "".join(",".join(row) + "\n" for row in rows))
        store = scratch / f"{name}_clips"
        vidpipe.train(store, run_path, labels=str(listed), test_fraction=0.0, device="cpu")
    return run_path


def decoded(run_path: Path, joined: Path, store: Path) -> Iterator[tuple[str, list[Timeline]]]:
    """Predict the joined videos with each decoder; the features are computed once."""
    trained_run, videos, config = Run.open(run_path), find_videos([joined]), ExtractConfig(device="cpu")
    plain = TimelineConfig(cuts=False, change_cost=0.0, stride=trained_run.clip_seconds)
    for decoder, timeline in {**DECODERS, PLAIN: plain}.items():
        found = predict_timelines(trained_run, videos, timeline=timeline, store_path=store, config=config)
        yield decoder, list(found)


def from_intervals(
    folder: Path, rows: Sequence[Row], tested: Path, scratch: Path
) -> Iterator[tuple[str, list[Timeline]]]:
    """Train on videos joined from some clips and their intervals, and predict the tested ones."""
    clips = chosen_clips(rows, 0)
    truth = timelines_of(join_clips(folder, clips, scratch / "videos"), [[row[1] for row in video] for video in clips])
    write_timelines(scratch / "labels.csv", truth)
    sampling: dict[str, Any] = {"backbone": BACKBONES, "sampling": "fps", "fps": 8.0, "device": "cpu"}
    vidpipe.extract(scratch / "videos", scratch / "train", **sampling)
    config = ExtractConfig(device="cpu")
    for name, settings in FROM_INTERVALS.items():
        labels: dict[str, Any] = {"labels": str(scratch / "labels.csv"), "test_fraction": 0.0}
        trained_run = vidpipe.train(
            scratch / "train", scratch / "run", overwrite=True, device="cpu", **labels, **settings
        ).run
        store = scratch / "test"
        yield name, list(predict_timelines(trained_run, find_videos([tested]), store_path=store, config=config))


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
