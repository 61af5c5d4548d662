"""Stores and settings with which a head trains in a second."""

from pathlib import Path

import numpy as np
import torch

from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import Head
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run

QUICK = TrainConfig(
    head="lstm",
    motion="raw,difference",
    unit_frames=False,
    hidden_size=16,
    epochs=60,
    dropout=0.0,
    lr=0.01,
    patience=60,
    device="cpu",
)


DIM = 4


def rising_and_falling(folder: Path, num_videos: int = 80) -> tuple[FeatureStore, list[LabeledVideo]]:
    """Write a store whose classes differ only in order: the first feature goes up or down over the same values."""
    random = np.random.default_rng(0)
    sequences, videos = [], []
    for number in range(num_videos):
        label = ("rising", "falling")[number % 2]
        sequence = make_sequence(f"{label}/{number}.mp4", length=int(random.integers(5, 12)), dim=DIM, seed=number)
        ramp = np.linspace(-1, 1, len(sequence)) * (1 if label == "rising" else -1)
        sequence.features[:] = 0.1 * random.standard_normal(sequence.features.shape)
        sequence.features[:, 0] += ramp
        sequences.append(sequence)
        videos.append(LabeledVideo(sequence.video_id, label, group=f"g{number // 4}"))
    return make_store(folder / "store", sequences), videos


def heads_of(run: Run) -> dict[str, Head]:
    """Load the only head of a run, and the baseline's."""
    found = {}
    for fusion in run.load_classifiers(torch.device("cpu")):
        ((_, member),) = fusion.fitted.items()
        (found[fusion.name],) = member.heads
    return found
