import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media import read_number, repeat_video, write_video
from vidpipe.config import Sampling
from vidpipe.records import FrameBatch, Preprocessing, VideoFailure, VideoFile
from vidpipe.video.decoding import decode_videos

SMALL = Preprocessing(resize=32, crop=32, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))


def decode(
    videos: list[VideoFile], sampling: Sampling, *, workers: int = 1, timeout_seconds: float = 60.0
) -> list[FrameBatch | VideoFailure]:
    return list(
        decode_videos(videos, sampling=sampling, preprocessing=SMALL, workers=workers, timeout_seconds=timeout_seconds)
    )


def whole_videos(batches: list[FrameBatch | VideoFailure]) -> dict[str, NDArray[np.uint8]]:
    """The frames of each video, put together by their places; every place must be filled once."""
    frames: dict[str, dict[int, NDArray[np.uint8]]] = {}
    for batch in batches:
        assert isinstance(batch, FrameBatch), batch
        for offset, frame in enumerate(batch.frames):
            place = batch.start + offset
            assert place not in frames.setdefault(batch.video.id, {})
            frames[batch.video.id][place] = frame
        num_planned = len(batch.plan)
        assert max(frames[batch.video.id]) < num_planned
    return {video: np.stack([by_place[i] for i in range(len(by_place))]) for video, by_place in frames.items()}


def slow_video(folder: Path) -> Path:
    """A video that takes a worker far longer than the other tests' videos: two minutes of 720p."""
    once = write_video(folder / "once.mkv", 25, width=1280, height=720, options={"preset": "ultrafast", "bf": "0"})
    return repeat_video(once, folder / "slow.mkv", 120)


def test_frames_of_many_videos_come_whole_and_at_their_places(tmp_path: Path) -> None:
    videos = [
        VideoFile(f"{n}.mp4", write_video(tmp_path / f"{n}.mp4", n, width=48, height=48)) for n in (3, 40, 300, 17)
    ]
    frames = whole_videos(decode(videos, Sampling("fps", fps=25), workers=2))
    for video in videos:
        numbers = [read_number(frame.transpose(1, 2, 0)) for frame in frames[video.id]]
        assert numbers == list(range(int(video.path.stem)))


def test_a_bad_video_costs_itself_alone(tmp_path: Path) -> None:
    good = VideoFile("good.mp4", write_video(tmp_path / "good.mp4", 5))
    (tmp_path / "bad.mp4").write_text("no video")
    batches = decode([VideoFile("bad.mp4", tmp_path / "bad.mp4"), good], Sampling("uniform", num_frames=4))
    failures = [batch for batch in batches if isinstance(batch, VideoFailure)]
    assert [(failure.video_id, failure.error) for failure in failures] == [("bad.mp4", "NotAVideoError")]
    assert len(batches) == 2


def test_a_decode_that_takes_too_long_is_killed_and_the_others_go_on(tmp_path: Path) -> None:
    slow = VideoFile("slow.mkv", slow_video(tmp_path))
    quick = VideoFile("quick.mp4", write_video(tmp_path / "quick.mp4", 3))
    batches = decode([quick, slow, quick], Sampling("scene", num_frames=4), timeout_seconds=6.0)
    told = sorted(
        (batch.video_id, batch.error) if isinstance(batch, VideoFailure) else (batch.video.id, "") for batch in batches
    )
    assert told == [("quick.mp4", ""), ("quick.mp4", ""), ("slow.mkv", "DecodeTimeoutError")]


def test_a_decoder_that_dies_costs_the_video_it_had_in_hand(tmp_path: Path) -> None:
    slow = VideoFile("slow.mkv", slow_video(tmp_path))
    quick = VideoFile("quick.mp4", write_video(tmp_path / "quick.mp4", 3))

    def kill_the_worker() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.05)
        while children[0].pid is None or _cpu_seconds(children[0].pid) < 3.0:
            time.sleep(0.05)
        os.kill(children[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    batches = decode([slow, quick], Sampling("scene", num_frames=4))
    killer.join()
    failures = [batch for batch in batches if isinstance(batch, VideoFailure)]
    assert [(failure.video_id, failure.error) for failure in failures] == [("slow.mkv", "DecoderCrashError")]
    assert "SIGKILL" in failures[0].message
    assert len(batches) == 2


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_workers_are_started_without_fork(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_fork() -> int:
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", no_fork)
    video = VideoFile("a.mp4", write_video(tmp_path / "a.mp4", 3))
    assert len(decode([video], Sampling("uniform", num_frames=2))) == 1


def test_no_more_is_decoded_ahead_than_is_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    taken: list[int] = []

    def videos() -> Iterator[VideoFile]:
        for number in range(100):
            taken.append(number)
            yield VideoFile(f"{number}.mp4", path)

    batches = decode_videos(
        videos(), sampling=Sampling("uniform", num_frames=4), preprocessing=SMALL, workers=1, timeout_seconds=60
    )
    next(batches)
    time.sleep(1)
    assert len(taken) <= 4
    batches.close()
