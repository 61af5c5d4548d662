"""Duplicates among clips and altered copies of them; time and memory of searches in a large store.

    python -m benchmarks.search                 both
    python -m benchmarks.search SCRATCH         keep copies and stores in SCRATCH, and use what is there
    python -m benchmarks.search SCRATCH scale   the large store alone
    python -m benchmarks.search SCRATCH scale 100000   … of 100,000 videos

Forty clips of the fight set, drawn with seed 0, have ten copies each (`benchmarks.copies`). All pairs of a clip and its
copies, and of two copies of one clip, are duplicates; all other pairs are not.
"""

import logging
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import vidpipe
from benchmarks.clips import labelled_sets
from benchmarks.copies import COPIES, write_copies
from tests.stores import KEY
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, Rows, VideoInfo
from vidpipe.search.similar import SimilarSearch
from vidpipe.similarity.duplicates import find_pairs
from vidpipe.similarity.sequences import read_index, timed_features
from vidpipe.video.files import find_videos

NUM_CLIPS = 40
SAMPLINGS: Mapping[str, Mapping[str, Any]] = {
    "uniform, 16 frames": {},
    "fps, 8 a second": {"sampling": "fps", "fps": 8.0},
}
THRESHOLDS = (11.0, 12.0, 13.0, 14.0, 16.0)
NUM_VIDEOS, NUM_ROWS, DIM, NUM_CAMERAS, NUM_COPIED = 10_000, 16, 1280, 250, 200
NUM_QUERIES = 20


def measure_clips(scratch: Path) -> Iterator[str]:
    """Yield rows of the table of duplicates among real clips."""
    labels = next(iter(labelled_sets(scratch).values()))
    clips = {video.id: video.path for video in find_videos([labels.parent])}
    chosen = sorted(random.Random(0).sample(sorted(clips), min(NUM_CLIPS, len(clips))))
    write_copies([clips[video_id] for video_id in chosen], scratch / "copies")
    for name, settings in SAMPLINGS.items():
        store = scratch / name.replace(" ", "_").replace(",", "")
        for folder, prefix in ((labels.parent, "clips"), (scratch / "copies", "copies")):
            vidpipe.extract(folder, store, prefix=prefix, backbone="efficientnet_lite0", device="cpu", **settings)
        yield from _rows(FeatureStore.open(store), name)


def _rows(store: FeatureStore, name: str) -> Iterator[str]:
    index = read_index(store)
    true = {pair for pair in combinations(index.ids, 2) if _stem(pair[0]) == _stem(pair[1])}
    with_original = {pair for pair in true if any(video_id.startswith("clips/") for video_id in pair)}
    for threshold in THRESHOLDS:
        pairs = find_pairs(index, threshold=threshold)
        found = {tuple(sorted((index.ids[pair.one], index.ids[pair.other]))) for pair in pairs}
        right = len(true & found)
        yield (
            f"| {name} | {threshold:g} | {len(with_original & found) / len(with_original):.3f} "
            f"| {right / len(true):.3f} | {right / max(len(found), 1):.4f} | {len(found) - right} |"
        )


def _stem(video_id: str) -> str:
    return Path(video_id).stem


def write_large_store(path: Path, num_videos: int = NUM_VIDEOS) -> FeatureStore:
    """Write a store of synthetic videos, unless it is there: cameras, a drift in each video, and some copies."""
    store = FeatureStore.create(path, replace(KEY, dtype="float16"))
    if len(store) < num_videos:
        with store.writer(max_videos=256, max_bytes=2**40) as writer:
            for number in range(num_videos):
                writer.add(_synthetic(number))
    return FeatureStore.open(path)


