"""A timeline from rows that come a few at a time, against that of the whole video."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FeatureSequence, Rows, Segment, VideoInfo
from vidpipe.timeline.classifier import WindowClassifier
from vidpipe.timeline.decoding import Decoding, decode_segments
from vidpipe.timeline.live import LiveTimeline, NewRows
from vidpipe.video.sampling import plan_frames

NAMES, FPS, CLIP_SECONDS = ("a", "b", "c"), 25, 1.0
DECODING = Decoding(change_cost=0.1)


class _Classifier:
    """Sees the mean of the first three features of each stream, as logits."""

    def __init__(self, kinds: dict[str, str], samplings: dict[str, Sampling]) -> None:
        self.keys = {
            name: SimpleNamespace(num_cells=1, window=None if kind == "image" else {}, backbone=kind)
            for name, kind in kinds.items()
        }

    def rows(self, streams: dict[str, FeatureSequence]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(sequence.features) for name, sequence in streams.items()}

    def probabilities(self, parts: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        logits = [sum(rows[:, :3].mean(dim=0) for rows in part.values()) for part in parts]
        return torch.stack(logits).softmax(dim=1)  # type: ignore[arg-type]


def features_of(pts_seconds: NDArray[np.float64], seed: int, cuts: list[float]) -> NDArray[np.float32]:
    """(T, 8): three slow waves, and five numbers that change at cuts."""
    random = np.random.default_rng(seed)
    waves = 2 * np.sin(pts_seconds[:, None] * np.array([0.9, 1.1, 1.3]) + random.uniform(0, 6, 3))
    shots = random.normal(0, 6, (len(cuts) + 1, 5))[np.searchsorted(cuts, pts_seconds, side="right")]
    return np.concatenate([waves, shots], axis=1).astype(np.float32)


def sequence_of(sampling: Sampling, num_frames: int, seed: int, cuts: list[float]) -> FeatureSequence:
    pts_seconds = 1.4 + np.arange(num_frames) / FPS
    rows = plan_frames(sampling, pts_seconds, 1.4 + num_frames / FPS).rows
    info = VideoInfo(num_frames, num_frames / FPS, FPS, 8, 8, "h264", "pyav", False, 0, 0, 0)
    return FeatureSequence("a", features_of(rows.pts_seconds, seed, cuts), rows, info)


def rows_of(sequence: FeatureSequence, part: slice, per_clip: int | None) -> NewRows:
    rows: Rows = sequence.rows
    return NewRows(rows.pts_seconds[part], rows.frame_index[part], sequence.features[part], 1.4, per_clip)


CLIPS = Sampling("uniform", num_frames=8, clip_seconds=CLIP_SECONDS)
CASES: dict[str, tuple[dict[str, str], dict[str, Sampling]]] = {
    "one stream": ({"x": "image"}, {"x": CLIPS}),
    "without cuts": ({"x": "motion"}, {"x": CLIPS}),
    "two streams": ({"x": "image", "y": "motion"}, {"x": CLIPS, "y": Sampling("fps", fps=3.0)}),
    "cuts seen by the second": ({"x": "motion", "y": "image"}, {"x": CLIPS, "y": Sampling("fps", fps=6.0)}),
    "at a rate": ({"x": "image"}, {"x": Sampling("fps", fps=5.0)}),
}


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.timeline.classifier.kind_of", lambda key: key.backbone)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("num_frames", [20, 26, 35, 60, 400])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_rows_that_come_a_few_at_a_time_give_the_segments_of_the_whole(name: str, num_frames: int, step: int) -> None:
    kinds, samplings = CASES[name]
    classifier: Any = _Classifier(kinds, samplings)
    cuts = [4.1, 6.3, 6.9, 12.0]
    sequences = {one: sequence_of(samplings[one], num_frames, seed, cuts) for seed, one in enumerate(kinds)}
    curve = WindowClassifier(classifier, samplings["x"], CLIP_SECONDS, 0.25).curve(sequences)
    if num_frames == 400 and "image" in kinds.values():
        assert len(curve.cuts) >= 3
    expected = decode_segments(curve, NAMES, DECODING)
    live = LiveTimeline(classifier, samplings["x"], CLIP_SECONDS, 0.25, class_names=NAMES, decoding=DECODING)
    certain, rest = grow(live, sequences, num_frames, step)
    assert_same([*certain, *rest], expected)
    if num_frames == 400:
        assert len(expected) > 6
        assert len(rest) < (len(expected) / 2 if step < 1000 else 4)


def grow(
    live: LiveTimeline, sequences: dict[str, FeatureSequence], num_frames: int, step: int
) -> tuple[list[Segment], list[Segment]]:
    per_clip = 24 if num_frames > CLIP_SECONDS * FPS else None
    certain = []
    for first in range(0, max(map(len, sequences.values())), step):
        for name, sequence in sequences.items():
            part = slice(first, first + step)
            if len(sequence.pts_seconds[part]):
                certain += list(live.add(name, rows_of(sequence, part, per_clip)))
    return certain, list(live.finish(1.4 + num_frames / FPS))


def assert_same(found: list[Segment], expected: tuple[Segment, ...]) -> None:
    assert [one.label for one in found] == [one.label for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.start_seconds, one.stop_seconds, one.probability) == pytest.approx(
            (other.start_seconds, other.stop_seconds, other.probability), abs=1e-5
        )


def test_rows_that_are_certain_are_dropped() -> None:
    kinds, samplings = CASES["two streams"]
    classifier: Any = _Classifier(kinds, samplings)
    sequences = {one: sequence_of(samplings[one], 5000, seed, [40.0, 80.0]) for seed, one in enumerate(kinds)}
    live = LiveTimeline(classifier, CLIPS, CLIP_SECONDS, 0.25, class_names=NAMES, decoding=DECODING)
    for first in range(590):
        for name, sequence in sequences.items():
            until = 1.4 + first / 3
            part = slice(*np.searchsorted(sequence.pts_seconds, [until, until + 1 / 3]).tolist())
            list(live.add(name, rows_of(sequence, part, 24)))
    assert max(len(rows.pts_seconds) for rows in live._rows.values()) < 60
    assert len(live._totals) < 60
