"""Training from intervals of long videos: drawn squares that move left, move right, or stand still."""

import csv
import json
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.browser import Browser
from tests.commands import run
from tests.media import moving_square, write_frames
from tests.pages import Page
from vidpipe.config import LabelsConfig
from vidpipe.datasets.interval_labels import LabelledWindows, label_windows, read_interval_labels
from vidpipe.errors import LabelsError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import Segment, Timeline
from vidpipe.runs.run import Run
from vidpipe.timeline.exchange import read_timelines

CPU = ("--device", "cpu")
FPS, NUM_FRAMES = 25, 12
"""Of a square's move, which takes 0.48 s."""
NUM_VIDEOS = 10
Row = tuple[str, float, float, str]


def script_of(number: int) -> list[str]:
    """What happens in a video, 12 frames each."""
    random = np.random.default_rng(number)
    return [str(random.choice(["left", "right", "still"])) for _ in range(4)] + ["left", "still", "right"]


def frames_of(number: int) -> list[NDArray[np.uint8]]:
    frames: list[NDArray[np.uint8]] = []
    for step, action in enumerate(script_of(number)):
        moved = moving_square(100 * number + step, to_the_right=action == "right")
        frames += [moved[6]] * NUM_FRAMES if action == "still" else moved
    return frames


def intervals_of(number: int) -> list[Row]:
    seconds = NUM_FRAMES / FPS
    script = enumerate(script_of(number))
    return [(f"{number}.mkv", n * seconds, (n + 1) * seconds, action) for n, action in script if action != "still"]


