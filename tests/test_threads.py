"""The same seed gives the same model: whatever ran before in the process, and whatever the environment says."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainings import QUICK, rising_and_falling
from vidpipe.runs.run import Run
from vidpipe.stages.train import train
from vidpipe.training.threads import DEFAULT_NUM_THREADS, use_threads

PROGRAM = """
import hashlib, json, sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.trainings import QUICK, rising_and_falling
from vidpipe.stages.train import train

folder, threads_before = Path(sys.argv[1]), int(sys.argv[2])
if threads_before:
    torch.set_num_threads(threads_before)
    (torch.randn(300, 300) @ torch.randn(300, 300)).softmax(dim=1)
store, videos = rising_and_falling(folder, 24)
if threads_before:
    videos = videos[::-1]
config = replace(QUICK, epochs=2, threads=2, refit=False)
digests = {}
for head in ("lstm", "statistics"):
    train(store, videos, folder / head, config=replace(config, head=head))
    digests[head] = hashlib.sha256((folder / head / "model.safetensors").read_bytes()).hexdigest()
print(json.dumps([digests, torch.get_num_threads()]))
"""


def digests_of_models(folder: Path, *, capability: str | None, threads_before: int, omp: str | None) -> dict[str, str]:
    """Train in a process of its own, which must have as many threads afterwards as before."""
    folder.mkdir()
    set_here = {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": omp}
    kept = {name: value for name, value in os.environ.items() if name not in set_here}
    environment = {**kept, **{name: value for name, value in set_here.items() if value is not None}}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(folder), str(threads_before)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    digests, num_threads = json.loads(done.stdout)
    assert num_threads == (threads_before or int(omp or 0) or num_threads)
    return dict(digests)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [None, "avx2", "default"])
def test_the_same_seed_gives_the_same_model_whatever_ran_before(tmp_path: Path, capability: str | None) -> None:
    fresh = digests_of_models(tmp_path / "fresh", capability=capability, threads_before=0, omp=None)
    other = digests_of_models(tmp_path / "other", capability=capability, threads_before=1, omp="1")
    assert fresh == other


def test_the_number_of_threads_is_saved_in_the_run_and_restored_afterwards(tmp_path: Path) -> None:
    store, videos = rising_and_falling(tmp_path)
    before = torch.get_num_threads()
    for asked, expected in ((0, DEFAULT_NUM_THREADS), (3, 3)):
        seen: list[int] = []
        train(
            store,
            videos,
            tmp_path / f"run{asked}",
            config=replace(QUICK, head="mean", threads=asked),
            on_epoch=lambda head, epoch, seen=seen: seen.append(torch.get_num_threads()),  # type: ignore[misc]
        )
        assert set(seen) == {expected}
        assert Run.open(tmp_path / f"run{asked}").config.threads == expected
        assert torch.get_num_threads() == before


def test_blas_computes_with_the_number_of_threads_asked_for() -> None:
    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info()]
    with use_threads(2):
        assert {pool["num_threads"] for pool in threadpool_info()} == {2}
        assert {pool["user_api"] for pool in threadpool_info()} >= {"blas", "openmp"}
    assert [pool["num_threads"] for pool in threadpool_info()][: len(before)] == before
