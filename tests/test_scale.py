"""docs/scale.md: its tables are those of the cost model, and its scripts for clusters run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import cost_model
from tests.media import moving_square, write_frames
from vidpipe.features.store import FeatureStore

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
NUM_VIDEOS = 6


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def job() -> dict[str, Any]:
    (text,) = blocks("yaml")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def container() -> dict[str, Any]:
    (found,) = job()["spec"]["template"]["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("table", [cost_model.cpu_table, cost_model.gpu_table, cost_model.part_table])
def test_the_tables_are_those_of_the_cost_model(table: Any) -> None:
    assert table() in PAGE


def test_a_cost_is_the_work_of_all_videos_divided_by_the_cores_and_the_listing() -> None:
    cost = cost_model.cpu_cost(1000, 2)
    assert cost.work_seconds == pytest.approx(1000 * (0.189 + 0.167) * 1.11 / 2)
    assert cost.listing_seconds == pytest.approx(1000 * 28.6e-6)
    assert cost.seconds == cost.work_seconds + cost.listing_seconds
    assert cost_model.cpu_cost(1000, 64).work_seconds == pytest.approx(cost.work_seconds / 32)


def test_beside_gpus_the_slowest_of_what_goes_on_at_once_decides() -> None:
    assert cost_model.gpu_cost(1000, 8).work_seconds == pytest.approx(1000 * 0.189 / 16 / 8)


def test_the_job_of_kubernetes_runs_one_pod_a_part_and_has_what_its_fields_need() -> None:
    spec, pod = job()["spec"], job()["spec"]["template"]["spec"]
    assert (job()["apiVersion"], job()["kind"]) == ("batch/v1", "Job")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job()["metadata"]["name"])
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] <= spec["completions"]
    assert pod["restartPolicy"] == "Never"  # backoffLimitPerIndex needs it
    (variable,) = container()["env"]
    assert variable == {"name": "PARTS", "value": str(spec["completions"])}  # a string, as Kubernetes wants it
    mounted = {mount["name"] for mount in container()["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    for amounts in container()["resources"].values():
        assert all(isinstance(amount, str) for amount in amounts.values())
    assert all(isinstance(argument, str) for argument in container()["command"] + container()["args"])


def test_the_array_of_slurm_has_as_many_tasks_as_parts() -> None:
    script = sbatch()
    (tasks,) = re.findall(r"^#SBATCH --array=1-(\d+)$", script, flags=re.MULTILINE)
    (parts,) = re.findall(r"^PARTS=(\d+)$", script, flags=re.MULTILINE)
    assert tasks == parts
    directives = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert script.splitlines()[1 : 1 + len(directives)] == directives  # sbatch reads none after the first command


def sbatch() -> str:
    (script,) = [block for block in blocks("bash") if "#SBATCH" in block]
    return script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with videos, one of them damaged, and a command `vidpipe` in bin/."""
    for number in range(NUM_VIDEOS):
        write_frames(tmp_path / "videos" / f"{number}.mp4", moving_square(number, to_the_right=True))
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    command = tmp_path / "bin" / "vidpipe"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vidpipe "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(folder: Path, shell: list[str], script: str, **variables: str) -> None:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": root, **variables}
    result = subprocess.run([*shell, script], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def assert_is_complete(store: Path, *, num_shards: int = 2) -> None:
    opened = FeatureStore.open(store)
    assert opened.ids == tuple(f"{number}.mp4" for number in range(NUM_VIDEOS))
    assert [one.video_id for one in opened.failures] == ["broken.mp4"]
    assert len(opened.shards) == num_shards  # each part has written its own
    opened.verify()


@pytest.mark.slow
def test_the_script_of_slurm_fills_a_store_by_its_tasks(folder: Path) -> None:
    script = sbatch().replace("PARTS=16", "PARTS=2")
    for task in ("1", "2"):
        run(folder, ["bash", "-c"], script, SLURM_ARRAY_TASK_ID=task)
    assert_is_complete(folder / "features_slurm")


@pytest.mark.slow
def test_the_job_of_kubernetes_fills_a_store_by_its_pods(folder: Path) -> None:
    (script,) = container()["args"]
    for index in ("0", "1"):
        run(
            folder,
            container()["command"],
            script.replace("/data/", f"{folder}/").replace("--workers 33", "--workers 1"),
            JOB_COMPLETION_INDEX=index,
            PARTS="2",
        )
    assert_is_complete(folder / "features_kubernetes")


AWS = """#!{python}
import os, shutil, sys
from fnmatch import fnmatch
from pathlib import Path

command, (source, target), options = sys.argv[1:3], sys.argv[3:5], iter(sys.argv[5:])
assert command == ["s3", "sync"]
rules = [(option, next(options)) for option in options if option != "--only-show-errors"]
assert all(option in ("--include", "--exclude") for option, _ in rules)
source, target = (Path(one.replace("s3://", os.environ["BUCKETS"] + "/")) for one in (source, target))
for path in source.rglob("*"):
    name = path.relative_to(source).as_posix()
    last = [option for option, pattern in rules if fnmatch(name, pattern)][-1:]
    if path.is_file() and last != ["--exclude"]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / name)
"""
"""In place of AWS's program: copies files from and to a folder; the last pattern that fits a name decides."""


@pytest.mark.slow
def test_the_scripts_for_a_bucket_make_one_store_of_the_parts(folder: Path) -> None:
    extract, join = (block for block in blocks("bash") if "aws" in block)
    (folder / "bin" / "aws").write_text(AWS.replace("{python}", sys.executable))
    (folder / "bin" / "aws").chmod(0o755)
    stored = folder / "buckets" / "bucket" / "features"
    extract = extract.replace("PARTS=16", "PARTS=2").replace("sleep 60", "sleep 0.2")
    for part in ("1", "2"):
        machine = folder / f"machine_{part}"
        unfinished = machine / "features_bucket" / "shards" / "20260101T000000.000000-01234567.writing"
        unfinished.parent.mkdir(parents=True)
        unfinished.write_bytes(b"half a shard")
        script = extract.replace("s3://bucket/videos", f"file://{folder}/videos")
        run(folder, ["bash", "-c"], f"cd {shlex.quote(str(machine))}; {script}", PART=part, **buckets(folder))
        names = [path.name for path in (stored / part).rglob("*") if path.is_file()]
        assert sorted(name for name in names if not name.endswith(".h5")) in (
            ["store.json"],
            ["failures.jsonl", "store.json"],
        )
    run(folder, ["bash", "-c"], join, **buckets(folder))
    assert_is_complete(folder / "features_joined", num_shards=1)


@pytest.mark.parametrize(
    ("failing", "status", "expected"), [("", 0, 0), ("", 3, 0), ("", 1, 1), ("from", 0, 1), ("to", 0, 1), ("to", 3, 1)]
)
def test_the_script_for_a_bucket_fails_where_a_copy_or_the_extraction_does(
    tmp_path: Path, failing: str, status: int, expected: int
) -> None:
    fails_to, fails_from = ("exit 1" if failing == name else "exit 0" for name in ("to", "from"))
    aws = f'case "$4" in s3://bucket/features/7) {fails_to};; *) {fails_from};; esac'
    (tmp_path / "bin").mkdir()
    for name, body in (("aws", aws), ("vidpipe", f"exit {status}"), ("sleep", "exit 0")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    script, _ = (block for block in blocks("bash") if "aws" in block)
    environment = {**os.environ, "PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]), "PART": "7"}
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment).returncode == expected


def buckets(folder: Path) -> dict[str, str]:
    return {"BUCKETS": str(folder / "buckets")}


@pytest.mark.slow
def test_xargs_fills_a_store_by_two_parts_at_once(folder: Path) -> None:
    (script,) = [block for block in blocks("bash") if "xargs" in block]
    run(folder, ["sh", "-c"], f"{script.strip()} || [ $? -eq 123 ]")  # 123: xargs's own, where a command exits with 3
    assert_is_complete(folder / "features_xargs")
