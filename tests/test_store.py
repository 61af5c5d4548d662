import json
import logging
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.stores import KEY, assert_same, fail, make_sequence, make_store
from vidpipe.backbones.table import BACKBONES
from vidpipe.config import ExtractConfig
from vidpipe.errors import KeyMismatchError, ShardError, StoreError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sequences = [make_sequence("b/é 🎬.mp4", 5), make_sequence("a.mp4", 1), make_sequence("c.mp4", 3)]
    store = make_store(tmp_path / "s", sequences)
    assert store.ids == ("a.mp4", "b/é 🎬.mp4", "c.mp4") == tuple(store)
    assert len(store) == 3
    for sequence in sequences:
        assert_same(store[sequence.video_id], sequence)
    for sequence in store.sequences():
        assert_same(sequence, store[sequence.video_id])
    with pytest.raises(KeyError):
        store["nowhere.mp4"]


def test_some_sequences_of_a_shard_are_those_that_were_written(tmp_path: Path) -> None:
    plain = [make_sequence(f"{number}.mp4", number + 2) for number in range(5)]
    windows = make_sequence("windows.mp4", 4)
    times = windows.rows.pts_seconds
    rows = replace(windows.rows, start_seconds=times - 0.1, stop_seconds=times + 0.1)
    sequences = [*plain[:3], replace(windows, rows=rows), *plain[3:]]
    store = make_store(tmp_path / "s", sequences)
    found = {one.video_id: one for one in store.sequences(["4.mp4", "windows.mp4", "2.mp4"])}
    assert found.keys() == {"2.mp4", "windows.mp4", "4.mp4"}
    for sequence in sequences:
        if sequence.video_id in found:
            assert_same(found[sequence.video_id], sequence)
    assert list(store.sequences([])) == []


def test_the_features_of_many_videos_are_mapped_from_their_shards(tmp_path: Path) -> None:
    lengths = {"f": 9, "b": 1, "d": 4, "a": 6, "e": 2, "c": 3}
    sequences = {name: make_sequence(name, length, seed=length) for name, length in lengths.items()}
    store = FeatureStore.create(tmp_path / "s", KEY)
    with store.writer(max_videos=4) as writer:
        for sequence in sequences.values():
            writer.add(sequence)
    found = store.features(["c", "f", "a", "d", "f"])
    for features, name in zip(found, "cfadf", strict=True):
        assert isinstance(features, np.memmap)
        assert np.array_equal(features, sequences[name].features)
    assert store.features([]) == []


def test_features_that_lie_in_chunks_are_read(tmp_path: Path) -> None:
    sequence = make_sequence("a.mp4", 5)
    store = make_store(tmp_path / "s", [sequence])
    with h5py.File(store.shard_paths[0], "r+") as file:
        del file["features"]
        file.create_dataset("features", data=sequence.features, chunks=(1, 4))
    (features,) = FeatureStore.open(store.path).features(["a.mp4"])
    assert np.array_equal(features, sequence.features)


def test_shards_that_differ_in_the_size_of_a_feature_are_reported(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [make_sequence("a.mp4")])
    store = make_store(tmp_path / "s", [make_sequence("b.mp4", dim=5)])
    with pytest.raises(ShardError, match="features of size 5, others 4"):
        store.features(["a.mp4", "b.mp4"])


def test_whether_a_video_is_damaged_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole, damaged = make_sequence("a.mp4"), make_sequence("b.mp4")
    damaged = replace(damaged, info=replace(damaged.info, damaged=True, lost_packets=3))
    store = make_store(tmp_path / "s", [whole, damaged])
    assert [store.info(name).damaged for name in ("a.mp4", "b.mp4")] == [False, True]
    assert type(store["b.mp4"].info.damaged) is bool
    assert store.info("b.mp4").lost_packets == 3
    with h5py.File(store.shard_paths[0]) as shard:
        assert shard["videos/damaged"].dtype == np.bool_


