"""Every frame against what ffmpeg itself gives: whole files, cut ones and damaged ones, to the last bit."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media import drifting_frames, read_number, write_frames, write_video
from vidpipe.video.reader import read_frames

NUM_FRAMES = 60
FORMATS = {
    "a.mp4": ("libx264", {"g": "12"}),
    "b.mkv": ("libx264", {"g": "12", "bf": "3"}),
    "c.ts": ("libx264", {"g": "12", "bf": "2"}),
    "d.avi": ("mpeg4", {"g": "12"}),
    "e.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8"}),
    "f.wmv": ("wmv2", {"g": "12"}),
    "g.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
    "h.flv": ("flv1", {"g": "12"}),
    "i.mkv": ("libx265", {"x265-params": "keyint=12:log-level=none"}),
    "j.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=12"}),
    "k.gif": ("gif", {}),
    "l.avi": ("mpeg4", {"bf": "2"}),
}


def cut(content: bytes) -> bytes:
    return content[: len(content) * 4 // 5]


def blank(content: bytes) -> bytes:
    """With three stretches of zeros in its second half."""
    damaged = bytearray(content)
    for part in (0.55, 0.7, 0.85):
        start = int(len(content) * part)
        damaged[start : start + 300] = bytes(300)
    return bytes(damaged)


def whole(content: bytes) -> bytes:
    return content


CONCEALED_DIFFERENTLY = ("g.mpg",)
"""Files in which FFmpeg's replacement of a lost slice differs between versions."""
ANNOUNCED_BY: dict[Callable[[bytes], bytes], tuple[str, ...]] = {
    cut: (".avi", ".mkv", ".webm", ".flv"),
    blank: (".mp4", ".avi"),
}
"""Formats whose headers state the length or the number of frames. A hole in other files cannot be detected."""


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("ffmpeg")
    frames = list(drifting_frames(NUM_FRAMES))
    written = {}
    for name, (codec, options) in FORMATS.items():
        pixel_format = "rgb8" if codec == "gif" else "yuv420p"
        path = write_frames(folder / name, frames, codec=codec, options=options, pixel_format=pixel_format)
        written[name] = path.read_bytes()
    return written


def ffmpeg_frames(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """(F, H, W, 3)"""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-threads", "1", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-sws_flags", "bicubic", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("damage", [whole, cut, blank])
@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_ffmpegs_to_the_last_bit(
    contents: dict[str, bytes], tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    if damage is cut and name == "a.mp4":
        pytest.skip("an MP4 that lost its end lost its index: nothing can be decoded")
    path = tmp_path / name
    path.write_bytes(damage(contents[name]))
    reader, frames = read_frames(path, lambda reader: range(reader.info.num_frames))
    expected = ffmpeg_frames(path, reader.info.width, reader.info.height)
    assert len(frames) == len(expected)
    same = [np.array_equal(frame, other) for frame, other in zip(frames, expected, strict=True)]
    assert all(same) or (damage is blank and name in CONCEALED_DIFFERENTLY and same.count(False) <= 3)
    if damage is whole:
        assert len(frames) == NUM_FRAMES
        assert (reader.info.damaged, reader.info.lost_packets) == (False, 0)
    elif len(frames) < NUM_FRAMES and name.endswith(ANNOUNCED_BY[damage]):
        assert reader.info.damaged
        assert reader.info.lost_packets == pytest.approx(NUM_FRAMES - len(frames), abs=2)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("index", [[59], [3, 20, 41], [11, 12, 13, 35, 36, 37]])
def test_frames_read_after_a_seek_are_those_of_a_decode_from_the_start(
    contents: dict[str, bytes], tmp_path: Path, name: str, index: list[int]
) -> None:
    path = tmp_path / name
    path.write_bytes(contents[name])
    reader, found = read_frames(path, lambda reader: index)
    assert np.array_equal(found, ffmpeg_frames(path, reader.info.width, reader.info.height)[index])


@pytest.mark.parametrize("num_b_frames", ["0", "2"])
@pytest.mark.parametrize("start_seconds", ["0.4", "1.6", "3.2"])
def test_what_an_edit_list_hides_is_neither_shown_nor_missed(
    tmp_path: Path, num_b_frames: str, start_seconds: str
) -> None:
    whole = write_video(tmp_path / "whole.mp4", 100, options={"g": "50", "bf": num_b_frames})
    trimmed = tmp_path / "trimmed.mp4"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-ss", start_seconds]
    subprocess.run([*ffmpeg, "-i", str(whole), "-c", "copy", str(trimmed)], check=True)
    reader, frames = read_frames(trimmed, lambda reader: range(reader.info.num_frames))
    assert np.array_equal(frames, ffmpeg_frames(trimmed, 64, 48))
    assert [read_number(frame) for frame in frames] == list(range(round(25 * float(start_seconds)), 100))
    assert (reader.info.damaged, reader.info.lost_packets) == (False, 0)
