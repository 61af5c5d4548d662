from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.media import write_frames
from vidpipe.video.reader import open_video
from vidpipe.video.scenes import find_scenes


def film(shots: list[int], seed: int = 0) -> list[NDArray[np.uint8]]:
    """Shots of so many frames each, a picture of its own for each, with a slow drift inside."""
    random = np.random.default_rng(seed)
    frames = []
    for length in shots:
        picture = random.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        frames += [np.roll(picture, step, axis=1) for step in range(length)]
    return frames


def test_scenes_begin_where_the_picture_changes(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "film.mp4", film([40, 60, 30]))
    assert find_scenes(open_video(path)) == [(0, 40), (40, 100), (100, 130)]


def test_a_video_of_one_shot_is_one_scene(tmp_path: Path) -> None:
    assert find_scenes(open_video(write_frames(tmp_path / "shot.mp4", film([50])))) == [(0, 50)]


def test_a_single_frame_is_one_scene(tmp_path: Path) -> None:
    assert find_scenes(open_video(write_frames(tmp_path / "still.mp4", film([1])))) == [(0, 1)]


def test_cuts_keep_their_place_in_a_variable_frame_rate(tmp_path: Path) -> None:
    steps = np.random.default_rng(1).integers(20, 80, size=100)
    path = write_frames(tmp_path / "vfr.mp4", film([45, 55]), pts_ms=np.cumsum(steps).tolist())
    assert find_scenes(open_video(path)) == [(0, 45), (45, 100)]
