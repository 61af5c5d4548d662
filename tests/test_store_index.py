"""A store with many shards answers from its index as the same store does without one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.commands import run
from tests.stores import KEY, assert_same, files_below, make_sequence, stopped_before
from vidpipe.errors import ShardError, StoreError
from vidpipe.features import index, maintenance, segment
from vidpipe.features.inventory import find_gone_in_place
from vidpipe.features.locks import acquire, release
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, VideoSource

NAMES = [f"{folder}/{name}.mp4" for folder in ("é 🎬", "a", "b/c") for name in range(20)]


@pytest.fixture(autouse=True)
def small_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of four shards have an index. No test here needs the disk to have what was written."""
    monkeypatch.setattr(index, "MIN_SHARDS", 4)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(index, "SHARDS_AT_ONCE", 5)
    monkeypatch.setattr(index, "ROWS_AT_ONCE", 7)


def sequence(name: str, seed: int) -> FeatureSequence:
    """A video with values of its own; of some, the file is not known."""
    made = make_sequence(name, 1 + seed % 4, seed=seed)
    info = replace(made.info, size_bytes=seed, damaged=seed % 3 == 0, codec="h264" if seed % 2 else "", fps=seed / 7)
    source = VideoSource("/videos", name, f"{seed:064}") if seed % 5 else VideoSource()
    return replace(made, info=info, source=source)


def add(path: Path, num_shards: int, *, seed: int) -> None:
    """Add shards of one to three videos, each new or one that replaces an older one."""
    chance = random.Random(seed)
    store = FeatureStore.create(path, KEY)
    for _ in range(num_shards):
        with store.writer() as writer:
            for name in chance.sample(NAMES, chance.randint(1, 3)):
                writer.add(sequence(name, chance.randrange(10**6)))


def segments(path: Path) -> list[Path]:
    return sorted(one for one in (path / "index").iterdir() if one.is_dir())


def table_by_h5py(path: Path) -> dict[str, tuple[str, int, int, str, int]]:
    """For each id its shard, and what that states of the newest sequence, read with h5py alone."""
    found = {}
    for shard in sorted((path / "shards").glob("*.h5")):
        with h5py.File(shard) as file:
            videos = file["videos"]
            names = ("length", "size_bytes", "checksum", "start")
            columns = [videos["id"].asstr()[:], *(videos[name][:] for name in names)]
            for video_id, length, size_bytes, checksum, start in zip(*columns, strict=True):
                found[video_id] = (shard.name, int(length), int(size_bytes), checksum.decode(), int(start))
    return found


def assert_answers_alike(path: Path) -> None:
    """Compare a store that uses its index with the shards' own tables, and with a store that opens all its shards."""
    expected = table_by_h5py(path)
    indexed = FeatureStore.open(path)
    assert indexed.ids == tuple(sorted(expected)) == tuple(indexed)
    assert len(indexed) == len(expected)
    for video_id, (shard_name, *values, start) in expected.items():
        assert video_id in indexed
        shard, row = indexed.place(video_id)
        assert shard.path.name == shard_name
        assert [row.length, row.info.size_bytes, row.checksum] == values
        assert row.start == start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "MIN_SHARDS", 10**9)
        plain = FeatureStore.open(path)
        assert list(plain.rows()) == [plain.row(video_id) for video_id in plain._places]
    assert len(indexed.shards) == len(plain.shards)
    assert {row.id: row for row in indexed.rows()} == {row.id: row for row in plain.rows()}
    for absent in ("", "a", "nowhere.mp4", "a/1.MP4", "\udcff", 5):
        assert absent not in indexed
    assert indexed.count_repeated() == plain.count_repeated()
    by_id = {one.video_id: one for one in indexed.sequences()}
    assert by_id.keys() == expected.keys()
    chosen = random.Random(1).sample(sorted(expected), len(expected) // 2)
    assert {one.video_id for one in indexed.sequences(chosen)} == set(chosen)
    for video_id, features in zip(chosen, indexed.features(chosen), strict=True):
        assert indexed.info(video_id) == plain.info(video_id)
        assert indexed.length(video_id) == plain.length(video_id)
        assert np.array_equal(features, plain[video_id].features)
        assert_same(indexed[video_id], plain[video_id])
        assert_same(by_id[video_id], plain[video_id])
    indexed.verify()


def test_a_store_of_few_shards_has_no_index(tmp_path: Path) -> None:
    add(tmp_path / "s", 3, seed=0)
    assert len(FeatureStore.open(tmp_path / "s")) > 0
    assert not (tmp_path / "s" / "index").exists()


@pytest.mark.parametrize("seed", range(3))
def test_a_store_answers_from_its_index_as_from_its_shards(tmp_path: Path, seed: int) -> None:
    add(tmp_path / "s", 13, seed=seed)
    for _ in range(2):  # when the index is made, and when it is there
        assert_answers_alike(tmp_path / "s")
        assert segments(tmp_path / "s")


def test_shards_that_are_indexed_are_not_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path / "s", 9, seed=0)
    expected = FeatureStore.open(tmp_path / "s").ids
    for shard in (tmp_path / "s" / "shards").iterdir():
        status = shard.stat()
        shard.write_bytes(b"?" * status.st_size)
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert FeatureStore.open(tmp_path / "s").ids == expected


