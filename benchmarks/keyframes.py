"""Decoding less: key frames alone, and no loop filter. What each gains in time and costs in accuracy.

    python -m benchmarks.keyframes             the tables of docs/decoding.md: 12 minutes on 2 cores
    python -m benchmarks.keyframes STORES      with the stores that an earlier run left in STORES

Time: videos of ten minutes whose packets repeat 20 seconds of real frames; 16 frames of each, by readers that take
turns on one thread. Accuracy: efficientnet_lite0. Fight: 5 folds by source. Interaction: a sequence left out at a time.
"""

import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

import vidpipe
from benchmarks.clips import SHARED_DATA, labelled_sets
from benchmarks.sampling import PROTOCOLS
from tests.media import drifting_frames, repeat_video, write_frames
from vidpipe.features.store import FeatureStore
from vidpipe.video.reader import methods_from, open_video
from vidpipe.video.sampling import uniform_indices

NUM_FRAMES, NUM_RUNS, MINUTES = 16, 5, 10
FPS, SECONDS_WRITTEN, KEY_SECONDS = 25, 20, 2
SIZES = {"640 × 360": (640, 360), "1280 × 720": (1280, 720), "1920 × 1080": (1920, 1080)}
ENCODERS = {
    "3 B-frames": {"preset": "veryfast", "crf": "23"},
    "no B-frames, 1 reference": {"preset": "veryfast", "crf": "23", "bf": "0", "refs": "1"},
    "3 B-frames, little compressed": {"preset": "veryfast", "crf": "16"},
}
KEY_COUNTS = (4, 16, 64, 256)
HEADS = ("statistics", "mean")
"""The linear heads: on motion, and on the mean feature."""
WAYS: Mapping[str, Mapping[str, Any]] = {
    "uniform": {},
    "uniform, --fast-decode nonref": {"fast_decode": "nonref"},
    "uniform, --fast-decode all": {"fast_decode": "all"},
    "keyframe": {"sampling": "keyframe"},
    "keyframe, --fast-decode all": {"sampling": "keyframe", "fast_decode": "all"},
}
"""Settings of an extraction by description."""


def real_frames(num_frames: int, width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) of clips of a surveillance set at this size, joined; drifting blocks where there are none."""
    clips = sorted((SHARED_DATA / "clips" / "fight").rglob("*.mp4"))[::9]
    if not clips:
        yield from drifting_frames(num_frames, width, height)
    for path in clips:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if num_frames == 0:
                    return
                num_frames -= 1
                yield np.asarray(frame.reformat(width=width, height=height, format="rgb24").to_ndarray(), np.uint8)


def write_long(folder: Path, size: str, encoder: str) -> Path:
    """Write a video of ten minutes with a key frame every two seconds."""
    options = {"g": str(KEY_SECONDS * FPS), "sc_threshold": "0", **ENCODERS[encoder]}
    name = f"{size}_{encoder}".replace(" ", "")
    short = write_frames(
        folder / f"{name}.mp4", real_frames(SECONDS_WRITTEN * FPS, *SIZES[size]), fps=FPS, options=options
    )
    return repeat_video(short, folder / f"{name}_long.mp4", MINUTES * 60 // SECONDS_WRITTEN)


@dataclass(frozen=True)
class Reading:
    """What reading some frames of a video took."""

    seconds: float
    """Processor time; there is one thread."""
    size_bytes: int
    """Read from the file, or from the system's cache of it."""


def read(path: Path, way: Mapping[str, Any], num_frames: int = NUM_FRAMES) -> Reading:
    """Open a video and decode frames, as a worker of an extraction does."""
    is_keyframe = way.get("sampling") == "keyframe"
    before, started = _bytes_read(), time.process_time()
    reader = open_video(path, methods=methods_from("pyav", key_frames=is_keyframe), fast_decode=_level(way))
    index = reader.find_key_frames(num_frames) if is_keyframe else uniform_indices(len(reader.pts_seconds), num_frames)
    num_read = sum(len(block) for block in reader.blocks(index))
    assert num_read == len(index)
    return Reading(time.process_time() - started, _bytes_read() - before)


def _level(way: Mapping[str, Any]) -> str:
    return str(way.get("fast_decode", "off"))


