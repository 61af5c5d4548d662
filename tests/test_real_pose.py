"""Key points on the real clips of ../shared/data, with MoveNet's weights there; skipped where they are not."""

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.commands import run
from vidpipe.config import DEFAULT_POSE_SIZE, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import make_folds
from vidpipe.datasets.store_labels import label_store
from vidpipe.features.store import FeatureStore
from vidpipe.records import POSE_NUMBERS, POSE_PEOPLE, POSE_POINTS
from vidpipe.training.cross_validation import cross_validate
from vidpipe.video.reader import read_frames
from vidpipe.video.resize import resize

pytestmark = pytest.mark.real_clips

MOVENET = "models/movenet_multipose.onnx"


def extract_pose(shared_data: Path, store: Path, *videos: Path) -> FeatureStore:
    options = ("--backbone", "pose", "--detector", "movenet", "--detector-weights", shared_data / MOVENET)
    result = run("extract", *videos, "-o", store, *options)
    assert result.exit_code == 0, result.output
    return FeatureStore.open(store)


def plain_rows(frames: NDArray[np.uint8], model: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """(T, 6, 56) MoveNet's own output for frames (T, H, W, 3), by a plain session, in the order of the store's rows."""
    session = onnxruntime.InferenceSession(model)
    height, width = frames.shape[1:3]
    pixels = resize(frames, size, "bilinear").transpose(0, 2, 3, 1).astype(np.int32)
    found = np.concatenate([session.run(None, {"input": one[None]})[0] for one in pixels])  # (T, 6, 56)
    shares = np.array([width, height]) / max(height, width)
    points = found[..., : 3 * POSE_POINTS].reshape(len(frames), POSE_PEOPLE, POSE_POINTS, 3)[..., [1, 0, 2]]
    points[..., :2] *= shares
    box = found[..., [-4, -5, -2, -3]] * [*shares, *shares]
    rows = np.concatenate([points.reshape(len(frames), POSE_PEOPLE, -1), box, found[..., -1:]], axis=2)
    order = np.argsort(-rows[..., -1], axis=1, kind="stable")
    return np.take_along_axis(rows, order[..., None], axis=1)


def test_the_rows_of_a_store_are_movenets_own_outputs(shared_data: Path, tmp_path: Path) -> None:
    clip = sorted((shared_data / "clips/interaction/kick").glob("*.avi"))[0]
    sequence = extract_pose(shared_data, tmp_path / "s", clip)[clip.name]
    _, frames = read_frames(clip, lambda reader: sequence.rows.frame_index)
    scale = DEFAULT_POSE_SIZE / max(frames.shape[1:3]) / 32
    size = (round(frames.shape[1] * scale) * 32, round(frames.shape[2] * scale) * 32)
    expected = plain_rows(frames, shared_data / MOVENET, size)
    assert sequence.features.shape == (16, POSE_PEOPLE * POSE_NUMBERS)
    assert np.abs(sequence.features - expected.reshape(16, -1)).max() < 1e-5


@pytest.mark.slow
def test_key_points_alone_tell_interactions_of_people_who_are_not_in_training(
    shared_data: Path, tmp_path: Path
) -> None:
    clips = shared_data / "clips/interaction"
    store = extract_pose(shared_data, tmp_path / "s", clips)
    videos = label_store(store, clips / "labels.csv")
    with (clips / "labels.csv").open(newline="") as stream:
        class_names = sorted({row["label"] for row in csv.DictReader(stream)})
    splits = [(0, split) for split in make_folds(videos, None, 0.0, seed=0)]
    found = cross_validate(
        SequenceDataset(store, videos, class_names), splits, TrainConfig(head="statistics", device="cpu")
    )
    assert found.estimate("statistics").mean >= 0.92
