"""`--sampling keyframe`: the key frames alone, against a decode of the whole file by PyAV itself."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import LENET, run
from tests.media import add_sound, drifting_frames, read_number, repeat_video, write_frames, write_video
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.errors import DecodeError, UsageError, VideoError
from vidpipe.features.store import FeatureStore
from vidpipe.video.reader import VideoReader, methods_from, open_video
from vidpipe.video.sampling import key_frame_indices, uniform_indices

BY_INDEX = ("keyframe",)
ALL = 10**6
FORMATS: dict[str, tuple[str, dict[str, str], str]] = {
    "p.mp4": ("libx264", {"g": "12", "bf": "0"}, "yuv420p"),
    "b.mp4": ("libx264", {"g": "12", "bf": "3"}, "yuv420p"),
    "open.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0"}, "yuv420p"),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=12:open-gop=1:log-level=none"}, "yuv420p"),
    "interlaced.mp4": ("libx264", {"g": "12", "flags": "+ildct+ilme"}, "yuv420p"),
    "intra.mov": ("mjpeg", {}, "yuvj420p"),
    "mpeg4.avi": ("mpeg4", {"g": "12"}, "yuv420p"),
    "packed.avi": ("mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}, "yuv420p"),
    "b.mkv": ("libx264", {"g": "12", "bf": "3"}, "yuv420p"),
    "b.ts": ("libx264", {"g": "12", "bf": "2"}, "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}, "yuv420p"),
    "one.mp4": ("libx264", {"g": "600"}, "yuv420p"),
}
IN_INDEX = ("p.mp4", "b.mp4", "open.mp4", "hevc.mp4", "interlaced.mp4", "intra.mov", "one.mp4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames in each format."""
    folder = tmp_path_factory.mktemp("keyframes")
    for name, (codec, options, pixel_format) in FORMATS.items():
        write_video(folder / name, 50, codec=codec, options=options, pixel_format=pixel_format)
    return folder


def key_frames_of(path: Path) -> list[int]:
    """The numbers that the key frames show, where the whole file is decoded by PyAV's own loop."""
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0) if frame.key_frame]


def read_keys(reader: VideoReader, num_frames: int = ALL) -> tuple[NDArray[np.int64], NDArray[Any]]:
    index = reader.find_key_frames(num_frames)
    return index, np.concatenate(list(reader.blocks(index)))


def read_as_a_worker_does(
    path: Path, methods: tuple[str, ...], num_frames: int = ALL
) -> tuple[VideoReader, NDArray[np.int64], NDArray[Any]]:
    """By the first method that finds nothing wrong."""
    while True:
        reader = open_video(path, methods=methods)
        try:
            return reader, *read_keys(reader, num_frames)
        except DecodeError:
            methods = methods_from(reader.method)[1:]


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_gives_the_key_frames_of_a_whole_decode_with_its_pixels(folder: Path, name: str) -> None:
    expected = key_frames_of(folder / name)
    assert len(expected) == {"intra.mov": 50, "one.mp4": 1}.get(name, len(expected))
    assert len(expected) > 3 or name == "one.mp4"
    whole = open_video(folder / name, methods=("survey",))
    pixels = np.concatenate(list(whole.blocks(expected)))
    for method in ("keyframe", "decord", "pyav", "survey"):
        reader, index, frames = read_as_a_worker_does(folder / name, methods_from(method))
        assert index.tolist() == expected, method
        assert np.array_equal(frames, pixels), method
        assert reader.pts_seconds[index] == pytest.approx(whole.pts_seconds[index], abs=1.1e-3), method


@pytest.mark.parametrize("name", IN_INDEX)
def test_the_index_alone_says_what_all_packets_say(folder: Path, name: str) -> None:
    by_index, by_packets = (open_video(folder / name, methods=(method,)) for method in ("keyframe", "pyav"))
    assert by_index.info == by_packets.info
    assert by_index.find_key_frames(ALL).tolist() == by_packets.find_key_frames(ALL).tolist()
    assert by_index.pts_seconds.tolist() == pytest.approx(by_packets.pts_seconds.tolist(), abs=1e-6)
    assert by_index.end_seconds == pytest.approx(by_packets.end_seconds)


@pytest.mark.parametrize("name", ["b.ts", "b.mkv", "vp9.webm", "mpeg4.avi", "mpeg2.mpg"])
def test_a_format_without_an_index_of_all_packets_is_left_to_the_packets(folder: Path, name: str) -> None:
    with pytest.raises(DecodeError, match="has no index of all packets"):
        open_video(folder / name, methods=BY_INDEX)
    assert open_video(folder / name, methods=methods_from("pyav", key_frames=True)).method in ("pyav", "survey")


