"""Start-up time: `vidpipe --help`, and `extract` with a store that has all videos already.

    python -m benchmarks.start_up

Whole processes, in turn. The files are not videos: opening one would fail. Imported modules are read from the
interpreter at its end.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.store_reading import random_sequence, seconds, spread, video_name
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.features.store import FeatureStore

NUM_VIDEOS, NUM_ROUNDS, DIM = 10_000, 9, 1280
BACKBONE = "efficientnet_lite0"
MODULES = """
import sys
from vidpipe.cli import main
main(sys.argv[1:], standalone_mode=False)
print(" ".join(name for name in ("torch", "av", "decord") if name in sys.modules), file=sys.stderr)
"""


def write_full_store(folder: Path, num_videos: int = NUM_VIDEOS) -> list[str]:
    """Write files that are not videos, and a store that has them all; return the arguments that extract them again."""
    config = ExtractConfig(backbone=BACKBONE)
    store = FeatureStore.create(folder / "store", Stream.of(config).key)
    with store.writer() as writer:
        for number in range(num_videos):
            path = folder / "videos" / video_name(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no video")
            writer.add(random_sequence(number, DIM, path))
    return ["extract", str(folder / "videos"), "-o", str(store.path), "--backbone", BACKBONE]


def process_seconds(*arguments: str) -> float:
    """Return the seconds that a Python process takes."""
    return seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def imported(arguments: list[str]) -> tuple[str, str]:
    """Return a command's output, and the heavy modules that it has imported."""
    done = subprocess.run([sys.executable, "-c", MODULES, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip(), done.stderr.strip() or "none"


def run(num_videos: int = NUM_VIDEOS, num_rounds: int = NUM_ROUNDS) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = write_full_store(Path(scratch), num_videos)
        commands = {
            "click": ("-c", "import click"),
            "help": ("-m", "vidpipe", "--help"),
            "extract_help": ("-m", "vidpipe", "extract", "--help"),
            "extract": ("-m", "vidpipe", *arguments),
        }
        rounds = [{name: process_seconds(*command) for name, command in commands.items()} for _ in range(num_rounds)]
        said, modules = imported(arguments)
        _, modules_of_help = imported(["--help"])
    if f"0 videos stored (0 frames, 0.0 s), {num_videos} were there already, 0 failed" not in said:
        raise RuntimeError(f"extract did something: {said}")
    beyond_click = [1000 * (round["help"] - round["click"]) for round in rounds]
    beyond_start = [round["extract"] - round["extract_help"] for round in rounds]
    return (
        "## Start-up (`benchmarks/start_up.py`)\n\n"
        f"Whole processes, median of {num_rounds} rounds, minimum and maximum.\n\n"
        "| | beyond | takes | torch, av, decord imported |\n|---|---|---|---|\n"
        f'| `vidpipe --help` | `python -c "import click"` | {spread(beyond_click, 0)} ms | {modules_of_help} |\n'
        f"| `vidpipe extract` over a store that has all {num_videos} videos | `vidpipe extract --help` | "
        f"{spread(beyond_start)} s | {modules} |\n\n"
        "The files are not videos, and none failed: none was opened."
    )


if __name__ == "__main__":
    print(run())
