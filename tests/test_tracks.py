"""`extract --regions tracks`: people are linked over time, learned from and predicted one by one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from tests.commands import LENET, run
from tests.media import write_frames
from tests.people import HEIGHT, WIDTH, Box, count_switches, detections, picture, walk, write_colour_detector
from tests.schemas import problems
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.errors import UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import FramePlan, Preprocessing, Segment, Timeline
from vidpipe.regions.finder import RegionFinder
from vidpipe.regions.known import PlanKnown
from vidpipe.regions.linking import MAX_PEOPLE, Track, detection_grid, link_people, select_people
from vidpipe.timeline.exchange import read_timelines, write_timelines
from vidpipe.video.reader import open_video
from vidpipe.video.view import View, plan_video

SIZE = Preprocessing((64, 64), (64, 64), "bilinear", (0.5, 0.25, 0.75), (1.0, 1.0, 1.0))
MIN_SCORE = 0.5
RATE = 8
UP, DOWN = (30.0, 20.0, 54.0, 80.0), (100.0, 40.0, 124.0, 100.0)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that finds people by their colour."""
    return write_colour_detector(tmp_path_factory.mktemp("detector") / "colours.onnx")


def tracks_of(boxes: NDArray[np.float64], **changes: object) -> tuple[Track, ...]:
    """The tracks of people with these boxes (G, P, 4), at eight frames a second, without those that are NaN."""
    seconds = np.arange(len(boxes)) / RATE
    frames = [detections(its[~np.isnan(its).any(axis=1)]) for its in boxes]
    return select_people(link_people(frames, seconds, min_score=MIN_SCORE), seconds)


def crossing(seconds: float = 6.0) -> NDArray[np.float64]:
    """(G, 3, 4) three people: two from the left and one from the right, who pass each other."""
    num_frames = round(seconds * RATE)
    paths: list[tuple[Box, Box]] = [
        ((5, 20, 29, 80), (130, 24, 154, 84)),
        ((131, 30, 157, 95), (3, 30, 29, 95)),
        ((20, 45, 48, 115), (100, 45, 128, 115)),
    ]
    return np.stack([walk(*path, num_frames) for path in paths], axis=1)


# Linking


def test_three_people_who_cross_keep_their_numbers() -> None:
    truth = crossing()
    tracks = tracks_of(truth)
    assert len(tracks) == 3
    assert count_switches(truth, tracks) == 0


@pytest.mark.parametrize("seed", range(5))
def test_they_keep_their_numbers_where_boxes_are_inexact_and_missing(seed: int) -> None:
    random, truth = np.random.default_rng(seed), crossing()
    boxes = truth + random.normal(0, 0.02 * 65, truth.shape)
    boxes[random.random(boxes.shape[:2]) < 0.15] = np.nan
    tracks = tracks_of(boxes)
    assert len(tracks) == 3
    assert count_switches(truth, tracks) == 0


def test_the_count_of_switches_sees_a_switch() -> None:
    truth = crossing()
    first, second, third = tracks_of(truth)
    half = len(truth) // 2
    swapped = [
        replace(one, boxes=np.concatenate([one.boxes[:half], other.boxes[half:]]))
        for one, other in ((first, second), (second, first))
    ]
    assert count_switches(truth, (*swapped, third)) >= 2


def test_gaps_are_filled_and_long_ones_end_a_track() -> None:
    boxes = walk(UP, DOWN, 48)[:, None]
    short, long = boxes.copy(), boxes.copy()
    short[20:25] = np.nan
    (track,) = tracks_of(short)
    assert (track.first, track.stop, track.num_found) == (0, 48, 43)
    assert np.abs(track.boxes - boxes[:, 0]).max() < 1e-3
    long[12:36] = np.nan
    assert [(one.first, one.stop) for one in tracks_of(long)] == [(0, 12), (36, 48)]


def test_short_tracks_are_dropped() -> None:
    boxes = np.full((48, 2, 4), np.nan)
    boxes[:, 0] = UP
    boxes[10:14, 1] = DOWN
    assert len(tracks_of(boxes)) == 1


def test_a_detection_of_low_score_continues_a_track_and_starts_none() -> None:
    seconds = np.arange(16) / RATE
    frames = [detections([UP, DOWN], [0.9 if place < 4 else 0.3, 0.3]) for place in range(16)]
    (track,) = link_people(frames, seconds, min_score=MIN_SCORE)
    assert (track.stop, track.num_found) == (16, 16)
    assert np.allclose(track.boxes, UP)


