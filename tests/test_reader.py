from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media import (
    numbered_frame,
    read_number,
    rotate_mp4,
    tag_in_latin_1,
    write_frames,
    write_sound,
    write_video,
)
from vidpipe.errors import DecodeError, NotAVideoError, VideoError
from vidpipe.video.packets import open_source
from vidpipe.video.reader import METHODS, VideoReader, open_video, read_frames

Open = Callable[[Path], VideoReader]


def opener(method: str) -> Open:
    return lambda path: open_video(path, methods=[method])


@pytest.fixture(params=METHODS)
def open_with(request: pytest.FixtureRequest) -> Open:
    """The same tests over every reader."""
    return opener(request.param)


def frames_of(reader: VideoReader, index: list[int]) -> NDArray[Any]:
    return np.concatenate(list(reader.blocks(index)))


def numbers_of(reader: VideoReader, index: list[int]) -> list[int]:
    return [read_number(frame) for frame in frames_of(reader, index)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("h264.mp4", "libx264", {}),
        ("b_frames.mp4", "libx264", {"bf": "3", "g": "12"}),
        ("all_key.mkv", "libx264", {"g": "1"}),
        ("hevc.mp4", "libx265", {"x265-params": "log-level=none"}),
        ("vp9.webm", "libvpx-vp9", {}),
        ("mpeg4.avi", "mpeg4", {"bf": "0"}),
        ("mjpeg.mov", "mjpeg", {}),
    ],
)
def test_frames_are_read_by_their_number(
    open_with: Open, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, 40, codec=codec, options=options, pixel_format=pixel_format)
    reader = open_with(path)
    assert reader.info.num_frames == 40
    assert numbers_of(reader, [0, 1, 7, 20, 38, 39]) == [0, 1, 7, 20, 38, 39]
    assert np.diff(reader.pts_seconds) == pytest.approx(1 / 25, abs=1.1e-3)


def test_a_later_call_may_read_earlier_frames(open_with: Open, tmp_path: Path) -> None:
    reader = open_with(write_video(tmp_path / "a.mp4", 60, options={"bf": "2", "g": "10"}))
    assert numbers_of(reader, [50, 59]) == [50, 59]
    assert numbers_of(reader, [3, 51]) == [3, 51]


def test_a_later_call_may_read_frames_that_were_skipped(open_with: Open, tmp_path: Path) -> None:
    reader = open_with(write_video(tmp_path / "a.mp4", 60, options={"bf": "3", "g": "30"}))
    assert numbers_of(reader, [2, 10]) == [2, 10]
    assert numbers_of(reader, [11, 12, 13, 14, 15, 29]) == [11, 12, 13, 14, 15, 29]
    assert numbers_of(reader, [16, 17, 30, 31]) == [16, 17, 30, 31]


def test_times_of_a_variable_frame_rate_are_the_containers(open_with: Open, tmp_path: Path) -> None:
    pts_ms = [0, 10, 500, 510, 900, 2000, 2040]
    reader = open_with(write_video(tmp_path / "vfr.mp4", 7, pts_ms=pts_ms))
    assert reader.pts_seconds.tolist() == pytest.approx([ms / 1000 for ms in pts_ms])
    assert numbers_of(reader, list(range(7))) == list(range(7))


def test_a_late_start_keeps_the_containers_times(tmp_path: Path) -> None:
    reader = open_video(write_video(tmp_path / "late.mkv", 3, pts_ms=[2000, 2040, 2080]))
    assert reader.pts_seconds.tolist() == pytest.approx([2.0, 2.04, 2.08])


@pytest.mark.parametrize(
    ("name", "codec", "options", "extras"),
    [
        ("a.avi", "mpeg4", {}, False),
        ("a.mov", "libx264", {}, False),
        ("a.mp4", "libx264", {"movflags": "use_metadata_tags"}, False),
        ("a.mkv", "libx264", {}, True),
    ],
)
def test_text_that_is_no_utf8_changes_no_frame(
    open_with: Open, tmp_path: Path, name: str, codec: str, options: dict[str, str], extras: bool
) -> None:
    clean = write_video(tmp_path / f"clean_{name}", 20, codec=codec, options={"bf": "0"})
    tagged = tag_in_latin_1(clean, tmp_path / name, options=options, extras=extras)
    with pytest.raises(UnicodeDecodeError):  # the text is really there
        av.open(str(tagged))
    reader, expected = open_with(tagged), open_with(clean)
    every = list(range(20))
    assert numbers_of(reader, every) == every
    assert np.array_equal(frames_of(reader, every), frames_of(expected, every))
    assert reader.pts_seconds.tolist() == pytest.approx(expected.pts_seconds.tolist(), abs=1e-3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_metadata_is_honoured(open_with: Open, tmp_path: Path, degrees: int) -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:32, :64] = 255  # white top left corner
    path = rotate_mp4(write_frames(tmp_path / "turned.mp4", [picture] * 3), degrees)
    reader = open_with(path)
    shown = frames_of(reader, [1])[0]
    expected = np.rot90(picture, -degrees // 90)
    assert (reader.info.height, reader.info.width) == expected.shape[:2] == shown.shape[:2]
    assert np.abs(shown.astype(int) - expected).mean() < 8


def test_both_decoders_give_the_same_pixels_and_times_also_at_ten_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (6, 12, 16, 3), dtype=np.uint8)
    frames = list(coarse.repeat(4, axis=1).repeat(4, axis=2))
    for name, pixel_format in (("8.mp4", "yuv420p"), ("10.mp4", "yuv420p10le"), ("444.mp4", "yuv444p")):
        path = write_frames(tmp_path / name, frames, pixel_format=pixel_format)
        first, second = opener("decord")(path), opener("survey")(path)
        assert np.array_equal(frames_of(first, list(range(6))), frames_of(second, list(range(6)))), name
        assert first.pts_seconds.tolist() == second.pts_seconds.tolist()
        assert first.end_seconds == pytest.approx(second.end_seconds)


