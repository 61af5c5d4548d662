"""Stores of many videos: opening them with and without their index, and listing the files of as many videos.

    python -m benchmarks.store_index                                  10^5 and 10^6 videos: ten minutes
    python -m benchmarks.store_index --videos 10000000 --scratch DIR  10^7: an hour, 15 GB; uses what DIR has already

The stores have shards of 100 videos with one row of 8 features each; the shards are copies of one whose ids, sources
and fingerprints are replaced. The files to list are empty, 1000 in a folder. Each figure is from a process of its own.
Times are of the processor and, in brackets, of the clock, which counts what else the machine does.
"""

import io
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.stores import KEY, make_sequence
from vidpipe.features import index
from vidpipe.features.shard import write_shard
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, VideoSource
from vidpipe.video.files import find_videos

NUM_VIDEOS = (100_000, 1_000_000)
MAX_WITHOUT_INDEX = 1_000_000
"""Without an index, ten million videos take 15 GB of memory."""
MAX_FILES = 1_000_000
VIDEOS_A_SHARD, FILES_A_FOLDER = 100, 1000
DIM = 8
NUM_LOOKUPS = 20_000


def video_id(number: int) -> str:
    """`class017/video0000001017.mp4`"""
    return f"class{number % 1000:03}/video{number:010}.mp4"