def test_new_shards_count_at_once_and_are_indexed_when_there_are_many(tmp_path: Path) -> None:
    add(tmp_path / "s", 20, seed=0)
    assert_answers_alike(tmp_path / "s")
    before = segments(tmp_path / "s")
    add(tmp_path / "s", 3, seed=1)
    assert_answers_alike(tmp_path / "s")
    assert segments(tmp_path / "s") == before
    add(tmp_path / "s", 1, seed=2)
    assert_answers_alike(tmp_path / "s")
    assert segments(tmp_path / "s") != before


def test_a_writer_sees_what_it_has_sealed(tmp_path: Path) -> None:
    add(tmp_path / "s", 8, seed=0)
    store = FeatureStore.open(tmp_path / "s")
    assert "new.mp4" not in store
    with store.writer(max_videos=1) as writer:
        writer.add(sequence("new.mp4", 1))
        assert "new.mp4" in store


def test_segments_of_similar_size_are_joined_so_that_few_are_left(tmp_path: Path) -> None:
    sizes = []
    for seed in range(12):
        add(tmp_path / "s", 4, seed=seed)
        FeatureStore.open(tmp_path / "s").ids  # noqa: B018
        sizes.append(len(segments(tmp_path / "s")))
    assert max(sizes) <= 4
    assert_answers_alike(tmp_path / "s")


@pytest.mark.parametrize(
    ("sizes", "joined"),
    [
        ([], set()),
        ([5], set()),
        ([1000, 90, 50, 40], {1, 2, 3}),
        ([100, 2000, 400], set()),
        ([1, 100, 100], {0, 1, 2}),
        ([8, 4, 2, 1], {0, 1, 2, 3}),
    ],
)
def test_which_segments_are_joined(sizes: list[int], joined: set[int]) -> None:
    assert index._similar(sizes) == joined


@pytest.mark.parametrize("num_removed", [1, 6, 12])
def test_what_lay_in_shards_that_are_removed_does_not_count(tmp_path: Path, num_removed: int) -> None:
    add(tmp_path / "s", 12, seed=3)
    assert_answers_alike(tmp_path / "s")
    for shard in random.Random(0).sample(sorted((tmp_path / "s" / "shards").iterdir()), num_removed):
        shard.unlink()
    assert_answers_alike(tmp_path / "s")
    add(tmp_path / "s", 6, seed=4)
    assert_answers_alike(tmp_path / "s")


def test_maintenance_of_a_store_with_an_index(tmp_path: Path) -> None:
    add(tmp_path / "s", 12, seed=5)
    store = FeatureStore.open(tmp_path / "s")
    expected = {one.video_id: one for one in store.sequences()}
    dropped = sorted(expected)[::3]
    maintenance.drop(store, dropped)
    maintenance.compact(FeatureStore.open(tmp_path / "s"))
    add(tmp_path / "s", 5, seed=6)
    assert_answers_alike(tmp_path / "s")
    left = FeatureStore.open(tmp_path / "s")
    for video_id in expected.keys() - set(dropped):
        assert video_id in left
    assert maintenance.merge([left], tmp_path / "merged") == len(left)
    assert tuple(FeatureStore.open(tmp_path / "merged")) == left.ids


