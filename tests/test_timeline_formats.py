"""Timelines in each format: written, read back, and read by other programs' libraries."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidpipe.datasets.intervals import read_intervals
from vidpipe.errors import InputError, LabelsError, UsageError, VidpipeError
from vidpipe.records import Curve, Segment, Timeline
from vidpipe.timeline.exchange import FORMATS, read_timelines, write_timelines
from vidpipe.timeline.formats.json_lines import from_object, to_object

A_FILE_A_VIDEO = ("vtt", "srt", "elan", "mstcn")
TWO = [
    Timeline("b/é a.mp4", (Segment(0.0, 1.5, "wave & <b>"), Segment(1.5, 3.25, "{run}")), 4.0),
    Timeline("c.mp4", (Segment(3600.25, 7200.0, "5"),), 7200.0),
]
"""Times that every format can hold, at 4 frames a second."""


def plain(timelines: list[Timeline]) -> dict[str, tuple[Segment, ...]]:
    return {one.video_id: one.segments for one in timelines}


def scored(timeline: Timeline) -> Timeline:
    segments = tuple(replace(one, probability=0.25 + number / 8) for number, one in enumerate(timeline.segments))
    return replace(timeline, segments=segments)


@pytest.mark.parametrize("form", FORMATS)
def test_segments_are_read_back_from_every_format(tmp_path: Path, form: str) -> None:
    written = [scored(one) for one in TWO] if form == "results" else TWO
    path = tmp_path / ("out" if form in A_FILE_A_VIDEO else f"out{FORMATS[form]}")
    write_timelines(path, written, form=form, fps=4)
    assert plain(read_timelines(path, fps=4)) == plain(written)


@pytest.mark.parametrize("form", A_FILE_A_VIDEO)
def test_a_file_for_each_video_has_the_videos_name(tmp_path: Path, form: str) -> None:
    write_timelines(tmp_path, TWO, form=form, fps=4)
    files = sorted(one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*") if one.is_file())
    assert files == [f"b/é a.mp4{FORMATS[form]}", f"c.mp4{FORMATS[form]}"]
    with pytest.raises(UsageError, match="one file holds one video, got 2; give a folder"):
        write_timelines(tmp_path / f"one{FORMATS[form]}", TWO, fps=4)


@pytest.mark.parametrize("form", A_FILE_A_VIDEO)
@pytest.mark.parametrize("video_id", ["../a.mp4", "/a.mp4", "b//a.mp4"])
def test_a_file_is_never_written_outside_its_folder(tmp_path: Path, form: str, video_id: str) -> None:
    with pytest.raises(VidpipeError, match="no path below"):
        write_timelines(tmp_path / "out", [Timeline(video_id)], form=form, fps=4)
    assert not list(tmp_path.rglob("*.*"))


def test_json_lines_hold_everything(tmp_path: Path) -> None:
    curve = Curve(("a", "b"), np.array([0.5, 1.5]), np.array([[0.25, 0.75], [1, 0]], np.float32))
    everything = [
        replace(scored(TWO[0]), curve=curve, path="/x/a.mp4", split="train", group="g"),
        Timeline("d.mp4", error="no video", path="d.mp4"),
    ]
    assert write_timelines(tmp_path / "t.jsonl", everything) == []
    found = read_timelines(tmp_path / "t.jsonl")
    assert found[0].curve is not None
    assert np.array_equal(found[0].curve.probabilities, curve.probabilities)
    assert np.array_equal(found[0].curve.pts_seconds, curve.pts_seconds)
    assert [replace(one, curve=None) for one in found] == [replace(one, curve=None) for one in everything]


def test_json_lines_with_few_keys_are_read_under_json_too(tmp_path: Path) -> None:
    segment = {"start_seconds": 1, "stop_seconds": 2, "label": "x"}
    lines = [{"video": "a", "segments": [segment]}, {"video": "b", "segments": []}]
    (tmp_path / "t.json").write_text("\n".join(map(json.dumps, lines)))
    assert read_timelines(tmp_path / "t.json") == [Timeline("a", (Segment(1.0, 2.0, "x"),)), Timeline("b")]


def test_an_object_has_the_keys_that_predict_prints() -> None:
    found = to_object(scored(TWO[1]))
    assert list(found) == ["video", "path", "status", "duration_seconds", "segments", "curve", "error"]
    assert from_object({"video": "a", "segments": []}, "line 1") == Timeline("a")
    assert to_object(Timeline("a", error="no video"))["status"] == "failed"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("3", 'line 2: needs "video": ID'),
        ('{"video": "b", "segments": [{"start_seconds": 1}]}', "line 2: not a timeline (KeyError: 'stop_seconds')"),
        ('{"video": "b", "segments": 3}', "line 2: not a timeline"),
        ('{"video": "a", "segments": []}', "line 2: 'a' is also in"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"video": "a", "segments": []}\n' + line)
    with pytest.raises(LabelsError) as found:
        read_timelines(tmp_path / "t.jsonl")
    assert message in str(found.value)


def test_a_csv_is_what_training_reads(tmp_path: Path) -> None:
    written = [replace(scored(TWO[0]), split="train", group="g"), replace(TWO[1], split="test", group="h")]
    losses = write_timelines(tmp_path / "t.csv", written)
    assert [(one.video_id, one.segment, one.split, one.group) for one in read_intervals(tmp_path / "t.csv")] == [
        (timeline.video_id, segment, timeline.split, timeline.group)
        for timeline in written
        for segment in timeline.segments
    ]
    assert losses == ["CSV cannot hold the videos' duration (2 videos: b/é a.mp4, c.mp4)"]


def test_activitynet_has_its_own_keys(tmp_path: Path) -> None:
    write_timelines(tmp_path / "t.json", [replace(TWO[0], split="val"), Timeline("d")])
    database = json.loads((tmp_path / "t.json").read_text())["database"]
    assert database["b/é a.mp4"]["subset"] == "validation"
    assert database["b/é a.mp4"]["duration"] == 4.0
    assert database["b/é a.mp4"]["annotations"][1] == {"segment": [1.5, 3.25], "label": "{run}"}
    assert database["d"] == {"annotations": []}
    write_timelines(tmp_path / "p.json", [scored(TWO[1])])
    results = json.loads((tmp_path / "p.json").read_text())["results"]
    assert results == {"c.mp4": [{"segment": [3600.25, 7200.0], "label": "5", "score": 0.25}]}


def test_webvtt_is_what_the_standard_says(tmp_path: Path) -> None:
    write_timelines(tmp_path / "t.vtt", [TWO[0]])
    blocks = (tmp_path / "t.vtt").read_text().strip().split("\n\n")
    assert blocks == [
        "WEBVTT",
        "1\n00:00:00.000 --> 00:00:01.500\nwave &amp; &lt;b&gt;",
        "2\n00:00:01.500 --> 00:00:03.250\n{run}",
    ]


def test_cues_of_other_programs_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.vtt").write_text(
        "WEBVTT - title\r\n\r\nNOTE made by hand\r\n\r\nintro\r\n00:01.500 --> 00:02.000 align:start\r\n"
        "<v Anna>wave</v>\r\nhello\r\n\r\nNOTE end\r\n"
    )
    assert read_timelines(tmp_path / "t.vtt") == [Timeline("t", (Segment(1.5, 2.0, "wave hello"),))]
    (tmp_path / "u.srt").write_text(
        "\ufeff1\n00:00:01,5 --> 00:00:02,000\nwave\n\n2\n00:00:03,000 --> 00:00:04,000\nrun"
    )
    assert [one.label for one in read_timelines(tmp_path / "u.srt")[0].segments] == ["wave", "run"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.vtt", "1\n00:00:01.000 --> 00:00:02.000\nx\n", "not WebVTT, whose first line is WEBVTT"),
        ("t.vtt", "WEBVTT\n\n1.5 --> 2.5\nx\n", "1 cues, of which 0 have times; write each 00:00:01.500 -->"),
        ("t.srt", "1\n00:00:01,000 --> 00:00:02,000\n\n", "line 2: a cue without text"),
        ("t.eaf", "<a", "not an ELAN file"),
        ("t.txt", "a\n\nb\n", "line 2: empty; each line is the label of one frame"),
    ],
)
def test_a_file_that_is_not_of_its_format_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LabelsError) as found:
        read_timelines(tmp_path / name, fps=1)
    assert message in str(found.value)


def test_elan_has_a_tier_for_each_class_so_that_classes_may_overlap(tmp_path: Path) -> None:
    segments = (Segment(0.0, 2.0, "a"), Segment(1.0, 3.0, "b"), Segment(2.0, 4.0, "a"))
    write_timelines(tmp_path / "v.mp4.eaf", [Timeline("v.mp4", segments)])
    root = ET.parse(tmp_path / "v.mp4.eaf").getroot()
    slots = {one.attrib["TIME_SLOT_ID"]: int(one.attrib["TIME_VALUE"]) for one in root.iter("TIME_SLOT")}
    tiers = {
        tier.attrib["TIER_ID"]: sorted(
            (slots[one.attrib["TIME_SLOT_REF1"]], slots[one.attrib["TIME_SLOT_REF2"]], one.findtext("ANNOTATION_VALUE"))
            for one in tier.iter("ALIGNABLE_ANNOTATION")
        )
        for tier in root.iter("TIER")
    }
    assert tiers == {"a": [(0, 2000, "a"), (2000, 4000, "a")], "b": [(1000, 3000, "b")]}
    assert read_timelines(tmp_path / "v.mp4.eaf") == [Timeline("v.mp4", segments)]


def test_an_elan_file_of_another_video_is_refused_and_both_are_named(tmp_path: Path) -> None:
    write_timelines(tmp_path / "one.mp4.eaf", [Timeline("one.mp4", path="/videos/one.mp4")])
    (tmp_path / "one.mp4.eaf").rename(tmp_path / "two.eaf")
    with pytest.raises(LabelsError, match=r"two.eaf: linked with one.mp4, but named for 'two'; rename it to one.eaf"):
        read_timelines(tmp_path / "two.eaf")
    (tmp_path / "two.eaf").rename(tmp_path / "one.eaf")
    assert read_timelines(tmp_path / "one.eaf") == [Timeline("one.mp4")]


def test_the_tier_is_the_label_of_an_annotation_without_text(tmp_path: Path) -> None:
    write_timelines(tmp_path / "v.eaf", [Timeline("v", (Segment(1.0, 2.0, "run"),))])
    text = (tmp_path / "v.eaf").read_text().replace("<ANNOTATION_VALUE>run<", "<ANNOTATION_VALUE><")
    text = text.replace("<MEDIA_DESCRIPTOR ", '<MEDIA_DESCRIPTOR TIME_ORIGIN="500" ')
    (tmp_path / "v.eaf").write_text(text)
    assert read_timelines(tmp_path / "v.eaf")[0].segments == (Segment(1.5, 2.5, "run"),)


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    curve = Curve(("a",), np.array([0.5]), np.array([[0.25]], np.float32))
    full = Timeline("a", (Segment(0.12345, 1.0, "x", 0.5),), 3.0, curve, split="val", group="g")
    empty = Timeline("b", error="no video")
    said = write_timelines(tmp_path / "out", [full, empty], form="vtt")
    assert said == [
        "WebVTT cannot hold the videos' duration (1 video: a)",
        "WebVTT cannot hold probabilities over time (1 video: a)",
        "WebVTT cannot hold splits (1 video: a)",
        "WebVTT cannot hold groups (1 video: a)",
        "WebVTT cannot hold why videos failed (1 video: b)",
        "WebVTT cannot hold probabilities of segments (1 segment)",
        "WebVTT cannot hold times finer than milliseconds; rounded (1 segment)",
    ]
    assert "CSV cannot hold videos without segments; left out (1 video: b)" in write_timelines(
        tmp_path / "t.csv", [full, empty]
    )
    tiny = Timeline("a", (Segment(0.5, 0.5001, "x"),))
    assert "ELAN cannot hold segments below a millisecond; left out a 500 ms" in write_timelines(
        tmp_path / "a.eaf", [tiny]
    )


def test_frames_get_the_label_at_their_centre_and_say_what_changes(tmp_path: Path) -> None:
    timeline = Timeline("a", (Segment(0.9, 2.6, "x", 0.5), Segment(2.0, 3.6, "y", 0.9)), 5.0)
    said = write_timelines(tmp_path / "a.txt", [timeline], fps=1, background="-")
    assert (tmp_path / "a.txt").read_text().split() == ["-", "x", "y", "y", "-"]
    assert any("rounds boundaries to frames, and keeps one of overlapping segments: a" in one for one in said)
    assert read_timelines(tmp_path / "a.txt", fps=2, background="-")[0] == Timeline(
        "a", (Segment(0.5, 1.0, "x"), Segment(1.0, 2.0, "y")), 2.5
    )


def test_a_file_of_frames_needs_no_last_newline_and_mstcns_results_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\nx\ny")
    (tmp_path / "b").write_text("### Frame level recognition: ###\nx x y")
    (tmp_path / "notes").write_text("not a result")
    segments = (Segment(0.0, 2.0, "x"), Segment(2.0, 3.0, "y"))
    assert read_timelines(tmp_path, fps=1) == [Timeline("a", segments, 3.0), Timeline("b", segments, 3.0)]


def test_frames_need_their_rate(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    for fps in (None, 0, -1, float("nan")):
        with pytest.raises(UsageError, match="needs --fps"):
            read_timelines(tmp_path / "a.txt", fps=fps)


def test_an_unclear_format_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        read_timelines(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"no files that end in .vtt, .srt, .eaf, .txt"):
        read_timelines(tmp_path)
    with pytest.raises(InputError, match=r"no files that end in .vtt;"):
        read_timelines(tmp_path, form="vtt")
    (tmp_path / "a.vtt").write_text("WEBVTT\n")
    (tmp_path / "a.srt").write_text("")
    with pytest.raises(UsageError, match=r"has files of vtt and srt; choose one with --from"):
        read_timelines(tmp_path)
    assert read_timelines(tmp_path, form="vtt") == [Timeline("a")]
    with pytest.raises(UsageError, match="unknown format 'vvt'; did you mean 'vtt'"):
        read_timelines(tmp_path, form="vvt")
    with pytest.raises(UsageError, match="the name does not tell the format; give --to"):
        write_timelines(tmp_path / "x.doc", [])
    with pytest.raises(UsageError, match="is a folder; give a file name for csv"):
        write_timelines(tmp_path, [], form="csv")


@pytest.mark.parametrize("form", ["jsonl", "csv", "vtt", "srt", "elan"])
@pytest.mark.parametrize("label", ["a --> b", "\x1b[31m\u202e 'x', \"y\"", "=1+1", "<i>x</i> &amp;", "00:00:01,000"])
def test_labels_that_look_like_syntax_are_read_back(tmp_path: Path, form: str, label: str) -> None:
    written = [Timeline("a.mp4", (Segment(0.0, 1.0, label), Segment(1.0, 2.0, "x")))]
    path = tmp_path / ("out" if form in A_FILE_A_VIDEO else f"out{FORMATS[form]}")
    write_timelines(path, written, form=form)
    expected = label.replace("\x1b", "?") if form == "elan" else label  # XML has no escape character
    (found,) = read_timelines(path)
    assert [one.label for one in found.segments] == [expected, "x"]
