"""`predict --timeline --follow`: segments of a video that is written while it is read, against those of the whole."""

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import run
from tests.media import moving_square, write_frames
from vidpipe.config import ExtractConfig, TimelineConfig
from vidpipe.errors import DecodeTimeoutError, VideoError
from vidpipe.records import Segment, VideoFailure
from vidpipe.runs.run import Run
from vidpipe.stages.follow import LiveSegment, follow
from vidpipe.stages.timeline import predict_timelines
from vidpipe.video.files import find_videos
from vidpipe.video.live import read_live
from vidpipe.video.live_files import GrowingFile, Patience, finished_files

pytestmark = pytest.mark.slow  # recordings grow while they are read

CPU = ("--device", "cpu")
CONFIG = ExtractConfig(device="cpu", workers=1)
QUICK = Patience(idle_seconds=1.0, settle_seconds=0.4, poll_seconds=0.02)
TIMELINE = TimelineConfig(timeline=True, follow=True, change_cost=0.05, idle=1.5)
FPS, NUM_CLIPS = 25, 16
LOSSLESS: dict[str, Any] = {"codec": "ffv1", "pixel_format": "bgr0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two streams on clips of squares, and `long.mkv`: other clips, joined."""
    folder = tmp_path_factory.mktemp("follow")
    for number in range(10):
        for label in ("left", "right"):
            frames = moving_square(number, to_the_right=label == "right")
            write_frames(folder / "clips" / label / f"{number}.mp4", frames)
    backbones = ("--backbone", "lenet5,flow", "--num-frames", 4, "--workers", 1, *CPU)
    assert run("extract", folder / "clips", "-o", folder / "features", *backbones).exit_code == 0
    trained = run("train", folder / "features", "-o", folder / "run", "--hidden-size", 4, "--epochs", 2, *CPU)
    assert trained.exit_code == 0, trained.output
    write_frames(folder / "long.mkv", frames_of_clips(), options={"g": "12", "bf": "2"})
    write_frames(folder / "lossless.mkv", frames_of_clips(), **LOSSLESS)
    return folder


def frames_of_clips() -> list[NDArray[np.uint8]]:
    return [one for seed in range(NUM_CLIPS) for one in moving_square(70 + seed, to_the_right=seed % 3 == 0)]


def remux(source: Path, target: Path, *, options: dict[str, str] | None = None) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=options or {}) as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def whole(folder: Path, path: Path) -> tuple[Segment, ...]:
    (timeline,) = predict_timelines(Run.open(folder / "run"), find_videos([path]), timeline=TIMELINE, config=CONFIG)
    assert timeline.error is None
    return timeline.segments


class Recording:
    """Writes a video in a thread: three quarters, then the rest once a segment was found."""

    def __init__(self, write_pieces: Callable[[], Iterator[float]]) -> None:
        self.is_found, self._is_written = threading.Event(), threading.Event()
        self._write_pieces = write_pieces
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        for share in self._write_pieces():
            if share >= 0.75:
                self.is_found.wait(timeout=60)
            time.sleep(0.01)
        self._is_written.set()

    def follow(self, trained: Path, path: Path, *, idle: float, stop: bool) -> tuple[list[Segment], list[str], bool]:
        """The segments, their files, and whether one was found before the last quarter was written."""
        found, is_early = list[LiveSegment](), False
        self._thread.start()
        timeline = replace(TIMELINE, idle=idle)
        is_stopped = self._is_written.is_set if stop else (lambda: False)
        for one in follow(Run.open(trained), path, timeline=timeline, config=CONFIG, is_stopped=is_stopped):
            assert isinstance(one, LiveSegment)
            is_early |= not self._is_written.is_set()
            self.is_found.set()
            found.append(one)
        self.is_found.set()
        self._thread.join()
        return [one.segment for one in found], [one.video_id for one in found], is_early


