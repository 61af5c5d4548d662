import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vidpipe.config import ExtractConfig
from vidpipe.errors import KeyMismatchError, ShardError, StoreError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.models.backbones import BACKBONES
from vidpipe.records import FeatureSequence, FramePlan, VideoFailure, VideoFile, VideoInfo

KEY = FeatureKey.of(
    ExtractConfig().resolve_sampling(),
    backbone="resnet50",
    weights_id="0" * 64,
    pooling="avg",
    preprocessing=BACKBONES["resnet50"].preprocessing,
    dtype="float32",
)


def make_sequence(
    video_id: str, length: int = 3, dim: int = 4, *, seed: int = 0, path: Path | None = None
) -> FeatureSequence:
    random = np.random.default_rng([seed, len(video_id), length])
    plan = FramePlan(
        frame_index=np.sort(random.choice(1000, length, replace=False)).astype(np.int64),
        pts_seconds=np.sort(random.random(length)),
        scene_index=np.zeros(length, np.int32),
    )
    stat = path.stat() if path else None
    info = VideoInfo(
        num_frames=1000,
        duration_seconds=40.0,
        fps=25.0,
        width=320,
        height=240,
        codec="h264",
        decoder="decord",
        size_bytes=stat.st_size if stat else 7,
        mtime_ns=stat.st_mtime_ns if stat else 8,
    )
    return FeatureSequence(video_id, random.random((length, dim), np.float32), plan, info)


def make_store(path: Path, sequences: Sequence[FeatureSequence]) -> FeatureStore:
    store = FeatureStore.create(path, KEY)
    with store.writer() as writer:
        for sequence in sequences:
            writer.add(sequence)
    return FeatureStore.open(path)


def assert_same(one: FeatureSequence, other: FeatureSequence) -> None:
    assert np.array_equal(one.features, other.features)
    assert np.array_equal(one.plan.frame_index, other.plan.frame_index)
    assert np.array_equal(one.pts_seconds, other.pts_seconds)
    assert (one.video_id, one.info) == (other.video_id, other.info)


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
            "id start length num_frames duration_seconds fps width height codec decoder size_bytes mtime_ns checksum"
        )
        assert set(shard["videos"]) == set(columns.split())
        assert shard["videos/id"].asstr()[:].tolist() == ["x/a.mp4", "x/b.mp4"]
        start, length = shard["videos/start"][1], shard["videos/length"][1]
        assert np.array_equal(shard["features"][start : start + length], sequences[1].features)
        assert shard["videos/width"][:].tolist() == [320, 320]


def test_a_store_of_another_key_is_refused_and_untouched(tmp_path: Path) -> None:
    make_store(tmp_path / "s", [make_sequence("a.mp4")])
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "s").rglob("*") if path.is_file())
    with pytest.raises(KeyMismatchError, match=r'pooling: "avg" here, "max" asked for'):
        FeatureStore.create(tmp_path / "s", replace(KEY, pooling="max"))
    assert before == sorted((path, path.read_bytes()) for path in (tmp_path / "s").rglob("*") if path.is_file())


@pytest.mark.parametrize("field", ["sampling", "backbone", "weights", "pooling", "preprocessing", "dtype"])
def test_every_part_of_the_key_counts(tmp_path: Path, field: str) -> None:
    make_store(tmp_path / "s", [])
    changed: dict[str, Any] = {field: {"other": 1} if field in ("sampling", "preprocessing") else "other"}
    other = replace(KEY, **changed)
    with pytest.raises(KeyMismatchError, match=f"{field}: "):
        FeatureStore.create(tmp_path / "s", other)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "has no store.json"),
        ("{", "cannot be read"),
        ("[]", "not that of a feature store"),
        ('{"format": "vidpipe-features", "version": 99}', "version 99"),
        ('{"format": "vidpipe-features", "version": 1, "key": {"backbone": "x"}}', "no valid key"),
    ],
)
def test_what_is_no_store_is_told(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "store.json").write_text(content)
    with pytest.raises(StoreError, match=told):
        FeatureStore.open(tmp_path)


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
    with store.writer(most_videos=2) as writer:
        for name in "abcde":
            writer.add(make_sequence(f"{name}.mp4"))
        assert len(FeatureStore.open(tmp_path / "s")) == 4
    assert len(FeatureStore.open(tmp_path / "s").shards) == 3
    with store.writer(most_bytes=1) as writer:
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
        writer.fail(VideoFailure("a.mp4", "DecodeError", "first"))
        writer.fail(VideoFailure("a.mp4", "DecodeError", "line\nbreak 🎬"))
        writer.fail(VideoFailure("b.mp4", "NotAVideoError", "no video"))
    with (tmp_path / "s" / "failures.jsonl").open("a") as stream:
        stream.write('{"video": "cut sho')
    for line in (tmp_path / "s" / "failures.jsonl").read_text().splitlines()[:3]:
        assert set(json.loads(line)) == {"video", "error", "message", "time"}
    assert store.failures == (
        VideoFailure("a.mp4", "DecodeError", "line\nbreak 🎬"),
        VideoFailure("b.mp4", "NotAVideoError", "no video"),
    )
    assert make_store(tmp_path / "s", [make_sequence("a.mp4")]).failures == store.failures[1:]