def test_of_many_people_at_one_time_those_seen_most_are_kept() -> None:
    boxes = np.full((48, 6, 4), np.nan)
    for person in range(6):
        left = 5 + 25 * person
        boxes[: 48 - 5 * person, person] = (left, 20, left + 15, 60)
    kept = tracks_of(boxes)
    assert [round(float(one.boxes[0, 0])) for one in kept] == [5, 30, 55, 80]
    assert len(kept) == MAX_PEOPLE


def test_people_are_looked_for_at_even_distances_of_time() -> None:
    assert detection_grid(np.arange(100) / 25).tolist() == [round(25 * k / 8 - 0.499) for k in range(32)]
    assert detection_grid(np.arange(10) / 2).tolist() == list(range(10))
    assert detection_grid(np.array([0.3])).tolist() == [0]


# Rows


def plan_of(video: Path, detector: Path, view: View | None = None) -> tuple[FramePlan, FramePlan]:
    """The plan with people, and the plan of whole frames."""
    config = ExtractConfig(regions="tracks", detector="centernet", detector_weights=str(detector), device="cpu")
    finder = RegionFinder.of(config)
    assert finder is not None
    chosen = finder.applied_to(view or View(Sampling("uniform", num_frames=8), SIZE))
    reader = open_video(video)
    return chosen.planner(reader, chosen, lambda: ()), plan_video(reader, chosen, lambda: ())


def test_each_person_has_rows_while_they_are_there(detector: Path, tmp_path: Path) -> None:
    red, blue = walk(UP, (40, 20, 64, 80), 75), walk(DOWN, (90, 40, 114, 100), 75)
    frames = [picture([(0, red[f], True), *([(2, blue[f], False)] if f >= 40 else [])]) for f in range(75)]
    plan, whole = plan_of(write_frames(tmp_path / "a.mp4", frames, options={"crf": "1"}), detector)
    rows = plan.rows
    assert rows.track_numbers == (1, 2)
    assert np.array_equal(rows.frame_index[rows.track == 1], whole.rows.frame_index)
    assert np.array_equal(rows.frame_index[rows.track == 2], [f for f in whole.rows.frame_index if f >= 40])
    for number, path in ((1, red), (2, blue)):
        its = rows.select(np.flatnonzero(rows.track == number))
        assert its.region is not None
        for frame, region in zip(its.frame_index, its.region, strict=True):
            x, y, width, height = region * [WIDTH, HEIGHT, WIDTH, HEIGHT]
            left, top, right, bottom = path[frame]
            assert (x < left, y < top, x + width > right, y + height > bottom) == (True,) * 4
            assert abs(x + width / 2 - (left + right) / 2) < 3
            assert max(width, height) < 1.5 * 60


def test_where_nobody_is_found_the_rows_are_of_the_whole_picture(detector: Path, tmp_path: Path) -> None:
    plan, whole = plan_of(write_frames(tmp_path / "a.mp4", [picture([])] * 30), detector)
    assert plan.rows.track is None
    assert plan.rows.region is not None
    assert plan.rows.region.tolist() == [[0, 0, 1, 1]] * 8
    assert np.array_equal(plan.rows.frame_index, whole.rows.frame_index)


# From videos to predictions


def write_pair(path: Path, first_at_top: bool, second_at_top: bool, shift: int) -> None:
    """Write a video of two people; the places differ with the shift."""
    red = walk(UP, (34 + shift, 20, 58 + shift, 80), 30)
    blue = walk(DOWN, (90, 30 + shift, 114, 90 + shift), 30)
    frames = [picture([(0, red[f], first_at_top), (2, blue[f], second_at_top)]) for f in range(30)]
    write_frames(path, frames, options={"crf": "1"})


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people with a stripe, above in the videos of `top`, below in those of `bottom`; one of each in `mixed`."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(8):
        label, at_top = ("bottom", "top")[number % 2], bool(number % 2)
        write_pair(folder / f"{label}/{number}.mp4", at_top, at_top, shift=number)
    write_pair(folder / "new/mixed.mp4", True, False, shift=9)
    red, blue = walk(UP, (40, 20, 64, 80), 150), walk(DOWN, (90, 40, 114, 100), 150)
    long = [picture([(0, red[f], f < 75), *([(2, blue[f], False)] if f >= 40 else [])]) for f in range(150)]
    write_frames(folder / "long/long.mp4", long, options={"crf": "1"})
    write_frames(folder / "new/nobody.mp4", [picture([])] * 30)
    return folder


