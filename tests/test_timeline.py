"""Timelines: windows against clips that are cut out and predicted alone, decoders against brute force."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.commands import run
from tests.media import moving_square, write_frames
from vidpipe.config import ExtractConfig, TimelineConfig
from vidpipe.datasets.windows import RowGrid, Windows, cut_windows, find_cuts
from vidpipe.errors import UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import Timeline
from vidpipe.runs.classifier import SequenceClassifier
from vidpipe.runs.run import Run
from vidpipe.stages.predict import predict
from vidpipe.stages.timeline import WindowPlan, predict_timelines
from vidpipe.timeline.classifier import RowCurve, WindowClassifier
from vidpipe.timeline.curves import join_windows, thin
from vidpipe.timeline.decoding import Decoding, decode_segments, viterbi
from vidpipe.video.files import find_videos

CPU = ("--device", "cpu")
CONFIG = ExtractConfig(device="cpu", workers=1)
LABELS = ("left", "right")
ORDER = ("left", "right", "right", "left", "right", "left")
NUM_FRAMES, FPS = 12, 25
"""Of a clip of `moving_square`."""


def squares(seed: int, label: str) -> list[NDArray[np.uint8]]:
    return moving_square(seed, to_the_right=label == "right")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips, a run of two streams on them, and `long/long.mkv`: six other clips, joined and each alone, lossless."""
    folder = tmp_path_factory.mktemp("timeline")
    for number in range(12):
        for label in LABELS:
            write_frames(folder / "clips" / label / f"{number}.mp4", squares(number, label))
    backbones = ("--backbone", "lenet5,flow", "--num-frames", 4, "--workers", 1, *CPU)
    assert run("extract", folder / "clips", "-o", folder / "features", *backbones).exit_code == 0
    trained = run("train", folder / "features", "-o", folder / "run", "--hidden-size", 4, "--epochs", 2, *CPU)
    assert trained.exit_code == 0, trained.output
    joined: list[NDArray[np.uint8]] = []
    for number, label in enumerate(ORDER):
        frames = squares(100 + number, label)
        write_frames(folder / "cut" / f"{number}.mkv", frames, codec="ffv1", pixel_format="bgr0")
        joined += frames
    write_frames(folder / "long" / "long.mkv", joined, codec="ffv1", pixel_format="bgr0")
    return folder


def timelines_of(folder: Path, **options: Any) -> list[Timeline]:
    timeline = TimelineConfig(timeline=True, **options)
    videos = find_videos([folder / "long"])
    return list(predict_timelines(Run.open(folder / "run"), videos, timeline=timeline, config=CONFIG))


# Windows


def test_a_window_has_the_probabilities_of_the_clip_cut_out_of_the_video(folder: Path, tmp_path: Path) -> None:
    trained = Run.open(folder / "run")
    plan = WindowPlan.of(trained, TimelineConfig())
    assert plan.window_seconds == pytest.approx(NUM_FRAMES / FPS)
    stores = tmp_path / "dense"
    list(predict_timelines(trained, find_videos([folder / "long"]), store_path=stores, config=CONFIG))
    streams = {name: FeatureStore.open(stores / name)["long.mkv"] for name in plan.keys}
    first_row = np.arange(len(ORDER)) * 4
    edges = np.linspace(0, len(ORDER) * NUM_FRAMES / FPS, len(ORDER) * 4 + 1)
    classifier = WindowClassifier(SequenceClassifier.of_run(trained, torch.device("cpu")), plan.sampling, 0.48, 0.12)
    found = classifier.classify(streams, Windows(first_row, first_row + 4, edges))
    alone = list(predict(trained, find_videos([folder / "cut"]), config=CONFIG))
    for probabilities, prediction in zip(found, alone, strict=True):
        expected = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert probabilities == pytest.approx([expected[label] for label in LABELS], abs=1e-5)


def test_a_clip_is_a_timeline_of_one_window_with_the_probabilities_of_predict(folder: Path) -> None:
    trained, videos = Run.open(folder / "run"), find_videos([folder / "cut"])
    for timeline, prediction in zip(
        predict_timelines(trained, videos, config=CONFIG), predict(trained, videos, config=CONFIG), strict=True
    ):
        assert timeline.curve is not None
        expected = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        for probabilities in timeline.curve.probabilities.tolist():
            assert probabilities == [expected[label] for label in LABELS]
        (segment,) = timeline.segments
        assert (segment.label, segment.probability) == (prediction.label, prediction.probability)
        assert [segment.start_seconds, segment.stop_seconds] == pytest.approx([0, NUM_FRAMES / FPS])


def test_the_segments_of_joined_clips_are_the_clips(folder: Path) -> None:
    (timeline,) = timelines_of(folder, change_cost=0.0, stride=NUM_FRAMES / FPS)
    found = [
        (segment.label, segment.start_seconds * FPS / NUM_FRAMES, segment.stop_seconds * FPS / NUM_FRAMES)
        for segment in timeline.segments
    ]
    expected = [("left", 0, 1), ("right", 1, 3), ("left", 3, 4), ("right", 4, 5), ("left", 5, 6)]
    assert [label for label, *_ in found] == [label for label, *_ in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=0.3)