def test_of_a_long_file_little_more_is_read_than_its_key_frames(folder: Path, tmp_path: Path) -> None:
    path = repeat_video(folder / "b.mp4", tmp_path / "long.mp4", 100)
    steps: list[int] = []
    reader = open_video(path, methods=BY_INDEX, on_step=steps.append)
    index, frames = read_keys(reader, 8)
    assert reader.info.num_frames == 5000
    assert index.tolist() == key_frame_indices(open_video(path).find_key_frames(ALL), 8).tolist()
    assert [read_number(frame) for frame in frames] == (index % 50).tolist()
    assert sum(steps) <= 8 * 4


def test_a_piece_is_read_by_another_process_than_the_plan(folder: Path) -> None:
    index, frames = read_keys(open_video(folder / "open.mp4", methods=BY_INDEX))
    later = open_video(folder / "open.mp4", methods=BY_INDEX)
    assert np.array_equal(np.concatenate(list(later.blocks(index[2:]))), frames[2:])
    with pytest.raises(DecodeError, match="frame 5 is not a key frame"):
        list(later.blocks([5]))


@pytest.mark.parametrize("num_b_frames", ["0", "3"])
def test_times_of_key_frames_at_a_variable_rate_are_the_containers(tmp_path: Path, num_b_frames: str) -> None:
    pts_ms = np.cumsum(np.random.default_rng(0).integers(10, 400, 40)).tolist()
    path = write_video(tmp_path / "vfr.mp4", 40, pts_ms=pts_ms, options={"g": "7", "bf": num_b_frames})
    for method in ("keyframe", "pyav"):
        reader, index, _ = read_as_a_worker_does(path, methods_from(method))
        assert index.tolist() == key_frames_of(path)
        assert reader.pts_seconds[index] == pytest.approx(np.array(pts_ms)[index] / 1000, abs=1e-6)


def test_sound_between_the_pictures_changes_nothing(folder: Path, tmp_path: Path) -> None:
    path = add_sound(folder / "b.mp4", tmp_path / "sound.mp4", "aac")
    index, frames = read_keys(open_video(path, methods=BY_INDEX))
    assert index.tolist() == key_frames_of(folder / "b.mp4") == [read_number(frame) for frame in frames]


