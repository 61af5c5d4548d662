"""Peak memory of an extraction, all processes together, for long and large videos.

    python -m benchmarks.memory                    all cases but the slowest
    python -m benchmarks.memory 20000_frames       one case

Linux only: memory is read from /proc. RSS counts pages that processes share once for each process; PSS counts them
once.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clips import write_clip
from benchmarks.kills import processes_of
from tests.media import repeat_video, write_frames
from tests.people import picture, walk, write_colour_detector
from vidpipe.features.streams import find_stores

SECONDS_BETWEEN_LOOKS = 0.25
FAST = {"preset": "ultrafast", "g": "50"}


@dataclass(frozen=True)
class Case:
    """A video, and how to sample it."""

    description: str
    write: Callable[[Path], Path]
    options: tuple[str, ...]
    slow: bool = False


def long_clip(folder: Path, minutes: int, fps: int) -> Path:
    """Write a video of 320 × 240 that repeats one minute."""
    minute = write_clip(folder / "minute.mkv", "libx264", FAST, num_frames=60 * fps, width=320, height=240, fps=fps)
    repeat_video(minute, folder / "long.mkv", minutes)
    minute.unlink()
    return folder / "long.mkv"


def large_clip(folder: Path, width: int, height: int, num_frames: int) -> Path:
    return write_clip(folder / "large.mp4", "libx264", FAST, num_frames=num_frames, width=width, height=height)


PATHS = (((30, 20, 54, 80), (40, 20, 64, 80)), ((100, 40, 124, 100), (90, 40, 114, 100)))
"""Of two people: their first and last box."""


def people_clip(folder: Path, minutes: int, fps: int) -> Path:
    """Write a video of two people who walk to and fro, and the network that finds them."""
    write_colour_detector(folder / "colours.onnx")
    paths = (walk(start, stop, 30 * fps).tolist() for start, stop in PATHS)
    people = [picture([(0, red, True), (2, blue, False)]) for red, blue in zip(*paths, strict=True)]
    frames = [one.repeat(2, axis=0).repeat(2, axis=1) for one in people]
    minute = write_frames(folder / "minute.mkv", [*frames, *frames[::-1]], fps=fps, options=FAST)
    repeat_video(minute, folder / "long.mkv", minutes)
    minute.unlink()
    return folder / "long.mkv"


TRACKS = ("--regions", "tracks", "--detector", "centernet", "--detector-weights", "{folder}/colours.onnx")
CASES = {
    "short": Case("50 frames, 320 × 240", lambda f: large_clip(f, 320, 240, 50), ("--num-frames", "16")),
    "4k": Case("200 frames, 3840 × 2160", lambda f: large_clip(f, 3840, 2160, 200), ("--num-frames", "16")),
    "8k": Case("60 frames, 7680 × 4320", lambda f: large_clip(f, 7680, 4320, 60), ("--num-frames", "16")),
    "8k_scenes": Case(
        "60 frames, 7680 × 4320, by scene", lambda f: large_clip(f, 7680, 4320, 60), ("--sampling", "scene")
    ),
    "two_hours": Case(
        "two hours, 25 fps, 320 × 240, a frame every 8 s",
        lambda f: long_clip(f, 120, 25),
        ("--sampling", "fps", "--fps", "0.125"),
    ),
    "two_hours_scenes": Case(
        "two hours, 25 fps, 320 × 240, by scene", lambda f: long_clip(f, 120, 25), ("--sampling", "scene"), slow=True
    ),
    "tracks": Case(
        "ten minutes, 25 fps, 320 × 240, two people, 2 frames a second, `--regions tracks`",
        lambda f: people_clip(f, 10, 25),
        ("--sampling", "fps", "--fps", "2", *TRACKS),
        slow=True,
    ),
    "20000_frames": Case(
        "20,000 frames sampled: 14 minutes at 24 fps, 320 × 240",
        lambda f: long_clip(f, 14, 24),
        ("--sampling", "fps", "--fps", "23.81"),
        slow=True,
    ),
}


def measure(case: Case, folder: Path) -> tuple[float, float, int, float]:
    """Return peak RSS and PSS in GB, the rows stored, and the seconds."""
    video = case.write(folder)
    arguments = ["extract", str(video), "-o", str(folder / "store"), "--backbone", "efficientnet_lite0,flow"]
    options = [option.format(folder=folder) for option in case.options]
    rss_gb, pss_gb, seconds = watch([*arguments, "--device", "cpu", *options, "--quiet"])
    num_rows = sum(len(sequence) for store in find_stores(folder / "store").stores for sequence in store.sequences())
    return rss_gb, pss_gb, num_rows, seconds


def watch(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Run `vidpipe`; return the peak RSS and PSS of all its processes in GB, and the seconds.

    Args:
        arguments: of the command.

    Returns:
        Peak RSS, peak PSS, seconds.

    Raises:
        RuntimeError: the command fails.
    """
    program = [sys.executable, "-m", "vidpipe", *arguments]
    started, peaks = time.monotonic(), (0, 0)
    with subprocess.Popen(program, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            looks = [_memory(pid) for pid in processes_of(process.pid)]
            peaks = (max(peaks[0], sum(rss for rss, _ in looks)), max(peaks[1], sum(pss for _, pss in looks)))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise RuntimeError(f"vidpipe {' '.join(arguments)}: exit code {process.returncode}")
    return peaks[0] / 1e9, peaks[1] / 1e9, time.monotonic() - started


def _memory(pid: int) -> tuple[int, int]:
    """RSS and PSS of a process in bytes; zeros if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    values = {name: 1024 * int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return values.get("Rss", 0), values.get("Pss", 0)


def run(*names: str) -> str:
    """Measure, and return a section of RESULTS.md."""
    lines = ["| video | rows | peak RSS, GB | peak PSS, GB | seconds |", "|---|---|---|---|---|"]
    for case in [CASES[name] for name in names] or [case for case in CASES.values() if not case.slow]:
        with tempfile.TemporaryDirectory() as folder:
            rss, pss, num_rows, seconds = measure(case, Path(folder))
        lines.append(f"| {case.description} | {num_rows} | {rss:.2f} | {pss:.2f} | {seconds:.0f} |")
    return (
        "## Peak memory, all processes together (`benchmarks/memory.py`)\n\n"
        "`vidpipe extract` with efficientnet_lite0 and flow in one decode, and the defaults.\n\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
