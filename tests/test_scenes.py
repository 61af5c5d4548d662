from pathlib import Path

import numpy as np

from tests.media import film, write_frames
from vidpipe.video.reader import open_video
from vidpipe.video.scenes import find_scenes


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
