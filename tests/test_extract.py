"""Cached features against fresh ones: each video alone, decoded whole, its frames put through the model in one go."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.media import film, write_frames, write_sound, write_video
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import BACKBONES
from vidpipe.config import ExtractConfig
from vidpipe.execution.progress import ExtractProgress
from vidpipe.features.store import FeatureStore
from vidpipe.stages.extract import extract
from vidpipe.video.files import find_videos
from vidpipe.video.reader import open_video
from vidpipe.video.resize import resize_and_crop

LITE0 = ExtractConfig(backbone="efficientnet_lite0", device="cpu", workers=1, batch_size=5, sampling="fps", fps=25)
LENET = replace(LITE0, backbone="lenet5")
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
        reader = open_video(folder / sequence.video_id, methods=["survey"])
        assert len(sequence) == reader.info.num_frames
        assert sequence.rows.frame_index.tolist() == list(range(len(sequence)))
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
    steps: list[ExtractProgress] = []
    videos = find_videos([folder / "one.mp4", folder / "three.mp4", folder / "sound.wav"])
    extract(videos, tmp_path / "s", config=LITE0, on_progress=steps.append)
    assert [step.num_done + step.num_failed for step in steps if step.reading is None] == [1, 2, 3]
    assert (steps[-1].num_videos, steps[-1].num_failed, steps[-1].num_frames) == (3, 1, 4)


def test_scenes_are_stored_with_their_number(tmp_path: Path) -> None:

    write_frames(tmp_path / "film.mp4", film([40, 60]))
    config = ExtractConfig(backbone="efficientnet_lite0", device="cpu", workers=1, sampling="scene", num_frames=2)
    extract(find_videos([tmp_path / "film.mp4"]), tmp_path / "s", config=config)
    plan = FeatureStore.open(tmp_path / "s")["film.mp4"].rows
    assert plan.scene_index.tolist() == [0, 0, 1, 1]
    assert plan.frame_index.tolist() == [10, 30, 55, 85]


def test_progress_is_reported_inside_a_long_video(folder: Path, tmp_path: Path) -> None:
    steps: list[ExtractProgress] = []
    extract(find_videos([folder / "hundred.mp4"]), tmp_path / "s", config=LITE0, on_progress=steps.append)
    places = [step.reading.num_done for step in steps if step.reading and step.reading.num_planned == 140]
    assert len(set(places)) > 1
    assert places == sorted(places)


def test_one_long_video_is_shared_by_all_workers_and_a_short_one_starts_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidpipe.execution.local.default_workers", lambda device, decoder: 2)
    monkeypatch.setattr("vidpipe.video.decoding.WORKER_START_SECONDS", 0.0)
    write_video(tmp_path / "long.mp4", 1200, width=48, height=48)
    config = ExtractConfig(backbone="lenet5", device="cpu", engine="torch", sampling="fps", fps=25)
    summary = extract(find_videos([tmp_path / "long.mp4"]), tmp_path / "s", config=config)
    assert (summary.num_frames, summary.utilisation.num_workers) == (1200, 2)
    summary = extract(find_videos([folder / "three.mp4"]), tmp_path / "s", config=config)
    assert (summary.num_frames, summary.utilisation.num_workers) == (3, 1)


def test_a_known_failure_is_skipped_and_counted_until_asked_for_or_replaced(folder: Path, tmp_path: Path) -> None:
    videos, store = tmp_path / "videos", tmp_path / "s"
    good = write_video(videos / "good.mp4", 3)
    bad = write_sound(videos / "bad.mkv")
    assert [failure.video_id for failure in extract(find_videos([videos]), store, config=LITE0).failures] == ["bad.mkv"]

    again = extract(find_videos([videos]), store, config=LITE0)
    assert (again.num_skipped, again.failures, len(again.known_failures)) == (1, (), 1)
    assert len((store / "failures.jsonl").read_text().splitlines()) == 1

    retried = extract(find_videos([videos]), store, config=LITE0, retry_failed=True)
    assert (len(retried.failures), retried.known_failures) == (1, ())

    bad.write_bytes(good.read_bytes())
    assert extract(find_videos([videos]), store, config=LITE0).num_stored == 1
    assert FeatureStore.open(store).failures == ()


@pytest.mark.slow
def test_parts_together_do_every_video_once(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for number in range(12):
        write_video(videos / f"{number}.mp4", 2)
    command = [sys.executable, "-m", "vidpipe", "extract", str(videos), "-o", str(tmp_path / "s"), "--device", "cpu"]
    command += ["--backbone", "lenet5", "--workers", "1", "--quiet"]
    writers = [subprocess.Popen([*command, "--part", f"{number}/2"]) for number in (1, 2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    store = FeatureStore.open(tmp_path / "s")
    assert sorted(row.id for shard in store.shards for row in shard.videos) == sorted(f"{n}.mp4" for n in range(12))
    store.verify()
    assert store.ids == tuple(video.id for video in find_videos([videos]))


def test_a_damaged_video_is_marked_with_what_it_lost(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 200, width=96, height=64, options={"g": "10"})
    content = whole.read_bytes()
    (tmp_path / "most.mkv").write_bytes(content[: len(content) * 3 // 4])
    (tmp_path / "little.mkv").write_bytes(content[: len(content) // 3])
    summary = extract(find_videos(sorted(tmp_path.glob("*.mkv"))), tmp_path / "s", config=LENET)
    assert [failure.video_id for failure in summary.failures] == ["little.mkv"]
    assert "frames can be decoded" in summary.failures[0].message
    store = FeatureStore.open(tmp_path / "s")
    assert (store.info("whole.mkv").damaged, store.info("whole.mkv").lost_packets) == (False, 0)
    most = store.info("most.mkv")
    assert most.damaged
    assert most.lost_packets == pytest.approx(200 - most.num_frames, abs=2)
    rows = len(store["most.mkv"])
    assert rows == most.num_frames
    assert np.allclose(store["most.mkv"].features[:100], store["whole.mkv"].features[:100], atol=1e-4)