def test_features_in_the_store_are_not_computed_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("predict", folder / "run", folder / "long", "--timeline", "--store", tmp_path / "dense", *CPU)
    first = run(*command, "--format", "json")
    assert first.exit_code == 0, first.output
    monkeypatch.setattr("vidpipe.stages.apply.iter_features", None)
    assert run(*command, "--format", "json").stdout == first.stdout


def test_a_run_on_a_fixed_rate_needs_no_other_features(folder: Path, tmp_path: Path) -> None:
    sampling = ("--backbone", "lenet5", "--sampling", "fps", "--fps", 12.5, "--workers", 1, *CPU)
    assert run("extract", folder / "clips", "-o", tmp_path / "features", *sampling).exit_code == 0
    assert run("train", tmp_path / "features", "-o", tmp_path / "run", "--head", "mean", *CPU).exit_code == 0
    trained = Run.open(tmp_path / "run")
    assert WindowPlan.of(trained, TimelineConfig()).keys == trained.keys
    stored = ("--store", tmp_path / "features", "--timeline", "--format", "json", "--curves", *CPU)
    result = run("predict", tmp_path / "run", folder / "long", *stored)
    assert result.exit_code == 0, result.output
    curve = json.loads(result.stdout)["curve"]
    assert curve["pts_seconds"][0] == pytest.approx(0.08, abs=0.05)
    assert np.sum(curve["probabilities"], axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("stride_rows", [1, 2, 3])
def test_the_last_window_reaches_the_end_of_the_video(stride_rows: int) -> None:
    grid = RowGrid(np.arange(12) / 2, rows_per_window=4)
    windows = cut_windows(grid, stride_rows / 2)
    assert windows.first_row[0] == 0
    assert windows.stop_row[-1] == grid.num_rows
    assert np.diff(windows.first_row).max() == stride_rows
    assert set(windows.stop_row - windows.first_row) == {4}


# Curves and segments


def test_a_curve_is_the_mean_of_the_windows_weighted_by_the_distance_from_their_middle() -> None:
    random = np.random.default_rng(0)
    windows = cut_windows(RowGrid(np.arange(22.0), rows_per_window=6), 2)
    probabilities = random.dirichlet([1, 1, 1], len(windows)).astype(np.float32)
    found = join_windows(windows, probabilities)
    for row in range(21):
        total, weights = np.zeros(3), 0.0
        for first, stop, values in zip(windows.first_row, windows.stop_row, probabilities, strict=True):
            if first <= row < stop:
                weight = 3 - abs(row + 0.5 - (first + stop) / 2)
                total, weights = total + weight * values, weights + weight
        assert found[row] == pytest.approx(total / weights, abs=1e-6)


def test_a_row_in_shots_of_different_lengths_is_averaged_within_its_shot() -> None:
    windows = cut_windows(RowGrid(np.arange(15.0), rows_per_window=4), 2, np.array([5, 12]))
    assert list(zip(windows.first_row, windows.stop_row, strict=True)) == [(0, 5), (5, 9), (7, 11), (8, 12), (12, 14)]
    found = join_windows(windows, np.eye(5, dtype=np.float32))
    assert found[:5].tolist() == [[1, 0, 0, 0, 0]] * 5
    assert found[12:].tolist() == [[0, 0, 0, 0, 1]] * 2
    assert (found[8] > 0).tolist() == [False, True, True, True, False]


def test_cuts_are_where_neighbouring_rows_differ_much_more_than_those_around_them() -> None:
    random = np.random.default_rng(0)
    shots = [random.standard_normal(64) + 0.1 * random.standard_normal((length, 64)) for length in (9, 5, 20)]
    assert find_cuts(np.concatenate(shots)).tolist() == [9, 14]
    assert find_cuts(random.standard_normal((30, 64))).tolist() == []  # each row is far from the next
    assert find_cuts(shots[0][:1]).tolist() == []


def test_a_label_changes_at_a_cut_at_no_cost() -> None:
    values = np.array([[0.6, 0.4]] * 6 + [[0.4, 0.6]] * 4)
    grid = RowGrid(np.arange(11.0), 1)
    for cuts, labels in (([], ["a"]), ([6], ["a", "b"])):
        curve = RowCurve(values, grid, np.array(cuts, np.int64))
        found = decode_segments(curve, ("a", "b"), Decoding(change_cost=10))
        assert [one.label for one in found] == labels


def test_a_thinned_curve_keeps_the_mean_and_has_a_point_for_each_stride() -> None:
    values = np.random.default_rng(0).dirichlet([1, 1], 30)
    centres, means = thin(values, np.arange(31) / 10, 0.5)
    assert centres == pytest.approx(np.arange(0.25, 3, 0.5))
    assert means == pytest.approx(values.reshape(6, 5, 2).mean(axis=1), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("change_cost", [0.0, 0.7, 5.0])
def test_viterbi_finds_the_best_of_all_sequences(seed: int, change_cost: float) -> None:
    scores = np.random.default_rng(seed).standard_normal((7, 3))

    def worth(path: tuple[int, ...]) -> float:
        changes = sum(one != other for one, other in itertools.pairwise(path))
        return float(sum(scores[row, label] for row, label in enumerate(path))) - change_cost * changes

    best = max(itertools.product(range(3), repeat=7), key=worth)
    assert viterbi(scores, np.full(7, change_cost)).tolist() == list(best)


def test_a_threshold_begins_high_and_ends_low() -> None:
    curve = np.array([0.1, 0.4, 0.7, 0.4, 0.2, 0.4, 0.4, 0.1, 0.9])
    found = decode_segments(
        RowCurve(np.stack([curve, 1 - curve], axis=1), RowGrid(np.arange(10.0), 1)),
        ("walk", "background"),
        Decoding("threshold", high=0.6, low=0.3),
        background="background",
    )
    assert [(one.start_seconds, one.stop_seconds, one.label) for one in found] == [(1, 4, "walk"), (8, 9, "walk")]
    assert [one.probability for one in found] == pytest.approx([0.5, 0.9])


@pytest.mark.parametrize(("max_overlap", "kept"), [(0.5, ["run"]), (0.9, ["walk", "run"])])
def test_of_overlapping_segments_the_most_probable_is_kept(max_overlap: float, kept: list[str]) -> None:
    walk = np.array([0.5] * 8 + [0.0] * 2)  # [0, 8) and [1, 9) share 7 of 9
    run_ = np.array([0.0] + [0.6] * 8 + [0.0])
    curve = RowCurve(np.stack([walk, run_], axis=1), RowGrid(np.arange(11.0), 1))
    decoding = Decoding("threshold", high=0.5, low=0.3, max_overlap=max_overlap)
    assert [one.label for one in decode_segments(curve, ("walk", "run"), decoding)] == kept


def test_short_and_doubtful_segments_are_left_out() -> None:
    values = np.array([[0.9, 0.1]] * 5 + [[0.4, 0.6]] * 5 + [[0.9, 0.1]])
    all_of_them = [("a", 5), ("b", 5), ("a", 1)]
    for decoding, kept in (
        (Decoding(change_cost=0), all_of_them),
        (Decoding(change_cost=0, min_seconds=2), all_of_them[:2]),
        (Decoding(change_cost=0, min_confidence=0.7), [("a", 5), ("a", 1)]),
    ):
        found = decode_segments(RowCurve(values, RowGrid(np.arange(12.0), 1)), ("a", "b"), decoding)
        assert [(one.label, one.duration_seconds) for one in found] == kept


# The command


def test_segments_are_printed_as_a_table_and_as_csv(folder: Path) -> None:
    command = ("predict", folder / "run", folder / "long", "--timeline", "--change-cost", 0, "--stride", 0.48, *CPU)
    table, as_csv = run(*command), run(*command, "--format", "csv")
    assert table.exit_code == as_csv.exit_code == 0, table.output
    head, *lines = table.stdout.splitlines()
    assert head == f"long.mkv   00:02.9, {len(lines)} segments"
    header, *rows = as_csv.stdout.splitlines()
    assert header == "video,start_seconds,stop_seconds,label,probability"
    assert len(rows) == len(lines)
    assert rows[0].split(",")[0] == "long.mkv"


def test_a_video_that_cannot_be_read_costs_itself_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    (tmp_path / "long.mkv").symlink_to(folder / "long" / "long.mkv")
    result = run("predict", folder / "run", tmp_path, "--timeline", "--format", "json", *CPU)
    assert result.exit_code == 3
    broken, whole = map(json.loads, result.stdout.splitlines())
    assert (broken["video"], broken["status"], broken["segments"]) == ("broken.mp4", "failed", [])
    assert (whole["video"], whole["status"]) == ("long.mkv", "ok")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--window", 1), "--window goes with --timeline"),
        (("--timeline", "--top", 3), "--top does not go with --timeline"),
        (("--timeline", "--window", 1, "--stride", 2), "--stride 2 is longer than the window of 1 s"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(folder: Path, options: tuple[str, ...], message: str) -> None:
    result = run("predict", folder / "run", folder / "long", *options, *CPU)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_run_on_scenes_has_no_windows(folder: Path, tmp_path: Path) -> None:
    scenes = ("--backbone", "lenet5", "--sampling", "scene", "--workers", 1, *CPU)
    assert run("extract", folder / "clips", "-o", tmp_path / "features", *scenes).exit_code == 0
    assert run("train", tmp_path / "features", "-o", tmp_path / "run", "--head", "mean", *CPU).exit_code == 0
    with pytest.raises(UsageError, match="--sampling uniform or fps"):
        WindowPlan.of(Run.open(tmp_path / "run"), TimelineConfig())
