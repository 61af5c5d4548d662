"""`vidpipe predict --timeline` on an hour of video: seconds, peak memory, and the same command again from the store.

    python -m benchmarks.timeline_speed             an hour of 320 × 240, 25 frames a second
    python -m benchmarks.timeline_speed SCRATCH     keep the video and the run in SCRATCH, and use what is there

The video is joined from clips, about five minutes of them, and repeated. The run has efficientnet_lite0 at 4 frames a
second and the default heads. Both commands are whole processes, start-up included. Linux only, as benchmarks.memory.
"""

import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import vidpipe
from benchmarks.clips import labelled_sets
from benchmarks.memory import watch
from benchmarks.timelines import Row, read_rows, write_joined
from tests.media import repeat_video
from vidpipe.timeline.formats.json_lines import read
from vidpipe.video.reader import open_video

HOUR_SECONDS, PART_SECONDS = 3600, 300
WIDTH, HEIGHT = 320, 240
FPS = 4
"""Rows a second."""
GOALS = (
    "15 × real time or faster, at most 1.5 GB of PSS; again: at most 5 s. RSS counts shared pages once for each process"
)


def write_hour(labels: Path, scratch: Path) -> Path:
    """Write an hour of video, unless it is there.

    Args:
        labels: the labels file of the clips, in their folder.
        scratch: where to write it.

    Returns:
        The video.
    """
    hour, part = scratch / "hour.mp4", scratch / "part"
    if not hour.exists():
        rows = read_rows(labels)
        write_joined(labels.parent, _enough(labels.parent, rows), part, width=WIDTH, height=HEIGHT)
        seconds = open_video(part.with_suffix(".mp4")).info.duration_seconds
        repeat_video(part.with_suffix(".mp4"), scratch / "aside.mp4", round(HOUR_SECONDS / seconds))
        (scratch / "aside.mp4").rename(hour)
    return hour


def _enough(folder: Path, rows: list[Row]) -> list[Row]:
    """As many clips as `PART_SECONDS` need, spread over the set."""
    seconds = open_video(folder / rows[0][0]).info.duration_seconds
    return rows[:: max(1, int(len(rows) * seconds / PART_SECONDS))]


def trained(labels: Path, scratch: Path) -> Path:
    """Train a run on the clips, unless it is there.

    Args:
        labels: the labels file of the clips, in their folder.
        scratch: where to write it.

    Returns:
        The run.
    """
    if not (scratch / "run").exists():
        store = scratch / "features"
        vidpipe.extract(labels.parent, store, backbone="efficientnet_lite0", sampling="fps", fps=FPS, device="cpu")
        vidpipe.train(store, scratch / "run", labels=str(labels), test_fraction=0.0, device="cpu")
    return scratch / "run"


def measure(scratch: Path) -> list[str]:
    """Return rows of the table."""
    name, labels = next(iter(labelled_sets(scratch).items()))
    hour, run_path = write_hour(labels, scratch), trained(labels, scratch)
    info = open_video(hour).info
    shutil.rmtree(scratch / "dense", ignore_errors=True)
    command = ["predict", str(run_path), str(hour), "--timeline", "--store", str(scratch / "dense"), "--device", "cpu"]
    lines = [f"An hour of clips of {name}, {info.num_frames} frames of {info.width} × {info.height}."]
    columns = "seconds | × real time | CPU seconds, main | peak RSS, GB | peak PSS, GB | load before | segments"
    lines += ["", f"| | {columns} |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for title in ("first", "again, from the store"):
        segments, load = scratch / "segments.json", os.getloadavg()[0]
        segments.unlink(missing_ok=True)
        cpu_before = _cpu_seconds()
        rss, pss, seconds = watch([*command, "-o", str(segments)])
        speed, cpu_seconds = info.duration_seconds / seconds, _cpu_seconds() - cpu_before
        figures = f"{seconds:.1f} | {speed:.1f} | {cpu_seconds:.1f} | {rss:.2f} | {pss:.2f} | {load:.1f}"
        lines.append(f"| {title} | {figures} | {len(read(segments)[0].segments)} |")
    return lines


def _cpu_seconds() -> float:
    """Unlike the time, it hardly depends on what else runs.

    It lacks the decoding processes: they are children of the fork server, for which vidpipe does not wait.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(scratch: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as temporary:
        lines = measure(scratch or Path(temporary))
    head = f"## The timeline of an hour (`benchmarks/timeline_speed.py`)\n\nGoal: {GOALS}."
    return "\n".join([head, *lines])


if __name__ == "__main__":
    print(run(*map(Path, sys.argv[1:])))
