"""Several backbones in one extraction: one decode, and a store for each."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import run
from tests.decoding import SMALL
from tests.media import write_video
from tests.stores import assert_same
from vidpipe.backbones.batching import BatchedModel, BatchedModels, Utilisation
from vidpipe.backbones.engines.engine import Finish
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.features.maintenance import drop
from vidpipe.features.store import FeatureStore
from vidpipe.records import DecodeProgress, FrameBatch, FramePlan, Rows, VideoFeatures, VideoFile, VideoInfo, VideoPlan
from vidpipe.stages.extract import extract
from vidpipe.video import worker
from vidpipe.video.files import find_videos
from vidpipe.video.view import View

NAMES = ("lenet5", "efficientnet_lite0")
TWO = ExtractConfig(backbone=",".join(NAMES), num_frames=4, device="cpu", engine="torch", workers=1)
INFO = VideoInfo(300, 12.0, 25.0, 128, 96, "h264", "pyav", False, 0, 7, 8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for number, num_frames in enumerate((9, 30, 3)):
        write_video(folder / f"{number}.mp4", num_frames, width=64, height=48)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def one_pass(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of both backbones, made together."""
    folder = tmp_path_factory.mktemp("one_pass") / "features"
    extract(find_videos([videos]), folder, config=TWO)
    return folder


def test_two_backbones_fill_a_store_each(one_pass: Path) -> None:
    stores = {name: FeatureStore.open(one_pass / name) for name in NAMES}
    assert {name: store.key.backbone for name, store in stores.items()} == {name: name for name in NAMES}
    assert all(list(store.ids) == ["0.mp4", "1.mp4", "2.mp4"] for store in stores.values())
    assert [stores[name]["1.mp4"].features.shape for name in NAMES] == [(4, 84), (4, 1280)]


def test_one_pass_and_two_passes_give_the_same_stores(videos: Path, one_pass: Path, tmp_path: Path) -> None:
    for name in NAMES:
        summary = extract(find_videos([videos]), tmp_path / "f", config=replace(TWO, backbone=name))
        if name == NAMES[0]:  # a path without stores becomes one store
            shutil.move(tmp_path / "f", tmp_path / "first")
            (tmp_path / "f").mkdir()
            shutil.move(tmp_path / "first", tmp_path / "f" / name)
        assert list(summary.streams) == [name]
    for name in NAMES:
        together, apart = FeatureStore.open(one_pass / name), FeatureStore.open(tmp_path / "f" / name)
        assert together.key == apart.key
        assert together.ids == apart.ids
        for video_id in together.ids:
            assert_same(together[video_id], replace(apart[video_id], features=together[video_id].features))
            assert np.allclose(together[video_id].features, apart[video_id].features, atol=1e-5)


