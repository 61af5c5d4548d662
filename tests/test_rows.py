"""Rows that are windows of frames, or regions of the picture: from the file, through both decoders, to the shard and
back, against frames that ffmpeg decodes and arithmetic of the test's own."""

import json
import subprocess
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import h5py
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.commands import run
from tests.media import drifting_frames, write_frames
from tests.stores import assert_same, make_store
from vidpipe.backbones.batching import BatchedModel, Utilisation
from vidpipe.backbones.engines.engine import Finish
from vidpipe.config import Sampling
from vidpipe.errors import StoreError
from vidpipe.features.export import export
from vidpipe.features.maintenance import compact, find_damage, merge, repair
from vidpipe.features.store import FeatureStore
from vidpipe.records import (
    DecodeProgress,
    FeatureSequence,
    FrameBatch,
    FramePlan,
    Preprocessing,
    Rows,
    VideoFile,
    VideoInfo,
    VideoPlan,
)
from vidpipe.video.decoding import decode_videos
from vidpipe.video.reader import VideoReader
from vidpipe.video.view import FindScenes, Planner, View

WINDOW = 16
HALVES = np.array([(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 0.5, 1.0)], np.float32)
"""The left and the right half of the picture."""
SMALL = Preprocessing(resize=32, crop=32, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
UNIFORM = Sampling("uniform", num_frames=4)
INFO = VideoInfo(300, 12.0, 25.0, 128, 96, "h264", "pyav", False, 0, 7, 8)


class MeanColour:
    """An engine that gives the mean colour of what it sees: of a picture, or over all pictures of a window."""

    name, device, dim, max_in_flight = "torch", "cpu", 3, 1
    preprocessing = SMALL

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        self.shapes.append(frames.shape)
        axes = (2, 3) if frames.ndim == 4 else (1, 3, 4)
        return lambda: (frames.astype(np.float64).mean(axis=axes).astype(np.float32), 0.0)


@dataclass(frozen=True)
class Windows:
    """Plans a window of `WINDOW` frames around every `stride`-th frame, moved inward at the video's ends."""

    stride: int
    halves: bool = False
    """A row for each half of the picture."""

    def __call__(self, reader: VideoReader, view: View, find_scenes: FindScenes) -> FramePlan:
        num_frames, pts_seconds = len(reader.pts_seconds), reader.pts_seconds
        centres = np.arange(0, num_frames, self.stride).repeat(2 if self.halves else 1)
        starts = np.clip(centres - WINDOW // 2, 0, num_frames - WINDOW)
        frame_index, row_frames = np.unique(starts[:, None] + np.arange(WINDOW), return_inverse=True)
        ends_seconds = np.append(pts_seconds[1:], reader.end_seconds)
        rows = Rows(
            pts_seconds=pts_seconds[centres],
            frame_index=centres,
            scene_index=np.zeros(len(centres), np.int32),
            start_seconds=pts_seconds[starts],
            stop_seconds=ends_seconds[starts + WINDOW - 1],
            region=np.tile(HALVES, (len(centres) // 2, 1)) if self.halves else None,
        )
        return FramePlan(frame_index, rows, row_frames.reshape(len(centres), WINDOW))


def plan_halves(reader: VideoReader, view: View, find_scenes: FindScenes) -> FramePlan:
    """Both halves of every third frame."""
    frames = np.arange(0, len(reader.pts_seconds), 3)
    centres = frames.repeat(2)
    rows = Rows(
        reader.pts_seconds[centres],
        centres,
        np.zeros(len(centres), np.int32),
        region=np.tile(HALVES, (len(frames), 1)),
    )
    return FramePlan(frames, rows, np.arange(len(frames)).repeat(2))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> VideoFile:
    """300 frames, in three pieces, no two alike."""
    path = tmp_path_factory.mktemp("rows") / "a.mp4"
    return VideoFile("a.mp4", write_frames(path, drifting_frames(300), options={"g": "25", "bf": "0"}))


@pytest.fixture(scope="module")
def frames(video: VideoFile) -> NDArray[np.uint8]:
    """(F, H, W, 3) as ffmpeg decodes them."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-i", str(video.path), "-fps_mode", "passthrough"]
    command += ["-sws_flags", "bicubic", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, 96, 128, 3)


def mean_colours(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(F, H, W, 3) -> (F, 3) of each frame's centre crop, after resizing its shorter side to 32."""
    height, width = frames.shape[1:3]
    size = (32, 32 * width // height) if height <= width else (32 * height // width, 32)
    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True).numpy()
    top, left = ((side - 32) // 2 for side in size)
    crops: NDArray[np.uint8] = resized[:, :, top : top + 32, left : left + 32]
    colours: NDArray[np.float64] = crops.mean(axis=(2, 3), dtype=np.float64)
    return colours


def features_of(
    video: VideoFile, planner: Planner, decoder: str = "pyav", *, engine: MeanColour, batch_size: int = 8
) -> FeatureSequence:
    """The video's one sequence, through decoding processes and batches of rows."""
    model = BatchedModel(engine, batch_size, np.dtype(np.float32), Utilisation())
    batches = decode_videos(
        [video],
        {"small": View(UNIFORM, SMALL, planner=planner)},
        decoder=decoder,
        workers=1,
        timeout_seconds=60,
    )
    found: list[FeatureSequence | DecodeProgress] = []
    for batch in batches:
        if not isinstance(batch, DecodeProgress):
            assert isinstance(batch, FrameBatch), batch
            found += model.add(batch)
    found += model.flush()
    (sequence,) = (one for one in found if isinstance(one, FeatureSequence))
    return sequence


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("stride", [WINDOW, 5])
def test_a_window_of_frames_is_one_row_whether_windows_overlap_or_not(
    video: VideoFile, frames: NDArray[np.uint8], stride: int, decoder: str, tmp_path: Path
) -> None:
    engine = MeanColour()
    sequence = features_of(video, Windows(stride), decoder, engine=engine)
    colours = mean_colours(frames)
    centres = list(range(0, 300, stride))
    starts = [min(max(centre - 8, 0), 300 - 16) for centre in centres]
    expected = [colours[start : start + 16].mean(axis=0) for start in starts]
    assert sequence.info.decoder == decoder
    assert np.allclose(sequence.features, expected, atol=1e-3)
    assert sequence.rows.frame_index.tolist() == centres
    assert sequence.start_seconds == pytest.approx([start / 25 for start in starts])
    assert sequence.stop_seconds == pytest.approx([(start + 16) / 25 for start in starts])
    assert {shape[1:] for shape in engine.shapes} == {(16, 3, 32, 32)}
    assert {shape[0] for shape in engine.shapes[:-1]} == {8}
    assert_holds_rows(make_store(tmp_path / "s", [sequence]), [sequence])


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_two_regions_of_one_frame_are_two_rows(
    video: VideoFile, frames: NDArray[np.uint8], decoder: str, tmp_path: Path
) -> None:
    engine = MeanColour()
    sequence = features_of(video, plan_halves, decoder, engine=engine)
    halves = [mean_colours(frames[::3, :, :64]), mean_colours(frames[::3, :, 64:])]
    assert np.allclose(sequence.features, np.stack(halves, axis=1).reshape(-1, 3), atol=1e-3)
    assert sequence.rows.frame_index.tolist() == [number for number in range(0, 300, 3) for _ in range(2)]
    assert np.array_equal(sequence.region, np.tile(HALVES, (100, 1)))
    assert {shape[1:] for shape in engine.shapes} == {(3, 32, 32)}
    assert_holds_rows(make_store(tmp_path / "s", [sequence]), [sequence])


def test_a_row_may_be_a_region_of_a_window(video: VideoFile, frames: NDArray[np.uint8]) -> None:
    sequence = features_of(video, Windows(40, halves=True), engine=MeanColour())
    halves = [mean_colours(frames[:, :, :64]), mean_colours(frames[:, :, 64:])]
    starts = [min(max(centre - 8, 0), 300 - 16) for centre in range(0, 300, 40)]
    expected = [half[start : start + 16].mean(axis=0) for start in starts for half in halves]
    assert np.allclose(sequence.features, expected, atol=1e-3)


class _CountingReader:
    """A reader that gives one colour, and counts what it is asked for."""

    method, info = "pyav", INFO
    pts_seconds, end_seconds = np.arange(300) / 25, 12.0
    asked: ClassVar[list[int]] = []

    def blocks(self, frame_index: NDArray[np.int64], *, keep: bool = False) -> "list[NDArray[np.uint8]]":
        self.asked.extend(frame_index.tolist())
        return [np.zeros((1, 96, 128, 3), np.uint8) for _ in frame_index]


@pytest.mark.parametrize("planner", [Windows(5), plan_halves, Windows(7, halves=True)])
def test_each_frame_is_decoded_once_whatever_rows_use_it(
    video: VideoFile, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidpipe.video import worker

    reader = _CountingReader()
    reader.asked.clear()
    monkeypatch.setattr(worker._Worker, "counts", [0], raising=False)
    monkeypatch.setattr(worker._Worker, "open", lambda piece: reader)
    opener = worker.Piece(video, {"small": View(UNIFORM, SMALL, planner=planner)}, ("pyav",))
    first = worker.decode_piece(opener, 0)
    num_pictures = [len(first.pictures[0].pictures)]
    step = worker.frames_per_piece(first.plan)
    for start in range(step, len(first.plan.frame_index), step):
        (decoded,) = worker.decode_piece(replace(opener, opened=(first.info, first.plan), start=start), 0).pictures
        assert decoded.start == sum(num_pictures)
        num_pictures.append(len(decoded.pictures))
    assert reader.asked == first.plan.frame_index.tolist()
    assert sum(num_pictures) == first.plan.num_pictures
    assert max(num_pictures) <= worker.PIECE_PICTURES


# batching: which pictures are held, and in which order they may come


def windows_plan(num_frames: int, window: int) -> FramePlan:
    """Overlapping windows: one from each frame on that has enough frames after it."""
    index = np.arange(num_frames)
    starts = np.arange(num_frames - window + 1)
    rows = Rows(starts / 25, starts, np.zeros(len(starts), np.int32), starts / 25, (starts + window) / 25)
    return FramePlan(index, rows, starts[:, None] + np.arange(window))


def numbered_batch(plan: FramePlan, start: int, stop: int) -> FrameBatch:
    """Pictures of 1 × 1 pixel, each of its number's brightness."""
    pixels = np.arange(start, stop, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=1)
    return FrameBatch(VideoFile("a.mp4", Path("a.mp4")), INFO, VideoPlan({"small": plan}), "small", start, pixels)


@pytest.mark.parametrize("seed", range(5))
def test_windows_come_out_right_whatever_the_order_of_the_pieces(seed: int) -> None:
    plan, model = windows_plan(60, 7), BatchedModel(MeanColour(), 4, np.dtype(np.float32), Utilisation())
    bounds = [0, 13, 14, 30, 55, 60]
    pieces = list(pairwise(bounds))
    np.random.default_rng(seed).shuffle(pieces)
    found = [one for piece in pieces for one in model.add(numbered_batch(plan, *piece))]
    found += model.flush()
    (sequence,) = (one for one in found if isinstance(one, FeatureSequence))
    assert np.allclose(sequence.features[:, 0], np.arange(54) + 3)


def test_a_picture_is_dropped_once_no_later_row_needs_it() -> None:
    plan, model = windows_plan(250, 7), BatchedModel(MeanColour(), 1, np.dtype(np.float32), Utilisation())
    for start in range(0, 250, 5):
        list(model.add(numbered_batch(plan, start, start + 5)))
        held = model._sequences["a.mp4"]._pictures if start < 245 else {}
        assert len(held) <= 6
    assert model.progress("a.mp4") is not None  # one batch is in flight
    (sequence,) = model.flush()
    assert sequence.features[:, 0].tolist() == list(range(3, 247))


def test_a_video_that_starts_again_or_fails_leaves_nothing_behind() -> None:
    model = BatchedModel(MeanColour(), 100, np.dtype(np.float32), Utilisation())
    list(model.add(numbered_batch(windows_plan(40, 7), 0, 20)))
    again = windows_plan(20, 3)
    list(model.add(numbered_batch(again, 0, 20)))
    (sequence,) = model.flush()
    assert sequence.features[:, 0].tolist() == list(range(1, 19))
    list(model.add(numbered_batch(again, 0, 10)))
    model.drop("a.mp4")
    assert list(model.flush()) == []


# the records


def rows_of(num_rows: int, **optional: Any) -> Rows:
    index = np.arange(num_rows)
    return Rows(index / 25, index, np.zeros(num_rows, np.int32), **optional)


@pytest.mark.parametrize(
    ("start", "stop", "is_right"),
    [(0.0, 1.0, True), (0.0, 0.04, False), (0.05, 1.0, False), (np.nan, 1.0, False), (0.0, np.inf, False)],
)
def test_a_centre_lies_in_its_interval(start: float, stop: float, is_right: bool) -> None:
    bounds = {"start_seconds": np.array([0.0, start]), "stop_seconds": np.array([1.0, stop])}
    if is_right:
        assert len(rows_of(2, **bounds)) == 2
    else:
        with pytest.raises(ValueError, match="outside its interval"):
            rows_of(2, **bounds)


@pytest.mark.parametrize(
    ("region", "is_right"),
    [
        ((0.0, 0.0, 1.0, 1.0), True),
        ((0.9, 0.7, 0.1, 0.3), True),
        ((0.9, 0.0, 0.2, 1.0), False),
        ((-0.1, 0.0, 0.5, 1.0), False),
        ((0.0, 0.0, 0.0, 1.0), False),
        ((0.0, 0.0, 1.0, np.nan), False),
    ],
)
def test_a_region_lies_in_the_picture(region: tuple[float, ...], is_right: bool) -> None:
    if is_right:
        rows_of(1, region=np.array([region], np.float32))
    else:
        with pytest.raises(ValueError, match="outside the picture"):
            rows_of(1, region=np.array([region], np.float32))


def test_rows_have_both_bounds_or_neither_and_one_whole_frame_makes_one_row() -> None:
    with pytest.raises(ValueError, match="or neither"):
        rows_of(2, start_seconds=np.zeros(2))
    with pytest.raises(ValueError, match="differ in length"):
        rows_of(2, region=np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="one frame makes two"):
        Rows(np.zeros(2), np.zeros(2, np.int64), np.zeros(2, np.int32))


@pytest.mark.parametrize("row_frames", [[[0, 1], [1, 3]], [[0, 1], [0, 1]], [[0, 1], [-1, 2]], [[0, 1, 2]]])
def test_a_plan_decodes_the_frames_of_its_rows_and_no_others(row_frames: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="row"):
        FramePlan(np.array([0, 1, 2]), rows_of(2), np.array(row_frames))


def test_rows_of_single_frames_have_intervals_and_regions_too() -> None:
    sequence = FeatureSequence("a.mp4", np.zeros((3, 2), np.float32), rows_of(3), INFO)
    assert sequence.rows.start_seconds is None
    assert sequence.start_seconds.tolist() == sequence.pts_seconds.tolist() == [0.0, 0.04, 0.08]
    assert sequence.stop_seconds == pytest.approx([0.04, 0.08, 0.12])
    assert sequence.region.tolist() == [[0, 0, 1, 1]] * 3


# the store


def stored(
    video_id: str, *, seed: int = 0, windows: bool = True, regions: bool = True, num_repeated: int = 0
) -> FeatureSequence:
    """Four rows: both halves of two windows."""
    random = np.random.default_rng(seed)
    centres = np.array([8, 8, 20, 20] if regions else [8, 12, 20, 24])
    optional: dict[str, Any] = (
        {"start_seconds": (centres - 8) / 25, "stop_seconds": (centres + 8) / 25} if windows else {}
    )
    region: dict[str, Any] = {"region": np.tile(HALVES, (2, 1))} if regions else {}
    repeated: dict[str, Any] = {"num_repeated": np.full(4, num_repeated, np.int32)} if num_repeated else {}
    rows = Rows(centres / 25, centres, np.zeros(4, np.int32), **optional, **region, **repeated)
    return FeatureSequence(video_id, random.random((4, 5), np.float32), rows, INFO)


KINDS = [
    stored("both.mp4", seed=1),
    stored("windows.mp4", seed=2, regions=False),
    stored("regions.mp4", seed=3, windows=False),
    stored("frames.mp4", seed=4, windows=False, regions=False),
    stored("short.mp4", seed=5, regions=False, num_repeated=9),
]


def assert_holds_rows(store: FeatureStore, expected: list[FeatureSequence]) -> None:
    store.verify()
    assert len(store) == len(expected)
    for sequence in expected:
        found = store[sequence.video_id]
        assert_same(found, sequence)
        for name in ("start_seconds", "stop_seconds", "region", "num_repeated"):
            one, other = getattr(found.rows, name), getattr(sequence.rows, name)
            assert (one is None) == (other is None)
            assert one is None or (np.array_equal(one, other) and one.dtype == other.dtype)


@pytest.mark.parametrize("expected", [*([kind] for kind in KINDS), KINDS])
def test_a_store_gives_back_the_rows_it_was_given(tmp_path: Path, expected: list[FeatureSequence]) -> None:
    assert_holds_rows(make_store(tmp_path / "s", expected), expected)


def test_a_shard_holds_the_arrays_that_its_rows_need_as_h5py_reads_them(tmp_path: Path) -> None:
    both, _, _, single, short = KINDS
    its_arrays = {
        single.video_id: set[str](),
        both.video_id: {"start_seconds", "stop_seconds", "region"},
        short.video_id: {"start_seconds", "stop_seconds", "num_repeated"},
    }
    for sequence, names in ((one, its_arrays[one.video_id]) for one in (single, both, short)):
        (path,) = make_store(tmp_path / sequence.video_id, [sequence]).shard_paths
        with h5py.File(path) as file:
            assert set(file) == {"features", "pts_seconds", "frame_index", "scene_index", "videos"} | names
            for name in names:
                assert np.array_equal(file[name][:], getattr(sequence.rows, name))


def test_merge_and_compact_keep_intervals_and_regions(tmp_path: Path) -> None:
    one, other = make_store(tmp_path / "a", KINDS[:2]), make_store(tmp_path / "b", KINDS[1:])
    merge([one, other], tmp_path / "merged")
    assert_holds_rows(FeatureStore.open(tmp_path / "merged"), KINDS)
    make_store(tmp_path / "a", KINDS[2:])
    compact(FeatureStore.open(tmp_path / "a"))
    assert len(FeatureStore.open(tmp_path / "a").shards) == 1
    assert_holds_rows(FeatureStore.open(tmp_path / "a"), KINDS)


def test_merge_refuses_two_sequences_that_differ_in_their_regions_only(tmp_path: Path) -> None:
    one = stored("a.mp4")
    other = replace(one, rows=replace(one.rows, region=np.tile(HALVES[::-1], (2, 1))))
    stores = [make_store(tmp_path / "a", [one]), make_store(tmp_path / "b", [other])]
    with pytest.raises(StoreError, match="different features"):
        merge(stores, tmp_path / "merged")


def test_export_writes_intervals_and_regions_where_rows_have_them(tmp_path: Path) -> None:
    export(make_store(tmp_path / "s", KINDS), tmp_path / "exported", form="h5")
    with h5py.File(tmp_path / "exported" / "features.h5") as file:
        assert sorted(file["region"]) == ["both.mp4", "regions.mp4"]
        assert sorted(file["start_seconds"]) == sorted(file["stop_seconds"])
        assert sorted(file["stop_seconds"]) == ["both.mp4", "short.mp4", "windows.mp4"]
        assert {name: file["num_repeated"][name][:].tolist() for name in file["num_repeated"]} == {"short.mp4": [9] * 4}
        assert np.array_equal(file["region/both.mp4"][:], np.tile(HALVES, (2, 1)))
        assert np.array_equal(file["stop_seconds/windows.mp4"][:], KINDS[1].stop_seconds)


@pytest.mark.parametrize("name", ["start_seconds", "stop_seconds", "region"])
def test_a_changed_interval_or_region_is_damage_and_repair_drops_it(tmp_path: Path, name: str) -> None:
    expected = [stored("a.mp4", seed=1), stored("b.mp4", seed=2)]
    store = make_store(tmp_path / "s", expected)
    with h5py.File(store.shard_paths[0], "r+") as file:
        file[name][0] = file[name][0] * 0.999 + 0.0001
    (damage,) = find_damage(store)
    assert (damage.video_id, damage.reason) == ("a.mp4", "it is not what was written")
    repair(store)
    assert_holds_rows(store, expected[1:])


def test_a_changed_number_of_repeated_frames_is_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [KINDS[4], KINDS[1]])
    with h5py.File(store.shard_paths[0], "r+") as file:
        file["num_repeated"][0] = 0
    (damage,) = find_damage(store)
    assert (damage.video_id, damage.reason) == ("short.mp4", "it is not what was written")


def test_rows_that_repeat_no_frame_are_stored_like_rows_that_do_not_say(tmp_path: Path) -> None:
    windows = KINDS[1]
    none_repeated = replace(windows, rows=replace(windows.rows, num_repeated=np.zeros(4, np.int32)))
    assert_holds_rows(make_store(tmp_path / "s", [none_repeated]), [windows])


def test_info_counts_the_videos_whose_windows_repeat_a_frame(tmp_path: Path) -> None:
    result = run("info", make_store(tmp_path / "s", KINDS).path, "--format", "json")
    assert json.loads(result.stdout)["repeated"] == 1
    without = run("info", make_store(tmp_path / "t", KINDS[:4]).path, "--format", "json")
    assert json.loads(without.stdout)["repeated"] == 0


def test_a_row_does_not_repeat_a_negative_number_of_frames() -> None:
    with pytest.raises(ValueError, match="negative"):
        rows_of(2, num_repeated=np.array([0, -1], np.int32))


def test_a_flipped_bit_in_an_interval_or_region_changes_nothing_or_is_found(tmp_path: Path) -> None:
    expected = [stored(f"{number}.mp4", seed=number) for number in range(3)]
    store = make_store(tmp_path / "s", expected)
    (path,) = store.shard_paths
    content = path.read_bytes()
    with h5py.File(path) as file:
        places = [file[name].id.get_offset() for name in ("start_seconds", "stop_seconds", "region")]
    random = np.random.default_rng(20261125)
    for place in (start + offset for start in places for offset in random.integers(0, 3 * 4 * 8, 20)):
        changed = bytearray(content)
        changed[place] ^= 1 << random.integers(0, 8)
        path.write_bytes(changed)
        assert len(find_damage(store)) == 1


@pytest.mark.parametrize("names", [["region"], ["start_seconds", "stop_seconds"]])
def test_a_lost_optional_array_is_damage_of_the_videos_that_had_it(tmp_path: Path, names: list[str]) -> None:
    with_it, without = stored("a.mp4"), stored("b.mp4", windows=False, regions=False)
    store = make_store(tmp_path / "s", [with_it, without])
    with h5py.File(store.shard_paths[0], "r+") as file:
        for name in names:
            del file[name]
    assert [damage.video_id for damage in find_damage(store)] == ["a.mp4"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("start_seconds", 5.0, "outside its interval"),
        ("stop_seconds", 0.32, "outside its interval"),
        ("start_seconds", np.nan, "outside its interval"),
        ("region", (0.5, 0.0, 0.6, 1.0), "outside the picture"),
        ("region", (0.5, 0.0, np.nan, 1.0), "outside the picture"),
    ],
)
def test_rows_that_cannot_be_are_damage_that_verify_names(
    tmp_path: Path, name: str, value: object, reason: str
) -> None:
    store = make_store(tmp_path / "s", [stored("a.mp4"), stored("b.mp4")])
    with h5py.File(store.shard_paths[0], "r+") as file:
        file[name][0] = value
    result = run("store", "verify", store.path)
    assert result.exit_code == 3
    assert "a.mp4" in result.output
    assert reason in result.output
    assert "b.mp4" not in result.output


@pytest.mark.parametrize("name", ["start_seconds", "stop_seconds", "region"])
@pytest.mark.parametrize(
    "how",
    [
        {"shape": (2**40,), "chunks": True, "dtype": np.float64},
        {"data": np.zeros(7), "dtype": np.float64},
        {"data": np.zeros((8, 3), np.float32)},
        {"data": np.zeros((8, 4), np.int32)},
        {"data": np.zeros((8, 4, 1), np.float32)},
        {"data": h5py.Empty(np.float64)},
    ],
)
def test_an_optional_array_of_another_form_is_refused(tmp_path: Path, name: str, how: dict[str, object]) -> None:
    store = make_store(tmp_path / "s", [stored("a.mp4"), stored("b.mp4")])
    with h5py.File(store.shard_paths[0], "r+", libver=("v108", "latest")) as file:
        del file[name]
        file.create_dataset(name, **how)
    (damage,) = find_damage(store)
    assert damage.video_id is None


def test_an_optional_array_in_another_file_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [stored("a.mp4")])
    (path,) = store.shard_paths
    make_store(tmp_path / "t", [stored("a.mp4")]).shard_paths[0].rename(tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        del file["region"]
        file["region"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "region")
    (damage,) = find_damage(store)
    assert (damage.video_id, "outside the file" in damage.reason) == (None, True)
