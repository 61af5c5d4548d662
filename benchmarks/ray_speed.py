"""Extraction on Ray against the local engine, and what Ray costs for each video.

    python -m benchmarks.ray_speed              200 clips, 10,000 empty videos, 3 rounds
    python -m benchmarks.ray_speed 60 2000 1    quickly

Speed: real clips with efficientnet_lite0; two actors with one core each on a cluster of two nodes, against the local
engine on two cores of the same machine, in turns. Start-up is left out: the rate is that of the last four fifths of
the videos, until the extraction has ended.

Overhead: actors that only report their videos as done; from the first report to the last.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.clips import labelled_sets
from tests.ray_cluster import Cluster, cluster_of
from vidpipe.config import ExtractConfig
from vidpipe.execution.actors import cut_batches, plan_actors
from vidpipe.execution.node import Batch, Job, Report
from vidpipe.execution.progress import ExtractProgress
from vidpipe.execution.ray_cluster import connect, list_nodes
from vidpipe.execution.ray_data import Actor, start_actors
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFile
from vidpipe.stages.extract import extract
from vidpipe.video.files import find_videos

LOCAL = ExtractConfig(backbone="efficientnet_lite0", engine="onnx", device="cpu")
START_SHARE = 0.2
"""Of the videos, during which processes start."""


def rate(videos: list[VideoFile], store: Path, config: ExtractConfig) -> float:
    """Extract, and return the videos per second after the start."""
    steps: list[tuple[float, int]] = []

    def note(progress: ExtractProgress) -> None:
        steps.append((time.monotonic(), progress.num_done))

    summary = extract(videos, store, config=config, on_progress=note)
    assert summary.num_stored == len(FeatureStore.open(store)) == len(videos)
    started, num_before = next(step for step in steps if step[1] >= START_SHARE * len(videos))
    return (len(videos) - num_before) / (steps[-1][0] - started)


def compare(num_videos: int, num_rounds: int, cluster: Cluster, folder: Path) -> str:
    """Return a sentence with the rates of both engines."""
    labels = next(iter(labelled_sets(folder).values()))
    videos = find_videos([labels.parent])[:num_videos]
    on_ray = replace(LOCAL, executor="ray", ray_address=cluster.address)
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    extract(videos[:2], folder / "warm", config=LOCAL)  # exports the backbone, once
    for number in range(num_rounds):
        rates["local"].append(rate(videos, folder / f"local{number}", LOCAL))
        rates["ray"].append(rate(videos, folder / f"ray{number}", on_ray))
    ratios = [ray / local for ray, local in zip(rates["ray"], rates["local"], strict=True)]
    return (
        f"{len(videos)} clips, efficientnet_lite0, start-up left out: two actors with one core each extract "
        f"{statistics.median(rates['ray']):.2f} videos/s, the local engine on two cores "
        f"{statistics.median(rates['local']):.2f}. Ratio: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {num_rounds} pairs)."
    )


class IdleActor(Actor):
    """Reports its videos as done, and does nothing."""

    def extract(self, batch: Batch) -> Iterator[Report]:
        """See `Extractor.extract`."""
        yield Report("idle", num_done=len(batch[0]))


def overhead_ms(num_videos: int, cluster: Cluster) -> float:
    """Return milliseconds for each video of the driver and of Ray, without those of starting the actors."""
    videos = [VideoFile(f"folder/{number}.mp4", Path(f"/videos/folder/{number}.mp4")) for number in range(num_videos)]
    wanted = {video.id: ("any",) for video in videos}
    with connect(cluster.address):
        plan = plan_actors(list_nodes(), LOCAL)
        started = time.monotonic()
        batches = cut_batches(videos, wanted, num_actors=plan.count, max_videos=LOCAL.seal_videos)
        cut_seconds = time.monotonic() - started
        job = Job("none", {}, LOCAL, num_videos, plan.cpus, 1.0)
        reports = iter(start_actors(job, plan, batches, actor=IdleActor))
        num_done = next(reports).num_done
        started = time.monotonic()
        num_left = sum(report.num_done for report in reports)
        assert num_done + num_left == num_videos
        return 1000 * (cut_seconds + time.monotonic() - started) / num_left


def run(num_videos: int = 200, num_empty: int = 10_000, num_rounds: int = 3) -> str:
    """Measure, and return a section of RESULTS.md."""
    with cluster_of(2) as cluster, tempfile.TemporaryDirectory() as folder:
        speed = compare(num_videos, num_rounds, cluster, Path(folder))
        overhead = statistics.median(overhead_ms(num_empty, cluster) for _ in range(num_rounds))
    return (
        f"## Ray (`benchmarks/ray_speed.py`)\n\n{speed}\n\nEmpty work, {num_empty:,} videos: {overhead:.2f} ms for "
        "each video, of the driver and of Ray."
    )


if __name__ == "__main__":
    print(run(*map(int, sys.argv[1:])))
