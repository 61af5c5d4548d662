"""A file that is no sound shard is refused at once, whatever it claims to hold."""

import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.stores import KEY, assert_holds, assert_same, make_store, sequences_of
from vidpipe.errors import ShardError
from vidpipe.features.maintenance import find_damage, repair
from vidpipe.features.store import FeatureStore


def _delete_a_column(file: h5py.File) -> None:
    del file["videos/length"]


def _shorten_a_column(file: h5py.File) -> None:
    lengths = file["videos/length"][:-1]
    del file["videos/length"]
    file["videos/length"] = lengths


def _lengthen_an_array(file: h5py.File) -> None:
    times = np.append(file["pts_seconds"][:], 9.0)
    del file["pts_seconds"]
    file["pts_seconds"] = times


def _point_outside(file: h5py.File) -> None:
    file["videos/length"][1] = 100


def _lose_an_id(file: h5py.File) -> None:
    file["videos/id"][1] = ""


def _take_another_key(file: h5py.File) -> None:
    file.attrs["key"] = np.bytes_(replace(KEY, pooling="max").as_json())


def _be_of_another_kind(file: h5py.File) -> None:
    file.clear()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_delete_a_column, "length"),
        (_shorten_a_column, "not a whole shard"),
        (_lengthen_an_array, "differ in length"),
        (_point_outside, "lie outside"),
        (_lose_an_id, "no id"),
        (_take_another_key, "other settings"),
        (_be_of_another_kind, "features"),
    ],
)
def test_a_shard_whose_index_does_not_fit_is_moved_to_quarantine(
    tmp_path: Path, spoil: Callable[[h5py.File], None], reason: str
) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    store = make_store(tmp_path / "s", sequences_of("c"))
    bad = store.shard_paths[0]
    with h5py.File(bad, "r+") as file:
        spoil(file)
    (damage,) = find_damage(store)
    assert (damage.shard, damage.video_id) == (bad, None)
    assert reason in damage.reason
    assert str(bad) not in damage.reason
    assert "repair" not in damage.reason
    repair(store)
    assert_holds(store, sequences_of("c"))
    assert os.listdir(store.path / "quarantine") == [bad.name]


ROW_ARRAYS = ("features", "pts_seconds", "frame_index", "scene_index")


def _put(file: h5py.File, name: str, **how: Any) -> None:
    """Replace an array by one of the same type and shape, apart from `how`."""
    how = {"dtype": file[name].dtype, "shape": file[name].shape, **how}
    del file[name]
    file.create_dataset(name, **how)


def _claim_rows(file: h5py.File, num_rows: int) -> None:
    for name in ROW_ARRAYS:
        _put(file, name, shape=(num_rows, *file[name].shape[1:]), chunks=True, fillvalue=1)
    file["videos/length"][0] = num_rows
    file["videos/start"][1] = 0
    file["videos/length"][1] = 0


def _claim_a_trillion_rows(file: h5py.File) -> None:
    _claim_rows(file, 2**40)


def _claim_a_gigabyte(file: h5py.File) -> None:
    _claim_rows(file, 2**25)


def _claim_rows_without_chunks(file: h5py.File) -> None:
    for name in ROW_ARRAYS:
        _put(file, name, shape=(2**40, *file[name].shape[1:]))


def _claim_a_trillion_videos(file: h5py.File) -> None:
    for name in list(file["videos"]):
        _put(file, f"videos/{name}", shape=(2**40,), chunks=True)


def _claim_long_ids(file: h5py.File) -> None:
    _put(file, "videos/id", dtype=h5py.string_dtype("utf-8", 2**30), chunks=True)


def _be_packed(file: h5py.File) -> None:
    for name in ROW_ARRAYS:
        _put(
            file, name, data=np.zeros((2**20, *file[name].shape[1:]), file[name].dtype), shape=None, compression="gzip"
        )


def _have_flat_features(file: h5py.File) -> None:
    _put(file, "features", data=np.zeros(6, np.float32), shape=None)


def _have_square_times(file: h5py.File) -> None:
    _put(file, "pts_seconds", data=np.zeros((6, 2)), shape=None)


def _have_a_table_of_ids(file: h5py.File) -> None:
    _put(file, "videos/length", data=np.zeros((2, 2), np.int64), shape=None)


def _have_one_number(file: h5py.File) -> None:
    _put(file, "scene_index", data=np.int32(1), shape=None)


def _have_nothing_in_an_array(file: h5py.File) -> None:
    _put(file, "frame_index", data=h5py.Empty(np.int64), shape=None)


def _have_small_numbers(file: h5py.File) -> None:
    _put(file, "features", data=np.ones(file["features"].shape, np.int8), dtype=np.int8)


def _have_numbers_for_ids(file: h5py.File) -> None:
    _put(file, "videos/id", data=np.ones(2), dtype=np.float64)


def _have_text_for_numbers(file: h5py.File) -> None:
    _put(file, "videos/width", data=np.array([b"320", b"320"]), dtype="S3")


def _have_text_on_the_heap(file: h5py.File) -> None:
    _put(file, "videos/id", data=["a.mp4", "b.mp4"], dtype=h5py.string_dtype())


def _have_records_for_numbers(file: h5py.File) -> None:
    _put(file, "videos/width", dtype=np.dtype([("width", np.int64)]))


def _have_a_folder_for_an_array(file: h5py.File) -> None:
    del file["features"]
    file.create_group("features")


