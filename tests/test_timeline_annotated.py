"""Annotated copies against their originals: frames, times, sound, and what is drawn where."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.media import add_sound, drifting_frames, packets, read_number, rotate_mp4, times, write_frames, write_video
from vidpipe.errors import NotAVideoError, UsageError, VidpipeError
from vidpipe.records import Segment, Timeline
from vidpipe.timeline.annotated import write_annotated, write_copy

TIMELINE = Timeline("a.mp4", (Segment(0.0, 0.5, "walk", 0.8), Segment(0.5, 1.0, "run", 0.6)), 1.0)
BAND = 32
"""Pixels: the least height of what is drawn."""


def pictures(path: Path) -> NDArray[Any]:
    """(F, H, W, 3)"""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("name", "video_codec", "codec", "suffix"),
    [
        ("a.mp4", "libx264", "aac", ".mp4"),
        ("a.mkv", "libx264", "libopus", ".mp4"),
        ("a.avi", "mpeg4", "pcm_s16le", ".mkv"),
    ],
)
def test_frames_times_and_sound_are_those_of_the_original(
    tmp_path: Path, name: str, video_codec: str, codec: str, suffix: str
) -> None:
    silent = write_video(tmp_path / f"silent{name[1:]}", 25, width=160, height=120, codec=video_codec)
    video = add_sound(silent, tmp_path / name, codec)
    copy = write_copy(video, replace(TIMELINE, video_id=f"b/{name}"), tmp_path / "copies")
    assert copy == tmp_path / "copies" / "b" / (name if name.endswith(suffix) else f"{name}{suffix}")
    assert [read_number(frame) & 0xFF for frame in pictures(copy)] == list(range(25))  # the upper half
    precision = Fraction(int(".mkv" in (suffix, video.suffix)), 1000)
    assert all(abs(one - other) <= precision for one, other in zip(times(copy), times(video), strict=True))
    own, original = packets(copy, "audio"), packets(video, "audio")
    assert [content for _, content in own] == [content for _, content in original]
    assert all(abs(one[0] - other[0]) <= precision for one, other in zip(own, original, strict=True))
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_a_variable_frame_rate_and_a_late_start_are_kept(tmp_path: Path) -> None:
    pts_ms = [40, 80, 81, 200, 640, 643, 900]
    video = write_video(tmp_path / "a.mp4", len(pts_ms), pts_ms=pts_ms, width=96, height=96)
    write_annotated(video, TIMELINE, tmp_path / "copy.mp4")
    assert times(tmp_path / "copy.mp4") == times(video) == [Fraction(one, 1000) for one in pts_ms]


def test_only_the_band_differs_and_it_shows_the_current_label(tmp_path: Path) -> None:
    frames = list(drifting_frames(25, 160, 128))
    video = write_frames(tmp_path / "a.mp4", frames, options={"crf": "1"})
    write_annotated(video, TIMELINE, tmp_path / "copy.mp4")
    before, after = pictures(video).astype(int), pictures(tmp_path / "copy.mp4").astype(int)
    difference = np.abs(before - after)
    assert difference[:, : -BAND - 8].mean() < 4
    assert difference[:, -BAND:].mean() > 25
    text = after[:, -BAND : -BAND // 3 - 2]
    assert np.abs(text[3] - text[9]).mean() < np.abs(text[3] - text[20]).mean() / 2  # walk, walk, run
    bar = after[:, -4]  # (F, W, 3)
    assert np.abs(bar[2, 20:70] - (0x4E, 0x79, 0xA7)).max() < 40
    assert np.abs(bar[2, 90:140] - (0xF2, 0x8E, 0x2B)).max() < 40
    playheads = [int(row.sum(axis=-1).argmax()) for row in bar[3:23]]
    assert playheads == pytest.approx([160 * number / 25 for number in range(3, 23)], abs=4)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(tmp_path: Path, degrees: int) -> None:
    picture = next(drifting_frames(1, 128, 96))
    video = rotate_mp4(write_frames(tmp_path / "a.mp4", [picture] * 5), degrees)
    write_annotated(video, TIMELINE, tmp_path / "copy.mp4")
    with av.open(str(tmp_path / "copy.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0
    upright = np.rot90(picture, -degrees // 90)
    found = frame.to_ndarray(format="rgb24")
    assert found.shape == upright.shape
    assert np.abs(found[:-40].astype(int) - upright[:-40]).mean() < 12


def test_odd_sizes_full_range_and_other_formats_become_h264_of_the_same_brightness(tmp_path: Path) -> None:
    gray = np.full((97, 101, 3), 200, np.uint8)
    for name, codec, pixel_format in (
        ("a.avi", "mjpeg", "yuvj420p"),
        ("b.mkv", "libx264", "yuv444p"),
        ("c.avi", "ffv1", "bgr0"),
    ):
        video = write_frames(tmp_path / name, [gray] * 3, codec=codec, pixel_format=pixel_format)
        write_annotated(video, TIMELINE, tmp_path / "copy.mp4")
        with av.open(str(tmp_path / "copy.mp4")) as container:
            frame = next(container.decode(video=0))
            assert container.streams.video[0].codec_context.codec.canonical_name == "h264"
        assert (frame.width, frame.height, frame.format.name) == (102, 98, "yuv420p")
        assert frame.to_ndarray(format="rgb24")[:50, :90].mean() == pytest.approx(200, abs=4), name


def test_damaged_frames_are_left_out(tmp_path: Path) -> None:
    video = write_frames(tmp_path / "a.mkv", drifting_frames(50))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    write_annotated(video, TIMELINE, tmp_path / "copy.mp4")
    assert 5 < len(pictures(tmp_path / "copy.mp4")) < 50


def test_wrong_outputs_and_files_are_reported_and_nothing_is_left(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 5, width=96, height=96)
    content = video.read_bytes()
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"exists; .* --overwrite"):
        write_copy(video, TIMELINE, tmp_path)
    with pytest.raises(VidpipeError, match="no path below"):
        write_copy(video, replace(TIMELINE, video_id="../a.mp4"), tmp_path / "copies")
    for original, out, error in (
        (video, video, UsageError),
        (video, tmp_path / "a.webm", UsageError),
        (video, tmp_path / "file" / "a.mp4", VidpipeError),
        (tmp_path / "bad.mp4", tmp_path / "copy.mp4", NotAVideoError),
    ):
        with pytest.raises(error):
            write_annotated(original, TIMELINE, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "bad.mp4", "file"]
    assert video.read_bytes() == content