def appended(source: Path, target: Path, num_pieces: int = 30) -> Callable[[], Iterator[float]]:
    content = source.read_bytes()
    edges = [len(content) * number // num_pieces for number in range(num_pieces + 1)]
    target.write_bytes(b"")

    def write() -> Iterator[float]:
        for first, stop in pairwise(edges):
            with target.open("ab") as stream:
                stream.write(content[first:stop])
            yield stop / len(content)

    return write


def moved(sources: list[Path], folder: Path) -> Callable[[], Iterator[float]]:
    folder.mkdir()

    def write() -> Iterator[float]:
        for number, source in enumerate(sources, start=1):
            source.rename(folder / source.name)
            yield number / len(sources)

    return write


def assert_same(found: list[Segment], expected: tuple[Segment, ...], *, abs_seconds: float = 1e-6) -> None:
    assert [one.label for one in found] == [one.label for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.start_seconds == pytest.approx(other.start_seconds, abs=abs_seconds)
        assert one.stop_seconds == pytest.approx(other.stop_seconds, abs=abs_seconds)
        assert one.probability == pytest.approx(other.probability, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grown.ts", {}),
        ("grown.mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        ("grown.mkv", {"live": "1"}),
    ],
)
def test_segments_of_a_growing_file_are_those_of_the_finished_one(
    folder: Path, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    finished = remux(folder / "long.mkv", tmp_path / f"finished_{name}", options=options)
    expected = whole(folder, finished)
    assert len(expected) >= 5
    recording = Recording(appended(finished, tmp_path / name))
    found, files, is_early = recording.follow(folder / "run", tmp_path / name, idle=60, stop=True)
    assert_same(found, expected)
    assert set(files) == {name}
    assert is_early


def test_segments_of_a_folder_of_files_are_those_of_one_video(folder: Path, tmp_path: Path) -> None:
    expected = whole(folder, folder / "lossless.mkv")
    assert len(expected) >= 5
    sources = [
        write_frames(tmp_path / f"{8 + number}.mkv", part, **LOSSLESS)
        for number, part in enumerate(frames_of_clips()[first : first + 31] for first in range(0, 192, 31))
    ]
    recording = Recording(moved(sources, tmp_path / "cam"))
    found, files, is_early = recording.follow(folder / "run", tmp_path / "cam", idle=5, stop=False)
    # where a file ends, the length of its last frame is in whole milliseconds
    assert_same(found, expected, abs_seconds=0.01)
    starts = [31 * number / FPS for number in range(len(sources))]
    assert files == [
        f"{8 + max(number for number, start in enumerate(starts) if start <= one.start_seconds + 0.01)}.mkv"
        for one in found
    ]
    assert is_early


def test_a_broken_file_of_a_folder_costs_itself_alone(folder: Path, tmp_path: Path) -> None:
    frames = frames_of_clips()
    write_frames(tmp_path / "1.mkv", frames[:96], **LOSSLESS)
    (tmp_path / "2.mkv").write_text("no video")
    write_frames(tmp_path / "3.mkv", frames[96:], **LOSSLESS)
    trained = Run.open(folder / "run")
    news = list(follow(trained, tmp_path, timeline=replace(TIMELINE, idle=0.5), config=CONFIG))
    assert [one.video_id for one in news if isinstance(one, VideoFailure)] == ["2.mkv"]
    found = [one.segment for one in news if isinstance(one, LiveSegment)]
    assert_same(found, whole(folder, folder / "lossless.mkv"), abs_seconds=0.01)


def test_a_video_of_one_window_is_one_window(folder: Path, tmp_path: Path) -> None:
    path = write_frames(tmp_path / "short.ts", frames_of_clips()[:12])
    found = list(follow(Run.open(folder / "run"), path, timeline=replace(TIMELINE, idle=0.3), config=CONFIG))
    assert_same([one.segment for one in found if isinstance(one, LiveSegment)], whole(folder, path))


# The command


def follow_command(folder: Path, path: Path, *more: object) -> tuple[object, ...]:
    return ("predict", folder / "run", path, "--timeline", "--follow", "--change-cost", 0.05, *more, *CPU)


def test_a_segment_is_a_line_of_json(folder: Path, tmp_path: Path) -> None:
    path = remux(folder / "long.mkv", tmp_path / "a.ts")
    result = run(*follow_command(folder, path, "--idle", 0.3, "-o", tmp_path / "found.jsonl"))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    expected = whole(folder, path)
    assert [(one["video"], one["label"]) for one in lines] == [("a.ts", one.label) for one in expected]


def test_ctrl_c_ends_the_video_and_prints_the_rest(folder: Path, tmp_path: Path) -> None:
    path = remux(folder / "long.mkv", tmp_path / "a.ts")
    command = [str(one) for one in follow_command(folder, path, "--idle", 300)]
    with subprocess.Popen([sys.executable, "-m", "vidpipe", *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]  # the first segments are certain while the command waits for more
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
        assert process.wait(timeout=60) == 0
    found = [json.loads(line) for line in lines]
    assert [one["label"] for one in found] == [one.label for one in whole(folder, path)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--store", "features"), "--store does not go with --follow"),
        (("--write-video", "copies"), "--write-video does not go with --follow"),
        (("--curves",), "--curves does not go with --follow"),
        (("--format", "csv"), "--format csv does not go with --follow"),
        (("--workers", 2), "--workers does not go with --follow"),
    ],
)
def test_options_that_do_not_go_with_follow_are_wrong_usage(
    folder: Path, options: tuple[object, ...], message: str
) -> None:
    result = run(*follow_command(folder, folder / "long.mkv", *options))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_inputs_that_cannot_be_followed_are_wrong_usage(folder: Path, tmp_path: Path) -> None:
    several = run(*follow_command(folder, folder / "long.mkv", folder / "long.mkv"))
    assert "--follow reads one file or one folder, got 2" in several.stderr
    alone = run("predict", folder / "run", folder / "long.mkv", "--follow", *CPU)
    assert "--follow goes with --timeline" in alone.stderr
    idle = run("predict", folder / "run", folder / "long.mkv", "--timeline", "--idle", 3, *CPU)
    assert "--idle goes with --follow" in idle.stderr
    assert {several.exit_code, alone.exit_code, idle.exit_code} == {2}


def test_a_file_that_cannot_be_read_while_it_grows_is_reported_in_one_line(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 96, 128, 3), dtype=np.uint8)
    path = write_frames(tmp_path / "index_at_end.mp4", noise)
    result = run(*follow_command(folder, path, "--idle", 0.3))
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = [line for line in result.stderr.splitlines() if str(path) in line]
    assert "while it grows; record MPEG-TS, Matroska or fragmented MP4" in line


# What is read


def test_a_playlist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text("#EXTM3U\n#EXTINF:1,\nother.ts\n")
    with pytest.raises(VideoError, match="playlist"):
        list(read_live(tmp_path / "a.ts", {}, patience=QUICK, timeout_seconds=30))


def test_a_process_without_a_sign_of_life_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.video.live._START_SECONDS", 0.2)
    monkeypatch.setattr(
        "vidpipe.video.live._ALIVE_SECONDS", 0.05
    )  # here, not in the process, which takes ten times that
    (tmp_path / "a.ts").write_bytes(b"")
    children = len(multiprocessing.active_children())
    with pytest.raises(DecodeTimeoutError, match=r"no progress for 0\.2 s"):
        list(read_live(tmp_path / "a.ts", {}, patience=replace(QUICK, idle_seconds=60), timeout_seconds=0.2))
    assert len(multiprocessing.active_children()) == children


def test_a_file_that_becomes_smaller_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(b"x" * 100)
    with GrowingFile(path, QUICK, lambda: False) as growing:
        assert (growing.peek(), growing.read(60), growing.read(60)) == (b"x" * 100, b"x" * 60, b"x" * 40)
        path.write_bytes(b"x" * 10)
        with pytest.raises(VideoError, match="became smaller"):
            growing.read(60)


def test_a_read_waits_for_more_and_ends_when_idle(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(b"ab")
    writer = threading.Timer(0.1, lambda: path.write_bytes(b"abcd"))
    with GrowingFile(path, replace(QUICK, idle_seconds=0.5), lambda: False) as growing:
        assert growing.read(10) == b"ab"
        writer.start()
        assert (growing.read(10), growing.read(10)) == (b"cd", b"")
    writer.join()


def test_files_are_finished_when_they_settle_or_a_later_one_exists(tmp_path: Path) -> None:
    for name in ("9.ts", "10.ts", ".hidden.ts", "notes.txt"):
        (tmp_path / name).write_text("x")
    started = time.monotonic()
    found = finished_files(tmp_path, QUICK, lambda: False)
    assert next(found).name == "9.ts"
    assert time.monotonic() - started < QUICK.settle_seconds
    assert next(found).name == "10.ts"
    assert time.monotonic() - started >= QUICK.settle_seconds
    assert list(found) == []


def test_a_file_that_comes_late_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "2.ts").write_text("x")
    found = finished_files(tmp_path, QUICK, lambda: False)
    assert next(found).name == "2.ts"
    (tmp_path / "1.ts").write_text("x")
    assert list(found) == []
    assert "left out: it came after" in caplog.text