def _bytes_read() -> int:
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def speed_lines(videos: Mapping[tuple[str, str], Path]) -> list[str]:
    """Return a table of the ways by video."""
    lines = ["| video | " + " | ".join(WAYS) + " | read: uniform | read: keyframe |", "|---" * (len(WAYS) + 3) + "|"]
    for (size, encoder), path in videos.items():
        runs = [{name: read(path, way) for name, way in WAYS.items()} for _ in range(NUM_RUNS)]
        least = {name: min(run[name].seconds for run in runs) for name in WAYS}
        cells = [
            f"{1 / seconds:.2f} videos/s" + (f", {least['uniform'] / seconds:.1f} ×" if name != "uniform" else "")
            for name, seconds in least.items()
        ]
        sizes = [f"{runs[0][name].size_bytes / 1e6:.1f} MB" for name in ("uniform", "keyframe")]
        lines.append(f"| {size}, {encoder}, {path.stat().st_size / 1e6:.0f} MB | {' | '.join([*cells, *sizes])} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def cost_lines(videos: Mapping[tuple[str, str], Path]) -> list[str]:
    """Return the constants of `seconds = open + frames × decode`, fitted to several numbers of key frames.

    With what FFmpeg alone takes for a frame, and how many times faster key frames can be at most: to reach any other
    frame, half of the frames between two key frames are decoded.
    """
    lines = [
        "| video | open, ms | a key frame, ms | largest error of the formula | FFmpeg: key frame, ms | other frame, ms "
        "| at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for (size, encoder), path in videos.items():
        counts = np.array(KEY_COUNTS, np.float64)
        seconds = np.array(
            [min(read(path, WAYS["keyframe"], int(count)).seconds for _ in range(NUM_RUNS)) for count in counts]
        )
        decode, opening = np.polyfit(counts, seconds, 1, w=1 / seconds)
        error = np.abs((opening + counts * decode) / seconds - 1).max()
        key, other = ffmpeg_seconds(path)
        at_most = 1 + (KEY_SECONDS * FPS - 1) / 2 * other / key
        cells = [f"{1000 * opening:.1f}", f"{1000 * decode:.2f}", f"{error:.0%}"]
        cells += [f"{1000 * key:.2f}", f"{1000 * other:.2f}", f"{at_most:.1f} ×"]
        lines.append(f"| {size}, {encoder} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def ffmpeg_seconds(path: Path) -> tuple[float, float]:
    """Return the processor time that FFmpeg takes to decode a key frame, and any other, on average, on one thread."""
    runs = [(_decode_seconds(path, "NONKEY"), _decode_seconds(path, "DEFAULT")) for _ in range(NUM_RUNS)]
    (keys, num_keys), (all_frames, num_frames) = (min(column) for column in zip(*runs, strict=True))
    return keys / num_keys, (all_frames - keys) / (num_frames - num_keys)


def _decode_seconds(path: Path, skip: Literal["NONKEY", "DEFAULT"]) -> tuple[float, int]:
    """Decode the frames of the first seconds that are not skipped; return the processor time, and their number."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.skip_frame = 1, skip
        packets = list(islice(container.demux(stream), SECONDS_WRITTEN * FPS))
        started = time.process_time()
        num_frames = sum(len(stream.decode(packet)) for packet in [*packets, None])
        return time.process_time() - started, num_frames


def accuracy_lines(stores: Path, scratch: Path) -> list[str]:
    """Return a table of the accuracy of each way on each labelled set, with how far features move."""
    lines = [
        f"| set | decoding | rows a video | {' | '.join(HEADS)} | cosine with exact, mean | lowest |",
        f"|---|---|---|{'---|' * (len(HEADS) + 2)}",
    ]
    for name, labels in labelled_sets(scratch).items():
        for description, way in WAYS.items():
            folder = stores / f"{name}_{'_'.join(str(value) for value in way.values()) or 'exact'}"
            vidpipe.extract(labels.parent, folder, backbone="efficientnet_lite0", device="cpu", **way)
            exact = stores / (f"{name}_keyframe" if way.get("sampling") else f"{name}_exact")
            lines.append(f"| {name} | {description} | {_accuracy(name, labels, folder, exact, scratch)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _accuracy(name: str, labels: Path, folder: Path, exact: Path, scratch: Path) -> str:
    store = FeatureStore.open(folder)
    cosine = _cosines(store, FeatureStore.open(exact))
    protocol = {**PROTOCOLS[name], "device": "cpu", "head": HEADS[0]}
    trained = vidpipe.train(folder, scratch / "run", labels=str(labels), overwrite=True, **protocol)
    found = trained.cross_validation
    assert found is not None
    cells = [found.estimate(head).short for head in HEADS]
    num_rows = sum(map(len, store.sequences())) / len(store)
    return " | ".join([f"{num_rows:.1f}", *cells, f"{cosine.mean():.4f}", f"{cosine.min():.3f}"])


def _cosines(store: FeatureStore, exact: FeatureStore) -> NDArray[np.float64]:
    """(ΣT,) the cosine of each row with that of the same frame, decoded exactly."""
    pairs = [(store[video_id].features, exact[video_id].features) for video_id in store]
    ours, theirs = (np.concatenate(part).astype(np.float64) for part in zip(*pairs, strict=True))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine: NDArray[np.float64] = (ours * theirs).sum(axis=1) / lengths
    return cosine


def run(stores: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    warnings.simplefilter("ignore")
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        videos = {(size, one): write_long(scratch, size, one) for size in SIZES for one in ENCODERS}
        speed, cost = speed_lines(videos), cost_lines(videos)
        accuracy = accuracy_lines(stores or scratch, scratch)
    text = io.StringIO()
    print("## Decoding less (`benchmarks/keyframes.py`)\n", file=text)
    print(
        f"{NUM_FRAMES} frames of H.264 videos of {MINUTES} minutes with a key frame every {KEY_SECONDS} s (joined real "
        f"frames, resized), opening included: processor time on one thread, the lowest of {NUM_RUNS} in turns; and "
        "what was read of the file.\n",
        *speed,
        "\nThe formula `seconds = open + frames × decode`, fitted to "
        f"{', '.join(map(str, KEY_COUNTS))} key frames of the same videos. Then what FFmpeg alone takes for a frame on "
        f"one thread. A uniform frame needs {(KEY_SECONDS * FPS - 1) / 2} more frames decoded, on average, and a key "
        "frame: so key frames alone can be at most this many times faster.\n",
        *cost,
        "\nefficientnet_lite0 alone; top-1 in cross-validation ± deviation between the folds (fight: 5 folds by source "
        "video; interaction: one sequence left out at a time).\n",
        *accuracy,
        sep="\n",
        file=text,
    )
    return text.getvalue().strip()


if __name__ == "__main__":
    os.nice(5)
    print(run(*map(Path, sys.argv[1:])))
