"""`--fast-decode`: the frames that ffmpeg itself gives with the loop filter skipped, and a key that says so."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.commands import LENET, run
from tests.media import write_frames
from tests.stores import KEY
from vidpipe.backbones.stream import Stream, resolve_decoding
from vidpipe.config import Decoding, ExtractConfig, FinetuneConfig
from vidpipe.errors import UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.finetuning.augmentation import ClipChanges
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.frames import FrameCache
from vidpipe.runs.run import Run
from vidpipe.stages.follow import follow
from vidpipe.video.files import find_videos
from vidpipe.video.reader import open_video

LEVELS = {"off": "default", "nonref": "noref", "all": "all"}
"""By our name of a level, ffmpeg's."""


def textured_frames(num_frames: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) smooth noise that moves, coded coarsely: the loop filter has edges of blocks to smooth."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (16, 24, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    noise = random.integers(0, 30, (num_frames, *coarse.shape), dtype=np.uint8)
    for number in range(num_frames):
        yield np.roll(coarse // 2, 3 * number, axis=1) + noise[number]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast_decode")
    for number in range(3):
        for label in ("go", "stop"):
            options = {"g": "15", "bf": "2", "crf": "38"}
            frames = list(textured_frames(30, seed=number))[:: 1 if label == "go" else -1]
            write_frames(folder / label / f"{number}.mp4", frames, options=options)
    return folder


def by_ffmpeg(path: Path, level: str) -> NDArray[np.uint8]:
    """All frames, (T, H, W, 3)."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-skip_loop_filter", level, "-i", str(path)]
    raw = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-sws_flags", "bicubic", "-"], capture_output=True, check=True
    )
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, 128, 192, 3)


@pytest.mark.parametrize("method", ["pyav", "survey"])
@pytest.mark.parametrize("level", LEVELS)
def test_frames_are_those_of_ffmpeg_with_the_loop_filter_skipped(clips: Path, level: str, method: str) -> None:
    path = clips / "go" / "0.mp4"
    reader = open_video(path, methods=(method,), fast_decode=level)
    index = [0, 1, 2, 9, 14, 15, 22, 29]  # key frames, B-frames, frames after a seek
    frames = np.concatenate(list(reader.blocks(index)))
    assert np.array_equal(frames, by_ffmpeg(path, LEVELS[level])[index])


def test_key_frames_by_the_index_are_those_of_ffmpeg_with_the_loop_filter_skipped(clips: Path) -> None:
    path = clips / "go" / "0.mp4"
    reader = open_video(path, methods=("keyframe",), fast_decode="all")
    index = reader.find_key_frames(16)
    assert np.array_equal(np.concatenate(list(reader.blocks(index))), by_ffmpeg(path, "all")[index])


def test_each_level_changes_more_pixels_than_the_one_before(clips: Path) -> None:
    exact = by_ffmpeg(clips / "go" / "0.mp4", "default").astype(int)
    changed = [
        np.abs(by_ffmpeg(clips / "go" / "0.mp4", level).astype(int) - exact).mean(axis=(1, 2, 3)) > 0
        for level in ("noref", "all")
    ]
    assert 0 < changed[0].sum() < changed[1].sum() == len(exact)


def test_the_key_says_how_frames_were_decoded_only_where_it_is_not_exact() -> None:
    assert "decoding" not in KEY.as_dict()
    assert ExtractConfig().decoding.as_dict() is None
    fast = FeatureKey.from_dict({**KEY.as_dict(), "decoding": ExtractConfig(fast_decode="all").decoding.as_dict()})
    assert fast.as_dict()["decoding"] == {"fast_decode": "all"}
    assert fast.resolve_decoding() == Decoding("all")
    assert fast != KEY
    assert "decoded exactly here" in KEY.difference(fast)
    assert "decoded with --fast-decode all asked for" in KEY.difference(fast)


def test_a_video_is_not_decoded_for_two_streams_that_need_other_pixels() -> None:
    fast = FeatureKey.from_dict({**KEY.as_dict(), "decoding": {"fast_decode": "nonref"}})
    assert resolve_decoding({"a": fast, "b": fast}) == Decoding("nonref")
    with pytest.raises(UsageError, match="a and b were decoded exactly and decoded with --fast-decode nonref"):
        resolve_decoding({"a": KEY, "b": fast})


def test_decord_has_no_fast_decoding() -> None:
    with pytest.raises(UsageError, match="--fast-decode goes with --decoder pyav, not with --decoder decord"):
        ExtractConfig(fast_decode="all", decoder="decord")


def test_a_run_on_fast_decoded_features_decodes_alike(clips: Path, tmp_path: Path) -> None:
    for level in ("off", "all"):
        result = run("extract", clips, "-o", tmp_path / level, "--fast-decode", level, "--num-frames", 4, *LENET)
        assert result.exit_code == 0, result.output
    exact, fast = (FeatureStore.open(tmp_path / level) for level in ("off", "all"))
    assert "decoding" not in json_of(exact)
    assert not np.array_equal(exact["go/0.mp4"].features, fast["go/0.mp4"].features)
    again = run("extract", clips, "-o", tmp_path / "off", "--fast-decode", "all", "--num-frames", 4, *LENET)
    assert again.exit_code == 1
    assert "lenet5 features, decoded exactly" in again.stderr
    assert "lenet5 features, decoded with --fast-decode all; choose another folder" in again.stderr
    train = ("--head", "mean", "--device", "cpu", "--no-refit")
    assert run("train", tmp_path / "all", "-o", tmp_path / "run", *train).exit_code == 0
    video = clips / "go" / "0.mp4"
    answers = [
        run("predict", tmp_path / "run", video, "--format", "json", "--device", "cpu", *store).stdout
        for store in ((), ("--store", tmp_path / "all"))
    ]
    assert answers[0].split('"predictions"')[1] == answers[1].split('"predictions"')[1]
    with pytest.raises(UsageError, match=r"not decoded exactly .*; leave out --follow"):
        follow(Run.open(tmp_path / "run"), video)


def test_fine_tuning_sees_the_frames_that_an_extraction_saw(clips: Path, tmp_path: Path) -> None:
    assert run("extract", clips, "-o", tmp_path / "s", "--fast-decode", "all", "--num-frames", 4, *LENET).exit_code == 0
    store, config = FeatureStore.open(tmp_path / "s"), FinetuneConfig(device="cpu")
    stream = Stream.of_key(store.key, weights="default", owner="run")
    decoding = store.key.resolve_decoding()
    cache = FrameCache(
        tmp_path / "frames", stream.spec, store.key.resolve_sampling(), frames_per_segment=3, decoding=decoding
    )
    videos = find_videos([clips])
    cache.fill(videos, max_gb=1, config=ExtractConfig(workers=1), on_video=lambda done, total: None)
    backbone, changes = TunedBackbone(stream, config), ClipChanges(stream.spec.preprocessing, config, flips=False)
    for video in videos:
        clip = cache.open(video)
        features = backbone.extract(changes.centre(clip.pictures)[torch.from_numpy(clip.row_pictures)])
        np.testing.assert_allclose(features.numpy(), store[video.id].features, atol=1e-5)


def json_of(store: FeatureStore) -> str:
    return (store.path / "store.json").read_text()
