"""`vidpipe timeline page` and `annotate`: which videos they find, what they write and refuse; the strip's picture."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser
from tests.commands import run
from tests.media import write_video
from vidpipe.errors import UsageError
from vidpipe.records import Curve, Segment, Timeline
from vidpipe.timeline.colours import class_colours
from vidpipe.timeline.exchange import read_timelines
from vidpipe.timeline.strip import write_strip
from vidpipe.timeline.thinning import thin_curve

WALK = {"start_seconds": 0.2, "stop_seconds": 0.6, "label": "walk", "probability": 0.75}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, and predictions for them and for one that failed."""
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / "day" / f"{name}.mp4", 25, width=96, height=96)
    lines = [{"video": f"day/{name}.mp4", "segments": [WALK], "duration_seconds": 1.0} for name in "ab"]
    failed = {"video": "c.mp4", "segments": [], "status": "failed", "error": "no video"}
    (tmp_path / "predicted.jsonl").write_text("\n".join(map(json.dumps, [*lines, failed])))
    (tmp_path / "truth.csv").write_text(
        "video,start_seconds,stop_seconds,label\nday/a.mp4,0,0.5,run\nday/z.mp4,0,1,walk\n"
    )
    return tmp_path


def test_the_page_and_the_picture_are_written_and_replaced(folder: Path) -> None:
    command = (
        "timeline",
        "page",
        folder / "predicted.jsonl",
        "--videos",
        folder / "videos",
        "-o",
        folder / "page.html",
    )
    for _ in range(2):
        result = run(*command, "--truth", folder / "truth.csv", "--png", folder / "strip.png")
        assert result.exit_code == 0, result.output
        lines = [f"{folder / name}: 2 segments of 2 videos" for name in ("page.html", "strip.png")]
        assert result.stdout.splitlines() == lines
        assert result.stderr == "not shown: 1 video of --truth alone: day/z.mp4\n"
    assert '"src":"./videos/day/a.mp4"' in (folder / "page.html").read_text()
    assert "1 video without a timeline" in (folder / "page.html").read_text()
    with Image.open(folder / "strip.png") as picture:
        assert str(picture.info["Software"]).startswith("vidpipe ")
    (folder / "page.html").write_text("mine")
    result = run(*command)
    assert (result.exit_code, (folder / "page.html").read_text()) == (2, "mine")


def test_videos_are_found_by_folder_by_part_of_the_name_or_by_recorded_path(folder: Path) -> None:
    page = folder / "page.html"
    (folder / "short.csv").write_text("video,start_seconds,stop_seconds,label\na,0,0.5,run\n")
    found = run("timeline", "page", folder / "short.csv", "--videos", folder / "videos", "-o", page)
    assert found.exit_code == 0, found.output
    line = {"video": "x", "path": str(folder / "videos/day/b.mp4"), "segments": [WALK]}
    (folder / "recorded.jsonl").write_text(json.dumps(line))
    assert run("timeline", "page", folder / "recorded.jsonl", "-o", page).exit_code == 0
    assert '"src":"./videos/day/b.mp4"' in page.read_text()


