"""Tracks by MoveNet: on drawn figures who cross, and on real clips; skipped where ../shared/data is not."""

from pathlib import Path

import numpy as np
import pytest

from tests.commands import LITE0, run
from tests.crossing import FPS, crossing_figures
from tests.people import count_switches
from vidpipe.features.store import FeatureStore
from vidpipe.regions.linking import detection_grid, link_people, select_people
from vidpipe.regions.load import load_detector
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights

pytestmark = pytest.mark.real_clips

NUM_FRAMES = 150


def test_three_drawn_figures_who_cross_keep_their_numbers_by_a_real_detector(shared_data: Path) -> None:
    spec = find_detector("movenet")
    weights = find_detector_weights(spec, str(shared_data / "models/movenet_multipose.onnx"))
    detector = load_detector(spec, weights, num_threads=1)
    pts_seconds = np.arange(NUM_FRAMES) / FPS
    grid = detection_grid(pts_seconds)
    drawn = list(crossing_figures(0, NUM_FRAMES, only=grid.tolist()))
    found = [detector.detect(frame.transpose(2, 0, 1)[None])[0] for frame, _ in drawn]
    seconds = pts_seconds[grid]
    tracks = select_people(link_people(found, seconds, min_score=spec.min_score), seconds)
    assert len(tracks) == 3
    assert count_switches(np.stack([boxes for _, boxes in drawn]), tracks) == 0


def test_two_people_of_a_real_clip_have_a_sequence_each(shared_data: Path, tmp_path: Path) -> None:
    clip = sorted((shared_data / "clips/interaction/handshake").glob("*.avi"))[0]
    chosen = ("--regions", "tracks", "--detector", "movenet", "--num-frames", 4)
    weights = ("--detector-weights", shared_data / "models/movenet_multipose.onnx")
    result = run("extract", clip, "-o", tmp_path / "s", *LITE0, *chosen, *weights)
    assert result.exit_code == 0, result.output
    (sequence,) = FeatureStore.open(tmp_path / "s").values()
    assert sequence.rows.track_numbers == (1, 2)
    centres = {n: (one := sequence.person(n).region)[:, 0] + one[:, 2] / 2 for n in (1, 2)}
    assert (centres[1].max() < centres[2].min()) or (centres[2].max() < centres[1].min())  # they do not change places
