"""Extractions that are killed: SIGKILL at random moments of real `vidpipe extract` processes.

    python -m benchmarks.kills 100
    python -m benchmarks.kills 20 0 tracks         of videos with two people, by `--regions tracks`

Each extraction fills two stores, one a backbone. Every other kill waits until a shard is being written. After each
kill: the stores open, every sealed shard is unchanged, no video is in two shards of a store, and no process is left
behind. Completed stores are compared with a fresh extraction, and the next kills use new ones; the last are completed.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.clips import write_clip
from tests.media import write_frames
from tests.people import picture, write_colour_detector
from vidpipe.features.maintenance import find_damage
from vidpipe.features.store import FeatureStore

NUM_VIDEOS = 40
LEFT, RIGHT = (30, 20, 54, 80), (100, 40, 124, 100)
"""Where the people of videos with tracks stand."""
BACKBONES = ("efficientnet_lite0", "flow")
SETTINGS = ("--backbone", ",".join(BACKBONES), "--device", "cpu", "--workers", "1", "--num-frames", "4", "--quiet")
SEAL_VIDEOS = 3
LATEST = 0.8
"""Of the time that a whole extraction takes."""
MAX_WRITING_SECONDS = 0.01
ORPHAN_SECONDS = 5.0
TOLERANCE = 1e-4


@dataclass
class Outcome:
    """Counts so far, and what was wrong."""

    num_kills: int = 0
    num_kills_while_writing: int = 0
    num_stores: int = 0
    """Pairs of stores that were completed, and were equal to a fresh extraction."""
    wrong: list[str] = field(default_factory=list)


def command(videos: Path, store: Path) -> list[str]:
    """Return the command line of a real extraction; with a detector beside the videos, of tracks."""
    program = [sys.executable, "-m", "vidpipe", "extract", str(videos), "-o", str(store)]
    detector = videos.with_name("colours.onnx")
    tracks = ["--regions", "tracks", "--detector", "centernet", "--detector-weights", str(detector)]
    return [*program, *SETTINGS, "--seal-videos", str(SEAL_VIDEOS), *(tracks if detector.exists() else [])]


def kill_often(
    count: int, seed: int, folder: Path, *, num_videos: int = NUM_VIDEOS, has_tracks: bool = False
) -> Outcome:
    """Kill extractions, and check the stores after each."""
    dice = random.Random(seed)
    videos = folder / "videos"
    videos.mkdir()
    first = videos / "0.mp4"
    if has_tracks:
        write_colour_detector(folder / "colours.onnx")
        write_frames(first, [picture([(0, LEFT, True), (2, RIGHT, False)])] * 30, options={"g": "12"})
    else:
        write_clip(first, "libx264", {"g": "12"}, num_frames=30)
    for number in range(1, num_videos):
        (videos / f"{number}.mp4").write_bytes(first.read_bytes())
    started = time.monotonic()
    subprocess.run(command(videos, folder / "fresh"), check=True, stdout=subprocess.DEVNULL)
    whole_seconds = time.monotonic() - started
    outcome, sealed = Outcome(), set[str]()
    while outcome.num_kills < count:
        path = folder / f"store{outcome.num_stores}"
        finished = _run_and_kill(command(videos, path), path, whole_seconds, dice, outcome)
        sealed = examine(path, sealed, outcome)
        print(f"{outcome.num_kills} kills, {len(sealed)} videos sealed, wrong: {outcome.wrong}", file=sys.stderr)
        if finished:
            outcome.wrong += differences(path, folder / "fresh")
            outcome.num_stores, sealed = outcome.num_stores + 1, set()
    path = folder / f"store{outcome.num_stores}"
    subprocess.run(command(videos, path), check=True, stdout=subprocess.DEVNULL)
    examine(path, sealed, outcome)
    outcome.wrong += differences(path, folder / "fresh")
    outcome.num_stores += 1
    return outcome


def _run_and_kill(
    arguments: list[str], store: Path, whole_seconds: float, dice: random.Random, outcome: Outcome
) -> bool:
    """Whether the extraction finished before it was killed."""
    deadline = time.monotonic() + dice.uniform(0, LATEST * whole_seconds)
    while_writing = bool(dice.getrandbits(1))
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if while_writing:
            while process.poll() is None and not any(store.glob("*/shards/*.writing")):
                pass
            time.sleep(dice.uniform(0, MAX_WRITING_SECONDS))
        if process.poll() is not None:
            if process.returncode:
                outcome.wrong.append(f"the extraction ended with exit code {process.returncode}")
            return True
        process.kill()
        process.wait()
    outcome.num_kills += 1
    outcome.num_kills_while_writing += while_writing
    outcome.wrong += _orphans(process.pid)
    return False


def _orphans(session: int) -> list[str]:
    """Workers that are still running a while after their extraction."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while left := processes_of(session):
        if time.monotonic() > deadline:
            os.killpg(session, signal.SIGKILL)
            return [f"processes left behind: {left}"]
        time.sleep(0.05)
    return []


def processes_of(session: int) -> list[int]:
    """Return the ids of a session's processes, without zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(folder.name))
    return found


def examine(path: Path, sealed_before: set[str], outcome: Outcome) -> set[str]:
    """The videos of the stores after a kill, `flow/1.mp4`."""
    sealed: set[str] = set()
    for name in BACKBONES:
        if (path / name / "store.json").exists():
            store = FeatureStore.open(path / name)
            outcome.wrong += map(str, find_damage(store))
            rows = [f"{name}/{row.id}" for shard in store.shards for row in shard.videos]
            outcome.wrong += [f"{video_id}: extracted twice" for video_id in set(rows) if rows.count(video_id) > 1]
            sealed |= set(rows)
    outcome.wrong += [f"{video_id}: lost" for video_id in sealed_before - sealed]
    return sealed


def differences(path: Path, fresh_path: Path) -> list[str]:
    """How completed stores differ from those of a fresh extraction."""
    pairs = [(FeatureStore.open(path / name), FeatureStore.open(fresh_path / name)) for name in BACKBONES]
    return [difference for store, fresh in pairs for difference in _differences_of_store(store, fresh)]


def _differences_of_store(store: FeatureStore, fresh: FeatureStore) -> list[str]:
    if set(store) != set(fresh):
        return [f"{store.path}: {len(store)} of {len(fresh)} videos"]
    return [
        f"{store.path.name}/{video_id}: not what a fresh extraction gives"
        for video_id in store
        if np.abs(store[video_id].features - fresh[video_id].features).max() > TOLERANCE
    ]


def run(count: int = 20, seed: int = 0, *, has_tracks: bool = False) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_often(count, seed, Path(folder), has_tracks=has_tracks)
    problems = "\n".join(f"- {wrong}" for wrong in outcome.wrong) or "Nothing was wrong."
    return (
        "## Killed at random moments (`benchmarks/kills.py`)\n\n"
        f"{outcome.num_kills} runs of `vidpipe extract --backbone {','.join(BACKBONES)}"
        f"{' --regions tracks' * has_tracks}` with {NUM_VIDEOS} videos were "
        f"killed (seed {seed}), "
        f"{outcome.num_kills_while_writing} of them within {1000 * MAX_WRITING_SECONDS:.0f} ms after a shard's "
        f"writing began; {outcome.num_stores} pairs of stores were completed. {problems}"
    )


if __name__ == "__main__":
    numbers = map(int, (one for one in sys.argv[1:] if one != "tracks"))
    print(run(*numbers, has_tracks="tracks" in sys.argv))
