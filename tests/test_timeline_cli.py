"""`vidpipe timeline score` and `convert`: what they print, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.commands import run
from vidpipe.cli.timeline import convert
from vidpipe.records import Segment, Timeline
from vidpipe.timeline.exchange import FORMATS, read_timelines, write_timelines
from vidpipe.timeline.score import score_timelines

DATA = Path(__file__).parents[2] / "shared" / "data" / "timeline"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data/timeline is not there")


def scores(*arguments: object) -> dict[str, Any]:
    result = run("timeline", "score", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(*arguments: object) -> str:
    result: Result = run("timeline", *arguments)
    assert result.exit_code in (1, 2), result.output
    assert len(result.stderr.strip().splitlines()) <= 4
    return result.stderr


def labels(folder: Path, **videos: str) -> Path:
    """A folder with a label for each frame: `labels(path, a="xx-")`."""
    folder.mkdir()
    for name, text in videos.items():
        (folder / f"{name}.txt").write_text("\n".join(text))
    return folder


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


HEADER = "video,start_seconds,stop_seconds,label"


# Score


@needs_data
@pytest.mark.parametrize("name", ["detection", "detection_tiny"])
def test_average_precision_is_that_of_the_public_evaluator(name: str) -> None:
    expected = json.loads((DATA / name / "expected.json").read_text())["with_duplicates_rule"]
    found = scores(DATA / name / "ground_truth.json", DATA / name / "predictions.json", "--subset", "test")
    for protocol in ("0.3:0.1:0.7", "0.5:0.05:0.95"):
        figures = expected[protocol]
        assert found["average_map"][protocol] == pytest.approx(figures["average_mAP"], abs=1e-6)
        for threshold, value in figures["mAP"].items():
            assert found["map"][threshold] == pytest.approx(value, abs=1e-6)
        for one in found["per_class"]:
            for threshold, value in figures["AP_per_class"][one["label"]].items():
                assert one["ap"][threshold] == pytest.approx(value, abs=1e-6)


@needs_data
@pytest.mark.parametrize(("protocol", "end"), [("public", "end_as_in_code"), ("corrected", "end_exclusive")])
def test_labels_of_frames_are_compared_as_they_are(protocol: str, end: str) -> None:
    folder = DATA / "segmentation_tiny"
    everything = json.loads((folder / "expected.json").read_text())
    expected = everything['bg_class=["background"]'][end]
    found = scores(folder / "ground_truth", folder / "prediction", "--protocol", protocol)
    assert {k: v * 100 for k, v in found["f1"].items()} == pytest.approx(expected["F1"], abs=1e-6)
    assert found["edit"] * 100 == pytest.approx(expected["edit"], abs=1e-6)
    assert found["frame_accuracy"] * 100 == pytest.approx(everything["frame_accuracy"]["all_frames"], abs=1e-6)
    assert (found["map"], found["fps"], found["num_videos"]) == (None, None, 4)


def test_a_perfect_prediction_has_perfect_scores(tmp_path: Path) -> None:
    truth = [Timeline("a.mp4", (Segment(0.4, 2.0, "x"), Segment(2.0, 3.7, "y")), 5.0)]
    predicted = [Timeline("/videos/a.mp4", (Segment(0.4, 2.0, "x", 0.9), Segment(2.0, 3.7, "y", 0.8)))]
    found = score_timelines(truth, predicted)
    assert set((found.map or {}).values()) == {1.0}
    assert (found.segmentation.frame_accuracy, found.segmentation.edit) == (1.0, 1.0)
    assert set(found.segmentation.f1.values()) == {1.0}
    assert (found.num_missing, found.num_unmatched) == (0, 0)


def test_a_video_without_prediction_counts_as_nothing_found(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.csv", HEADER, "a.mp4,0,1,x", "b.mp4,0,1,x")
    predicted = write(tmp_path / "p.csv", f"{HEADER},score", "a.mp4,0,1,x,0.5", "other.mp4,0,1,x,0.4")
    result = run("timeline", "score", truth, predicted, "--format", "json")
    found = json.loads(result.stdout)
    assert (found["num_videos"], found["num_missing"], found["num_unmatched"]) == (2, 1, 1)
    assert (found["frame_accuracy"], found["map"]["0.5"]) == (0.5, 0.5)
    assert "1 video without a prediction, counted as nothing found: b.mp4" in result.stderr
    assert "1 predicted video not in the truth" in result.stderr


def test_the_grid_follows_fps(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.csv", HEADER, "a.mp4,0,2,x")
    predicted = write(tmp_path / "p.csv", HEADER, "a.mp4,0,1.4,x")
    assert scores(truth, predicted)["frame_accuracy"] == pytest.approx(14 / 20)
    assert scores(truth, predicted, "--fps", 1)["frame_accuracy"] == pytest.approx(1 / 2)


def test_the_subset_test_is_scored_unless_another_is_chosen(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.csv", f"{HEADER},split", "a.mp4,0,1,x,train", "b.mp4,0,1,x,test")
    predicted = write(tmp_path / "p.csv", HEADER, "a.mp4,0,1,x", "b.mp4,0,1,y")
    assert scores(truth, predicted)["frame_accuracy"] == 0.0
    assert scores(truth, predicted, "--subset", "Training")["frame_accuracy"] == 1.0
    assert scores(truth, predicted, "--subset", "all")["frame_accuracy"] == 0.5
    assert "has no videos of the subset 'val'; its subsets: train, test" in refused(
        "score", truth, predicted, "--subset", "val"
    )


def test_several_labels_can_be_background(tmp_path: Path) -> None:
    truth, predicted = labels(tmp_path / "t", a="-xx*yy-"), labels(tmp_path / "p", a="-xxx*y-")
    # x: 2 of 3 shared; y: 1 of 2; three of "-", x, x, y, "-" and not the two at "*"
    found = scores(truth, predicted, "--background", "-", "--background", "*")
    assert found["f1"] == {"10": 1.0, "25": 1.0, "50": 1.0}
    assert found["frame_accuracy"] == pytest.approx(5 / 7)
    assert found["foreground_accuracy"] == pytest.approx(3 / 4)
    assert [one["label"] for one in found["per_class"]] == ["x", "y"]


def test_frames_and_seconds_are_compared_at_the_rate_of_the_frames(tmp_path: Path) -> None:
    truth = labels(tmp_path / "t", a="xxyy")
    predicted = write(tmp_path / "p.csv", HEADER, "a,0,1,x", "a,1,2,y")
    assert scores(truth, predicted, "--fps", 2, "--background", "-")["frame_accuracy"] == 1.0
    assert scores(truth, predicted, "--fps", 4, "--background", "-")["frame_accuracy"] == 0.5
    assert "give the frames' --fps" in refused("score", truth, predicted)


def test_other_numbers_of_frames_are_refused_with_the_video(tmp_path: Path) -> None:
    truth, predicted = labels(tmp_path / "t", a="xxyy"), labels(tmp_path / "p", a="xxy")
    assert "video 'a' has 4 true labels of frames and 3 predicted ones" in refused("score", truth, predicted)


def test_two_predictions_of_one_video_are_refused(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.csv", HEADER, "a.mp4,0,2,x")
    predicted = write(tmp_path / "p.csv", HEADER, "x/a.mp4,0,2,x", "y/a.mp4,0,2,x")
    assert "'x/a.mp4', 'y/a.mp4' are all of the video 'a.mp4'; keep one" in refused("score", truth, predicted)


def test_the_table_says_which_protocol_it_shows(tmp_path: Path) -> None:
    truth = write(tmp_path / "t.csv", HEADER, "a.mp4,0,2,x")
    predicted = write(tmp_path / "p.csv", f"{HEADER},probability", "a.mp4,0,2,x,0.5")
    shown = run("timeline", "score", truth, predicted).stdout
    assert "F1@50 1.000" in shown
    assert "average mAP 0.3:0.1:0.7 1.000" in shown
    assert "as in the public evaluator (--protocol corrected)" in shown
    assert "counted whole" in run("timeline", "score", truth, predicted, "--protocol", "corrected").stdout


# Convert


def test_a_conversion_prints_what_is_lost_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    source, target = tmp_path / "t.jsonl", tmp_path / "t.csv"
    write_timelines(source, [Timeline("a.mp4", (Segment(0.5, 1.0, "x", 0.5),), 3.0)])
    result = run("timeline", "convert", source, target)
    assert (result.exit_code, result.stdout) == (0, f"{target}: 1 segment of 1 video\n")
    assert result.stderr == "CSV cannot hold the videos' duration (1 video: a.mp4)\n"
    assert read_timelines(target)[0].segments == (Segment(0.5, 1.0, "x", 0.5),)
    before = target.read_bytes()
    assert "exists; choose another file, or give --overwrite" in refused("convert", source, target)
    assert target.read_bytes() == before
    write_timelines(source, [Timeline("b.mp4", (Segment(0.5, 1.0, "x"),))])
    assert run("timeline", "convert", source, target, "--overwrite").exit_code == 0
    assert [one.video_id for one in read_timelines(target)] == ["b.mp4"]


def test_a_folder_with_files_is_not_written_into_unasked(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    write_timelines(source, [Timeline("a.mp4"), Timeline("b/c.mp4")])
    (tmp_path / "out").mkdir()
    assert run("timeline", "convert", source, tmp_path / "out", "--to", "srt").exit_code == 0
    assert "a folder with files" in refused("convert", source, tmp_path / "out", "--to", "vtt")
    assert run("timeline", "convert", source, tmp_path / "out", "--to", "vtt", "--overwrite").exit_code == 0
    assert "choose one with --from" in refused("convert", tmp_path / "out", tmp_path / "x.csv")
    assert run("timeline", "convert", tmp_path / "out", tmp_path / "x.csv", "--from", "vtt").exit_code == 0


def test_a_source_that_cannot_be_read_leaves_the_target_as_it_is(tmp_path: Path) -> None:
    target = write(tmp_path / "t.csv", HEADER)
    write(tmp_path / "bad.jsonl", "{")
    assert "line 1: not JSON" in refused("convert", tmp_path / "bad.jsonl", target, "--overwrite")
    assert target.read_text() == f"{HEADER}\n"


def test_the_command_offers_every_format() -> None:
    choices = {option.name: getattr(option.type, "choices", None) for option in convert.params}
    assert tuple(choices["from_"] or ()) == tuple(choices["to"] or ()) == tuple(FORMATS)


def test_names_that_users_try_lead_to_the_commands() -> None:
    assert "vidpipe timeline score" in run("score", "a", "b").stderr
    assert "vidpipe timeline convert" in run("convert", "a", "b").stderr