@pytest.fixture(scope="module")
def store(videos: Path, detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "store"
    chosen = ("--regions", "tracks", "--detector", "centernet", "--detector-weights", detector)
    result = run(
        "extract", videos, "--exclude", "new", "--exclude", "long", "-o", path, "--num-frames", 4, *LENET, *chosen
    )
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def trained(store: Path) -> Path:
    path = store.parent / "run"
    result = run("train", store, "-o", path, "--head", "statistics", "--test-fraction", 0.25)
    assert result.exit_code == 0, result.output
    return path


def test_the_store_has_a_row_for_each_frame_and_person(store: Path) -> None:
    opened = FeatureStore.open(store)
    for sequence in opened.values():
        assert sequence.rows.track is not None
        assert sequence.rows.track.tolist() == [1, 2] * 4
        assert len(np.unique(sequence.region, axis=0)) == 8
    assert [one.tolist() for one in opened.tracks(list(opened)[:1]) if one is not None] == [[1, 2] * 4]
    assert run("store", "verify", store).exit_code == 0


def test_predictions_are_by_video_and_by_person(videos: Path, trained: Path, detector: Path) -> None:
    options = ("--device", "cpu", "--workers", 1, "--detector-weights", detector)
    result = run("predict", trained, videos / "new", "--format", "json", *options)
    assert result.exit_code == 0, result.output
    mixed, nobody = map(json.loads, result.stdout.splitlines())
    assert problems("predict RUN INPUT…", mixed) == []
    assert nobody["people"] == []
    assert [one["track"] for one in mixed["people"]] == [1, 2]
    assert [one["predictions"][0]["label"] for one in mixed["people"]] == ["top", "bottom"]
    logs = [{each["label"]: np.log(each["probability"]) for each in one["predictions"]} for one in mixed["people"]]
    mean = np.exp([np.mean([log[label] for log in logs]) for label in ("bottom", "top")])
    by_label = {one["label"]: one["probability"] for one in mixed["predictions"]}
    assert np.allclose([by_label["bottom"], by_label["top"]], mean / mean.sum(), atol=1e-5)


def segments_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    (answer,) = map(json.loads, result.stdout.splitlines())
    assert problems("predict RUN INPUT… --timeline", answer) == []
    assert answer["curve"] is None
    segments: list[dict[str, Any]] = answer["segments"]
    return segments


def test_a_timeline_has_the_segments_of_each_person(
    videos: Path, trained: Path, detector: Path, tmp_path: Path
) -> None:
    command = ("predict", trained, videos / "long/long.mp4", "--timeline", "--store", tmp_path / "dense")
    options = ("--device", "cpu", "--workers", 1, "--detector-weights", detector)
    found = segments_of(run(*command, "--format", "json", "--curves", *options))
    by_person = {number: [one["label"] for one in found if one["person"] == number] for number in (1, 2)}
    assert by_person == {1: ["top", "bottom"], 2: ["bottom"]}
    first, second = (one for one in found if one["person"] == 1)
    assert first["stop_seconds"] == second["start_seconds"] == pytest.approx(3, abs=0.6)
    (blue,) = (one for one in found if one["person"] == 2)
    assert (blue["start_seconds"], blue["stop_seconds"]) == pytest.approx((1.6, 6), abs=0.3)
    table = run(*command, "--format", "csv", *options).stdout.splitlines()
    assert table[0] == "video,start_seconds,stop_seconds,label,probability,person"
    assert sorted(line.rsplit(",", 1)[1] for line in table[1:]) == ["1", "1", "2"]
    assert "person 2   bottom" in run(*command, *options).stdout


def test_a_copy_has_a_box_around_each_person(videos: Path, trained: Path, detector: Path, tmp_path: Path) -> None:
    options = ("--device", "cpu", "--workers", 1, "--detector-weights", detector)
    result = run("predict", trained, videos / "new/mixed.mp4", "--write-video", tmp_path, *options)
    assert result.exit_code == 0, result.output
    video, *people = result.stdout.splitlines()
    assert video.startswith("mixed.mp4   ")
    assert [line.split("%")[0].split()[:2] + line.split()[-3:-2] for line in people] == [
        ["person", "1", "top"],
        ["person", "2", "bottom"],
    ]
    original = open_video(videos / "new/mixed.mp4")
    copy = open_video(tmp_path / "mixed.mp4")
    assert np.allclose(copy.pts_seconds, original.pts_seconds, atol=1e-3)
    frames = [next(iter(reader.blocks([15])))[0].astype(int) for reader in (original, copy)]
    changed = np.abs(frames[0] - frames[1]).max(axis=2) > 40
    plan, _ = plan_of(videos / "new/mixed.mp4", detector, View(Sampling("uniform", num_frames=30), SIZE))
    assert plan.rows.region is not None
    for x, y, width, height in plan.rows.region[plan.rows.frame_index == 15] * [WIDTH, HEIGHT, WIDTH, HEIGHT]:
        column, row = round(x + width / 2), round(y + height / 2)
        assert changed[max(0, round(y) - 3) : round(y) + 4, column].any()
        assert changed[row, max(0, round(x) - 3) : round(x) + 4].any()
        assert not changed[row - 3 : row + 4, column - 3 : column + 4].any()


@pytest.mark.parametrize(
    ("suffix", "is_kept"), [(".jsonl", True), (".csv", True), (".vtt", False), (".json", False), (".eaf", False)]
)
def test_formats_keep_who_a_segment_is_of_or_say_that_they_cannot(suffix: str, is_kept: bool, tmp_path: Path) -> None:
    timeline = Timeline("a.mp4", (Segment(0, 1, "x", 0.5, person=2),), 4.0)
    path = tmp_path / f"a{suffix}"
    sentences = write_timelines(path, [timeline])
    assert any("which person a segment is of (1 segment)" in one for one in sentences) == (not is_kept)
    assert [one.person for one in read_timelines(path)[0].segments] == [2 if is_kept else None]


# What is refused


def test_what_does_not_go_with_tracks_is_refused(store: Path, videos: Path, detector: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="person_mask finds one mask of all people; detectors with boxes: fasterrcnn"):
        RegionFinder.of(ExtractConfig(regions="tracks", detector="person_mask"))
    chosen = ("--regions", "tracks", "--detector", "centernet", "--detector-weights", detector)
    grid = run("extract", videos, "-o", tmp_path / "s", "--backbone", "efficientnet_lite0", "--grid", 2, *chosen)
    assert (grid.exit_code, "leave it out, or --regions tracks" in grid.stderr) == (2, True)
    intervals = tmp_path / "intervals.csv"
    intervals.write_text("video,start_seconds,stop_seconds,label\ntop/1.mp4,0,1,top\nbottom/0.mp4,0,1,bottom\n")
    train = run("train", store, "-o", tmp_path / "r", "--labels", intervals)
    assert (train.exit_code, "do not say which person they are of" in train.stderr) == (2, True)
    export = run("store", "export", store, "-o", tmp_path / "e", "--for", "actionformer")
    assert (export.exit_code, "several people at one time" in export.stderr) == (1, True)


# Regions are cached


def test_another_backbone_takes_the_regions_of_the_store_beside(
    store: Path, videos: Path, detector: Path, tmp_path: Path
) -> None:
    """The regions beside are moved, as no detector would find them. The new stores have them, so none looked."""
    planted = FeatureStore.create(tmp_path / "features/lenet5", FeatureStore.open(store).key)
    with planted.writer() as writer:
        for sequence in FeatureStore.open(store).values():
            region = sequence.region * np.array([1, 1, 0.5, 0.25], np.float32)
            keep = np.flatnonzero((sequence.rows.track == 1) | (np.arange(len(sequence)) > 3))
            rows = replace(sequence.rows, region=region).select(keep)
            writer.add(replace(sequence, features=sequence.features[keep], rows=rows))
    planted.refresh()
    chosen = ("--regions", "tracks", "--detector", "centernet", "--detector-weights", detector)
    options = ("--num-frames", 4, "--backbone", "efficientnet_lite0", "--device", "cpu", "--workers", 1)
    result = run("extract", videos / "top", "--prefix", "top", "-o", tmp_path / "features", *options, *chosen)
    assert result.exit_code == 0, result.output
    assert f"efficientnet_lite0: uses the regions of the videos in {planted.path}" in result.stderr
    opened = FeatureStore.open(tmp_path / "features/efficientnet_lite0")
    assert sorted(opened) == [f"top/{number}.mp4" for number in (1, 3, 5, 7)]
    for video_id, sequence in opened.items():
        assert np.array_equal(sequence.region, planted[video_id].region)
        assert np.array_equal(sequence.rows.track, planted[video_id].rows.track)  # type: ignore[arg-type]
        assert np.array_equal(sequence.rows.frame_index, planted[video_id].rows.frame_index)


def test_other_frames_than_those_of_the_store_beside_are_looked_at(detector: Path, tmp_path: Path) -> None:
    video = write_frames(tmp_path / "a.mp4", [picture([(0, UP, True)])] * 50, options={"crf": "1"})
    few, _ = plan_of(video, detector, View(Sampling("uniform", num_frames=2), SIZE))
    many, _ = plan_of(video, detector)
    assert few.rows.region is not None
    assert many.rows.region is not None
    moved = replace(few.rows, region=few.rows.region * np.float32(0.5))
    finder_view = View(Sampling("uniform", num_frames=8), SIZE)
    reader = open_video(video)
    plans = [
        PlanKnown(moved, has_same_rows, lambda *args: many)(reader, finder_view, lambda: ())
        for has_same_rows in (True, False)
    ]
    assert [one.rows.region for one in plans] == [many.rows.region] * 2  # the same object: it was planned otherwise
