from fractions import Fraction

import numpy as np
import pytest

from vidpipe.config import Sampling
from vidpipe.video.sampling import clip_indices, fps_indices, frames_per_clip, plan_frames, uniform_indices


def brute_force_fps(ticks: list[int], end: int, time_base: Fraction, fps: Fraction) -> list[int]:
    """The rule of the design, word by word, in exact arithmetic."""
    chosen: list[int] = []
    k = 0
    while ticks[0] * time_base + k / fps < end * time_base:
        moment = ticks[0] * time_base + k / fps
        on_screen = max(i for i, tick in enumerate(ticks) if tick * time_base <= moment)
        if on_screen not in chosen:
            chosen.append(on_screen)
        k += 1
    return chosen


@pytest.mark.parametrize(("total", "wanted"), [(1, 1), (16, 16), (17, 16), (100, 16), (300, 7), (5, 2), (10**9, 3)])
def test_uniform_takes_the_middle_frame_of_each_equal_part(total: int, wanted: int) -> None:
    expected = [int((i + Fraction(1, 2)) * total / wanted) for i in range(wanted)]
    assert uniform_indices(total, wanted).tolist() == expected


@pytest.mark.parametrize("total", [1, 3, 15])
def test_uniform_gives_each_frame_of_a_short_video_once(total: int) -> None:
    assert uniform_indices(total, 16).tolist() == list(range(total))


@pytest.mark.parametrize("video_fps", [24, 25, 30, 50])
@pytest.mark.parametrize("fps", [Fraction(1, 3), Fraction(1), Fraction(2), Fraction(7), Fraction(25), Fraction(120)])
def test_fps_takes_the_frame_on_screen_at_each_tick_of_a_constant_rate(video_fps: int, fps: Fraction) -> None:
    ticks, time_base = list(range(100)), Fraction(1, video_fps)
    chosen = fps_indices(np.array(ticks) * float(time_base), 100 * float(time_base), float(fps))
    assert chosen.tolist() == brute_force_fps(ticks, 100, time_base, fps)


@pytest.mark.parametrize("seed", range(20))
def test_fps_takes_the_frame_on_screen_at_each_tick_of_a_variable_rate(seed: int) -> None:
    random = np.random.default_rng(seed)
    ticks = (7000 + np.cumsum(random.integers(1, 400, size=60))).tolist()
    end, fps = ticks[-1] + 33, Fraction(int(random.integers(1, 12)))
    chosen = fps_indices(np.array(ticks) / 1000, end / 1000, float(fps))
    assert chosen.tolist() == brute_force_fps(ticks, end, Fraction(1, 1000), fps)


def test_fps_never_takes_a_frame_twice_when_asked_for_more_than_there_are() -> None:
    assert fps_indices(np.array([0.0, 0.5, 1.0]), 1.5, 60).tolist() == [0, 1, 2]


def test_fps_of_a_single_frame_without_duration_is_that_frame() -> None:
    assert fps_indices(np.array([3.0]), 3.0, 2).tolist() == [0]


def test_scene_takes_the_uniform_frames_of_each_scene() -> None:
    plan = plan_frames(Sampling("scene", num_frames=2), np.arange(20.0), 20.0, scenes=[(0, 10), (10, 11), (11, 20)])
    assert plan.frame_index.tolist() == [2, 7, 10, 13, 17]
    assert plan.rows.scene_index.tolist() == [0, 0, 1, 2, 2]


def test_a_plan_carries_the_times_of_its_frames() -> None:
    plan = plan_frames(Sampling("uniform", num_frames=2), np.array([5.0, 5.1, 7.0, 9.0]), 9.5)
    assert plan.frame_index.tolist() == [1, 3]
    assert plan.rows.frame_index.tolist() == [1, 3]
    assert plan.rows.pts_seconds.tolist() == [5.1, 9.0]


@pytest.mark.parametrize(("num_frames", "per_clip"), [(16, 48), (16, 52), (16, 50 // 4 * 4), (4, 100), (8, 12)])
def test_a_long_video_has_the_frames_of_each_clip_that_begins_a_quarter_later(num_frames: int, per_clip: int) -> None:
    total = 10 * per_clip + 7
    index = clip_indices(total, num_frames, per_clip)
    for quarter in range(4 * 9):
        cut = quarter * per_clip // 4 + uniform_indices(per_clip, num_frames)
        assert index[quarter * num_frames // 4 :][:num_frames].tolist() == cut.tolist()
    assert total - per_clip / num_frames <= index[-1] < total


@pytest.mark.parametrize("total", [3, 16, 47, 48])
def test_a_video_no_longer_than_a_clip_is_sampled_as_one(total: int) -> None:
    assert clip_indices(total, 16, 48).tolist() == uniform_indices(total, 16).tolist()


def test_a_clip_with_fewer_frames_than_asked_for_gives_each_once() -> None:
    assert clip_indices(100, 16, 12).tolist() == list(range(100))


def test_clips_are_measured_in_seconds_of_each_video() -> None:
    sampling = Sampling("uniform", num_frames=16, clip_seconds=2.0)
    for fps in (12.5, 25.0, 30.0):
        times = np.arange(int(60 * fps)) / fps
        rows = plan_frames(sampling, times, len(times) / fps).rows
        assert len(rows) == pytest.approx(60 / 2 * 16, rel=0.05)
        assert np.diff(rows.pts_seconds).mean() == pytest.approx(frames_per_clip(fps, 2.0) / fps / 16, rel=0.01)


@pytest.mark.parametrize("num_frames", [47, 49, 50])
def test_a_video_as_long_as_the_clip_is_one_clip(num_frames: int) -> None:
    times = np.arange(num_frames) / 25
    rows = plan_frames(Sampling("uniform", num_frames=16, clip_seconds=2.0), times, num_frames / 25).rows
    assert rows.frame_index.tolist() == uniform_indices(num_frames, 16).tolist()


@pytest.mark.parametrize("error", [-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
def test_a_clip_between_two_multiples_of_four_frames_is_rounded_up(error: float) -> None:
    assert frames_per_clip(25 + error, 0.4) == 12
    assert frames_per_clip(25 + error, 0.56) == 16
