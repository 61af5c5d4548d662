"""Videos that fsspec reads: the store is that of local files, copies are few and removed, a failure costs one video."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import fsspec
import numpy as np
import pytest

import vidpipe
from tests.commands import LENET, run
from tests.media import write_video
from vidpipe.errors import InputError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.video.files import Skipped, find_videos
from vidpipe.video.remote import LocalCopies, remove_abandoned_copies

NUM_VIDEOS = 5


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of videos; copies are made below `tmp`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for number in range(NUM_VIDEOS):
        write_video(tmp_path / "videos" / f"walk/{number}.mp4", 8 + number)
    (tmp_path / "videos" / "walk" / "notes.txt").write_text("no video")
    (tmp_path / "videos" / ".trash").mkdir()
    (tmp_path / "videos" / ".trash" / "old.mp4").write_bytes(b"deleted")
    return tmp_path / "videos"


@pytest.fixture
def bucket(videos: Path) -> Iterator[str]:
    """The same videos in fsspec's file system in memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(videos), "/bucket/videos", recursive=True)
    yield "memory://bucket/videos"
    memory.rm("/bucket", recursive=True)


def copies_below(videos: Path) -> list[Path]:
    return list((videos.parent / "tmp").glob("vidpipe-*"))


def assert_same(one: Path, other: Path) -> None:
    opened, expected = FeatureStore.open(one), FeatureStore.open(other)
    assert opened.ids == expected.ids
    for video_id in expected.ids:
        np.testing.assert_allclose(opened[video_id].features, expected[video_id].features, atol=1e-5)
        assert opened.row(video_id).source.fingerprint == expected.row(video_id).source.fingerprint
        assert replace(opened.info(video_id), mtime_ns=0) == replace(expected.info(video_id), mtime_ns=0)


@pytest.mark.parametrize("system", ["memory", "file"])
def test_a_store_of_remote_videos_is_that_of_the_files(videos: Path, bucket: str, system: str, tmp_path: Path) -> None:
    url = bucket if system == "memory" else f"file://{videos}"
    assert run("extract", videos, "-o", tmp_path / "local", *LENET).exit_code == 0
    extracted = run("extract", url, "-o", tmp_path / "remote", *LENET)
    assert extracted.exit_code == 0, extracted.output
    assert_same(tmp_path / "remote", tmp_path / "local")
    assert FeatureStore.open(tmp_path / "remote").row("walk/0.mp4").source.root == url
    assert copies_below(videos) == []
    again = run("extract", url, "-o", tmp_path / "remote", *LENET)
    assert "0 videos stored" in again.output
    assert f"{NUM_VIDEOS} were there already, 0 failed" in again.output
    assert "no longer" not in again.output


def test_a_remote_video_that_changed_is_extracted_again(videos: Path, bucket: str, tmp_path: Path) -> None:
    vidpipe.extract(bucket, tmp_path / "store", backbone="lenet5")
    fsspec.filesystem("memory").put_file(str(videos / "walk/4.mp4"), "/bucket/videos/walk/0.mp4")
    summary = vidpipe.extract(bucket, tmp_path / "store", backbone="lenet5")
    assert summary.num_stored == 1
    assert FeatureStore.open(tmp_path / "store").info("walk/0.mp4").num_frames == 12


def test_one_remote_file_has_its_name_as_id(bucket: str) -> None:
    (video,) = find_videos([f"{bucket}/walk/3.mp4"])
    assert video.id == "3.mp4"
    assert video.remote is not None
    assert video.remote.root == f"{bucket}/walk"


def test_remote_files_are_left_out_for_the_reasons_of_local_ones(videos: Path, bucket: str) -> None:
    local, remote = list[Skipped](), list[Skipped]()
    ids = [video.id for video in find_videos([videos], exclude=["*/1.mp4"], on_skipped=local.append)]
    assert [video.id for video in find_videos([bucket], exclude=["*/1.mp4"], on_skipped=remote.append)] == ids
    assert Skipped("walk/1.mp4", "excluded by '*/1.mp4'") in local
    assert Skipped("walk/1.mp4", "excluded by '*/1.mp4'") in remote
    assert {one.reason for one in remote} == {one.reason for one in local}


def test_copies_are_made_a_few_ahead_and_removed_when_they_are_done_with(videos: Path, bucket: str) -> None:
    with LocalCopies(find_videos([bucket]), num_ahead=2) as copies:
        for video in copies:
            assert video.path.read_bytes() == (videos / video.id).read_bytes()
            assert video.path.stat().st_mode & 0o077 == 0
            assert len([path for path in copies_below(videos) if path.suffix == ".mp4"]) <= 3
            copies.remove(video.id)
            assert not video.path.exists()
    assert copies_below(videos) == []


def test_copies_that_nobody_used_are_removed_too(videos: Path, bucket: str) -> None:
    with LocalCopies(find_videos([bucket]), num_ahead=4) as copies:
        next(iter(copies))
    assert copies_below(videos) == []


COPYING = """
import sys, time
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from vidpipe.video.files import find_videos
from vidpipe.video.remote import LocalCopies

def copy_half(system, source, target, **options):
    Path(target).write_bytes(b"half")
    time.sleep(60)

with LocalCopies(find_videos([sys.argv[1]]), num_ahead=1) as copies:
    copied = iter(copies)
    next(copied)
    LocalFileSystem.get_file = copy_half
    next(copied)
"""