def test_a_shard_is_read_with_h5py_alone(tmp_path: Path) -> None:
    sequences = [make_sequence("x/a.mp4", 2), make_sequence("x/b.mp4", 3)]
    make_store(tmp_path / "s", sequences)
    (path,) = (tmp_path / "s" / "shards").iterdir()
    with h5py.File(path) as shard:
        assert (
            json.loads(shard.attrs["key"])
            == KEY.as_dict()
            == json.loads((tmp_path / "s/store.json").read_text())["key"]
        )
        assert shard.attrs["vidpipe_version"]
        assert shard.attrs["created"]
        assert {name: (shard[name].shape, shard[name].dtype) for name in shard if name != "videos"} == {
            "features": ((5, 4), np.float32),
            "pts_seconds": ((5,), np.float64),
            "frame_index": ((5,), np.int64),
            "scene_index": ((5,), np.int32),
        }
        columns = (
            "id start length num_frames duration_seconds fps width height codec decoder damaged lost_packets "
            "size_bytes mtime_ns checksum"
        )
        assert set(shard["videos"]) == set(columns.split())
        assert shard["videos/id"].asstr()[:].tolist() == ["x/a.mp4", "x/b.mp4"]
        start, length = shard["videos/start"][1], shard["videos/length"][1]
        assert np.array_equal(shard["features"][start : start + length], sequences[1].features)
        assert shard["videos/width"][:].tolist() == [320, 320]


def test_a_store_of_another_key_is_refused_and_untouched(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [make_sequence("a.mp4")])
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "s").rglob("*") if path.is_file())
    with pytest.raises(KeyMismatchError, match=r"s holds resnet50 features, avg pooling; you asked for .* max pooling"):
        FeatureStore.create(tmp_path / "s", replace(KEY, pooling="max"))
    assert before == sorted((path, path.read_bytes()) for path in (tmp_path / "s").rglob("*") if path.is_file())


@pytest.mark.parametrize("field", ["sampling", "backbone", "weights", "pooling", "preprocessing", "dtype", "precision"])
def test_every_part_of_the_key_counts(tmp_path: Path, field: str) -> None:
    make_store(tmp_path / "s", [])
    changed: dict[str, Any] = {field: {"other": 1} if field in ("sampling", "preprocessing") else "other"}
    other = replace(KEY, **changed)
    with pytest.raises(KeyMismatchError, match=WORDS_OF_OTHER[field]):
        FeatureStore.create(tmp_path / "s", other)


WORDS_OF_OTHER = {
    "sampling": 'features, sampled {"other": 1}',
    "backbone": "resnet50 features; you asked for other features; ",
    "weights": "features, weights 00000000…; .* features, weights other…",
    "pooling": "avg pooling; .* other pooling",
    "preprocessing": "resize 232, crop 224, .*; .* resnet50 features, other 1; ",
    "dtype": "float32; .* other; ",
    "precision": "full precision; .* other precision",
}


def test_two_keys_are_contrasted_in_a_few_words_and_whole_in_the_debug_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path / "fs1", [])
    asked = FeatureKey.of(
        ExtractConfig(sampling="fps").resolve_sampling(),
        backbone="efficientnet_lite0",
        weights_id="f" * 64,
        pooling="avg",
        preprocessing=BACKBONES["efficientnet_lite0"].preprocessing,
        dtype="float32",
    )
    with caplog.at_level(logging.DEBUG, "vidpipe"), pytest.raises(KeyMismatchError) as raised:
        FeatureStore.create(store.path, asked)
    assert str(raised.value) == (
        f"{store.path} holds resnet50 features, sampled uniform, 16 frames; you asked for efficientnet_lite0 features, "
        "sampled 2 fps; choose another folder for the new settings, or give the old ones"
    )
    assert "f" * 64 in caplog.text
    assert "interpolation" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no store.json"),
        ("{", "cannot be read"),
        ("[]", "not that of a feature store"),
        ('{"format": "vidpipe-features", "version": 99}', "version 99"),
        ('{"format": "vidpipe-features", "version": 1, "key": {"backbone": "x"}}', "no valid key"),
        ('{"format": "vidpipe-features", "version": 1, "key": [1]}', "no valid key"),
        (
            json.dumps({"format": "vidpipe-features", "version": 1, "key": {**KEY.as_dict(), "sampling": 5}}),
            "sampling is 5",
        ),
        ("[" * 100_000, "cannot be read"),
        ("\ud800", "cannot be read"),
    ],
)
def test_what_is_no_store_is_reported(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "store.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(StoreError, match=message):
        FeatureStore.open(tmp_path)


def test_a_store_json_of_a_gigabyte_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "store.json").open("wb") as stream:
        stream.write(b'{"format": "vidpipe-features", "version": 1, "key": "')
        stream.truncate(2**30)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match="cannot be read"):
            FeatureStore.open(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_folder_of_other_things_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match="holds other things"):
        FeatureStore.create(tmp_path, KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_newer_sequence_replaces_an_older_one(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [make_sequence("a.mp4", 3), make_sequence("b.mp4")])
    store = make_store(tmp_path / "s", [make_sequence("a.mp4", 5)])
    assert len(store) == 2
    assert len(store["a.mp4"]) == 5


def test_shards_are_sealed_by_number_of_videos_and_by_size(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    with store.writer(max_videos=2) as writer:
        for name in "abcde":
            writer.add(make_sequence(f"{name}.mp4"))
        assert len(FeatureStore.open(tmp_path / "s")) == 4
    assert len(FeatureStore.open(tmp_path / "s").shards) == 3
    with store.writer(max_bytes=1) as writer:
        writer.add(make_sequence("f.mp4"))
        assert "f.mp4" in FeatureStore.open(tmp_path / "s")


def test_what_a_crashed_writer_leaves_aside_is_not_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence("a.mp4")])
    shutil.copy(store.shards[0].path, store.shards[0].path.with_suffix(".writing"))
    assert len(FeatureStore.open(tmp_path / "s")) == 1