def write_labels(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("video", "start_seconds", "stop_seconds", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten long videos, their features at 12.5 frames a second, their labels, and a run."""
    folder = tmp_path_factory.mktemp("intervals")
    for number in range(NUM_VIDEOS):
        write_frames(folder / "videos" / f"{number}.mkv", frames_of(number))
    sampling = ("--sampling", "fps", "--fps", 12.5, "--workers", 1)
    extracted = run("extract", folder / "videos", "-o", folder / "dense", "--backbone", "flow", *sampling, *CPU)
    assert extracted.exit_code == 0, extracted.output
    write_labels(folder / "labels.csv", [row for number in range(NUM_VIDEOS) for row in intervals_of(number)])
    labels = ("--labels", folder / "labels.csv", "--test-fraction", 0.3)
    trained = run("train", folder / "dense", "-o", folder / "run", *labels, "--head", "statistics", *CPU)
    assert trained.exit_code == 0, trained.output
    assert "test  timelines F1@50" in trained.stdout
    return folder


def windows_of(folder: Path, truth: list[Timeline], window_seconds: float | None = None) -> LabelledWindows:
    return label_windows({"flow": FeatureStore.open(folder / "dense")}, truth, window_seconds=window_seconds)


# Windows and their labels


def test_a_window_learns_the_label_that_covers_it_and_uncovered_time_is_background(folder: Path) -> None:
    truth = Timeline("0.mkv", (Segment(0.0, 1.5, "walk"), Segment(2.6, 3.36, "run")))
    found = windows_of(folder, [truth], window_seconds=0.48)
    for video in found.videos:
        start, stop = map(float, video.video_id.partition("#")[2].split("-"))
        covered = {
            one.label: max(0.0, min(stop, one.stop_seconds) - max(start, one.start_seconds)) / (stop - start)
            for one in truth.segments
        }
        if video.label == "background":
            assert sum(covered.values()) <= 0.1 + 1e-6
        else:
            assert covered[video.label] >= 0.75 - 1e-6
    assert {video.label for video in found.videos} == {"walk", "run", "background"}
    assert found.background == "background"


def test_a_short_interval_is_learned_by_the_window_around_it(folder: Path) -> None:
    truth = Timeline("0.mkv", (Segment(1.0, 1.1, "jump"),))
    found = windows_of(folder, [truth], window_seconds=0.48)
    (jump,) = [video for video in found.videos if video.label == "jump"]
    start, stop = map(float, jump.video_id.partition("#")[2].split("-"))
    assert start <= 1.0
    assert stop >= 1.1


def test_the_features_of_a_window_are_rows_of_its_video(folder: Path) -> None:
    truth = read_interval_labels(
        {"flow": FeatureStore.open(folder / "dense")}, LabelsConfig(labels=str(folder / "labels.csv"))
    )
    found = windows_of(folder, truth)
    store, whole = found.stores["flow"], found.whole["flow"]
    for video in found.videos[::7]:
        start, stop = map(float, video.video_id.partition("#")[2].split("-"))
        sequence = whole[found.video_of[video.video_id]]
        inside = (sequence.pts_seconds >= start - 1e-3) & (sequence.pts_seconds < stop - 1e-3)
        (features,) = store.features([video.video_id])
        assert np.array_equal(features, sequence.features[inside])
        assert store.info(video.video_id).duration_seconds == pytest.approx(stop - start, abs=2e-3)


def test_the_windows_of_a_video_are_in_one_subset(folder: Path) -> None:
    subsets: dict[str, set[str]] = {}
    for row in Run.open(folder / "run").splits:
        subsets.setdefault(row.video.partition("#")[0], set()).add(row.split)
    assert len(subsets) == NUM_VIDEOS
    assert {len(names) for names in subsets.values()} == {1}
    assert set.union(*subsets.values()) >= {"train", "test"}


# The run


def test_a_run_from_intervals_finds_the_moves_of_its_test_videos(folder: Path) -> None:
    found = Run.open(folder / "run")
    assert found.background == "background"
    assert found.clip_seconds == pytest.approx(0.48, abs=0.01)
    scores = found.timelines["scores"]["test"]
    assert scores["num_videos"] == 3
    assert scores["frame_accuracy"] > 0.75
    assert scores["f1"]["50"] > 0.75
    predicted, truth = (read_timelines(folder / "run" / name) for name in ("timelines.jsonl", "truth.jsonl"))
    assert [one.video_id for one in predicted] == [one.video_id for one in truth]
    scored = run("timeline", "score", folder / "run/truth.jsonl", folder / "run/timelines.jsonl", "--format", "json")
    assert json.loads(scored.stdout)["f1"] == scores["f1"]


def test_the_report_shows_the_segments_of_the_test_videos_and_their_scores(folder: Path, tmp_path: Path) -> None:
    assert run("report", folder / "run", "-o", tmp_path / "page.html").exit_code == 0
    page, scores = Page(tmp_path / "page.html"), Run.open(folder / "run").timelines["scores"]
    rows = {line[0]: line[1:] for line in page.tables["timeline-scores"][1:]}
    assert rows.keys() == scores.keys()
    for subset, line in rows.items():
        its = scores[subset]
        figures = [*its["f1"].values(), its["edit"], its["frame_accuracy"], its["average_map"]["0.3:0.1:0.7"]]
        assert line == [str(its["num_videos"]), *(f"{value:.3f}" for value in figures)]
    (picture,) = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert b64decode(picture.partition(",")[2]) == (folder / "run/timelines.png").read_bytes()


@pytest.mark.slow
def test_the_background_check_tests_windows(folder: Path, tmp_path: Path) -> None:
    options = ("--labels", folder / "labels.csv", "--head", "statistics", "--check-background", *CPU)
    trained = run("train", folder / "dense", "-o", tmp_path / "run", "--folds", 5, *options)
    assert trained.exit_code == 0, trained.output
    found = Run.open(tmp_path / "run")
    assert found.background_check is not None
    assert found.background_check.num_videos == len(found.splits)
    assert found.background_check.whole.top1 > 0.75
    assert found.background_check.controls["frozen"].difference < -0.2  # a still picture: no window moves
    assert found.background_check.sentences["frozen"] in trained.stdout
    masked = run("train", folder / "dense", "-o", tmp_path / "masked", "--only-people", folder / "dense", *options)
    assert masked.exit_code == 2
    assert "labels of whole videos" in masked.stderr


def test_predict_uses_the_decoding_of_the_run_and_gives_no_background(folder: Path) -> None:
    command = ("predict", folder / "run", folder / "videos/1.mkv", "--timeline", "--format", "json", *CPU)
    cost = Run.open(folder / "run").timelines["decoding"]["change_cost"]
    by_default, given = run(*command), run(*command, "--change-cost", cost)
    assert by_default.exit_code == 0, by_default.output
    assert by_default.stdout == given.stdout
    segments = json.loads(by_default.stdout)["segments"]
    assert {one["label"] for one in segments} == {"left", "right"}


@pytest.mark.slow
def test_corrected_predictions_are_labels_and_better_labels_make_a_better_run(folder: Path, tmp_path: Path) -> None:
    """predict, then correct by hand (here: the truth of the training videos), then train again."""
    wrong = [
        replace_label(row, "right" if row[3] == "left" else "left") if n % 5 < 2 else row
        for n, row in enumerate(row for number in range(7) for row in intervals_of(number))
    ]
    tested = [row for number in (7, 8, 9) for row in intervals_of(number)]
    options = ("--head", "statistics", "--test-fraction", 0, *CPU)
    scores = []
    for name, rows in (("before", wrong), ("after", None)):
        labels = write_labels(tmp_path / f"{name}.csv", rows or corrected(tmp_path / "predicted.csv"))
        trained = run("train", folder / "dense", "-o", tmp_path / name, "--labels", labels, *options)
        assert trained.exit_code == 0, trained.output
        command = ("predict", tmp_path / name, folder / "videos", "--timeline", "--store", folder / "dense", *CPU)
        assert run(*command, "-o", tmp_path / "predicted.csv", "--format", "csv").exit_code == 0
        write_labels(tmp_path / "truth.csv", tested)
        scored = run("timeline", "score", tmp_path / "truth.csv", tmp_path / "predicted.csv", "--format", "json")
        scores.append(json.loads(scored.stdout)["frame_accuracy"])
    assert scores[1] > scores[0] + 0.05


def replace_label(row: Row, label: str) -> Row:
    return (*row[:3], label)


def corrected(predicted: Path) -> list[Row]:
    """The predicted segments of the first seven videos, where most of one is a move, with that move's label."""
    rows = []
    with predicted.open(newline="") as stream:
        for row in csv.DictReader(stream):
            number, middle = int(row["video"][0]), (float(row["start_seconds"]) + float(row["stop_seconds"])) / 2
            labels = [one[3] for one in intervals_of(number) if one[1] <= middle < one[2]]
            if number < 7 and labels:
                rows.append((row["video"], float(row["start_seconds"]), float(row["stop_seconds"]), labels[0]))
    return rows


@pytest.mark.slow
def test_what_the_page_saves_is_trained_on(folder: Path, tmp_path: Path) -> None:
    """predict, correct the labels in the page, save, train: a better run."""
    rows = [row for number in range(7) for row in intervals_of(number)]
    wrong = [
        replace_label(row, "right" if row[3] == "left" else "left") if n % 5 < 2 else row for n, row in enumerate(rows)
    ]
    write_labels(tmp_path / "before.csv", wrong)
    write_labels(tmp_path / "truth.csv", [row for number in (7, 8, 9) for row in intervals_of(number)])
    before = trained_accuracy(folder, tmp_path, "before")
    page = tmp_path / "after.html"
    command = ("timeline", "page", tmp_path / "before.json", "--videos", folder / "videos", "-o", page)
    assert run(*command).exit_code == 0
    truth = json.dumps({f"{number}.mkv": [row[1:] for row in intervals_of(number)] for number in range(NUM_VIDEOS)})
    with Browser(tmp_path) as browser:
        browser.open(page)
        browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.evaluate(f"const truth = {truth}; {CORRECT}; element.save.click()")
        browser.wait_for("!state.unsaved")
        for _ in range(200):
            if not (tmp_path / "after.csv").is_file():
                browser.evaluate("new Promise((done) => setTimeout(done, 20))")
    assert (tmp_path / "after.csv").is_file()
    assert trained_accuracy(folder, tmp_path, "after") > before + 0.05


CORRECT = """
for (const video of data.videos) {
  showVideo(video);
  for (const segment of [...video.segments]) {
    const middle = (segment.start + segment.stop) / 2;
    const found = truth[video.id].find(([start, stop]) => start <= middle && middle < stop);
    select(segment, { jump: false });
    if (found) setLabel(found[2]); else deleteSegment();
  }
}"""


def trained_accuracy(folder: Path, tmp_path: Path, name: str) -> float:
    """Train on the first seven videos in NAME.csv, predict into NAME.json, and score the others."""
    rows = (tmp_path / f"{name}.csv").read_text().splitlines(keepends=True)
    (tmp_path / f"{name}.csv").write_text("".join(row for row in rows if not row.startswith(("7", "8", "9"))))
    options = ("--labels", tmp_path / f"{name}.csv", "--head", "statistics", "--test-fraction", 0, *CPU)
    assert run("train", folder / "dense", "-o", tmp_path / name, *options).exit_code == 0
    command = ("predict", tmp_path / name, folder / "videos", "--timeline", "--store", folder / "dense", *CPU)
    assert run(*command, "-o", tmp_path / f"{name}.json").exit_code == 0
    scored = run("timeline", "score", tmp_path / "truth.csv", tmp_path / f"{name}.json", "--format", "json")
    return float(json.loads(scored.stdout)["frame_accuracy"])


def test_clips_of_a_length_are_windows_too(folder: Path, tmp_path: Path) -> None:
    sampling = ("--num-frames", 4, "--clip-seconds", 0.48, "--workers", 1)
    backbones = ("--backbone", "lenet5,flow")
    assert run("extract", folder / "videos", "-o", tmp_path / "dense", *backbones, *sampling, *CPU).exit_code == 0
    labels = ("--labels", folder / "labels.csv", "--head", "statistics")
    trained = run("train", tmp_path / "dense", "-o", tmp_path / "run", *labels, *CPU)
    assert trained.exit_code == 0, trained.output
    store = ("--store", tmp_path / "dense", "--format", "json")
    result = run("predict", tmp_path / "run", folder / "videos", "--timeline", *store, *CPU)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == NUM_VIDEOS


# What does not fit


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("0.mkv", 0, 99, "walk")],
            "line 2: 'walk' from 0 to 99 s lies outside '0.mkv', which lasts 3.4",
        ),
        ([("0.mkv", 2, 1, "walk")], "no interval"),
        ([("0.mkv", -1, 1, "walk")], "before the video"),
        ([("0.mkv", 0, 2, "walk"), ("0.mkv", 1, 3, "walk")], "overlaps"),
        ([("0.mkv", 0, 2, "walk"), ("0.mkv", "", "", "run")], "no interval, although the file has columns for it"),
        ([("z.mkv", 0, 2, "walk")], "without features: z.mkv"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(folder: Path, tmp_path: Path, rows: list[Row], message: str) -> None:
    labels = write_labels(tmp_path / "labels.csv", rows)
    with pytest.raises(LabelsError, match=message):
        read_interval_labels({"flow": FeatureStore.open(folder / "dense")}, LabelsConfig(labels=str(labels)))


def test_evaluate_refuses_labels_of_intervals_and_says_what_scores_them(folder: Path) -> None:
    result = run("evaluate", folder / "run", folder / "dense", "--labels", folder / "labels.csv", *CPU)
    assert result.exit_code == 2
    assert "`vidpipe predict --timeline` and `vidpipe timeline score`" in result.stderr


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_groups_come_from_an_expression_over_ids_too(folder: Path, tmp_path: Path, suffix: str) -> None:
    labels = folder / "labels.csv"
    if suffix == "json":
        labels = tmp_path / "labels.json"
        assert run("timeline", "convert", folder / "labels.csv", labels, "--to", "activitynet").exit_code == 0
    config = LabelsConfig(labels=str(labels), group_by="[0-4]|[5-9]")
    found = read_interval_labels({"flow": FeatureStore.open(folder / "dense")}, config)
    assert [one.group for one in found] == [one.video_id[0] for one in found]


def test_a_window_without_intervals_is_wrong_usage(folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"{number}.mkv,{'ab'[number % 2]}\n" for number in range(NUM_VIDEOS))
    (tmp_path / "labels.csv").write_text(f"video,label\n{rows}")
    options = ("--labels", tmp_path / "labels.csv", "--window", 1, *CPU)
    result = run("train", folder / "dense", "-o", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert "--window goes with --labels of intervals" in result.stderr


def test_frames_of_whole_videos_have_no_windows(folder: Path, tmp_path: Path) -> None:
    extracted = ("--backbone", "lenet5", "--workers", 1, *CPU)
    assert run("extract", folder / "videos", "-o", tmp_path / "whole", *extracted).exit_code == 0
    result = run("train", tmp_path / "whole", "-o", tmp_path / "run", "--labels", folder / "labels.csv", *CPU)
    assert result.exit_code == 2
    assert "extract with --sampling fps --fps 4, or with --clip-seconds" in result.stderr
    assert not (tmp_path / "run").exists()


def test_another_window_than_the_clips_of_the_store_is_refused(folder: Path) -> None:
    whole = FeatureStore.open(folder / "dense")
    sampling = {"method": "uniform", "num_frames": 4, "clip_seconds": 0.48}
    clips = FeatureStore(whole.path, replace(whole.key, sampling=sampling))
    with pytest.raises(UsageError, match=r"holds frames of clips of 0\.48 s; leave --window out"):
        label_windows({"flow": clips}, [Timeline("0.mkv")], window_seconds=1.0)