def test_a_stream_that_is_there_is_left_alone_and_one_that_lacks_is_added(
    videos: Path, one_pass: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(one_pass, tmp_path / "features")
    shutil.rmtree(folder / "efficientnet_lite0")
    before = [path.read_bytes() for path in FeatureStore.open(folder / "lenet5").shard_paths]
    summary = extract(find_videos([videos]), folder, config=TWO)
    counts = {name: (one.num_stored, one.num_skipped) for name, one in summary.streams.items()}
    assert counts == {"lenet5": (0, 3), "efficientnet_lite0": (3, 0)}
    assert [path.read_bytes() for path in FeatureStore.open(folder / "lenet5").shard_paths] == before
    assert (folder / "efficientnet_lite0/store.json").exists()


def test_a_video_that_one_store_lacks_is_decoded_for_that_one(videos: Path, one_pass: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(one_pass, tmp_path / "features")
    drop(FeatureStore.open(folder / "lenet5"), ["1.mp4"])
    summary = extract(find_videos([videos]), folder, config=TWO)
    assert {name: one.num_stored for name, one in summary.streams.items()} == {"lenet5": 1, "efficientnet_lite0": 0}
    assert (summary.num_stored, summary.num_skipped) == (1, 2)
    assert_same(FeatureStore.open(folder / "lenet5")["1.mp4"], FeatureStore.open(one_pass / "lenet5")["1.mp4"])


def test_a_video_that_fails_is_noted_in_each_store_and_reported_once(videos: Path, tmp_path: Path) -> None:
    backbones = ("--backbone", NAMES[0], "--backbone", NAMES[1])
    result = run("extract", videos, "-o", tmp_path / "f", *backbones, "--device", "cpu", "--workers", 1)
    assert result.exit_code == 3
    assert result.stderr.count("failed: broken.mp4: ") == 1
    for name in NAMES:
        assert f"{tmp_path / 'f' / name}: 3 videos stored, 0 were there already, 1 failed\n" in result.stdout
        assert [failure.video_id for failure in FeatureStore.open(tmp_path / "f" / name).failures] == ["broken.mp4"]
    assert "3 videos decoded once for all streams (" in result.stdout


def test_a_dry_run_takes_a_video_that_any_stream_lacks(videos: Path, one_pass: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(one_pass, tmp_path / "features")
    drop(FeatureStore.open(folder / "lenet5"), ["1.mp4"])
    command = ("extract", videos, "-o", folder, "--dry-run", "--backbone", ",".join(NAMES), "--num-frames", 4)
    lines = run(*command).stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("take")] == ["1.mp4"]


def test_a_backbone_given_twice_is_refused(videos: Path, tmp_path: Path) -> None:
    result = run("extract", videos, "-o", tmp_path / "f", "--backbone", "lenet5", "--backbone", "lenet5")
    assert result.exit_code == 2
    assert "--backbone lenet5 is given twice; each backbone makes one stream" in result.stderr


def test_several_streams_do_not_go_into_one_store_and_the_remedy_works(
    videos: Path, one_pass: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(one_pass / "lenet5", tmp_path / "features")
    command = ("extract", videos, "-o", store, "--backbone", ",".join(NAMES), "--num-frames", 4, "--dry-run")
    result = run(*command)
    assert result.exit_code == 2
    assert f"{store}: one store, where a folder of stores is needed for lenet5, efficientnet_lite0" in result.stderr
    assert f"mv {store}.one {store / 'lenet5'}" in result.stderr
    shutil.move(store, tmp_path / "features.one")
    store.mkdir()
    shutil.move(tmp_path / "features.one", store / "lenet5")
    assert run(*command).exit_code == 0


def test_a_weights_file_for_two_backbones_is_refused(videos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"x")
    command = ("extract", videos, "-o", tmp_path / "f", "--backbone", ",".join(NAMES), "--weights", weights)
    result = run(*command)
    assert result.exit_code == 2
    assert "extract one backbone at a time into the same folder" in result.stderr


# one decode


class CountingReader:
    """A video of 300 frames that counts which are asked for."""

    method, info = "pyav", INFO
    pts_seconds, end_seconds = np.arange(300) / 25, 12.0
    asked: ClassVar[list[int]] = []

    def blocks(self, frame_index: NDArray[np.int64], *, keep: bool = False) -> Iterator[NDArray[np.uint8]]:
        for index in frame_index.tolist():
            self.asked.append(index)
            yield np.full((1, 96, 128, 3), index % 251, np.uint8)


def test_each_frame_is_decoded_once_for_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other frame for one stream and every third for the other, in several pieces."""
    CountingReader.asked.clear()
    monkeypatch.setattr(worker._Worker, "counts", [0], raising=False)
    monkeypatch.setattr(worker._Worker, "open", lambda piece: CountingReader())
    views = {"even": View(Sampling("fps", fps=12.5), SMALL), "third": View(Sampling("fps", fps=25 / 3), SMALL)}
    piece = worker.Piece(VideoFile("a.mp4", Path("a.mp4")), views, ("pyav",))
    decoded = worker.decode_piece(piece, 0)
    pictures: dict[str, list[int]] = {"even": [], "third": []}
    step = worker.frames_per_piece(decoded.plan)
    for start in range(0, len(decoded.plan.frame_index), step):
        if start:
            decoded = worker.decode_piece(replace(piece, opened=(INFO, decoded.plan), start=start), 0)
        for made in decoded.pictures:
            assert made.start == len(pictures[made.stream])
            pictures[made.stream] += made.pictures[:, 0, 0, 0].tolist()
    assert CountingReader.asked == sorted({*range(0, 300, 2), *range(0, 300, 3)})
    assert pictures == {"even": [i % 251 for i in range(0, 300, 2)], "third": [i % 251 for i in range(0, 300, 3)]}


# computing


class MeanBrightness:
    """An engine that gives the mean of each picture."""

    name, device, dim, max_in_flight, preprocessing = "torch", "cpu", 1, 1, SMALL

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        return lambda: (frames.reshape(len(frames), -1).mean(axis=1, keepdims=True).astype(np.float32), 0.0)


def numbered(plan: VideoPlan, stream: str, start: int, stop: int, *, add: int = 0) -> FrameBatch:
    """Pictures of one pixel; the brightness is their number, and `add`."""
    pixels = np.arange(start + add, stop + add, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=1)
    return FrameBatch(VideoFile("a.mp4", Path("a.mp4")), INFO, plan, stream, start, pixels)


def plan_of(**num_frames: int) -> VideoPlan:
    return VideoPlan(
        {
            stream: FramePlan(np.arange(n), Rows(np.arange(n) / 25, np.arange(n), np.zeros(n, np.int32)))
            for stream, n in num_frames.items()
        }
    )


def two_models() -> BatchedModels:
    return BatchedModels(
        {name: BatchedModel(MeanBrightness(), 4, np.dtype(np.float32), Utilisation()) for name in ("a", "b")}
    )


def test_a_video_is_done_once_all_its_streams_are() -> None:
    models, plan = two_models(), plan_of(a=8, b=4)
    found = [*models.add(numbered(plan, "a", 0, 8)), *models.add(numbered(plan, "b", 0, 2))]
    assert all(isinstance(one, DecodeProgress) for one in found)
    assert models.progress("a.mp4") in (DecodeProgress("a.mp4", 8, 12), DecodeProgress("a.mp4", 4, 12))
    found += [*models.add(numbered(plan, "b", 2, 4)), *models.flush()]
    (features,) = (one for one in found if isinstance(one, VideoFeatures))
    assert {name: one.features[:, 0].tolist() for name, one in features.streams.items()} == {
        "a": list(range(8)),
        "b": list(range(4)),
    }


def test_a_video_that_starts_again_keeps_nothing_of_its_first_plan() -> None:
    """Its stream a was complete when the video turned out to be damaged."""
    models, first, second = two_models(), plan_of(a=4, b=4), plan_of(a=4, b=2)
    found = [*models.add(numbered(first, "a", 0, 4)), *models.add(numbered(first, "b", 0, 2))]
    found += [*models.add(numbered(second, "b", 0, 2, add=100)), *models.add(numbered(second, "a", 0, 4, add=100))]
    found += models.flush()
    (features,) = (one for one in found if isinstance(one, VideoFeatures))
    assert features.streams["a"].features[:, 0].tolist() == [100, 101, 102, 103]
    assert features.streams["b"].features[:, 0].tolist() == [100, 101]