def _have_an_array_for_the_table(file: h5py.File) -> None:
    del file["videos"]
    file["videos"] = np.zeros(3)


def _lose_an_array(file: h5py.File) -> None:
    del file["scene_index"]


def _link_to_another_file(file: h5py.File) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink(f"{file.filename}.other", "features")


def _link_the_table_to_another_file(file: h5py.File) -> None:
    del file["videos"]
    file["videos"] = h5py.ExternalLink(f"{file.filename}.other", "videos")


def _link_within(file: h5py.File) -> None:
    file.move("features", "elsewhere")
    file["features"] = h5py.SoftLink("/elsewhere")


def _link_to_itself(file: h5py.File) -> None:
    del file["features"]
    file["features"] = h5py.SoftLink("/features")


def _keep_rows_in_a_raw_file(file: h5py.File) -> None:
    _put(file, "features", external=[(f"{file.filename}.other", 0, 6 * 4 * 4)])


def _be_virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6, 4), np.float32)
    layout[:] = h5py.VirtualSource(f"{file.filename}.other", "features", (6, 4))
    del file["features"]
    file.create_virtual_dataset("features", layout)


def _have_a_long_key(file: h5py.File) -> None:
    file.attrs["key"] = np.bytes_(b"x" * 10_000_000)


def _have_a_key_on_the_heap(file: h5py.File) -> None:
    file.attrs["key"] = "x" * 10_000_000


def _have_many_keys(file: h5py.File) -> None:
    file.attrs["key"] = np.array([b"one", b"two"])


def _have_a_number_for_a_key(file: h5py.File) -> None:
    file.attrs["key"] = 7


def _have_no_key(file: h5py.File) -> None:
    del file.attrs["key"]


@pytest.mark.parametrize(
    "spoil",
    [
        _claim_a_trillion_rows,
        _claim_a_gigabyte,
        _claim_rows_without_chunks,
        _claim_a_trillion_videos,
        _claim_long_ids,
        _be_packed,
        _have_flat_features,
        _have_square_times,
        _have_a_table_of_ids,
        _have_one_number,
        _have_nothing_in_an_array,
        _have_small_numbers,
        _have_numbers_for_ids,
        _have_text_for_numbers,
        _have_text_on_the_heap,
        _have_records_for_numbers,
        _have_a_folder_for_an_array,
        _have_an_array_for_the_table,
        _lose_an_array,
        _link_to_another_file,
        _link_the_table_to_another_file,
        _link_within,
        _link_to_itself,
        _keep_rows_in_a_raw_file,
        _be_virtual,
        _have_a_long_key,
        _have_a_key_on_the_heap,
        _have_many_keys,
        _have_a_number_for_a_key,
        _have_no_key,
    ],
)
def test_an_absurd_shard_is_refused_at_once_and_costs_no_memory(
    tmp_path: Path, spoil: Callable[[h5py.File], None]
) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    store = make_store(tmp_path / "s", sequences_of("c"))
    bad = store.shard_paths[0]
    shutil.copy(bad, f"{bad}.other")  # a sound shard: a link would lead to the right arrays
    with h5py.File(bad, "r+", libver=("v108", "latest")) as file:
        spoil(file)
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ShardError, match=bad.name):
            list(FeatureStore.open(store.path).sequences())
        (damage,) = find_damage(store)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (damage.shard, damage.video_id) == (bad, None)
    assert peak_bytes < 5_000_000
    assert time.monotonic() - started < 2
    repair(store)
    assert_holds(store, sequences_of("c"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_something_other_than_a_file_is_no_shard(tmp_path: Path, make: Callable[[Path], None]) -> None:
    store = make_store(tmp_path / "s", sequences_of("a"))
    odd = store.path / "shards" / "20250101T000000.000000-01234567.h5"
    make(odd)
    assert [(one.shard, one.video_id) for one in find_damage(store)] == [(odd, None)]
    repair(store)
    assert_holds(store, sequences_of("a"))


def test_a_shard_that_cannot_be_read_now_is_no_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("a"))
    (shard,) = store.shard_paths
    program = """
import os, sys
from vidpipe.errors import ShardError, StoreError
from vidpipe.features.store import FeatureStore
os.chdir(sys.argv[1])
store = FeatureStore.open(".")
if os.geteuid() == 0:  # root may read everything
    os.seteuid(65534)
try:
    len(store)
except ShardError:
    raise
except StoreError as error:
    print(error)
"""
    shard.chmod(0)
    result = subprocess.run([sys.executable, "-c", program, str(store.path)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "cannot be read (Permission denied)" in result.stdout


def test_a_flipped_bit_changes_nothing_or_is_found(tmp_path: Path) -> None:
    expected = sequences_of("abc")
    store = make_store(tmp_path / "s", expected)
    (path,) = store.shard_paths
    content = path.read_bytes()
    random = np.random.default_rng(20261122)
    num_found = 0
    for place, bit in zip(random.integers(0, len(content), 400), random.integers(0, 8, 400), strict=True):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        damage = find_damage(store)
        num_found += bool(damage)
        lost = {one.video_id for one in damage}
        if None not in lost:
            opened = FeatureStore.open(store.path)
            for sequence in expected:
                if sequence.video_id in opened and sequence.video_id not in lost:
                    assert_same(opened[sequence.video_id], sequence)
            assert len(opened) == 3 or damage
    assert num_found > 100
