"""Rows of videos that still grow, against the plan of the whole video."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FramePlan, Preprocessing, Window
from vidpipe.video.live_rows import LiveRow, RowPlanner
from vidpipe.video.sampling import plan_frames
from vidpipe.video.view import View
from vidpipe.video.windows import plan_dense_windows, plan_windows

PREPROCESSING = Preprocessing(8, 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIPS, FPS = Sampling("uniform", num_frames=4, clip_seconds=1.0), Sampling("fps", fps=3.0)
VIEWS = {
    "frames of clips": View(CLIPS, PREPROCESSING),
    "all frames": View(Sampling("uniform", num_frames=40, clip_seconds=1.0), PREPROCESSING),
    "frames at a rate": View(FPS, PREPROCESSING),
    "pairs": View(CLIPS, PREPROCESSING, Window(2, None, 2)),
    "pairs at a rate": View(FPS, PREPROCESSING, Window(2, None, 2)),
    "consecutive frames": View(FPS, PREPROCESSING, Window(5, None, 2)),
    "windows around frames": View(CLIPS, PREPROCESSING, Window(8, 7.5, 8)),
    "windows around ticks": View(FPS, PREPROCESSING, Window(16, 15.0, 1)),
    "windows at a stride": View(FPS, PREPROCESSING, Window(16, 15.0, 1, stride_seconds=0.3)),
    "consecutive frames at a stride": View(FPS, PREPROCESSING, Window(6, None, 6, stride_seconds=0.5)),
}


def steady(num_frames: int, start_seconds: float = 0.0) -> NDArray[np.float64]:
    return start_seconds + np.arange(num_frames) / 25


def uneven(num_frames: int) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    return np.cumsum(random.choice([0.02, 0.04, 0.06, 0.3], num_frames, p=[0.3, 0.4, 0.28, 0.02]))


def plan_whole(view: View, pts_seconds: NDArray[np.float64], end_seconds: float) -> FramePlan:
    if view.window is not None and view.window.stride_seconds is not None:
        return plan_dense_windows(view.window, pts_seconds, end_seconds)
    frames = plan_frames(view.sampling, pts_seconds, end_seconds)
    return frames if view.window is None else plan_windows(frames.rows, view.window, pts_seconds, end_seconds)


def frames_of(plan: FramePlan) -> list[tuple[int, ...]]:
    rows: NDArray[Any] = np.arange(len(plan.rows)) if plan.row_frames is None else plan.row_frames
    return [tuple(row) for row in plan.frame_index[rows].reshape(len(plan.rows), -1).tolist()]


def grown(view: View, pts_seconds: NDArray[np.float64], end_seconds: float) -> tuple[list[LiveRow], int]:
    """The rows, and how many of them were certain before the end. No row has a frame that was not needed."""
    planner, held, rows = RowPlanner(view), set[int](), list[LiveRow]()
    for number, seconds in enumerate(pts_seconds.tolist()):
        found = list(planner.add(seconds))
        if number and planner.may_need(number - 1):
            held.add(number - 1)
        rows += found
        needed = planner.first_needed
        assert all(set(row.frames) <= held | {number - 1} for row in found)
        held = {one for one in held if one >= needed}
    num_certain = len(rows)
    rest = list(planner.finish(end_seconds))
    assert all(set(row.frames) <= held | {len(pts_seconds) - 1} for row in rest)
    return rows + rest, num_certain


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("num_frames", [1, 10, 24, 25, 26, 60, 64, 151, 300])
def test_the_rows_of_a_growing_video_are_those_of_the_whole(name: str, num_frames: int) -> None:
    for pts_seconds in (steady(num_frames), steady(num_frames, start_seconds=1.4)):
        end_seconds = float(pts_seconds[-1]) + 0.04
        plan = plan_whole(VIEWS[name], pts_seconds, end_seconds)
        rows, num_certain = grown(VIEWS[name], pts_seconds, end_seconds)
        assert [row.frames for row in rows] == frames_of(plan)
        assert [row.centre for row in rows] == plan.rows.frame_index.tolist()
        assert [row.pts_seconds for row in rows] == plan.rows.pts_seconds.tolist()
        if num_frames >= 150:  # two seconds are needed for what is not certain
            assert num_certain >= len(rows) * (num_frames - 50) / num_frames - 2


@pytest.mark.parametrize("name", [name for name, view in VIEWS.items() if view.sampling is FPS])
def test_rows_follow_the_times_of_a_variable_frame_rate(name: str) -> None:
    pts_seconds = uneven(300)
    end_seconds = float(pts_seconds[-1]) + 0.3
    rows, _ = grown(VIEWS[name], pts_seconds, end_seconds)
    assert [row.frames for row in rows] == frames_of(plan_whole(VIEWS[name], pts_seconds, end_seconds))


def test_times_and_frames_that_no_row_needs_are_dropped() -> None:
    planner = RowPlanner(VIEWS["windows around frames"])
    for number in range(10_000):
        list(planner.add(number / 25))
    assert planner.first_needed > 9_900
    assert len(planner._times.known) < 200