def test_open_groups_of_pictures_are_left_to_pyav(tmp_path: Path) -> None:
    path = write_video(tmp_path / "open.mkv", 60, codec="mpeg2video", options={"bf": "2", "g": "6"})
    assert open_source(path).packets.open_gop
    with pytest.raises(DecodeError, match="open groups of pictures"):
        opener("decord")(path)
    reader = open_video(path)
    assert reader.info.decoder == "pyav"
    assert numbers_of(reader, [7, 13, 31, 59]) == [7, 13, 31, 59]


def test_packets_that_code_no_frame_are_not_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "packed.avi", 20, codec="mpeg4", options={"bf": "2"})
    reader = open_video(path)
    assert numbers_of(reader, list(range(reader.info.num_frames))) == list(range(20))


def test_a_still_scene_is_left_to_pyav_because_decord_may_have_repeated_a_frame(tmp_path: Path) -> None:
    still = [numbered_frame(5, 64, 48)] * 20
    path = write_frames(tmp_path / "still.mp4", still, options={"bf": "0"})
    with pytest.raises(DecodeError, match="one frame twice"):
        frames_of(opener("decord")(path), list(range(20)))
    reader, frames = read_frames(path, lambda reader: [0, 7, 19])
    assert (reader.method, [read_number(frame) for frame in frames]) == ("pyav", [5, 5, 5])


def test_info_of_an_ordinary_file(open_with: Open, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10, fps=10, width=80, height=60)
    info = open_with(path).info
    assert (info.codec, info.width, info.height, info.num_frames) == ("h264", 80, 60, 10)
    assert [info.duration_seconds, info.fps] == pytest.approx([1.0, 10.0])


def test_a_truncated_file_gives_the_frames_that_are_left(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 100, width=320, height=240, options={"g": "10"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    reader = opener("survey")(cut)
    index = list(range(reader.info.num_frames))
    assert 50 < len(index) < 99
    assert numbers_of(reader, index[:-1]) == index[:-1]


def test_a_damaged_packet_affects_only_its_own_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 50, codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(path)) as container:
        packet = list(container.demux(video=0))[25]
        position, size = packet.pos or 0, packet.size
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    reader = opener("survey")(path)
    assert reader.info.num_frames == 49
    assert len(set(numbers_of(reader, list(range(49))))) == 49


def _text(path: Path) -> None:
    path.write_text("this is no video\n" * 100)


def _empty(path: Path) -> None:
    path.touch()


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_text, _empty, _folder])
def test_a_file_without_a_video_is_refused_with_a_reason(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "a.mp4"
    make(path)
    with pytest.raises(NotAVideoError):
        open_video(path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NotAVideoError, match="no video stream"):
        open_video(write_sound(tmp_path / "a.wav"))


@pytest.mark.parametrize(
    "playlist", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_playlist_is_refused_even_if_it_names_a_video(tmp_path: Path, playlist: str) -> None:
    video = write_video(tmp_path / "secret.ts", 5, codec="mpeg2video")
    path = tmp_path / "list.mp4"
    path.write_text(playlist.format(video.name))
    with pytest.raises(VideoError):
        open_video(path)


def test_numbered_frames_can_be_read_back() -> None:
    assert [read_number(numbered_frame(number, 64, 48)) for number in (0, 5, 1023)] == [0, 5, 1023]


@pytest.mark.parametrize("method", ["pyav", "survey"])
def test_frames_that_are_kept_are_not_decoded_again(tmp_path: Path, method: str) -> None:
    path = write_video(tmp_path / "a.mp4", 40, options={"g": "10", "bf": "2"})
    steps: list[int] = []
    reader = open_video(path, methods=[method], on_step=steps.append)
    assert [read_number(block[0]) for block in reader.blocks(range(40), keep=True)] == list(range(40))
    num_steps = len(steps)
    assert numbers_of(reader, [3, 17, 38]) == [3, 17, 38]
    assert len(steps) == num_steps