def test_the_copies_of_a_killed_command_are_removed_by_the_next_and_those_of_a_living_one_are_not(
    videos: Path, bucket: str
) -> None:
    environment = {**os.environ, "TMPDIR": str(videos.parent / "tmp")}
    with subprocess.Popen([sys.executable, "-c", COPYING, f"file://{videos}"], env=environment) as living:
        while not any(path.read_bytes() == b"half" for path in copies_below(videos)):
            assert living.poll() is None
            time.sleep(0.01)
        left = set(copies_below(videos))
        assert {path.suffix for path in left} == {".mp4", ".partial"}
        with LocalCopies(find_videos([bucket]), num_ahead=2) as copies:
            assert len(list(copies)) == NUM_VIDEOS
        assert set(copies_below(videos)) == left
        living.send_signal(signal.SIGKILL)
    (videos.parent / "tmp" / "vidpipe-copy-folder").mkdir()
    with LocalCopies(find_videos([bucket]), num_ahead=2) as copies:
        next(iter(copies))
        assert not left & set(copies_below(videos))
    assert [path.name for path in copies_below(videos)] == ["vidpipe-copy-folder"]


def test_no_copy_is_lost_while_another_command_looks_for_abandoned_ones(bucket: str) -> None:
    found, ended = find_videos([bucket]), Event()

    def look() -> None:
        while not ended.is_set():
            remove_abandoned_copies()

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        try:
            for _ in range(40):
                with LocalCopies(found, num_ahead=4) as copies:
                    assert [video.id for video in copies if video.path.exists()] == [video.id for video in found]
        finally:
            ended.set()
        looking.result()


def test_a_remote_video_that_is_gone_costs_itself_alone_and_is_tried_again(bucket: str, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    found = find_videos([bucket])
    data = memory.cat_file("/bucket/videos/walk/2.mp4")
    memory.rm_file("/bucket/videos/walk/2.mp4")
    with LocalCopies(found, num_ahead=2) as copies:
        assert [video.id for video in copies] == [f"walk/{number}.mp4" for number in (0, 1, 3, 4)]
        (failure,) = copies.failures()
    assert failure.message.startswith(f"{bucket}/walk/2.mp4: cannot be copied (FileNotFoundError")
    memory.pipe_file("/bucket/videos/walk/2.mp4", data[: len(data) // 2])
    with LocalCopies(found, num_ahead=2) as copies:
        assert len(list(copies)) == NUM_VIDEOS - 1
        (failure,) = copies.failures()
    assert f"has {len(data) // 2} bytes, and had {len(data)} when it was listed" in failure.message
    assert failure.error == "UnreadableFileError"


def test_predict_reads_remote_videos(videos: Path, bucket: str, made: Path, tmp_path: Path) -> None:
    local = run("predict", made / "run", videos, "--format", "json")
    remote = run("predict", made / "run", bucket, "--format", "json")
    assert remote.exit_code == 0, remote.output
    assert remote.stdout.replace(bucket, str(videos)) == local.stdout
    table = run("predict", made / "run", bucket, "--format", "csv").stdout.splitlines()
    assert table[1].endswith(f",{bucket}/walk/0.mp4")
    refused = run("predict", made / "run", bucket, "--write-video", tmp_path / "copies")
    assert "--write-video copies files, and URLs are not kept" in refused.stderr
    refused = run("predict", made / "run", bucket, "--timeline", "--follow")
    assert "--follow reads a file or folder of this machine, and no URL" in refused.stderr
    assert copies_below(videos) == []


@pytest.mark.parametrize(("url", "message"), [
    ("memory://nowhere/videos", "memory://nowhere/videos: no such file or folder"),
    ("s4://bucket/videos", "s4://bucket/videos: cannot be read (ValueError: Protocol not known: s4)"),
])  # fmt: skip
def test_a_url_that_cannot_be_read_is_one_line(url: str, message: str, tmp_path: Path) -> None:
    refused = run("extract", url, "-o", tmp_path / "store", *LENET)
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_a_remote_folder_without_videos_is_refused(bucket: str) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/texts/a.txt", b"text")
    fsspec.filesystem("memory").pipe_file("/bucket/texts/b.txt", b"text")
    with pytest.raises(InputError, match="memory://bucket/texts: no videos in this folder"):
        find_videos(["memory://bucket/texts"])


def test_other_commands_ask_for_files(bucket: str, made: Path) -> None:
    refused = run("explain", "run", made / "run", bucket, "-o", "out")
    assert refused.exit_code == 2
    assert "URLs are not read; download the file" in refused.stderr


def test_a_slow_copy_does_not_end_an_extraction(
    bucket: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = type(fsspec.filesystem("memory"))
    get_file = memory.get_file

    def slowly(self: object, *args: object, **kwargs: object) -> None:
        time.sleep(0.2)
        get_file(self, *args, **kwargs)

    monkeypatch.setattr(memory, "get_file", slowly)
    summary = vidpipe.extract(bucket, tmp_path / "store", backbone="lenet5", timeout=0.1)
    assert summary.num_stored == NUM_VIDEOS
    with pytest.raises(UsageError, match="no such file or folder"):
        find_videos(["memory://bucket/others"])


@pytest.mark.parametrize(
    "command", [("train", "store"), ("finetune", "run", "videos"), ("store", "merge", "store"), ("predict", "run", "v")]
)
def test_a_url_is_no_place_to_write_to(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run(*command, "-o", "s3://bucket/new")
    assert refused.exit_code == 2
    assert "s3://bucket/new: the output is written to a local path; copy it from there" in refused.stderr
    assert list(tmp_path.iterdir()) == []