def _synthetic(number: int) -> FeatureSequence:
    """A video; the first `NUM_COPIED` have a copy after them, with noise and a shift."""
    is_copy = number < 2 * NUM_COPIED and number % 2 == 1
    source = number - 1 if is_copy else number
    camera, film = np.random.default_rng([source % NUM_CAMERAS, 1]), np.random.default_rng([source, 2])
    place = np.abs(camera.normal(size=DIM))
    steps = 0.15 * film.normal(size=(NUM_ROWS, DIM)).cumsum(axis=0)
    noise = np.random.default_rng([number, 3]).normal(size=(NUM_ROWS, DIM))
    features = place + steps + 0.1 * noise + 0.2 * is_copy
    times = (np.arange(NUM_ROWS) + 0.5) / 8
    rows = Rows(times, np.arange(NUM_ROWS, dtype=np.int64) * 3, np.zeros(NUM_ROWS, np.int32))
    info = VideoInfo(50, 2.0, 25.0, 320, 240, "h264", "pyav", False, 0, 1000 + number, 0)
    return FeatureSequence(f"camera{source % NUM_CAMERAS:03}/{number:06}.mp4", features.astype(np.float16), rows, info)


def measure_scale(scratch: Path, num_videos: int = NUM_VIDEOS) -> Iterator[str]:
    """Yield rows of the table of times."""
    store, peak = write_large_store(scratch / f"large{num_videos}", num_videos), _watch_memory()
    start, cpu = time.perf_counter(), time.process_time()
    index = read_index(store)
    search = SimilarSearch(index)
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    taken = f"{wall:.1f} s ({spent:.1f} s of processor time)"
    yield f"| reading {num_videos:,} × {NUM_ROWS} × {DIM}, once | {taken} | {peak()} |"
    seconds, used = [], []
    for video_id in store.ids[:: len(store) // NUM_QUERIES]:
        start, cpu = time.perf_counter(), time.process_time()
        search.query(timed_features(store[video_id]), without=video_id)
        seconds.append(time.perf_counter() - start)
        used.append(time.process_time() - cpu)
    first = f"{seconds[0]:.2f} s ({used[0]:.2f} s of processor time)"
    later = f"{np.median(seconds[1:]):.2f} s ({np.median(used[1:]):.2f} s)"
    yield f"| the first query; the median of {len(seconds) - 1} more | {first}; {later} | {peak()} |"
    start, cpu = time.perf_counter(), time.process_time()
    pairs = find_pairs(index)
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    right = sum(index.ids[pair.one][-10:-4] < index.ids[pair.other][-10:-4] for pair in pairs)
    yield (
        f"| duplicates of all: {len(pairs)} pairs found, {NUM_COPIED} planted ({right}) | {wall:.0f} s "
        f"({spent:.0f} s of processor time) | {peak()} |"
    )


def _watch_memory() -> Callable[[], str]:
    """Return a function that gives the peak of the private memory from now on: without pages of mapped files."""
    peak = [0]

    def watch() -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            peak[0] = max(peak[0], *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    return lambda: f"{peak[0] / 2**20:.2f} GB"


def run(scratch: Path | None = None, only: str = "", num_videos: int = NUM_VIDEOS) -> str:
    """Measure, and return a section of RESULTS.md."""
    logging.getLogger("vidpipe").setLevel(logging.ERROR)
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = scratch or Path(temporary)
        if only != "scale":
            num_pairs = (len(COPIES) + 1) * len(COPIES) // 2
            lines += [
                f"{NUM_CLIPS} clips with {len(COPIES)} copies each, among all clips: {num_pairs} true pairs for each.",
                "",
                "| sampling | threshold | recall, clip and copy | recall, all pairs | precision | false pairs |",
                "|---|---|---|---|---|---|",
                *_shown(measure_clips(folder)),
                "",
            ]
        lines += [
            "| step | time | peak of private memory |",
            "|---|---|---|",
            *_shown(measure_scale(folder, num_videos)),
        ]
    return "## Search (`benchmarks/search.py`)\n\n" + "\n".join(lines)


def _shown(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
        yield line


if __name__ == "__main__":
    scratch, only, number = [*sys.argv[1:], "", "", ""][:3]
    print(run(Path(scratch) if scratch else None, only, int(number or NUM_VIDEOS)))