@pytest.mark.parametrize("damage", ["truncated", "text", "array missing", "rows outside"])
def test_a_damaged_shard_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = make_store(tmp_path / "s", [make_sequence("a.mp4")]).shards[0].path
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "text":
        path.write_text("no shard")
    else:
        with h5py.File(path, "r+") as shard:
            if damage == "array missing":
                del shard["videos/start"]
            else:
                shard["videos/start"][0] = 10**12
    with pytest.raises(ShardError, match=path.name):
        len(FeatureStore.open(tmp_path / "s"))


def test_verify_finds_a_changed_number(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence("a.mp4"), make_sequence("bb.mp4")])
    store.verify()
    with h5py.File(store.shards[0].path, "r+") as shard:
        shard["features"][4, 2] += 1
    with pytest.raises(ShardError, match=r"bb\.mp4"):
        store.verify()


def test_a_video_counts_as_stored_until_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    store = make_store(tmp_path / "s", [make_sequence("a.mp4", path=path)])
    assert store.holds(VideoFile("a.mp4", path))
    assert not store.holds(VideoFile("b.mp4", path))
    path.write_bytes(b"another")
    assert not store.holds(VideoFile("a.mp4", path))


def test_failures_are_kept_until_the_video_is_stored(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    with store.writer() as writer:
        for name, error, message in (
            ("a.mp4", "DecodeError", "first"),
            ("a.mp4", "DecodeError", "line\nbreak 🎬"),
            ("b.mp4", "NotAVideoError", "no video"),
        ):
            writer.fail(VideoFailure(name, error, message), VideoFile(name, tmp_path / name))
    with (tmp_path / "s" / "failures.jsonl").open("a") as stream:
        stream.write('{"video": "cut sho')
    for line in (tmp_path / "s" / "failures.jsonl").read_text().splitlines()[:3]:
        assert set(json.loads(line)) == {"video", "error", "message", "time", "size_bytes", "mtime_ns"}
    assert store.failures == (
        VideoFailure("a.mp4", "DecodeError", "line\nbreak 🎬"),
        VideoFailure("b.mp4", "NotAVideoError", "no video"),
    )
    assert make_store(tmp_path / "s", [make_sequence("a.mp4")]).failures == store.failures[1:]


def known(store: FeatureStore, video: VideoFile) -> VideoFailure | None:
    return FeatureStore.open(store.path).known_failure(video)


@pytest.fixture
def bad_video(tmp_path: Path) -> VideoFile:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    return VideoFile("a.mp4", path)


def test_a_failure_is_known_until_the_file_changes(tmp_path: Path, bad_video: VideoFile) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    assert known(store, bad_video) is None
    fail(store, bad_video, message="first")
    fail(store, bad_video, message="latest")
    assert known(store, bad_video) == VideoFailure("a.mp4", "DecodeError", "latest")
    assert known(store, VideoFile("b.mp4", bad_video.path)) is None
    entry = json.loads((store.path / "failures.jsonl").read_text().splitlines()[0])
    stat = bad_video.path.stat()
    assert (entry["size_bytes"], entry["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
    bad_video.path.write_bytes(b"another")
    assert known(store, bad_video) is None
    assert [failure.message for failure in store.failures] == ["latest"]


def test_a_failure_of_a_newer_file_is_known_though_the_store_holds_the_older(
    tmp_path: Path, bad_video: VideoFile
) -> None:
    store = make_store(tmp_path / "s", [make_sequence("a.mp4", path=bad_video.path)])
    bad_video.path.write_bytes(b"another")
    fail(store, bad_video)
    assert known(store, bad_video) is not None


def test_a_failure_is_not_known_once_the_video_is_stored(tmp_path: Path, bad_video: VideoFile) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    fail(store, bad_video)
    make_store(tmp_path / "s", [make_sequence("a.mp4", path=bad_video.path)])
    assert known(store, bad_video) is None


def test_a_file_that_could_not_be_reached_is_tried_again(tmp_path: Path, bad_video: VideoFile) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    fail(store, bad_video, error="UnreadableFileError")
    assert known(store, bad_video) is None
    bad_video.path.unlink()
    fail(store, bad_video)
    assert known(store, bad_video) is None
    assert json.loads((store.path / "failures.jsonl").read_text().splitlines()[1])["size_bytes"] is None


@pytest.mark.parametrize(
    "line",
    [
        '{"video": "a.mp4", "error": "DecodeError", "message": "old", "time": "2025"}',
        "null",
        "[1]",
        '{"video": ["a.mp4"], "error": {}, "message": 1, "time": null}',
        "[" * 100_000,
        '{"video": "a.mp4"}',
        "1" * 10_000,
    ],
)
def test_an_old_or_odd_line_of_failures_makes_no_failure_known(tmp_path: Path, bad_video: VideoFile, line: str) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    (store.path / "failures.jsonl").write_text(line + "\n")
    assert known(store, bad_video) is None
    assert all(isinstance(failure.video_id, str) for failure in store.failures)
    fail(store, bad_video)
    assert known(store, bad_video) is not None


def test_a_line_that_a_crash_cut_short_does_not_swallow_the_next(tmp_path: Path, bad_video: VideoFile) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    fail(store, bad_video)
    path = store.path / "failures.jsonl"
    path.write_bytes(path.read_bytes() + '{"video": "cut sho🎬'.encode()[:-2])
    fail(store, VideoFile("b.mp4", bad_video.path))
    assert [failure.video_id for failure in store.failures] == ["a.mp4", "b.mp4"]
    assert len(path.read_bytes().splitlines()) == 3


def test_a_path_that_is_no_text_is_noted(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    path.write_bytes(b"one")
    video = VideoFile(path.name, path)
    store = FeatureStore.create(tmp_path / "s", KEY)
    fail(store, video, message=f"{path}: broken")
    found = known(store, video)
    assert found is not None
    assert (found.video_id, found.message) == (path.name, f"{path}: broken")
    (store.path / "failures.jsonl").read_text(encoding="utf-8")


def test_lines_of_many_writers_do_not_mix(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    program = """
import sys
from pathlib import Path
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile
with FeatureStore.open(sys.argv[1]).writer() as writer:
    for number in range(200):
        name = f"{sys.argv[2]}-{number}.mp4"
        writer.fail(VideoFailure(name, "DecodeError", "x" * 5000), VideoFile(name, Path(name)))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, str(store.path), name]) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = [line for line in (store.path / "failures.jsonl").read_text().splitlines() if line]
    assert len({json.loads(line)["video"] for line in lines}) == len(lines) == 600


def test_a_shard_is_sealed_when_its_first_video_has_waited_long_enough(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    with store.writer(max_seconds=0.2) as writer:
        writer.seal_if_due()
        writer.add(make_sequence("a.mp4"))
        writer.seal_if_due()
        assert len(FeatureStore.open(store.path)) == 0
        time.sleep(0.25)
        writer.seal_if_due()
        assert list(FeatureStore.open(store.path)) == ["a.mp4"]
        writer.add(make_sequence("b.mp4"))
        assert list(FeatureStore.open(store.path)) == ["a.mp4"]
        time.sleep(0.25)
        writer.add(make_sequence("c.mp4"))
        assert len(FeatureStore.open(store.path)) == 3


def test_adding_a_video_looks_at_its_size_alone_and_not_at_all_that_wait(
    tmp_path: Path,
) -> None:
    num_looks = 0

    class Counted(np.ndarray[Any, Any]):
        @property
        def nbytes(self) -> int:
            nonlocal num_looks
            num_looks += 1
            return super().nbytes

    store = FeatureStore.create(tmp_path / "s", KEY)
    with store.writer(max_videos=1000) as writer:
        for number in range(200):
            sequence = make_sequence(f"{number}.mp4")
            writer.add(replace(sequence, features=sequence.features.view(Counted)))
        looks = num_looks
    assert looks <= 400
    assert len(FeatureStore.open(store.path)) == 200


def test_a_shard_is_sealed_by_size_again_and_again(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    num_bytes = make_sequence("a.mp4").features.nbytes
    with store.writer(max_bytes=2 * num_bytes) as writer:
        for name in "abcde":
            writer.add(make_sequence(f"{name}.mp4"))
    assert [len(shard.videos) for shard in FeatureStore.open(store.path).shards] == [2, 2, 1]