def fragmented(source: Path, target: Path) -> Path:
    with av.open(str(source)) as given, av.open(str(target), "w", options={"movflags": "frag_keyframe"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def cut_without_encoding(source: Path, target: Path) -> Path:
    """From 0.8 s on: an edit list hides the frames between the key frame before and there."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        start = round(0.8 / (given.streams.video[0].time_base or 1))
        given.seek(start, stream=given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.stream = stream
                packet.pts, packet.dts = packet.pts - start, packet.dts - start
                out.mux(packet)
    return target


@pytest.mark.parametrize("change", [fragmented, cut_without_encoding])
def test_an_index_that_does_not_list_what_is_shown_is_not_used(folder: Path, tmp_path: Path, change: Any) -> None:
    path = change(folder / "b.mp4", tmp_path / "changed.mp4")
    with pytest.raises(DecodeError, match="does not have all packets, or hides some"):
        open_video(path, methods=BY_INDEX)
    index, frames = read_keys(open_video(path, methods=methods_from("pyav", key_frames=True)))
    assert [read_number(frame) for frame in frames] == key_frames_of(path)
    assert len(index)


def test_a_file_that_is_cut_off_gives_the_key_frames_that_are_left(folder: Path, tmp_path: Path) -> None:
    with (
        av.open(str(folder / "b.mp4")) as given,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    content = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(DecodeError, match="the file ends before its last packet"):
        open_video(tmp_path / "cut.mp4", methods=BY_INDEX)
    reader = open_video(tmp_path / "cut.mp4", methods=methods_from("pyav", key_frames=True))
    index, frames = read_keys(reader)
    assert reader.info.damaged
    assert [read_number(frame) for frame in frames] == index.tolist()
    assert set(index) <= set(key_frames_of(folder / "b.mp4"))


def test_a_damaged_key_frame_is_no_wrong_picture(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "b.mp4").read_bytes())
    with av.open(str(folder / "b.mp4")) as container:
        key = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
        assert key.pos is not None
        middle = key.pos + key.size // 2
    content[middle : middle + 40] = bytes(40)
    (tmp_path / "damaged.mp4").write_bytes(content)
    reader = open_video(tmp_path / "damaged.mp4", methods=BY_INDEX)
    with pytest.raises(DecodeError, match=r"a key frame is damaged|a whole picture alone"):
        read_keys(reader)
    _, frames = read_keys(open_video(tmp_path / "damaged.mp4", methods=("survey",)))
    sound = [read_number(frame) for frame in frames]
    assert {0, 12, 36, 48} <= set(sound)


def test_key_frames_are_thinned_by_the_uniform_rule() -> None:
    keys = np.arange(3, 300, 7)
    assert key_frame_indices(keys, 5).tolist() == keys[uniform_indices(len(keys), 5)].tolist()
    assert key_frame_indices(keys, 1000).tolist() == keys.tolist()
    assert key_frame_indices(np.zeros(0, np.int64), 4).tolist() == [0]


@pytest.mark.slow
@pytest.mark.real_clips
def test_odd_files_give_the_key_frames_of_a_whole_decode(shared_data: Path) -> None:
    num_by_index = 0
    for path in sorted((shared_data / "edge").glob("*/*.*")):
        try:
            whole = open_video(path, methods=("survey",))
        except VideoError:
            with pytest.raises(VideoError):
                open_video(path, methods=methods_from("pyav", key_frames=True))
            continue
        reader, index, frames = read_as_a_worker_does(path, methods_from("pyav", key_frames=True), 4)
        num_by_index += reader.method == "keyframe"
        assert np.array_equal(frames, np.concatenate(list(whole.blocks(index)))), path
    assert num_by_index > 30


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of two labels, with a key frame every 6 frames; one has only one."""
    folder = tmp_path_factory.mktemp("keyframe_clips")
    for number in range(4):
        for label in ("go", "stop"):
            frames = list(drifting_frames(40 + number))
            options = {"g": "300" if (number, label) == (0, "go") else "6", "sc_threshold": "0"}
            write_frames(folder / label / f"{number}.mp4", frames[:: 1 if label == "go" else -1], options=options)
    return folder


def test_an_extraction_stores_a_row_for_each_key_frame_and_a_run_predicts_by_them(clips: Path, tmp_path: Path) -> None:
    extracted = run("extract", clips, "-o", tmp_path / "s", "--sampling", "keyframe", "--num-frames", 5, *LENET)
    assert extracted.exit_code == 0, extracted.output
    assert "note: 1 of 8 videos have a single key frame, and so a single row (go/0.mp4)" in extracted.stderr
    store = FeatureStore.open(tmp_path / "s")
    assert store.key.sampling == {"method": "keyframe", "num_frames": 5}
    assert store["go/0.mp4"].rows.frame_index.tolist() == [0]
    sequence = store["stop/3.mp4"]  # key frames 0, 6, … 42: the uniform rule takes 0, 2, 4, 5, 7 of these 8
    assert sequence.rows.frame_index.tolist() == [0, 12, 24, 30, 42]
    assert sequence.pts_seconds == pytest.approx(sequence.rows.frame_index / 25)
    trained = run("train", tmp_path / "s", "-o", tmp_path / "run", "--head", "mean", "--device", "cpu", "--no-refit")
    assert trained.exit_code == 0, trained.output
    predicted = run("predict", tmp_path / "run", clips / "go" / "1.mp4", "--format", "json", "--device", "cpu")
    assert json.loads(predicted.stdout)["status"] == "ok"
    segmented = run("predict", tmp_path / "run", clips / "go" / "1.mp4", "--timeline", "--device", "cpu")
    assert segmented.exit_code == 2
    assert "the run was trained on key frames, and a timeline needs frames at even distances" in segmented.stderr


def test_both_decoders_store_the_same_features(clips: Path, tmp_path: Path) -> None:
    stores = []
    for decoder in ("pyav", "decord"):
        result = run("extract", clips, "-o", tmp_path / decoder, "--sampling", "keyframe", "--decoder", decoder, *LENET)
        assert result.exit_code == 0, result.output
        stores.append(FeatureStore.open(tmp_path / decoder))
    assert stores[0].key == stores[1].key
    for video_id in stores[0]:
        assert np.array_equal(stores[0][video_id].features, stores[1][video_id].features)
        assert np.array_equal(stores[0][video_id].pts_seconds, stores[1][video_id].pts_seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "flow"), "flow sees windows of neighbouring frames; use --sampling uniform, or an image model"),
        (("--backbone", "r3d_18"), "r3d_18 sees windows of neighbouring frames"),
        (("--backbone", "lenet5", "--fps", 2), "--fps goes with --sampling fps, not with --sampling keyframe"),
        (("--backbone", "lenet5", "--clip-seconds", 2), "--clip-seconds goes with --sampling uniform"),
        (("--backbone", "lenet5", "--regions", "people"), "--regions people looks for people between the key frames"),
        (("--backbone", "lenet5", "--regions", "tracks"), "--regions tracks looks for people between the key frames"),
        (("--backbone", "lenet5", "--regions", "faces"), "--regions faces looks for people between the key frames"),
        (("--backbone", "r3d_18", "--window-stride", 1), "--window-stride takes windows of neighbouring frames"),
    ],
)
def test_what_needs_neighbouring_frames_is_refused(
    clips: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    result = run("extract", clips, "-o", tmp_path / "s", "--sampling", "keyframe", "--weights", "random", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "s").exists()


def test_sixteen_key_frames_are_the_default() -> None:
    sampling = ExtractConfig(sampling="keyframe").resolve_sampling()
    assert sampling == Sampling("keyframe", num_frames=16)
    assert str(sampling) == "up to 16 key frames"
    with pytest.raises(UsageError, match="--fps"):
        ExtractConfig(sampling="keyframe", fps=2.0)