def write_store(path: Path, num_videos: int) -> None:
    """Write a store of many small shards, by replacing texts in copies of one shard's file."""
    store = FeatureStore.create(path, KEY)
    with tempfile.TemporaryDirectory() as scratch:
        template = write_shard(Path(scratch), [_sequence(number) for number in range(VIDEOS_A_SHARD)], key=KEY)
        image = bytearray(template.read_bytes())
    with h5py.File(io.BytesIO(image)) as file:
        offsets = {name: file["videos"][name].id.get_offset() for name in ("id", "path", "fingerprint", "size_bytes")}
    chance = np.random.default_rng(0)
    for number in range(num_videos // VIDEOS_A_SHARD):
        numbers = range(number * VIDEOS_A_SHARD, (number + 1) * VIDEOS_A_SHARD)
        ids = "".join(map(video_id, numbers)).encode()
        fingerprints = chance.bytes(32 * VIDEOS_A_SHARD).hex().encode()
        contents = {"id": ids, "path": ids, "fingerprint": fingerprints, "size_bytes": np.array(numbers).tobytes()}
        for name, content in contents.items():
            image[offsets[name] : offsets[name] + len(content)] = content
        (store.path / "shards" / f"20261130T{number:012}.000000-{number:08x}.h5").write_bytes(image)


def _sequence(number: int) -> FeatureSequence:
    name = video_id(number)
    source = VideoSource("/data/archive/videos", name, sha256(name.encode()).hexdigest())
    return replace(make_sequence(name, 1, DIM), source=source)


def make_files(path: Path, num_videos: int) -> None:
    """Make empty files to list."""
    for number in range(num_videos):
        if number % FILES_A_FOLDER == 0:
            folder = path / f"class{number // FILES_A_FOLDER:05}"
            folder.mkdir(parents=True)
        (folder / f"video{number:010}.mp4").touch()


def open_without_index(path: Path) -> dict[str, float]:
    """Open a store as if it had few shards."""
    index.MIN_SHARDS = 10**9
    return _timed("open", lambda: len(FeatureStore.open(path)))


def make_index(path: Path) -> dict[str, float]:
    """Open a store that has no index yet."""
    shutil.rmtree(path / "index", ignore_errors=True)
    return _timed("open", lambda: len(FeatureStore.open(path)))


def open_with_index(path: Path) -> dict[str, float]:
    """Open a store that has an index, and use it."""
    store = FeatureStore.open(path)
    found = _timed("open", lambda: len(store))
    chance = random.Random(0)
    ids = [video_id(chance.randrange(len(store))) for _ in range(NUM_LOOKUPS)]
    found |= _timed("in", lambda: sum(one in store for one in ids))
    found |= _timed("info", lambda: sum(store.info(one).size_bytes for one in ids))
    found |= _timed("features", lambda: [store[one] for one in ids[:200]])
    found |= _timed("ids", lambda: store.ids)
    found |= _timed("rows", lambda: sum(row.length for row in store.rows()))
    return found


def list_files(path: Path) -> dict[str, float]:
    """List the videos of a folder."""
    before = _memory()["resident"]
    found = _timed("open", lambda: find_videos([path]))
    return found | {"bytes": found["open resident"] - before}


def _timed(name: str, call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the processor and of the clock for a call, and the memory while its result is there."""
    cpu, clock = time.process_time(), time.perf_counter()
    result = call()
    times = {"cpu": time.process_time() - cpu, "clock": time.perf_counter() - clock}
    memory = _memory() | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    del result
    return {f"{name} {what}": value for what, value in (times | memory).items()}


def _memory() -> dict[str, float]:
    """Bytes of this process in memory, and those of them that are not pages of files."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    sizes = {name: int(size.split()[0]) * 1024 for name, size in (line.split(":") for line in lines)}
    return {"resident": sizes["Rss"], "anonymous": sizes["Anonymous"]}


MEASURES: dict[str, Callable[[Path], dict[str, float]]] = {
    "without": open_without_index,
    "first": make_index,
    "with": open_with_index,
    "files": list_files,
}


def measure(name: str, path: Path) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store_index", "--measure", name, "--scratch", str(path)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(result.stdout)
    return found


def _opening_line(num_videos: int, path: Path) -> list[str]:
    """Cells: the store, without an index, the first opening, with the index, sizes."""
    found = {name: measure(name, path) for name in ("first", "with")}
    without = "15 GB would be needed"
    if num_videos <= MAX_WITHOUT_INDEX:
        without = _opening(measure("without", path))
    size = sum(one.stat().st_size for one in (path / "index").rglob("*") if one.is_file()) / num_videos
    shards = num_videos // VIDEOS_A_SHARD
    return [f"{num_videos:,}", f"{shards:,}", without, _opening(found["first"]), _opening(found["with"]), f"{size:.0f}"]


def _opening(found: dict[str, float]) -> str:
    return f"{_seconds(found, 'open')}, {found['open peak'] / 1e9:.2f} GB"


def _seconds(found: dict[str, float], name: str) -> str:
    """`0.51 (0.62) s`: of the processor, and of the clock."""
    return f"{found[f'{name} cpu']:.2f} ({found[f'{name} clock']:.2f}) s"


def _use_line(num_videos: int, path: Path) -> list[str]:
    found = measure("with", path)
    each = [f"{found[f'{name} cpu'] / num * 1e6:.1f} µs" for name, num in (("in", NUM_LOOKUPS), ("info", NUM_LOOKUPS))]
    anonymous = f"{found['rows anonymous'] / 1e9:.2f} GB"
    features = f"{found['features cpu'] / 200 * 1e3:.1f} ms"
    return [f"{num_videos:,}", *each, features, _seconds(found, "ids"), _seconds(found, "rows"), anonymous]


def _files_line(num_videos: int, path: Path) -> list[str]:
    found = measure("files", path)
    cells = [f"{found['open cpu'] / num_videos * 1e6:.1f} µs", f"{found['open clock']:.1f} s"]
    return [f"{num_videos:,}", *cells, f"{found['bytes'] / num_videos:.0f} bytes"]


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def run(num_videos: Sequence[int] = NUM_VIDEOS, folder: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    opening, use, files = list[list[str]](), list[list[str]](), list[list[str]]()
    with ExitStack() as stack:
        scratch = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number in num_videos:
            store, listed = scratch / f"store{number}", scratch / f"files{number}"
            if not store.exists():
                write_store(store, number)
            opening.append(_opening_line(number, store))
            use.append(_use_line(number, store))
            if number <= MAX_FILES:
                if not listed.exists():
                    make_files(listed, number)
                files.append(_files_line(number, listed))
    return (
        "## Stores of many videos (`benchmarks/store_index.py`)\n\n"
        f"{VIDEOS_A_SHARD} videos a shard; time of the processor (of the clock), peak of the process's memory. The "
        "first opening reads every shard and writes the index.\n\n"
        + _table(
            [
                "videos",
                "shards",
                "opened without an index",
                "first opening",
                "opened by its index",
                "index, bytes a video",
            ],
            opening,
        )
        + "\n\nUse of a store that was opened by its index; the memory is that of the process at the end, without "
        "the pages of mapped files.\n\n"
        + _table(
            ["videos", "`id in store`", "`store.info(id)`", "`store[id]`", "`store.ids`", "all rows", "memory"], use
        )
        + f"\n\nListing empty files, {FILES_A_FOLDER} a folder.\n\n"
        + _table(["files", "processor time a file", "all", "memory a file"], files)
    )


def main() -> None:
    """Measure the sizes that are asked for, or one thing for `measure`."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=NUM_VIDEOS, help="how many videos")
    parser.add_argument("--scratch", type=Path, help="where stores and files are written, and kept")
    parser.add_argument("--measure", choices=MEASURES, help="what to measure in the folder --scratch")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.scratch)))
    else:
        print(run(options.videos, options.scratch))


if __name__ == "__main__":
    main()
