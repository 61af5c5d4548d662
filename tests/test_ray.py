"""Extraction on Ray: what it stores, against the local engine; what each node is asked before; what is refused."""

import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vidpipe.execution
from tests.commands import LENET, run
from tests.media import write_video
from tests.ray_cluster import Cluster, add_node, cluster_of
from vidpipe.backbones.downloads import sha256
from vidpipe.backbones.stream import Stream
from vidpipe.backbones.weights import FINE_TUNED, SHIPPED
from vidpipe.config import ExtractConfig
from vidpipe.errors import ExecutorError, UsageError
from vidpipe.execution.actors import NodeResources, cut_batches, plan_actors
from vidpipe.execution.node import Extractor, Job, Report, find_problem
from vidpipe.features.locks import Part, lock
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFile
from vidpipe.stages.extract import extract
from vidpipe.version import __version__
from vidpipe.video.files import find_videos

CONFIG = ExtractConfig(backbone="lenet5", device="cpu", workers=1, num_frames=4)
NUM_VIDEOS = 12


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with cluster_of(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of different lengths, one with bytes in its name that are not UTF-8, and a file that is none."""
    folder = tmp_path_factory.mktemp("ray") / "videos"
    for number in range(NUM_VIDEOS):
        write_video(folder / "deep" / f"{number}.mp4", 6 + number, first_number=20 * number)
    (folder / "deep" / "1.mp4").rename(folder / os.fsdecode(b"caf\xe9.mp4"))
    (folder / "bad.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def local(videos: Path) -> FeatureStore:
    """What the local engine stores."""
    extract(find_videos([videos]), videos.parent / "local", config=CONFIG)
    return FeatureStore.open(videos.parent / "local")


def on_ray(cluster: Cluster, *arguments: object) -> tuple[object, ...]:
    return ("extract", *arguments, *LENET, "--num-frames", 4, "--executor", "ray", "--ray-address", cluster.address)


def assert_equal(store: FeatureStore, other: FeatureStore) -> None:
    assert store.ids == other.ids
    for video_id in other:
        one, two = store[video_id], other[video_id]
        assert (one.info, one.source) == (two.info, two.source)
        assert np.array_equal(one.rows.frame_index, two.rows.frame_index)
        assert np.array_equal(one.pts_seconds, two.pts_seconds)
        assert np.abs(one.features - two.features).max() < 1e-5


@pytest.mark.slow
def test_two_nodes_store_what_the_local_engine_stores(
    cluster: Cluster, videos: Path, local: FeatureStore, tmp_path: Path
) -> None:
    result = run(*on_ray(cluster, videos, "-o", tmp_path / "s"))
    assert result.exit_code == 3, result.output
    store = FeatureStore.open(tmp_path / "s")
    assert_equal(store, local)
    store.verify()
    rows = [row.id for shard in store.shards for row in shard.videos]
    assert len(rows) == len(set(rows)) == NUM_VIDEOS
    assert f"{NUM_VIDEOS} videos stored ({4 * NUM_VIDEOS} frames" in result.stdout
    assert "2 actors with 1 core each" in result.stderr
    assert [(one.video_id, one.error) for one in store.failures] == [("bad.mp4", "NotAVideoError")]
    assert not list((tmp_path / "s" / "locks").glob("*.job"))
    again = run(*on_ray(cluster, videos, "-o", tmp_path / "s"))
    assert f"0 videos stored (0 frames, 0.0 s), {NUM_VIDEOS} were there already" in again.stdout


def test_a_dry_run_says_what_would_extract(cluster: Cluster, videos: Path, tmp_path: Path) -> None:
    result = run(*on_ray(cluster, videos, "-o", tmp_path / "s", "--dry-run", "--ray-cpus", 1))
    assert result.exit_code == 0, result.output
    assert f"would extract {NUM_VIDEOS + 1} videos" in result.stdout
    assert re.search(r"Ray: 2 actors with 1 core each; room for 1 on \S+ \(\S+\), 1 on ", result.stdout)
    assert not (tmp_path / "s").exists()


def test_a_store_that_is_being_written_is_refused(cluster: Cluster, videos: Path, tmp_path: Path) -> None:
    assert run("extract", videos / "deep", "-o", tmp_path / "s", *LENET, "--num-frames", 4).exit_code == 0
    with lock(tmp_path / "s", Part(1, 1)):
        result = run(*on_ray(cluster, videos / "deep", "-o", tmp_path / "s"))
    assert result.exit_code == 1
    assert "another vidpipe is writing all of this store" in result.stderr


@pytest.mark.slow
def test_duplicates_are_those_that_one_machine_finds(
    cluster: Cluster, videos: Path, local: FeatureStore, tmp_path: Path
) -> None:
    shutil.copytree(videos / "deep", tmp_path / "v")
    shutil.copy(tmp_path / "v" / "7.mp4", tmp_path / "v" / "copy.mp4")
    assert run("extract", tmp_path / "v", "-o", tmp_path / "s", *LENET, "--num-frames", 4).exit_code == 0
    arguments = ("search", "duplicates", tmp_path / "s", "--format", "json")
    here = run(*arguments)
    there = run(*arguments, "--executor", "ray", "--ray-address", cluster.address)
    assert '"video": "copy.mp4"' in there.stdout
    assert (there.exit_code, there.stdout) == (0, here.stdout)


@pytest.mark.slow
def test_predictions_and_timelines_are_those_of_one_machine(cluster: Cluster, made: Path, tmp_path: Path) -> None:
    ray = ("--executor", "ray", "--ray-address", cluster.address)
    for options in (("--top", 2), ("--timeline", "--window", 0.4)):
        arguments = ("predict", made / "run", made / "new", "--format", "json", "--device", "cpu", *options)
        here = run(*arguments)
        assert here.exit_code == 3
        refused = run(*arguments, *ray)
        assert refused.stderr.strip().endswith(
            "Error: --executor ray needs --store FOLDER, in a folder that all nodes see; what it lacks is added"
        )
        kept = tmp_path / options[0]
        there = run(*arguments, *ray, "--store", kept)
        assert (there.exit_code, there.stdout) == (3, here.stdout)
        assert len(FeatureStore.open(kept)) == 3


@pytest.mark.slow
def test_a_store_that_a_node_does_not_see_is_refused_before_work_begins(
    cluster: Cluster, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # not the working folder of Ray's processes
    result = run(*on_ray(cluster, videos, "-o", "/proc/self/cwd/s"))
    assert result.exit_code == 1
    assert re.search(r"Error: node \S+ \(\S+\) does not see /proc/self/cwd/s; the store must be in", result.stderr)
    assert list(FeatureStore.open("s")) == []


@pytest.mark.slow
def test_a_node_with_another_vidpipe_or_without_it_is_named(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Ray's processes import from the driver's working folder first
    shutil.copytree(Path(vidpipe.__file__).parent, tmp_path / "other" / "vidpipe")
    (tmp_path / "other" / "vidpipe" / "version.py").write_text('__all__ = ["__version__"]\n__version__ = "0.0.1"\n')
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "vidpipe.py").write_text("")  # no package, so nothing of an installed one is found either
    needed = "has vidpipe 0.0.1, and the driver has ", "cannot run vidpipe (ModuleNotFoundError: No module named "
    with cluster_of(1) as cluster:
        for name, expected in zip(("other", "none"), needed, strict=True):
            node = add_node(cluster, environment={"PYTHONPATH": str(tmp_path / name)})
            cluster.wait_for_nodes()
            result = run(*on_ray(cluster, videos, "-o", tmp_path / "s"))
            assert result.exit_code == 1
            assert re.search(rf"Error: node \S+ \(\S+\) {re.escape(expected)}", result.stderr)
            cluster.remove_node(node)


# what a node is asked


@pytest.fixture
def job(videos: Path, tmp_path: Path) -> Iterator[Job]:
    """An extraction that has started, without an engine."""
    summary = extract([], tmp_path / "s", config=CONFIG)
    stores = {name: FeatureStore.open(one.store_path) for name, one in summary.streams.items()}
    job = Job.of(stores, CONFIG, num_videos=3, cores=1, num_actors=1)
    job.start()
    yield job
    job.stop()


def test_a_node_that_can_take_part_has_no_problem(job: Job, videos: Path) -> None:
    assert find_problem(__version__, pickle.dumps(job), [str(videos / "bad.mp4")]) == ""


def test_an_actor_finds_the_weights_of_a_fine_tuned_run(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    own = {name: 1.1 * one for name, one in load_file(SHIPPED / "lenet5_digits.safetensors").items()}
    save_file(own, tmp_path / "run" / FINE_TUNED)
    key = replace(Stream.of(CONFIG).key, weights=sha256(tmp_path / "run" / FINE_TUNED))
    stores = {"lenet5": FeatureStore.create(tmp_path / "s", key)}
    found = [video for video in find_videos([videos]) if video.id != "bad.mp4"][:2]
    wanted = {video.id: ("lenet5",) for video in found}
    for owner, expected in ((None, "its features are of other weights of lenet5"), (str(tmp_path / "run"), "")):
        job = Job.of(stores, CONFIG, num_videos=2, cores=1, num_actors=1, owner=owner)
        with stores["lenet5"].lock():
            job.start()
            problem = find_problem(__version__, pickle.dumps(job), [])
            assert expected in problem if expected else problem == ""
            reports = list(Extractor(pickle.dumps(job)).extract((found, wanted)))
            job.stop()
        assert (reports[-1].error is None) == (expected == "")
    assert FeatureStore.open(tmp_path / "s").ids == tuple(sorted(wanted))


def test_a_node_says_what_it_does_not_see(job: Job, tmp_path: Path) -> None:
    pickled = pickle.dumps(job)
    assert find_problem("0.0.1", b"", []).startswith(f"has vidpipe {__version__}, and the driver has 0.0.1")
    assert find_problem(__version__, pickled, ["/no/a.mp4"]).startswith("does not see /no/a.mp4; the videos must")
    job.stop()
    assert find_problem(__version__, pickled, []).startswith(f"does not see {tmp_path}/s; the store must be in")


def test_a_node_with_other_weights_says_so(job: Job, tmp_path: Path) -> None:
    import torch

    weights = tmp_path / "mine.pth"
    torch.save({"any": torch.zeros(3)}, weights)
    other = replace(job, config=replace(CONFIG, weights=str(weights)))
    assert "its features are of other weights of lenet5" in find_problem(__version__, pickle.dumps(other), [])
    absent = replace(job, config=replace(CONFIG, weights=str(tmp_path / "no.pth")))
    assert "no.pth" in find_problem(__version__, pickle.dumps(absent), [])


def reports_of(job: Job, videos: list[VideoFile]) -> Iterator[Report]:
    return Extractor(pickle.dumps(job)).extract((videos, {video.id: ("lenet5",) for video in videos}))


def test_an_actor_reports_what_it_sealed_and_what_failed(job: Job, videos: Path) -> None:
    first, *others = list(reports_of(job, find_videos([videos])))
    assert (first.num_done, first.failures) == (0, ())
    assert sum(one.num_done for one in others) == len(FeatureStore.open(job.store_paths["lenet5"])) == NUM_VIDEOS
    assert sum(one.num_frames for one in others) == 4 * NUM_VIDEOS
    assert [failure.video_id for one in others for failure in one.failures] == ["bad.mp4"]


def test_an_actor_whose_job_is_stopped_seals_what_it_has(job: Job, videos: Path) -> None:
    job = replace(job, report_seconds=0.0)
    reports = reports_of(job, find_videos([videos / "deep"]))
    done = next(one for one in reports if one.num_done)
    job.stop()
    done_at_all = done.num_done + sum(one.num_done for one in reports)
    assert 0 < done_at_all < NUM_VIDEOS - 1
    assert len(FeatureStore.open(job.store_paths["lenet5"])) == done_at_all
    assert [one.num_done for one in reports_of(job, find_videos([videos / "deep"]))] == [0]


def test_an_error_that_concerns_all_videos_is_reported(job: Job, videos: Path) -> None:
    shutil.rmtree(Path(job.store_paths["lenet5"]) / "shards")
    last = list(reports_of(job, find_videos([videos / "deep"])))[-1]
    assert last.error is not None
    assert last.error.name == "StoreError"
    assert "a shard cannot be written" in last.error.message


# how many actors, and which videos


def node(name: str, cpus: float, gpus: float = 0) -> NodeResources:
    return NodeResources(name, name, cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        ([node("a", 2), node("b", 1)], {}, (1, 0, {"a": 2, "b": 1}, 3)),
        ([node("a", 64), node("b", 9)], {}, (4, 0, {"a": 16, "b": 2}, 18)),
        ([node("head", 0), node("a", 8)], {"ray_cpus": 8}, (8, 0, {"a": 1}, 1)),
        ([node("a", 16, 2), node("b", 8)], {}, (8, 1, {"a": 2}, 2)),
        ([node("a", 16, 1)], {"ray_gpus": 0.5}, (8, 0.5, {"a": 2}, 2)),
        ([node("a", 16, 1)], {"device": "cpu"}, (4, 0, {"a": 4}, 4)),
        ([node("a", 16)], {"ray_actors": 3}, (4, 0, {"a": 4}, 3)),
        ([node("a", 4)], {"ray_actors": 9, "ray_cpus": 2}, (2, 0, {"a": 2}, 2)),
    ],
)
def test_as_many_actors_run_as_fit(
    nodes: list[NodeResources], settings: dict[str, object], expected: tuple[int, float, dict[str, int], int]
) -> None:
    plan = plan_actors(nodes, ExtractConfig(executor="ray", **settings))  # type: ignore[arg-type]
    by_node = {node.name: count for node, count in plan.by_node.items()}
    assert (plan.cpus, plan.gpus, by_node, plan.count) == expected


def test_an_actor_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ExecutorError, match=r"no node has 8 cores and 0 GPUs for an actor \(a: 2 cores, 0 GPUs\)"):
        plan_actors([node("a", 2)], ExtractConfig(executor="ray", ray_cpus=8))
    with pytest.raises(UsageError, match="--device cuda needs GPUs"):
        plan_actors([node("a", 2)], ExtractConfig(executor="ray", device="cuda"))


@pytest.mark.parametrize(("num_videos", "num_actors", "max_videos"), [(1, 4, 8), (20, 2, 256), (1000, 3, 64)])
def test_batches_hold_every_video_once_and_shrink(num_videos: int, num_actors: int, max_videos: int) -> None:
    videos = [VideoFile(str(number), Path(str(number))) for number in range(num_videos)]
    wanted = {video.id: ("a",) for video in videos}
    batches = cut_batches(videos, wanted, num_actors=num_actors, max_videos=max_videos)
    sizes = [len(some) for some, _ in batches]
    assert [video for some, _ in batches for video in some] == videos
    assert all(set(its) == {video.id for video in some} for some, its in batches)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= max_videos
    assert sizes[-1] <= 8


# what is refused


Refused = Callable[..., str]


@pytest.fixture
def refused(videos: Path, tmp_path: Path) -> Refused:
    """The last line of an extraction that is refused before it makes a store."""

    def call(*options: object) -> str:
        result = run("extract", videos, "-o", tmp_path / "none", *LENET, *options)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
        assert not (tmp_path / "none").exists()
        return result.stderr.strip().splitlines()[-1]

    return call


@pytest.fixture
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A server that is not Ray, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_answer_is_refused_at_once(
    listening: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    server, address = listening
    monkeypatch.setattr("vidpipe.execution.ray_cluster.CONNECT_SECONDS", 0.2)
    message = refused("--executor", "ray", "--ray-address", address)
    assert message.startswith(f"Error: no Ray cluster answers at {address} (")
    server.close()
    message = refused("--executor", "ray", "--ray-address", address)
    assert message.startswith(f"Error: no Ray cluster answers at {address} (Connection refused); is its head running")


@pytest.mark.parametrize("address", ["here", "ray://head:10001", "head:", ":6379"])
def test_what_is_no_address_is_refused_with_the_form(address: str, refused: Refused) -> None:
    message = refused("--executor", "ray", "--ray-address", address)
    assert message.startswith(f"Error: '{address}' is no address of a Ray cluster: give HOST:PORT of its head")


def test_settings_of_ray_need_its_executor(refused: Refused) -> None:
    assert refused("--ray-cpus", 2) == "Error: --ray-cpus goes with --executor ray"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)  # what `import ray` finds where it is not installed
    monkeypatch.delitem(sys.modules, "vidpipe.execution.ray_cluster", raising=False)
    monkeypatch.delattr(vidpipe.execution, "ray_cluster", raising=False)
    message = refused("--executor", "ray")
    assert message == "Error: --executor ray needs a package: pip install 'vidpipe[ray]'"


# what ends


POISON = """
import os, signal
import vidpipe.execution.local as local

real = local.iter_features

def dying(videos, streams, **options):
    for result in real(videos, streams, **options):
        if getattr(result, "video_id", "") == "poison.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        yield result

local.iter_features = dying
"""
"""Kills the process that has the features of one video, as native code of a backbone might."""


@pytest.mark.slow
def test_a_video_that_ends_its_actor_costs_itself_alone(videos: Path, tmp_path: Path) -> None:
    for folder in ("v", "site"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        shutil.copy(videos / "deep" / f"{number + 2}.mp4", tmp_path / "v" / f"{number}.mp4")
    shutil.copy(videos / "deep" / "0.mp4", tmp_path / "v" / "poison.mp4")
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(vidpipe.__file__).parents[1])])
    with cluster_of(2, environment={"PYTHONPATH": path}) as cluster:
        result = run(*on_ray(cluster, tmp_path / "v", "-o", tmp_path / "s"))
    assert result.exit_code == 3, result.output
    assert "failed: poison.mp4: the actor that extracted it ended, 3 times" in result.stderr
    store = FeatureStore.open(tmp_path / "s")
    rows = [row.id for shard in store.shards for row in shard.videos]
    assert sorted(rows) == [f"{number}.mp4" for number in range(6)]
    assert [(one.video_id, one.error) for one in store.failures] == [("poison.mp4", "ActorCrashError")]
    (poison,) = find_videos([tmp_path / "v" / "poison.mp4"])
    assert store.known_failure(poison) is None


@pytest.mark.slow
def test_actors_that_end_again_and_again_end_the_extraction(videos: Path, tmp_path: Path) -> None:
    for number in range(30):
        shutil.copy(videos / "deep" / "0.mp4", tmp_path / f"{number}.mp4")
    (tmp_path / "sitecustomize.py").write_text(POISON.replace('== "poison.mp4"', '!= ""'))
    path = os.pathsep.join([str(tmp_path), str(Path(vidpipe.__file__).parents[1])])
    with cluster_of(2, environment={"PYTHONPATH": path}) as cluster:
        result = run(*on_ray(cluster, tmp_path, "-o", tmp_path / "s", "--seal-videos", 1))
    assert result.exit_code == 1
    assert re.search(r"Error: \d actors ended without a video done; is there memory left on the nodes", result.stderr)


@pytest.mark.slow
def test_ctrl_c_seals_what_the_actors_have(cluster: Cluster, tmp_path: Path) -> None:
    num_videos = 400  # the extraction continues for seconds after its first shard
    first = write_video(tmp_path / "v" / "000.mp4", 150, width=320, height=240)
    for number in range(1, num_videos):
        shutil.copyfile(first, first.with_stem(f"{number:03}"))
    arguments = on_ray(cluster, tmp_path / "v", "-o", tmp_path / "s", "--quiet", "--seal-videos", 4)
    program = [sys.executable, "-m", "vidpipe", *map(str, arguments)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not any((tmp_path / "s" / "shards").glob("*.h5")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    stored = len(FeatureStore.open(tmp_path / "s"))
    assert process.returncode == 1, f"{stored} stored; {stderr}"
    assert 0 < stored < num_videos
    assert f"stopped; {stored} of {num_videos} videos stored in" in stderr
    assert not list((tmp_path / "s" / "locks").glob("*.job"))
    assert run(*on_ray(cluster, tmp_path / "v", "-o", tmp_path / "s")).exit_code == 0
    rows = [row.id for shard in FeatureStore.open(tmp_path / "s").shards for row in shard.videos]
    assert len(rows) == len(set(rows)) == num_videos