def test_repair_drops_what_was_damaged_after_it_was_indexed(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=7)
    store = FeatureStore.open(tmp_path / "s")
    bad, row = store.place(store.ids[0])
    status = bad.path.stat()
    with h5py.File(bad.path, "r+") as file:
        file["features"][row.start] += 1
    os.utime(bad.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert FeatureStore.open(tmp_path / "s").ids == store.ids
    assert [one.video_id for one in maintenance.repair(FeatureStore.open(tmp_path / "s"))] == [row.id]
    assert row.id not in FeatureStore.open(tmp_path / "s")
    assert_answers_alike(tmp_path / "s")


def change_index(path: Path, column: str) -> Path:
    """Change the first value of a column in the index, and return the segment."""
    (segment_path,) = segments(path)
    values = np.load(segment_path / f"{column}.npy")
    values[0] = not values[0] if values.dtype == bool else values[0] + 1
    np.save(segment_path / f"{column}.npy", values)
    return segment_path


COLUMNS_CHANGED = ("length", "size_bytes", "fps", "damaged", "id.text", "codec.offsets", "digest_high", "digest_low")


@pytest.mark.parametrize("column", COLUMNS_CHANGED)
def test_verify_finds_a_wrong_row_of_the_index_and_repair_removes_it(tmp_path: Path, column: str) -> None:
    add(tmp_path / "s", 9, seed=7)
    assert_answers_alike(tmp_path / "s")
    assert maintenance.find_damage(FeatureStore.open(tmp_path / "s")) == []
    wrong = change_index(tmp_path / "s", column)
    first = FeatureStore.open(tmp_path / "s").shard_paths[0]
    (damage,) = maintenance.find_damage(FeatureStore.open(tmp_path / "s"))
    assert (damage.shard, damage.video_id) == (wrong, None)
    assert f"it differs from {first.name}" in damage.reason
    verified = run("store", "verify", tmp_path / "s")
    assert verified.exit_code == 3
    assert verified.stdout == f"{wrong}: {damage.reason}\n"
    assert f"`vidpipe store repair {tmp_path / 's'}`" in verified.stderr
    before = {name for name in files_below(tmp_path / "s") if name.startswith("shards/")}
    assert run("store", "repair", tmp_path / "s").exit_code == 0
    assert before == {name for name in files_below(tmp_path / "s") if name.startswith("shards/")}
    assert run("store", "verify", tmp_path / "s").exit_code == 0
    assert_answers_alike(tmp_path / "s")


def test_verify_finds_a_segment_that_cannot_be_read(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=7)
    assert_answers_alike(tmp_path / "s")
    (wrong,) = segments(tmp_path / "s")
    (wrong / "fps.npy").unlink()
    assert [one.shard for one in maintenance.find_damage(FeatureStore.open(tmp_path / "s"))] == [wrong]


def test_verify_names_the_videos_of_a_shard_that_is_gone(tmp_path: Path) -> None:
    for number in range(6):
        with FeatureStore.create(tmp_path / "s", KEY).writer() as writer:
            writer.add(sequence(f"{number}.mp4", number))
            writer.add(sequence("often.mp4", number))
    FeatureStore.open(tmp_path / "s").shard_paths[2].unlink()
    assert len(FeatureStore.open(tmp_path / "s")) == 6  # not indexed before it was gone
    assert run("store", "verify", tmp_path / "s").stderr == ""
    FeatureStore.open(tmp_path / "s").shard_paths[2].unlink()
    verified = run("store", "verify", tmp_path / "s")
    assert verified.exit_code == 0
    assert verified.stdout == f"{tmp_path / 's'}: 5 videos in 4 shards, no damage\n"
    assert "its index knows 1 video of shards that are gone: 3.mp4. " in verified.stderr
    run("store", "repair", tmp_path / "s")
    assert run("store", "verify", tmp_path / "s").stderr == ""


def test_a_shard_that_the_index_does_not_know_is_no_damage(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=7)
    assert_answers_alike(tmp_path / "s")
    before = segments(tmp_path / "s")
    add(tmp_path / "s", 1, seed=8)
    verified = run("store", "verify", tmp_path / "s")
    assert (verified.exit_code, verified.stderr) == (0, "")
    assert f"{len(table_by_h5py(tmp_path / 's'))} videos in 10 shards, no damage" in verified.stdout
    assert segments(tmp_path / "s") == before


def test_a_shard_that_was_damaged_after_it_was_indexed_is_named(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=7)
    bad = FeatureStore.open(tmp_path / "s").shards[3].path
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(ShardError, match=bad.name):
        len(FeatureStore.open(tmp_path / "s"))
    maintenance.repair(FeatureStore.open(tmp_path / "s"))
    assert_answers_alike(tmp_path / "s")


def test_a_copied_store_answers_alike_whatever_its_files_times(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=8)
    assert_answers_alike(tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "kept")
    shutil.copytree(tmp_path / "s", tmp_path / "changed", copy_function=shutil.copy)
    before = segments(tmp_path / "kept")
    for name in ("kept", "changed"):
        assert_answers_alike(tmp_path / name)
    assert segments(tmp_path / "kept") == before != segments(tmp_path / "changed")


def test_an_index_of_another_key_is_not_used(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=8)
    assert_answers_alike(tmp_path / "s")
    (header,) = (tmp_path / "s" / "index").glob("*/header.json")
    header.write_text(header.read_text().replace("resnet50", "resnet18"))
    assert_answers_alike(tmp_path / "s")


INDEX_FILES = ("header.json", "id.text.npy", "id.offsets.npy", "length.npy", "digest_high.npy", "damaged.npy")


@pytest.mark.parametrize("damage", ["removed", "empty", "cut short", "junk", "a folder", "objects"])
@pytest.mark.parametrize("name", INDEX_FILES)
def test_a_damaged_segment_is_not_used_and_is_replaced(tmp_path: Path, name: str, damage: str) -> None:
    add(tmp_path / "s", 9, seed=9)
    FeatureStore.open(tmp_path / "s").ids  # noqa: B018
    (path,) = segments(tmp_path / "s")
    file = path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "objects":
        np.save(file.with_suffix(".npy"), np.array([print], object), allow_pickle=True)
        os.replace(file.with_suffix(".npy"), file) if name == "header.json" else None
    elif damage != "removed":
        file.write_bytes({"empty": b"", "cut short": content[:-9], "junk": os.urandom(len(content))}[damage])
    assert_answers_alike(tmp_path / "s")
    assert segments(tmp_path / "s") != [path]


@pytest.mark.parametrize("header", ["[]", "{}", "null", "[" * 100_000, '{"format": "vidpipe-index", "version": 2}'])
def test_a_segment_with_an_odd_header_is_not_used(tmp_path: Path, header: str) -> None:
    add(tmp_path / "s", 9, seed=9)
    FeatureStore.open(tmp_path / "s").ids  # noqa: B018
    (segments(tmp_path / "s")[0] / "header.json").write_text(header)
    assert_answers_alike(tmp_path / "s")


def test_no_features_are_read_by_an_index_that_differs_from_the_shards(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=10)
    store = FeatureStore.open(tmp_path / "s")
    video_id = next(one for one in store.ids if store.length(one) > 1)
    (path,) = segments(tmp_path / "s")
    lengths = np.load(path / "length.npy")
    np.save(path / "length.npy", np.ones_like(lengths))
    with pytest.raises(StoreError, match=r"index: damaged: it differs from .*\.h5; remove the folder"):
        FeatureStore.open(tmp_path / "s")[video_id]
    shutil.rmtree(tmp_path / "s" / "index")
    assert_answers_alike(tmp_path / "s")


def test_texts_of_an_index_that_are_damaged_are_one_error(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=10)
    ids = FeatureStore.open(tmp_path / "s").ids
    (path,) = segments(tmp_path / "s")
    texts = np.load(path / "id.text.npy")
    np.save(path / "id.text.npy", np.full_like(texts, 255))
    damaged = FeatureStore.open(tmp_path / "s")
    for use in (lambda: damaged.ids, lambda: damaged[ids[0]], lambda: ids[0] in damaged, lambda: list(damaged.rows())):
        with pytest.raises(StoreError, match=r"index: damaged: .* holds what is no text; remove the folder"):
            use()


def test_ids_whose_digests_are_alike_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few_bits(video_id: str) -> tuple[int, int]:
        high, low = digest_of(video_id)
        return high % 4, low

    digest_of = segment.digest_of
    for module in (segment, index):
        monkeypatch.setattr(module, "digest_of", few_bits)
    add(tmp_path / "s", 25, seed=11)
    assert_answers_alike(tmp_path / "s")


def test_a_store_without_a_place_for_its_index_is_read_without_one(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=12)
    (tmp_path / "s" / "index").write_text("no folder")
    assert_answers_alike(tmp_path / "s")


@pytest.mark.parametrize("has_index", [False, True])
def test_a_read_only_store_is_read(tmp_path: Path, has_index: bool) -> None:
    add(tmp_path / "s", 9, seed=12)
    if has_index:
        len(FeatureStore.open(tmp_path / "s"))
        add(tmp_path / "s", 5, seed=13)
    path = tmp_path / "mounted"
    path.mkdir()
    command = ["mount", "--bind", "-o", "ro", str(tmp_path / "s"), str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a folder is not permitted here")
    try:
        before = files_below(path)
        assert_answers_alike(path)
        assert files_below(path) == before
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_is_full_costs_the_index_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path / "s", 9, seed=13)
    program = f"""
import resource, sys
from pathlib import Path
from vidpipe.features import index, store
index.MIN_SHARDS = 4
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
opened = store.FeatureStore.open({str(tmp_path / "s")!r})
print(len(opened))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) == len(table_by_h5py(tmp_path / "s"))
    assert "cannot be written" in result.stderr
    assert segments(tmp_path / "s") == []
    assert_answers_alike(tmp_path / "s")


def test_while_another_process_writes_the_index_it_is_left_alone(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=14)
    (tmp_path / "s" / "index").mkdir()
    lock = acquire(tmp_path / "s" / "index" / "writer.lock", timeout_seconds=0)
    try:
        assert_answers_alike(tmp_path / "s")
        assert segments(tmp_path / "s") == []
    finally:
        release(lock)
    assert_answers_alike(tmp_path / "s")
    assert segments(tmp_path / "s")


OPEN = """
import sys
from vidpipe.features import index, store
index.MIN_SHARDS = 4
index.SHARDS_AT_ONCE = 5
print("ready", flush=True)
sys.stdin.readline()
opened = store.FeatureStore.open(sys.argv[1])
print(len(opened), sum(row.info.size_bytes for row in opened.rows()), flush=True)
"""


def start(path: Path) -> "subprocess.Popen[str]":
    """A process that opens a store as soon as it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_that_open_a_store_at_once_all_read_it(tmp_path: Path) -> None:
    add(tmp_path / "s", 30, seed=15)
    before = table_by_h5py(tmp_path / "s")
    expected = f"{len(before)} {sum(size_bytes for _, _, size_bytes, _, _ in before.values())}\n"
    processes = [start(tmp_path / "s") for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == [expected] * 4
    assert_answers_alike(tmp_path / "s")


@pytest.mark.parametrize("seed", range(3))
def test_a_process_killed_while_it_writes_the_index_costs_nothing(tmp_path: Path, seed: int) -> None:
    add(tmp_path / "s", 40, seed=16)
    process = start(tmp_path / "s")
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(random.Random(seed).random() * 0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert_answers_alike(tmp_path / "s")
    add(tmp_path / "s", 4, seed=18)  # so that another process writes, and removes what the killed one left
    assert_answers_alike(tmp_path / "s")
    assert all("." not in one.name for one in segments(tmp_path / "s"))


@pytest.mark.parametrize("number", range(4))
def test_a_stop_before_any_folder_of_the_index_gets_its_name_costs_nothing(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    real, done = os.rename, list[object]()

    def stopping(source: Path, target: Path) -> None:
        if len(done) == number:
            raise Stopped
        done.append(target)
        real(source, target)

    add(tmp_path / "s", 20, seed=17)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stopping)
        patch.setattr(shutil, "rmtree", lambda path: None)  # a process that is killed tidies nothing
        with pytest.raises(Stopped):
            len(FeatureStore.open(tmp_path / "s"))
    assert list((tmp_path / "s" / "index").glob("*.writing"))
    assert_answers_alike(tmp_path / "s")
    add(tmp_path / "s", 4, seed=18)
    assert_answers_alike(tmp_path / "s")
    assert not list((tmp_path / "s" / "index").glob("*.writing"))


def test_a_compaction_that_stops_leaves_a_store_that_answers_alike(tmp_path: Path) -> None:
    add(tmp_path / "s", 12, seed=19)
    assert_answers_alike(tmp_path / "s")
    with stopped_before("unlink", 3):
        maintenance.compact(FeatureStore.open(tmp_path / "s"))
    assert_answers_alike(tmp_path / "s")


def test_files_that_are_gone_are_found_by_the_index(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    store = FeatureStore.create(tmp_path / "s", KEY)
    for number in range(8):
        name = f"{number}.mp4"
        (folder / name).touch()
        with store.writer() as writer:
            writer.add(replace(make_sequence(name), source=VideoSource(str(folder), name)))
    (folder / "3.mp4").unlink()
    assert find_gone_in_place(FeatureStore.open(tmp_path / "s")) == ["3.mp4"]


def test_the_header_of_a_segment_names_its_shards(tmp_path: Path) -> None:
    add(tmp_path / "s", 9, seed=20)
    FeatureStore.open(tmp_path / "s").ids  # noqa: B018
    header = json.loads((segments(tmp_path / "s")[0] / "header.json").read_text())
    shards = sorted((tmp_path / "s" / "shards").iterdir())
    assert [one[:3] for one in header["shards"]] == [
        [shard.name, shard.stat().st_size, shard.stat().st_mtime_ns] for shard in shards
    ]
    assert json.loads(header["key"]) == KEY.as_dict()
