"""Disks that take nothing more, and such as may only be read: real ones. One clear line, nothing lost, nothing left."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import LITE0
from tests.files import names_in
from tests.media import write_video
from tests.stores import BIG, KEY, assert_same, fail, make_sequence, make_store
from vidpipe.errors import StoreError
from vidpipe.features.export import export
from vidpipe.features.maintenance import compact, find_damage, merge, repair
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFile

DISK_BYTES = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(disk: Path, *, free_bytes: int = 0) -> Path:
    """Leave so much room, in pages of 4096 bytes; the file that takes the rest."""
    ballast = disk / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, os.statvfs(disk).f_bavail * 4096 - free_bytes // 4096 * 4096)
    finally:
        os.close(descriptor)
    return ballast


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


@pytest.mark.parametrize("free_bytes", [0, 4096, 98_304, 196_608, 200_704, 204_800, 208_896, 212_992])
def test_a_shard_on_a_full_disk_is_an_error_and_is_sealed_once_there_is_room(disk: Path, free_bytes: int) -> None:
    store = make_store(disk / "s", [make_sequence("a.mp4")])
    ballast = fill(disk, free_bytes=free_bytes)
    before = names_in(disk)
    writer = store.writer()
    writer.add(BIG)
    with pytest.raises(StoreError, match=r"No space left.*sealed before is safe: make room, and run the same command"):
        writer.seal()
    assert names_in(disk) == before
    assert os.statvfs(disk).f_bavail * 4096 == free_bytes
    assert find_damage(FeatureStore.open(store.path)) == []
    ballast.unlink()
    writer.seal()
    assert_same(FeatureStore.open(store.path)["big.mp4"], BIG)


def test_a_limit_of_file_size_is_one_error_a_shard_and_no_crash_at_any_size(tmp_path: Path) -> None:
    program = """
import resource, sys
from tests.files import names_in
from tests.stores import BIG, KEY
from vidpipe.errors import StoreError
from vidpipe.features.store import FeatureStore
store = FeatureStore.create(sys.argv[1], KEY)
writer = store.writer()
writer.add(BIG)
for max_bytes in [*range(0, 217_000, 6_000), *range(205_000, 217_000, 500)]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, -1))
    try:
        writer.seal()
    except StoreError as error:
        assert "File too large" in str(error) and "\\n" not in str(error)
    assert len(names_in(store.path)) == 1, names_in(store.path)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
writer.seal()
store.verify()
print(*store)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "s")]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "big.mp4\n", "")


def test_a_limit_of_file_size_is_one_error_of_an_export_and_no_crash_at_any_size(tmp_path: Path) -> None:
    program = """
import resource, shutil, sys
from pathlib import Path
from vidpipe.errors import StoreError
from vidpipe.features.export import export
from vidpipe.features.store import FeatureStore
store, target = FeatureStore.open(sys.argv[1]), Path(sys.argv[2])
for max_bytes in [*range(0, 217_000, 6_000), *range(200_000, 217_000, 1000)]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, -1))
    for form in ("npy", "h5"):
        try:
            export(store, target, form=form)
        except StoreError as error:
            assert "File too large" in str(error) and "\\n" not in str(error), error
            assert not target.exists()
        else:
            shutil.rmtree(target)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
print(export(store, target, form="h5"))
"""
    make_store(tmp_path / "s", [BIG, make_sequence("a.mp4", dim=100)])
    arguments = [sys.executable, "-c", program, str(tmp_path / "s"), str(tmp_path / "exported")]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "2\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"s", "exported"}


def test_a_store_that_cannot_be_made_is_an_error_and_can_be_made_later(disk: Path) -> None:
    ballast = fill(disk)
    with pytest.raises(StoreError, match=r"cannot be made here .*No space left"):
        FeatureStore.create(disk / "s", KEY)
    assert names_in(disk) == {"ballast"}
    ballast.unlink()
    FeatureStore.create(disk / "s", KEY)
    assert names_in(disk) == {"s/store.json"}


