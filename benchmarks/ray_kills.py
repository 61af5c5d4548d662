"""Extractions on Ray that are killed: SIGKILL of an actor, of a node, of the driver, at random moments.

    python -m benchmarks.ray_kills 20            20 kills of each
    python -m benchmarks.ray_kills 3 0 actor     3 kills of actors, seed 0

Each extraction is a real `vidpipe extract --executor ray` on a cluster of two nodes with one core each, all on this
machine; it fills two stores, one a backbone. An actor that is killed is replaced by Ray, a node (its raylet) by a new
node, and the extraction goes on by itself. A driver that is killed has to be started again. After each: the stores
open, every sealed shard is unchanged, no video is in two shards of a store, and nothing that was sealed is lost.
Completed stores are compared with those of the local engine.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.clips import write_clip
from benchmarks.kills import BACKBONES, Outcome, differences, examine
from tests.ray_cluster import Cluster, actors, add_node, cluster_of, raylets

KINDS = ("actor", "node", "driver")
NUM_VIDEOS = 24
SEAL_VIDEOS = 3
SETTINGS = ("--backbone", ",".join(BACKBONES), "--device", "cpu", "--num-frames", "4", "--quiet")
START_SECONDS, MAX_SECONDS = 120.0, 600.0


def kill_often(kinds: list[str], count: int, seed: int, folder: Path) -> dict[str, Outcome]:
    """Kill extractions, and check the stores after each; by what was killed, the outcome."""
    dice = random.Random(seed)
    videos = folder / "v"
    videos.mkdir()
    write_clip(videos / "0.mp4", "libx264", {"g": "12"}, num_frames=60)
    for number in range(1, NUM_VIDEOS):
        (videos / f"{number}.mp4").write_bytes((videos / "0.mp4").read_bytes())
    program = [sys.executable, "-m", "vidpipe", "extract", str(videos), *SETTINGS]
    subprocess.run([*program, "-o", str(folder / "fresh")], check=True, stdout=subprocess.DEVNULL)
    outcomes = {kind: Outcome() for kind in kinds}
    for kind, outcome in outcomes.items():
        with cluster_of(2) as cluster:
            seconds = _undisturbed_seconds(
                [*program, "-o", str(folder / f"{kind}-whole"), *_settings(cluster)], cluster
            )
            while outcome.num_kills < count:
                store = folder / f"{kind}{outcome.num_stores}"
                _until_complete(program, store, kind, cluster, seconds, count, dice, outcome)
                outcome.wrong += differences(store, folder / "fresh")
                outcome.num_stores += 1
                print(f"{kind}: {outcome.num_kills} kills, wrong: {outcome.wrong}", file=sys.stderr, flush=True)
    return outcomes


def _until_complete(
    program: list[str],
    store: Path,
    kind: str,
    cluster: Cluster,
    seconds: float,
    count: int,
    dice: random.Random,
    outcome: Outcome,
) -> None:
    """Run the same command until it ends by itself; what is killed, is killed once a run."""
    sealed: set[str] = set()
    is_killed = True
    while is_killed:
        with subprocess.Popen([*program, "-o", str(store), *_settings(cluster)], stdout=subprocess.DEVNULL) as process:
            is_killed = outcome.num_kills < count and _kill_once(
                kind, process, cluster, dice.uniform(0, seconds), dice, outcome
            )
            if kind != "driver" or not is_killed:
                process.wait(MAX_SECONDS)
                if process.returncode:
                    outcome.wrong.append(f"the extraction ended with exit code {process.returncode}")
                is_killed = False
        sealed = examine(store, sealed, outcome)


def _settings(cluster: Cluster) -> list[str]:
    return ["--executor", "ray", "--ray-address", cluster.address, "--seal-videos", str(SEAL_VIDEOS)]


def _undisturbed_seconds(command: list[str], cluster: Cluster) -> float:
    """How long an extraction takes, from the start of its actors to its end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _wait_for_actors(process, cluster)
        started = time.monotonic()
        process.wait(MAX_SECONDS)
        return time.monotonic() - started


def _wait_for_actors(process: "subprocess.Popen[bytes]", cluster: Cluster) -> None:
    """Wait for the actors of an extraction that has just been started; those of one that was killed end meanwhile."""
    old, deadline = set(actors(cluster)), time.monotonic() + START_SECONDS
    while process.poll() is None and not set(actors(cluster)) - old and time.monotonic() < deadline:
        time.sleep(0.05)


def _kill_once(
    kind: str,
    process: "subprocess.Popen[bytes]",
    cluster: Cluster,
    seconds: float,
    dice: random.Random,
    outcome: Outcome,
) -> bool:
    """Kill some seconds after the actors have started; return whether the extraction still ran."""
    _wait_for_actors(process, cluster)
    time.sleep(seconds)
    victims = {"actor": actors(cluster), "node": raylets(cluster.worker_nodes), "driver": [process.pid]}[kind]
    if process.poll() is not None or not victims:  # the head stays: with it, the cluster ends
        return False
    os.kill(dice.choice(victims), signal.SIGKILL)
    outcome.num_kills += 1
    if kind == "node":
        time.sleep(dice.uniform(0, 3.0))
        add_node(cluster)
    return True


def run(count: int = 20, seed: int = 0, *kinds: str) -> str:
    """Measure, and return a section of RESULTS.md."""
    chosen = list(kinds or KINDS)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = kill_often(chosen, count, seed, Path(folder))
    lines = ["| SIGKILL of | kills | pairs of stores completed | wrong |", "|---|---|---|---|"]
    for kind, one in outcomes.items():
        lines.append(f"| {kind} | {one.num_kills} | {one.num_stores} | {'; '.join(one.wrong) or 'nothing'} |")
    return (
        "## Ray: killed at random moments (`benchmarks/ray_kills.py`)\n\n"
        f"`vidpipe extract --executor ray --backbone {','.join(BACKBONES)}` of {NUM_VIDEOS} videos on two nodes with "
        f"one core each, on one machine (seed {seed}).\n\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:] if one.isdecimal()]
    count, seed = (*numbers, *(20, 0)[len(numbers) :])
    print(run(count, seed, *(one for one in sys.argv[1:] if one.isalpha())))
