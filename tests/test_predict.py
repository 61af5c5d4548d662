"""Predictions as a user gets them: in order, to train on, with what to know of them; and nothing lost on the way."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.commands import LENET, run
from tests.media import write_video
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFile
from vidpipe.runs.run import Run
from vidpipe.stages.predict import predict
from vidpipe.video.files import find_videos


def predicted(made: Path, *arguments: object) -> Result:
    return run("predict", made / "run", *arguments, "--device", "cpu", "--workers", 1)


def stored(made: Path, *arguments: object) -> Result:
    """Predictions of the training videos, from their features."""
    return predicted(made, made / "videos", "--store", made / "features", *arguments)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def objects_of(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_csv_has_one_row_for_each_video_that_was_read_in_the_order_of_the_inputs(made: Path) -> None:
    result = predicted(made, made / "videos/right/right3.mp4", made / "new", "--format", "csv")
    assert result.exit_code == 3
    assert result.stdout.splitlines()[0] == "video,label,probability,path"
    rows = rows_of(result.stdout)
    assert [row["video"] for row in rows] == ["right3.mp4", "a.mp4", "b.mp4", "c.mp4"]
    assert [row["path"] for row in rows[1:]] == [str(made / "new" / row["video"]) for row in rows[1:]]
    assert rows[0]["label"] == "right"
    assert "failed: bad.mp4: not a media file" in result.stderr
    assert "bad.mp4" not in result.stdout


@pytest.mark.slow
def test_the_csv_of_predictions_can_be_trained_on_and_extracted_from(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "videos", tmp_path / "new_videos")
    (tmp_path / "new_videos/left/bad.mp4").write_text("no video")
    labels = predicted(made, tmp_path / "new_videos", "--format", "csv")
    assert labels.exit_code == 3
    (tmp_path / "labels.csv").write_text(labels.stdout)
    again = ("--num-frames", 4, *LENET)
    assert run("extract", tmp_path / "new_videos", "-o", tmp_path / "folder", *again).exit_code == 3
    assert run("extract", tmp_path / "labels.csv", "-o", tmp_path / "csv", *again).exit_code == 0
    for store in ("folder", "csv"):
        chosen = ("--labels", tmp_path / "labels.csv", "--device", "cpu")
        trained = run("train", tmp_path / store, "-o", tmp_path / f"{store}_run", *chosen)
        assert trained.exit_code == 0, trained.output
    learned = {row.video: row.label for row in Run.open(tmp_path / "folder_run").splits}
    assert learned == {row["video"]: row["label"] for row in rows_of(labels.stdout)}
    assert FeatureStore.open(tmp_path / "csv").ids == FeatureStore.open(tmp_path / "folder").ids


def test_top_adds_the_ranking_as_columns_of_the_csv(made: Path) -> None:
    result = stored(made, "--format", "csv", "--top", 2)
    header = "video,label,probability,path,label_1,probability_1,label_2,probability_2"
    assert result.stdout.splitlines()[0] == header
    for row in rows_of(result.stdout):
        assert (row["label_1"], row["probability_1"]) == (row["label"], row["probability"])
        assert float(row["probability_1"]) + float(row["probability_2"]) == pytest.approx(1, abs=2e-6)


def test_the_header_of_the_csv_is_there_whatever_happens(made: Path) -> None:
    result = predicted(made, made / "new/bad.mp4", "--format", "csv", "--top", 9)
    header = "video,label,probability,path,label_1,probability_1,label_2,probability_2"
    assert (result.exit_code, result.stdout) == (3, f"{header}\n")


def test_below_min_confidence_the_answer_is_none_of_these_in_every_format(made: Path) -> None:
    below = ("--min-confidence", 1)
    surest = {
        row["video"]: (row["label"], row["probability"]) for row in rows_of(stored(made, "--format", "csv").stdout)
    }
    rows = rows_of(stored(made, *below, "--format", "csv", "--top", 1).stdout)
    assert {row["label"] for row in rows} == {"none of these"}
    assert {row["video"]: (row["label_1"], row["probability"]) for row in rows} == surest
    for found in objects_of(stored(made, *below, "--format", "json")):
        assert (found["status"], found["label"]) == ("unknown", "none of these")
        ranking = found["predictions"]
        assert isinstance(ranking, list)
        assert (ranking[0]["label"], f"{found['probability']:.6f}") == surest[str(found["video"])]
    assert all("   none of these   (" in line for line in stored(made, *below).stdout.splitlines())


def test_json_gives_the_answer_and_null_where_there_is_none(made: Path) -> None:
    found = {str(one["video"]): one for one in objects_of(predicted(made, made / "new", "--format", "json"))}
    assert list(found) == ["a.mp4", "b.mp4", "bad.mp4", "c.mp4"]
    assert (found["bad.mp4"]["status"], found["bad.mp4"]["label"], found["bad.mp4"]["predictions"]) == (
        "failed",
        None,
        [],
    )
    assert (found["a.mp4"]["label"], found["a.mp4"]["path"]) == ("right", str(made / "new/a.mp4"))


def test_videos_come_in_order_however_long_each_takes_and_wherever_its_features_are(made: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "0.mp4", 400)
    shutil.copy(made / "new/a.mp4", tmp_path / "1.mp4")
    shutil.copy2(made / "videos/left/left0.mp4", tmp_path / "2.mp4")
    write_video(tmp_path / "3.mp4", 3)
    assert run("extract", tmp_path, "-o", tmp_path / "s", "--num-frames", 4, *LENET).exit_code == 0
    os.utime(tmp_path / "0.mp4", (1, 1))  # no longer the file that the store knows
    videos = [tmp_path / f"{number}.mp4" for number in (2, 0, 3, 1)]
    result = run("predict", made / "run", *videos, "--store", tmp_path / "s", "--device", "cpu", "--format", "csv")
    assert [row["video"] for row in rows_of(result.stdout)] == [video.name for video in videos]


def test_a_video_that_the_run_learned_from_is_reported_wherever_it_lies(made: Path, tmp_path: Path) -> None:
    shutil.copy(made / "videos/left/left2.mp4", tmp_path / "left2.mp4")
    write_video(tmp_path / "left3.mp4", 9)  # of the same name, and another file
    result = predicted(made, tmp_path, "--format", "json")
    assert "the run learned from 1 of 2 videos (same file name and size): left2.mp4" in result.stderr
    learned = {one["video"]: one["learned"] for one in objects_of(result)}
    assert learned == {"left2.mp4": True, "left3.mp4": False}
    result = predicted(made, tmp_path, "--quiet")
    (marked,) = [line for line in result.stdout.splitlines() if "learned" in line]
    assert marked.startswith("left2.mp4 ")
    assert result.stderr == ""


def test_a_long_video_says_how_far_apart_its_frames_are(made: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", 8, pts_ms=[number * 500_000 for number in range(8)])  # 4000 s
    write_video(tmp_path / "short.mp4", 50)
    result = predicted(made, tmp_path, "--format", "json")
    assert "long.mp4: 4 frames of 1 h 0" in result.stderr
    assert "actions between them are missed" in result.stderr
    assert "--sampling fps" in result.stderr
    assert "short.mp4" not in result.stderr
    between = {one["video"]: one["seconds_between_frames"] for one in objects_of(result)}
    assert between == {"long.mp4": pytest.approx(1000, rel=0.2), "short.mp4": pytest.approx(0.5)}


def test_uncertain_gives_the_least_certain_videos_least_certain_first(made: Path, tmp_path: Path) -> None:
    rows = rows_of(stored(made, "--format", "csv").stdout)
    expected = sorted(rows, key=lambda row: float(row["probability"]))[:3]
    assert rows_of(stored(made, "--uncertain", 3).stdout) == expected
    result = stored(made, "--uncertain", 3, "-o", tmp_path / "correct.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert rows_of((tmp_path / "correct.csv").read_text()) == expected
    (tmp_path / "correct.csv").write_text("video,label,probability,path\nleft/left0.mp4,corrected,0.5,\n")
    refused = stored(made, "--uncertain", 3, "-o", tmp_path / "correct.csv")
    assert refused.exit_code == 2
    assert "may hold your corrections" in refused.stderr
    assert "corrected" in (tmp_path / "correct.csv").read_text()


def test_a_file_is_replaced_only_by_predictions_of_its_own_form(made: Path, tmp_path: Path) -> None:
    for form in ("csv", "json"):
        shown = stored(made, "--format", form).stdout
        for _ in range(2):
            result = stored(made, "--format", form, "-o", tmp_path / f"found.{form}")
            assert (result.exit_code, result.stdout) == (0, "")
            assert (tmp_path / f"found.{form}").read_text() == shown
    (tmp_path / "labels.csv").write_text("video,label\na.mp4,x\n")
    for form, name in (("csv", "labels.csv"), ("json", "found.csv"), ("csv", "found.json")):
        before = (tmp_path / name).read_bytes()
        result = stored(made, "--format", form, "-o", tmp_path / name)
        assert result.exit_code == 2
        assert f"is not predictions as {form} written by vidpipe" in result.stderr
        assert (tmp_path / name).read_bytes() == before
    assert "a file holds csv or json" in stored(made, "-o", tmp_path / "t.txt").stderr
    assert "cannot be written" in stored(made, "--format", "csv", "-o", tmp_path / "no/where.csv").stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "found.json", "labels.csv"]
    assert stored(made, "--format", "csv", "-o", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()


def lines_in(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interruption_keeps_the_predictions_that_were_done(made: Path, tmp_path: Path, stop: signal.Signals) -> None:
    (tmp_path / "many").mkdir()
    for number in range(3000):
        os.link(made / "new/a.mp4", tmp_path / "many" / f"{number:04}.mp4")
    arguments = (made / "run", tmp_path / "many", "--format", "csv", "-o", tmp_path / "found.csv", "--device", "cpu")
    process = subprocess.Popen(
        [sys.executable, "-m", "vidpipe", "predict", *map(str, arguments), "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    deadline = time.monotonic() + 60
    while len(lines_in(tmp_path / "found.csv.partial")) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    _, stderr = process.communicate(timeout=60)
    rows = rows_of((tmp_path / "found.csv.partial").read_text())
    assert 4 <= len(rows) < 3000
    assert [row["video"] for row in rows] == [f"{number:04}.mp4" for number in range(len(rows))]
    assert all(row["label"] == "right" for row in rows)
    assert not (tmp_path / "found.csv").exists()
    if stop is signal.SIGINT:
        assert process.returncode == 1
        num_predicted = [len(rows), len(rows) + 1]  # Ctrl-C may come between a prediction and its row
        assert any(f"stopped after {number} of 3000 videos" in stderr for number in num_predicted)
        assert "found.csv.partial" in stderr
        assert "Traceback" not in stderr
    again = run("predict", *arguments)
    assert again.exit_code == 2
    assert "rename it to keep it, or delete it" in again.stderr


class Counted(VideoFile):
    """A video that counts how often one of its kind is hashed or compared."""

    num_looks = 0

    def __hash__(self) -> int:
        Counted.num_looks += 1
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        Counted.num_looks += 1
        return isinstance(other, VideoFile) and self.id == other.id


class CountedText(str):
    """An id that does the same."""

    def __hash__(self) -> int:
        Counted.num_looks += 1
        return str.__hash__(self)


def test_features_of_many_videos_are_found_without_looking_at_each_for_each(made: Path) -> None:
    files = find_videos([made / "videos"])
    looks = []
    for num_videos in (4, 16):
        Counted.num_looks = 0
        videos = [Counted(CountedText(video.id), video.path) for video in files[:num_videos]]
        predictions: Iterator[object] = predict(
            Run.open(made / "run"), videos, store=FeatureStore.open(made / "features")
        )
        assert len(list(predictions)) == num_videos
        looks.append(Counted.num_looks)
    assert looks[1] <= 4 * looks[0]