def test_a_failure_that_cannot_be_recorded_is_an_error(disk: Path) -> None:
    store = make_store(disk / "s", [])
    video = VideoFile("a.mp4", disk / "a.mp4")
    fail(store, video, message="x" * 4000)
    ballast = fill(disk)
    with pytest.raises(StoreError, match=r"failures\.jsonl cannot be written .*No space left.*make room"):
        fail(store, video, message="y" * 4000)
    ballast.unlink()
    fail(store, video, message="z" * 4000)
    assert [failure.message[0] for failure in store.failures] == ["z"]


def _seal(store: FeatureStore) -> None:
    with store.writer() as writer:
        writer.add(make_sequence("c.mp4"))


def _fail(store: FeatureStore) -> None:
    fail(store, VideoFile("c.mp4", store.path / "c.mp4"))


def _create(store: FeatureStore) -> None:
    FeatureStore.create(store.path.parent / "new", KEY)


def _lock(store: FeatureStore) -> None:
    with store.lock():
        pass


def _repair(store: FeatureStore) -> None:
    (bad, _) = store.shard_paths
    bad.write_bytes(bad.read_bytes()[:-100])
    repair(store)


def _export(form: str) -> Callable[[FeatureStore], None]:
    def to_disk(store: FeatureStore) -> None:
        export(store, store.path.parent / "exported", form=form)

    return to_disk


def _merge(store: FeatureStore) -> None:
    merge([store], store.path.parent / "merged")


@pytest.mark.parametrize(
    "write", [_seal, _fail, _create, _lock, repair, compact, _merge, _export("npy"), _export("h5")]
)
def test_writing_to_a_read_only_disk_is_an_error_and_reading_is_not(
    disk: Path, write: Callable[[FeatureStore], None]
) -> None:
    make_store(disk / "s", [make_sequence("a.mp4")])
    store = make_store(disk / "s", [make_sequence("b.mp4")])
    before = names_in(disk)
    remount(disk, "ro")
    try:
        with pytest.raises(StoreError, match="Read-only file system") as raised:
            write(store)
        assert "\n" not in str(raised.value)
        opened = FeatureStore.create(store.path, KEY)
        opened.verify()
        assert list(opened) == ["a.mp4", "b.mp4"]
    finally:
        remount(disk, "rw")
    assert names_in(disk) == before
    write(store)


@pytest.mark.parametrize("write", [compact, _merge, _export("npy"), _export("h5")])
@pytest.mark.parametrize("free_bytes", [8_192, 20_480, 98_304, 188_416])
def test_copying_features_to_a_full_disk_is_an_error_and_leaves_nothing(
    disk: Path, write: Callable[[FeatureStore], None], free_bytes: int
) -> None:
    make_store(disk / "s", [make_sequence("a.mp4", dim=100)])
    store = make_store(disk / "s", [BIG])
    _lock(store)
    ballast = fill(disk, free_bytes=free_bytes)
    before = names_in(disk)
    with pytest.raises(StoreError, match="No space left") as raised:
        write(store)
    assert "\n" not in str(raised.value)
    assert names_in(disk) == before
    assert find_damage(store) == []
    ballast.unlink()
    write(FeatureStore.open(store.path))


@pytest.mark.slow
def test_an_extraction_to_a_full_disk_continues_once_there_is_room(disk: Path, tmp_path: Path) -> None:
    for name in "abc":
        write_video(tmp_path / "videos" / f"{name}.mp4", 4)
    vidpipe = [sys.executable, "-m", "vidpipe"]
    command = [*vidpipe, "extract", str(tmp_path / "videos"), "-o", str(disk / "s"), "--num-frames", "2", *LITE0]
    FeatureStore.create(tmp_path / "elsewhere", KEY)
    ballast = fill(disk, free_bytes=5 * 4096)
    result = subprocess.run(command, capture_output=True, text=True)
    errors = [line for line in result.stderr.splitlines() if "No space left" in line]
    assert (result.returncode, len(errors)) == (1, 1), result.stderr
    assert "make room, and run the same command again" in errors[0]
    assert "Traceback" not in result.stderr
    assert not list(disk.rglob("*.writing"))
    ballast.unlink()
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert sorted(FeatureStore.open(disk / "s")) == ["a.mp4", "b.mp4", "c.mp4"]
    assert subprocess.run([*vidpipe, "store", "verify", str(disk / "s")], capture_output=True).returncode == 0
