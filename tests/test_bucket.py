"""Machines that share a bucket and no folder: copied as docs/scale.md says, their stores become that of one machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

import vidpipe
from tests.commands import LENET, run
from tests.media import write_video
from vidpipe.features.store import FeatureStore

NUM_VIDEOS = 12
COPIED = ("store.json", "failures.jsonl", "shards/*.h5")
HALF_A_SHARD = "shards/20260101T000000.000000-01234567.writing"


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for number in range(NUM_VIDEOS):
        write_video(tmp_path / "videos" / f"walk/{number}.mp4", 8 + number)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


@pytest.fixture
def bucket(videos: Path) -> Iterator[str]:
    """A bucket in memory that has the videos."""
    memory = fsspec.filesystem("memory")
    memory.put(str(videos), "/bucket/videos", recursive=True)
    yield "memory://bucket/videos"
    memory.rm("/bucket", recursive=True)


def upload(store: Path, name: str) -> None:
    for path in (path for pattern in COPIED for path in store.glob(pattern)):
        fsspec.filesystem("memory").put_file(str(path), f"/bucket/features/{name}/{path.relative_to(store)}")


def download(folder: Path) -> list[Path]:
    """The stores in the bucket."""
    fsspec.filesystem("memory").get("/bucket/features", str(folder), recursive=True)
    return sorted(path.parent for path in folder.rglob("store.json"))


def merge(parts: list[Path], store: Path) -> None:
    merged = run("store", "merge", *parts, "-o", store)
    assert merged.exit_code == 0, merged.output


def move(parts: list[Path], store: Path) -> None:
    """Move the shards into one of the stores, and append the failures of the others."""
    parts[0].rename(store)
    for part in parts[1:]:
        for shard in (part / "shards").iterdir():
            shard.rename(store / "shards" / shard.name)
        with (store / "failures.jsonl").open("a") as failures:
            failures.writelines(part.joinpath("failures.jsonl").open() if (part / "failures.jsonl").exists() else ())


def assert_same(one: Path, other: Path) -> None:
    """Compare all rows of two stores, and all that they know of the videos."""
    found, expected = FeatureStore.open(one), FeatureStore.open(other)
    assert found.key == expected.key
    assert found.ids == expected.ids
    for theirs in expected.sequences():
        ours = found[theirs.video_id]
        np.testing.assert_allclose(ours.features, theirs.features, atol=1e-5)
        assert replace(ours, features=theirs.features, rows=theirs.rows) == theirs
        np.testing.assert_array_equal(ours.rows.frame_index, theirs.rows.frame_index)
        np.testing.assert_array_equal(ours.pts_seconds, theirs.pts_seconds)
    assert found.failures == expected.failures
    found.verify()


@pytest.mark.parametrize("join", [merge, move])
def test_the_parts_of_two_machines_become_the_store_of_one(
    bucket: str, tmp_path: Path, join: Callable[[list[Path], Path], None]
) -> None:
    assert run("extract", bucket, "-o", tmp_path / "one", *LENET).exit_code == 3
    for part in (1, 2):
        machine = tmp_path / f"machine_{part}"
        assert run("extract", bucket, "-o", machine, *LENET, "--part", f"{part}/2").exit_code in (0, 3)
        (machine / HALF_A_SHARD).write_bytes(b"half a shard")
        upload(machine, str(part))
    parts = download(tmp_path / "parts")
    assert len(parts) == 2
    assert not list((tmp_path / "parts").rglob("*.writing"))
    join(parts, tmp_path / "joined")
    assert_same(tmp_path / "joined", tmp_path / "one")
    assert run("store", "verify", tmp_path / "joined").exit_code == 0
    again = run("extract", bucket, "-o", tmp_path / "joined", *LENET)
    assert "0 videos stored" in again.output
    assert f"{NUM_VIDEOS} were there already, 0 failed, 1 failed before" in again.output


def test_another_machine_does_what_a_killed_one_has_not_uploaded(videos: Path, tmp_path: Path) -> None:
    url = f"file://{videos}"
    killed = tmp_path / "killed"
    options = [*LENET, "--seal-videos", "1", "--batch-size", "1"]
    command = [sys.executable, "-m", "vidpipe", "extract", url, "-o", str(killed), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(killed.glob("shards/*.h5")):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        for name in COPIED:
            for path in killed.glob(name):
                target = tmp_path / "bucket" / path.relative_to(killed)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        process.send_signal(signal.SIGKILL)
    store = tmp_path / "bucket"
    num_uploaded = len(FeatureStore.open(store))
    assert 1 <= num_uploaded < NUM_VIDEOS
    summary = vidpipe.extract(url, store, backbone="lenet5", device="cpu")
    assert summary.num_stored == NUM_VIDEOS - num_uploaded
    vidpipe.extract(url, tmp_path / "one", backbone="lenet5", device="cpu")
    assert_same(store, tmp_path / "one")


def test_a_store_in_a_bucket_is_refused(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir(tmp_path))
    refused = run("extract", videos, "-o", "s3://bucket/features", *LENET)
    assert refused.exit_code == 2
    assert "s3://bucket/features: a store is a folder; docs/scale.md says" in refused.stderr
    assert set(os.listdir(tmp_path)) == before
