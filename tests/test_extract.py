"""Cached features against fresh ones: each video alone, decoded whole, its frames put through the model in one go."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.media import write_frames, write_sound, write_video
from tests.test_scenes import film
from vidpipe.config import ExtractConfig
from vidpipe.extract import ExtractProgress, extract
from vidpipe.features.store import FeatureStore
from vidpipe.models.backbones import BACKBONES
from vidpipe.models.frozen import load_backbone
from vidpipe.video.files import find_videos
from vidpipe.video.pyav_reader import PyavReader
from vidpipe.video.resize import resize_and_crop

LITE0 = ExtractConfig(backbone="efficientnet_lite0", device="cpu", workers=1, batch_size=5, sampling="fps", fps=25)
LENGTHS = {"one.mp4": 1, "three.mp4": 3, "deep/er/twelve.mp4": 12, "hundred.mp4": 140}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extract") / "videos"
    for name, length in LENGTHS.items():
        write_video(folder / name, length, width=96, height=64)
    # Packed B-frames: more packets than frames, which decord counts and PyAV does not.
    write_video(folder / "old.avi", 9, codec="mpeg4", options={"bf": "2"})
    write_sound(folder / "sound.wav")
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    summary = extract(find_videos([folder]), folder.parent / "store", config=LITE0)
    assert (summary.num_stored, summary.num_skipped, len(summary.failures)) == (5, 0, 1)
    return FeatureStore.open(folder.parent / "store")


def test_batches_across_videos_give_each_video_its_own_features_in_order(folder: Path, store: FeatureStore) -> None:
    backbone = load_backbone(BACKBONES["efficientnet_lite0"], device="cpu")
    assert set(store) == {*LENGTHS, "old.avi"}
    for sequence in store.sequences():
        reader = PyavReader(folder / sequence.video_id)
        assert len(sequence) == reader.info.num_frames
        assert sequence.plan.frame_index.tolist() == list(range(len(sequence)))
        assert sequence.pts_seconds.tolist() == pytest.approx(reader.pts_seconds.tolist())
        frames = np.concatenate(list(reader.blocks(range(len(sequence)))))
        fresh = backbone(torch.from_numpy(resize_and_crop(frames, backbone.preprocessing))).numpy()
        assert np.abs(sequence.features - fresh).max() < 1e-4
        assert sequence.features.dtype == np.float32
    store.verify()


def test_what_could_not_be_read_is_in_the_failures_file(folder: Path, store: FeatureStore) -> None:
    (line,) = (store.path / "failures.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["video"], entry["error"]) == ("sound.wav", "NotAVideoError")


def test_only_new_and_changed_videos_are_extracted_again(folder: Path, store: FeatureStore) -> None:
    videos = [video for video in find_videos([folder]) if video.id != "sound.wav"]
    assert extract(videos, store.path, config=LITE0).num_skipped == 5
    os.utime(folder / "one.mp4", ns=(1, 1))
    summary = extract(videos, store.path, config=LITE0)
    assert (summary.num_stored, summary.num_skipped) == (1, 4)
    assert extract(videos[:2], store.path, config=LITE0, force=True).num_stored == 2
    assert len(FeatureStore.open(store.path)) == 5


def test_half_precision_is_stored_when_asked_for(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    config = ExtractConfig(**{**vars(LITE0), "dtype": "float16"})
    extract(find_videos([folder / "three.mp4"]), tmp_path / "half", config=config)
    features = FeatureStore.open(tmp_path / "half")["three.mp4"].features
    assert features.dtype == np.float16
    assert np.allclose(features, store["three.mp4"].features, rtol=2e-3, atol=1e-4)


def test_progress_counts_to_the_end(folder: Path, tmp_path: Path) -> None:
    told: list[ExtractProgress] = []
    videos = find_videos([folder / "one.mp4", folder / "three.mp4", folder / "sound.wav"])
    extract(videos, tmp_path / "s", config=LITE0, on_progress=told.append)
    assert [progress.num_done + progress.num_failed for progress in told] == [1, 2, 3]
    assert (told[-1].num_videos, told[-1].num_failed, told[-1].num_frames) == (3, 1, 4)


def test_scenes_are_stored_with_their_number(tmp_path: Path) -> None:

    write_frames(tmp_path / "film.mp4", film([40, 60]))
    config = ExtractConfig(backbone="efficientnet_lite0", device="cpu", workers=1, sampling="scene", num_frames=2)
    extract(find_videos([tmp_path / "film.mp4"]), tmp_path / "s", config=config)
    plan = FeatureStore.open(tmp_path / "s")["film.mp4"].plan
    assert plan.scene_index.tolist() == [0, 0, 1, 1]
    assert plan.frame_index.tolist() == [10, 30, 55, 85]
