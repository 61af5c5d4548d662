"""Windows of frames: from a file whose frames show their numbers, and against arithmetic of the test's own."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import run
from tests.media import read_number, write_video
from vidpipe.backbones.batching import BatchedModel, Utilisation
from vidpipe.backbones.engines.engine import Finish
from vidpipe.backbones.stream import Stream, resolve_streams
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.errors import RunError, UsageError
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
    Window,
)
from vidpipe.video.decoding import decode_videos
from vidpipe.video.view import View
from vidpipe.video.windows import plan_dense_windows, plan_windows

WHOLE = Preprocessing(resize=(32, 32), crop=32, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
FOUR = Window(num_frames=4, fps=5, min_frames=2)
"""0.8 s: every fifth frame of a video at 25 fps."""
INFO = VideoInfo(3000, 120.0, 25.0, 64, 48, "h264", "pyav", False, 0, 7, 8)
CLIP = ExtractConfig(backbone="r3d_18", weights="random", device="cpu", workers=1)


def seen(path: Path, window: Window, *, num_frames: int = 1, decoder: str = "pyav") -> tuple[list[list[int]], Rows]:
    """The numbers that the frames of each row show, as they come out of the decoding processes, and the rows."""
    view = View(Sampling("uniform", num_frames=num_frames), WHOLE, window)
    video = VideoFile(path.name, path)
    found = decode_videos([video], {"clip": view}, decoder=decoder, workers=1, timeout_seconds=60)
    batches = [one for one in found if not isinstance(one, DecodeProgress)]
    assert all(isinstance(batch, FrameBatch) and batch.info.decoder == decoder for batch in batches)
    pictures = [picture for batch in batches if isinstance(batch, FrameBatch) for picture in batch.pictures]
    plan = next(batch.plan for batch in batches if isinstance(batch, FrameBatch))
    assert plan.row_pictures is not None
    numbers = [read_number(picture.transpose(1, 2, 0)) for picture in pictures]
    return [[numbers[place] for place in row] for row in plan.row_pictures.tolist()], plan.rows


both_decoders = pytest.mark.parametrize("decoder", ["pyav", "decord"])


@both_decoders
def test_a_window_is_the_frames_on_screen_at_its_own_rate_around_the_sampled_frame(
    tmp_path: Path, decoder: str
) -> None:
    path = write_video(tmp_path / "a.mp4", 75)
    windows, rows = seen(path, FOUR, num_frames=3, decoder=decoder)  # samples 12, 37, 62
    assert windows == [[7, 12, 17, 22], [32, 37, 42, 47], [55, 60, 65, 70]]  # the last one would end at 72.5
    assert rows.frame_index.tolist() == [12, 37, 60]
    assert rows.start_seconds == pytest.approx([7 / 25, 32 / 25, 55 / 25])
    assert rows.stop_seconds == pytest.approx([23 / 25, 48 / 25, 71 / 25])
    assert rows.num_repeated is None


@both_decoders
def test_windows_at_the_ends_are_moved_inward_and_equal_ones_are_one_row(tmp_path: Path, decoder: str) -> None:
    windows, _ = seen(write_video(tmp_path / "a.mp4", 30), FOUR, num_frames=10, decoder=decoder)  # samples 1, 4, 7 … 28
    assert windows[0] == [0, 5, 10, 15]  # around 1 and 4
    assert windows[1] == [2, 7, 12, 17]
    assert windows[-1] == [10, 15, 20, 25]  # around 16 to 28: the last 0.8 of 1.2 s
    assert len(windows) == len({tuple(window) for window in windows}) == 5


@both_decoders
def test_a_window_follows_presentation_times_where_the_rate_varies(tmp_path: Path, decoder: str) -> None:
    pts_ms = [0, 40, 80, 120, 500, 520, 540, 1000, 1100, 1700, 1720, 1740, 2000, 2040]
    path = write_video(tmp_path / "a.mp4", len(pts_ms), pts_ms=pts_ms)
    windows, _ = seen(path, FOUR, decoder=decoder)  # the sample is frame 7, at 1 s: the ticks are 0.8, 1.0, 1.2, 1.4
    assert windows == [[6, 7, 8, 8]]


@both_decoders
def test_a_video_shorter_than_the_window_gives_the_frames_that_there_are(tmp_path: Path, decoder: str) -> None:
    windows, rows = seen(write_video(tmp_path / "a.mp4", 12), FOUR, num_frames=5, decoder=decoder)  # 0.48 s
    assert windows == [[0, 5, 10]]
    assert rows.num_repeated is None
    assert rows.start_seconds == pytest.approx([0.0])
    assert rows.stop_seconds == pytest.approx([11 / 25])


@both_decoders
def test_a_video_shorter_than_the_networks_minimum_repeats_its_last_frame_and_says_so(
    tmp_path: Path, decoder: str
) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    windows, rows = seen(path, Window(4, 5, min_frames=4), num_frames=5, decoder=decoder)
    assert windows == [[0, 5, 10, 10]]
    assert rows.num_repeated is not None
    assert rows.num_repeated.tolist() == [1]
    assert rows.num_repeated.dtype == np.int32


@both_decoders
@pytest.mark.parametrize(("num_frames", "expected"), [(12, [0, 5, 10, 10]), (6, [0, 5]), (2, [0, 0])])
def test_a_window_is_a_multiple_of_frames_and_the_last_one_is_repeated_for_it(
    tmp_path: Path, decoder: str, num_frames: int, expected: list[int]
) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames)
    windows, rows = seen(path, Window(4, 5, min_frames=2, multiple=2), decoder=decoder)
    assert windows == [expected]
    repeated = 0 if rows.num_repeated is None else rows.num_repeated.item()
    assert repeated == len(expected) - len(set(expected))


@pytest.mark.parametrize("counts", [(5, 2), (4, 1)])
def test_a_window_of_another_number_than_a_multiple_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a window of frames"):
        Window(counts[0], 5, min_frames=counts[1], multiple=2)


@both_decoders
@pytest.mark.parametrize(("min_frames", "expected"), [(1, [0]), (4, [0, 0, 0, 0])])
def test_a_video_of_one_frame_makes_one_window(
    tmp_path: Path, decoder: str, min_frames: int, expected: list[int]
) -> None:
    windows, rows = seen(write_video(tmp_path / "a.mp4", 1), Window(4, 5, min_frames), decoder=decoder)
    assert windows == [expected]
    assert (0 if rows.num_repeated is None else rows.num_repeated.item()) == len(expected) - 1


@both_decoders
def test_a_window_without_a_rate_is_of_consecutive_frames(tmp_path: Path, decoder: str) -> None:
    pts_ms = [0, 40, 300, 340, 900, 1000, 1010, 1500, 1540, 1580]
    path = write_video(tmp_path / "a.mp4", len(pts_ms), pts_ms=pts_ms)
    windows, _ = seen(path, Window(3, None, 3), num_frames=3, decoder=decoder)  # samples 1, 5, 8
    assert windows == [[0, 1, 2], [4, 5, 6], [7, 8, 9]]


def test_a_slower_video_shows_each_frame_several_times(tmp_path: Path) -> None:
    windows, rows = seen(write_video(tmp_path / "a.mp4", 10, fps=2), FOUR)  # the ticks are 2.3, 2.5, 2.7 and 2.9 s
    assert windows == [[4, 5, 5, 5]]
    assert rows.num_repeated is None


@pytest.mark.parametrize("seed", range(20))
def test_each_window_holds_the_frames_on_screen_at_equal_steps_inside_the_video(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.choice([0.01, 0.04, 0.1, 1.5], 60, p=[0.3, 0.5, 0.15, 0.05])
    pts_seconds, end = np.cumsum(steps) - steps[0], float(steps.sum())
    window = Window(int(random.integers(1, 12)), float(random.choice([3, 7.5, 15, 40])), 1)
    index = np.sort(random.choice(60, 9, replace=False))
    plan = plan_windows(rows_at(index, pts_seconds), window, pts_seconds, end)
    for row, frames in zip(range(len(plan.rows)), frames_of(plan), strict=True):
        assert window.fps is not None
        ticks = ticks_through(frames, pts_seconds, end, window.fps)
        assert ticks is not None
        assert plan.rows.frame_index[row] == frames[(len(frames) - 1) // 2]
    assert {int(plan.rows.frame_index[0]), int(plan.rows.frame_index[-1])} <= set(range(60))
    inside = (pts_seconds[index] > 2) & (pts_seconds[index] < end - 6)
    assert set(index[inside & (window.num_frames / (window.fps or 1) < 2)]) <= set(plan.rows.frame_index.tolist())


def rows_at(index: NDArray[np.int64], pts_seconds: NDArray[np.float64]) -> Rows:
    return Rows(pts_seconds[index], index, np.zeros(len(index), np.int32))


def frames_of(plan: FramePlan) -> list[list[int]]:
    assert plan.row_frames is not None
    frames: list[list[int]] = plan.frame_index[plan.row_frames].tolist()
    return frames


def ticks_through(frames: list[int], pts_seconds: NDArray[np.float64], end: float, fps: float) -> float | None:
    """A start such that frame `i` is on screen at start + i / fps, for all of them; None where there is none."""
    shown_until = np.append(pts_seconds[1:], end)
    earliest = max(pts_seconds[frame] - place / fps for place, frame in enumerate(frames))
    latest = min(shown_until[frame] - place / fps for place, frame in enumerate(frames))
    return earliest if earliest < latest + 1e-6 else None


# a fixed stride


def dense(num_frames: int, stride_seconds: float, window: Window = FOUR) -> FramePlan:
    """Of a video at 25 fps."""
    strided = Window(window.num_frames, window.fps, window.min_frames, stride_seconds)
    return plan_dense_windows(strided, np.arange(num_frames) / 25, num_frames / 25)


def test_windows_start_at_each_stride_and_the_last_one_is_moved_inward() -> None:
    assert frames_of(dense(75, 1.0)) == [[0, 5, 10, 15], [25, 30, 35, 40], [50, 55, 60, 65], [55, 60, 65, 70]]


def test_a_last_window_that_fits_is_not_followed_by_another() -> None:
    assert frames_of(dense(70, 1.0)) == [[0, 5, 10, 15], [25, 30, 35, 40], [50, 55, 60, 65]]


def test_overlapping_windows_decode_each_frame_once() -> None:
    plan = dense(3000, 0.2)
    assert len(plan.rows) == 120 * 5 - 3
    assert plan.frame_index.tolist() == list(range(0, 3000, 5))


def test_a_stride_shorter_than_a_frame_gives_a_window_a_frame() -> None:
    plan = dense(30, 0.01)
    assert plan.rows.frame_index.tolist() == list(range(5, 16))


def test_a_short_video_gives_one_window_at_any_stride() -> None:
    assert frames_of(dense(12, 0.1)) == [[0, 5, 10]]
    assert frames_of(dense(1, 0.1, Window(4, 5, 4))) == [[0, 0, 0, 0]]


def test_a_stride_in_seconds_moves_windows_of_consecutive_frames() -> None:
    assert frames_of(dense(60, 1.0, Window(3, None, 3))) == [[0, 1, 2], [25, 26, 27], [50, 51, 52], [57, 58, 59]]


def test_dense_windows_of_a_file_show_their_numbers(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 75)
    windows, _ = seen(path, Window(4, 5, 2, stride_seconds=1.0), num_frames=16)
    assert windows == [[0, 5, 10, 15], [25, 30, 35, 40], [50, 55, 60, 65], [55, 60, 65, 70]]


class MeanNumber:
    """An engine that gives the mean brightness of each window."""

    name, device, dim, max_in_flight = "torch", "cpu", 1, 0
    preprocessing = WHOLE

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        features = frames.astype(np.float32).mean(axis=(1, 2, 3, 4))[:, None]
        return lambda: (features, 0.0)


def test_a_long_video_is_never_held_as_a_whole() -> None:
    window, piece = Window(32, 25, 32, stride_seconds=0.4), 16
    plan = plan_dense_windows(window, np.arange(3000) / 25, 120.0)
    model = BatchedModel(MeanNumber(), 4, np.dtype(np.float32), Utilisation())
    pixels = (np.arange(3000) % 200).astype(np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=1)
    video, whole = VideoFile("a.mp4", Path("a.mp4")), VideoPlan({"clip": plan})
    held, found = [], list[FeatureSequence]()
    for start in range(0, 3000, piece):
        added = model.add(FrameBatch(video, INFO, whole, "clip", start, pixels[start : start + piece]))
        found += [one for one in added if isinstance(one, FeatureSequence)]
        held += [len(sequence._pictures) for sequence in model._sequences.values()]
    found += model.flush()
    assert max(held) <= 32 + 4 * 10 + piece  # a window, a batch of others that start 10 frames apart, and a piece
    (sequence,) = found
    starts = [*range(0, 3000 - 32, 10), 3000 - 32]
    assert sequence.features[:, 0] == pytest.approx([(np.arange(one, one + 32) % 200).mean() for one in starts])


# the settings


def test_the_stride_is_in_the_key_and_the_sampling_is_not(tmp_path: Path) -> None:
    at_one = Stream.of(ExtractConfig(**{**vars(CLIP), "window_stride": 1.0}))
    assert at_one.key.window == {"num_frames": 16, "fps": 15, "min_frames": 1, "stride_seconds": 1.0}
    assert at_one.key == Stream.of(ExtractConfig(**{**vars(CLIP), "window_stride": 1.0, "num_frames": 3})).key
    assert at_one.key != Stream.of(CLIP).key
    assert Stream.of_key(at_one.key, weights="default", owner="run") == at_one


def test_a_run_of_unknown_windows_is_refused() -> None:
    key = Stream.of(CLIP).key
    odd = type(key).from_dict({**key.as_dict(), "window": {"length": 3}})
    with pytest.raises(RunError, match=r"^my_run: this vidpipe does not know its windows"):
        Stream.of_key(odd, weights="default", owner="my_run")


def test_a_stride_is_for_models_that_see_windows() -> None:
    mixed = ExtractConfig(**{**vars(CLIP), "backbone": ("lenet5", "r3d_18"), "window_stride": 1.0})
    streams = resolve_streams(mixed)
    assert streams["lenet5"].key.resolve_sampling() == Sampling("uniform", num_frames=16)
    assert streams["r3d_18"].spec.window == Window(16, 15, 1, 1.0)
    with pytest.raises(UsageError, match="--window-stride goes with models that see windows"):
        resolve_streams(ExtractConfig(backbone="lenet5", window_stride=1.0))


def test_the_whole_picture_does_not_go_with_a_clip_backbone() -> None:
    with pytest.raises(UsageError, match="--crop whole goes with image models, and r3d_18 sees windows of frames"):
        resolve_streams(ExtractConfig(**{**vars(CLIP), "crop": "whole"}))


def test_a_store_of_other_windows_is_refused_in_words(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", 50)
    command = ("extract", tmp_path / "v", "-o", tmp_path / "s", "--weights", "random", "--backbone", "r3d_18")
    quick = ("--device", "cpu", "--workers", 1)
    assert run(*command, *quick, "--window-stride", 1).exit_code == 0
    sequence = FeatureStore.open(tmp_path / "s")["a.mp4"]
    assert sequence.start_seconds == pytest.approx([0.0, 0.92])
    result = run(*command, *quick, "--window-stride", 0.5)
    assert result.exit_code == 1
    assert "windows of 16 frames at 15 fps, one each 1 s" in result.stderr
    assert "windows of 16 frames at 15 fps, one each 0.5 s" in result.stderr
    assert "choose another folder" in result.stderr
