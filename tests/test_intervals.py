"""Intervals of videos with labels: CSV and ActivityNet's JSON, and what is refused."""

import json
from pathlib import Path

import pytest

from vidpipe.csv_files import COLUMN_NAMES
from vidpipe.datasets.intervals import LabeledInterval, has_intervals, read_intervals
from vidpipe.errors import LabelsError, UsageError
from vidpipe.records import Segment

HEADER = "video,start_seconds,stop_seconds,label"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def activitynet(path: Path, **database: object) -> Path:
    path.write_text(json.dumps({"database": database}), encoding="utf-8")
    return path


def test_a_csv_gives_an_interval_for_each_line(tmp_path: Path) -> None:
    path = write(tmp_path / "l.csv", f"{HEADER},split,group", "b/a.mp4,1.5,2,wave,Validation,g1", "c.mp4,0,1e1, run ,,")
    first, second = read_intervals(path)
    assert first.segment == Segment(1.5, 2.0, "wave")
    assert (first.video_id, first.split, first.group, first.place) == ("b/a.mp4", "val", "g1", f"{path}, line 2")
    assert second == LabeledInterval(
        "c.mp4", Segment(0.0, 10.0, "run"), f"{path}, line 3", split_source="the labels' column `split`"
    )


@pytest.mark.parametrize("start", COLUMN_NAMES["start_seconds"][0])
@pytest.mark.parametrize("stop", COLUMN_NAMES["stop_seconds"][0])
def test_columns_of_other_names_are_found(tmp_path: Path, start: str, stop: str) -> None:
    path = write(tmp_path / "l.csv", f"Label;{stop.upper()};{start};filename;score", "wave;2;1;a.mp4;0.25")
    (found,) = read_intervals(path)
    assert (found.video_id, found.segment) == ("a.mp4", Segment(1.0, 2.0, "wave", 0.25))
    assert has_intervals(path)


def test_activitynet_gives_duration_and_split_and_names_videos_without_intervals(tmp_path: Path) -> None:
    path = activitynet(
        tmp_path / "l.json",
        a={"subset": "training", "duration": 9.5, "annotations": [{"segment": [1, 2.5], "label": "wave"}]},
        b={"subset": "testing", "duration": 3, "annotations": []},
    )
    first, second = read_intervals(path)
    assert (first.video_id, first.segment, first.split, first.duration_seconds) == (
        "a",
        Segment(1.0, 2.5, "wave"),
        "train",
        9.5,
    )
    assert (second.video_id, second.segment, second.split, second.duration_seconds) == ("b", None, "test", 3.0)
    assert "annotation 1" in first.place


def test_predictions_of_activitynet_have_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"results": {"a": [{"segment": [0, 1], "label": "x", "score": 0.5}], "b": []}}))
    assert [one.segment for one in read_intervals(path)] == [Segment(0.0, 1.0, "x", 0.5), None]


def test_files_without_intervals_are_told_apart(tmp_path: Path) -> None:
    assert not has_intervals(write(tmp_path / "l.csv", "video,label", "a.mp4,wave"))
    assert not has_intervals(write(tmp_path / "k.csv", "label,youtube_id,time_start,time_end,split", "a,b,1,2,train"))
    assert not has_intervals(write(tmp_path / "trainlist01.txt", "wave/a.avi 1"))
    assert not has_intervals(tmp_path)
    assert has_intervals(activitynet(tmp_path / "l.json"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4,1,1,x"], "line 2: from 1 to 1 s is no interval"),
        (["a.mp4,0,1,x", "a.mp4,3,2,x"], "line 3: from 3 to 2 s is no interval"),
        (["a.mp4,-1,1,x"], "line 2: starts at -1 s, before the video"),
        (["a.mp4,nan,1,x"], "line 2: nan to 1 needs finite numbers"),
        (['a.mp4,"1,5",2,x'], "line 2: 'start_seconds' is '1,5'; write a number with a decimal point, such as 12.5"),
        (["a.mp4,00:01,2,x"], "line 2: 'start_seconds' is '00:01'; write a number"),
        (["a.mp4,1,2,"], "line 2: the cell of column 'label' is empty"),
        (["a.mp4,1,,x"], "line 2: the cell of column 'stop_seconds' is empty"),
        (["a.mp4,1,2,x", "b.mp4,,,y"], "line 3: no interval, although the file has columns for it; fill in"),
        (["a.mp4,1,3,x", "a.mp4,2.5,4,x"], "line 3: 'x' from 2.5 to 4 s in 'a.mp4' overlaps 'x' from 1 to 3 s in"),
        ([], "no intervals; each needs its video, start, stop and label"),
    ],
)
def test_an_interval_that_is_none_is_refused_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(LabelsError, match=r"l\.csv") as found:
        read_intervals(write(tmp_path / "l.csv", HEADER, *lines))
    assert message in str(found.value)


def test_intervals_that_touch_or_have_other_labels_or_videos_are_no_overlap(tmp_path: Path) -> None:
    lines = ("a.mp4,2,3,x", "a.mp4,1,2,x", "a.mp4,1,3,y", "b.mp4,1,3,x")
    assert len(read_intervals(write(tmp_path / "l.csv", HEADER, *lines))) == 4


def test_a_video_has_one_split_and_one_group(tmp_path: Path) -> None:
    path = write(tmp_path / "l.csv", f"{HEADER},split", "a.mp4,0,1,x,train", "a.mp4,2,3,x,test")
    with pytest.raises(LabelsError, match=r"'a.mp4' has split 'train' in .*line 2, and split 'test' in .*line 3"):
        read_intervals(path)


def test_a_file_with_half_of_the_columns_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "l.csv", "video,label,start", "a.mp4,x,1")
    assert has_intervals(path)
    with pytest.raises(LabelsError, match="missing column 'stop_seconds'; found: video, label, start; name it in the"):
        read_intervals(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "no 'database' and no 'results'"),
        ('{"database": {"a": 1}}', "video 'a': not an object with 'annotations'"),
        ('{"database": {"a": {"annotations": {}}}}', "video 'a': annotations are a list"),
        ('{"database": {"a": {"duration": "9", "annotations": []}}}', "video 'a': duration needs a number, got '9'"),
        ('{"database": {"a": {"subset": "tset", "annotations": []}}}', "unknown subset 'tset'; did you mean"),
        ('{"results": {"a": [{"segment": [1], "label": "x"}]}}', "video 'a', annotation 1: needs"),
        ('{"results": {"a": [{"segment": [1, true], "label": "x"}]}}', "annotation 1: segment needs a number"),
        ('{"results": {"a": [{"segment": [1, 2]}]}}', "video 'a', annotation 1: needs"),
        ('{"results": {"a": [{"segment": [2, 2], "label": "x"}]}}', "annotation 1: from 2 to 2 s is no interval"),
    ],
)
def test_json_that_is_not_activitynets_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "l.json"
    path.write_text(text)
    with pytest.raises(LabelsError, match=r"l\.json") as found:
        read_intervals(path)
    assert message in str(found.value)


def test_evaluators_read_empty_and_overlapping_intervals(tmp_path: Path) -> None:
    lines = ("a.mp4,1,1,x", "a.mp4,1,3,x", "a.mp4,-1,2,x")
    assert [one.segment for one in read_intervals(write(tmp_path / "l.csv", HEADER, *lines), strict=False)] == [
        Segment(1.0, 1.0, "x"),
        Segment(1.0, 3.0, "x"),
        Segment(-1.0, 2.0, "x"),
    ]


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_intervals(tmp_path / "l.csv")
