"""Fixtures that more than one test module uses."""

from pathlib import Path

import numpy as np
import pytest

from tests.commands import LENET, run
from tests.media import moving_square, write_frames
from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.records import LabeledVideo
from vidpipe.stages.train import train


@pytest.fixture(scope="module")
def half_tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes; the test set that its labels define has two."""
    folder, random = tmp_path_factory.mktemp("half"), np.random.default_rng(0)
    sequences, videos = [], []
    for number in range(24):
        label, split = "abc"[number % 3], "test" if number >= 15 and number % 3 < 2 else "train"
        sequence = make_sequence(f"{label}/{number}.mp4", length=4, dim=8, seed=number)
        sequence.features[:] = random.standard_normal(8)
        sequences.append(sequence)
        videos.append(LabeledVideo(sequence.video_id, label, split=split))
    config = TrainConfig(head="statistics", motion="raw", device="cpu")
    train(make_store(folder / "store", sequences), videos, folder / "run", config=config)
    rows = (f"{video.video_id},{video.label}" for video in videos if video.split == "test")
    (folder / "labels.csv").write_text("\n".join(["video,label", *rows]))
    return folder / "run"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos/` of two classes, their `features/` and a `run/`; `new/` with three videos and a file that is none."""
    folder = tmp_path_factory.mktemp("predict")
    for number in range(8):
        for name in ("right", "left"):
            frames = moving_square(number, to_the_right=name == "right")
            write_frames(folder / "videos" / name / f"{name}{number}.mp4", frames)
    for number, name in enumerate(("c", "a", "b")):
        write_frames(folder / "new" / f"{name}.mp4", moving_square(30 + number, to_the_right=number == 1))
    (folder / "new" / "bad.mp4").write_text("no video")
    extracted = run("extract", folder / "videos", "-o", folder / "features", "--num-frames", 4, *LENET)
    assert extracted.exit_code == 0, extracted.output
    trained = run("train", folder / "features", "-o", folder / "run", "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    return folder