@pytest.mark.parametrize("options", [(), ("--videos", "empty")])
def test_a_video_that_is_not_found_is_named_in_one_line(
    folder: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    result = run("timeline", "page", "predicted.jsonl", "-o", "page.html", *options)
    assert result.exit_code == 2
    assert "the file of 2 videos is not found" in result.stderr
    assert "day/a.mp4, day/b.mp4; give the folder that has it with --videos DIR" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (folder / "page.html").exists()


def test_a_name_that_several_files_have_is_refused(folder: Path) -> None:
    write_video(folder / "videos" / "night" / "a.mp4", 3)
    (folder / "short.csv").write_text("video,start_seconds,stop_seconds,label\na,0,0.5,run\n")
    result = run("timeline", "page", folder / "short.csv", "--videos", folder / "videos", "-o", folder / "page.html")
    assert result.exit_code == 2
    assert "a: several files may be this video: day/a.mp4, night/a.mp4" in result.stderr


def test_annotate_writes_a_copy_a_video_and_reports_failures(folder: Path) -> None:
    command = ("timeline", "annotate", folder / "predicted.jsonl", "--videos", folder / "videos", "-o", folder / "out")
    result = run(*command)
    assert result.exit_code == 3, result.output
    copies = [folder / "out" / "day" / f"{name}.mp4" for name in "ab"]
    assert result.stdout.splitlines() == list(map(str, copies))
    assert result.stderr == "failed: c.mp4: no video\n"
    assert sorted(path for path in (folder / "out").rglob("*") if path.is_file()) == copies
    again = run(*command)
    assert again.exit_code == 2
    assert "exists; choose another folder, or give --overwrite" in again.stderr
    assert run(*command, "--overwrite").exit_code == 3


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def test_what_the_page_saves_is_read_back_as_it_was_edited(folder: Path, browser: Browser) -> None:
    page = folder / "page.html"
    run("timeline", "page", folder / "predicted.jsonl", "--videos", folder / "videos", "-o", page)
    browser.open(page)
    browser.wait_for("player.readyState >= 2 && !player.seeking")
    browser.press("ArrowLeft", shift=True)
    browser.evaluate("setLabel('run, then; \"jump\"')")
    (folder / "corrected.csv").write_text(browser.evaluate("csvText()"), newline="")
    browser.evaluate("state.unsaved = false")
    first, second = read_timelines(folder / "corrected.csv")
    assert (first.video_id, first.segments) == ("day/a.mp4", (Segment(0.1, 0.6, 'run, then; "jump"'),))
    assert (second.video_id, second.segments) == ("day/b.mp4", (Segment(0.2, 0.6, "walk"),))
    again = run("timeline", "page", folder / "corrected.csv", "--videos", folder / "videos", "-o", page)
    assert again.exit_code == 0, again.output


def test_split_and_group_stay_in_the_saved_csv(folder: Path, browser: Browser) -> None:
    rows = (
        "video,start_seconds,stop_seconds,label,split,group\nday/a.mp4,0,0.5,run,test,g1\nday/b.mp4,0,1,walk,train,g2\n"
    )
    (folder / "labels.csv").write_text(rows)
    page = folder / "page.html"
    assert run("timeline", "page", folder / "labels.csv", "--videos", folder / "videos", "-o", page).exit_code == 0
    browser.open(page)
    (folder / "saved.csv").write_text(browser.evaluate("csvText()"), newline="")
    with (folder / "saved.csv").open(newline="") as stream:
        assert [(row["split"], row["group"]) for row in csv.DictReader(stream)] == [("test", "g1"), ("train", "g2")]


def test_the_strip_has_a_row_a_video_with_the_colours_of_its_segments(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).random((5000, 2)).astype(np.float32)
    curve = Curve(("$x^", "b"), np.arange(5000) / 500, probabilities)
    timelines = [
        Timeline("one.mp4", (Segment(0, 5, "$x^"), Segment(5, 10, "b")), 10.0, curve),
        Timeline("two.mp4", (Segment(0, 10, "c"),), 10.0),
        Timeline("bad.mp4", error="broken"),
    ]
    truth = [Timeline("one.mp4", (Segment(0, 10, "b"),))]
    sizes = {}
    for name, options in (("all", {}), ("plain", {"curves": False})):
        for attempt in (1, 2):
            write_strip(timelines, tmp_path / f"{name}{attempt}.png", truth=truth, **options)
        assert (tmp_path / f"{name}1.png").read_bytes() == (tmp_path / f"{name}2.png").read_bytes()
        with Image.open(tmp_path / f"{name}1.png") as picture:
            sizes[name] = picture.size
    assert sizes["all"][1] > sizes["plain"][1]
    pixels = np.asarray(Image.open(tmp_path / "plain1.png").convert("RGB"))
    column = pixels[:, int(0.35 * pixels.shape[1])]  # in the first half of the videos
    rgb = {name: tuple(bytes.fromhex(colour[1:])) for name, colour in class_colours(["$x^", "b", "c"]).items()}
    names = [next((name for name, value in rgb.items() if tuple(pixel) == value), "") for pixel in column]
    runs = [name for place, name in enumerate(names) if name and name != names[place - 1]]
    assert runs[-3:] == ["b", "$x^", "c"]  # truth, predicted, the second video; the legend is above
    with pytest.raises(UsageError, match="1 to 60 videos, got 61"):
        write_strip([Timeline(str(number)) for number in range(61)], tmp_path / "many.png")


def test_a_thinned_curve_keeps_the_extremes_of_every_part() -> None:
    random = np.random.default_rng(0)
    times, values = np.arange(10_001, dtype=float), random.random(10_001)
    thin_times, thin_values = thin_curve(times, values, max_points=200)
    assert len(thin_times) <= 200
    assert np.all(np.diff(thin_times) > 0)
    assert np.array_equal(values[thin_times.astype(int)], thin_values)
    assert (thin_times[0], thin_times[-1]) == (0, 10_000)
    for start in range(0, 10_000, 250):  # longer than two parts
        inside = (thin_times >= start) & (thin_times < start + 250)
        part = values[start + 102 : start + 148]
        assert thin_values[inside].max() >= part.max()
        assert thin_values[inside].min() <= part.min()
    short = thin_curve(times[:150], values[:150], max_points=200)
    assert np.array_equal(short[1], values[:150])


def test_colours_of_many_classes_differ() -> None:
    colours = class_colours(f"class {number}" for number in range(60))
    assert len(set(colours.values())) == 60
