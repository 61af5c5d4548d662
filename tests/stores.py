"""Makes feature stores for the tests."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from vidpipe.backbones.table import BACKBONES
from vidpipe.config import ExtractConfig
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, Rows, VideoFailure, VideoFile, VideoInfo

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
    random = np.random.default_rng([seed, crc32(video_id.encode()), length])
    rows = Rows(
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
        damaged=False,
        lost_packets=0,
        size_bytes=stat.st_size if stat else 7,
        mtime_ns=stat.st_mtime_ns if stat else 8,
    )
    return FeatureSequence(video_id, random.random((length, dim), np.float32), rows, info)


BIG = make_sequence("big.mp4", 500, 100)
"""200 kB of features."""


def make_store(path: Path, sequences: Sequence[FeatureSequence]) -> FeatureStore:
    store = FeatureStore.create(path, KEY)
    with store.writer() as writer:
        for sequence in sequences:
            writer.add(sequence)
    return FeatureStore.open(path)


def assert_same(one: FeatureSequence, other: FeatureSequence) -> None:
    assert np.array_equal(one.features, other.features)
    assert np.array_equal(one.rows.frame_index, other.rows.frame_index)
    assert np.array_equal(one.pts_seconds, other.pts_seconds)
    assert (one.video_id, one.info) == (other.video_id, other.info)


def sequences_of(names: str, *, seed: int = 0, length: int = 3) -> list[FeatureSequence]:
    """One for each letter, each with features of its own."""
    return [make_sequence(f"{name}.mp4", length, seed=seed + ord(name)) for name in names]


def assert_holds(store: FeatureStore, expected: list[FeatureSequence]) -> None:
    opened = FeatureStore.open(store.path)
    assert list(opened) == sorted(sequence.video_id for sequence in expected)
    for sequence in expected:
        assert_same(opened[sequence.video_id], sequence)
    opened.verify()


def files_below(folder: Path) -> set[str]:
    """All files but those of a store's locks."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("locks/")}


class Stopped(BaseException):
    """The machine is switched off here."""


@contextmanager
def stopped_before(call: str, number: int) -> Iterator[None]:
    """Stop the program when it is about to seal (`replace`) or to remove (`unlink`) its n-th shard."""
    real = getattr(os, call)
    done: list[object] = []

    def stopping(*paths: object, **options: object) -> None:
        if str(paths[-1]).endswith(".h5"):
            if len(done) == number:
                raise Stopped
            done.append(paths)
        real(*paths, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, stopping)
        with pytest.raises(Stopped):
            yield


def fail(store: FeatureStore, video: VideoFile, *, error: str = "DecodeError", message: str = "no") -> None:
    with store.writer() as writer:
        writer.fail(VideoFailure(video.id, error, message), video)
