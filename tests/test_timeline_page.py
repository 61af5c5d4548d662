"""The page that shows and corrects timelines, in a real Chromium with videos that it plays."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests.browser import Browser
from tests.media import write_video
from tests.pages import Page
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.records import Curve, Segment, Timeline
from vidpipe.timeline.page import write_page

HOSTILE = "</script><img src=x onerror='alert(1)'>"
QUOTED = 'say "run", then\u2028stop'
DURATION_SECONDS = 8.0
SEGMENTS = (
    Segment(0.0, 2.0, "walk", 0.9),
    Segment(2.0, 3.5, HOSTILE, 0.4),
    Segment(5.0, 6.0, "walk", 0.6),
)


def make_curve(num_points: int, class_names: tuple[str, ...] = ("walk", HOSTILE)) -> Curve:
    random = np.random.default_rng(0)
    probabilities = random.random((num_points, len(class_names))).astype(np.float32)
    return Curve(class_names, np.arange(num_points) * DURATION_SECONDS / num_points, probabilities)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with timelines, beside the folder of the page."""
    folder = tmp_path_factory.mktemp("timeline page")
    for name in ("50% #1?.mp4", "other.mp4"):
        write_video(folder / "videos" / name, int(25 * DURATION_SECONDS), width=160, height=120)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    sure = Timeline("other.mp4", (Segment(1.0, 2.0, QUOTED, 0.95),), DURATION_SECONDS)
    unsure = Timeline("50% #1?.mp4", SEGMENTS, DURATION_SECONDS, make_curve(64))
    failed = Timeline("<b>bad</b>.mp4", error="<i>not</i> a video")
    truth = [Timeline("50% #1?.mp4", (Segment(0.0, 4.0, "run"),))]
    videos = {name: folder / "videos" / name for name in ("50% #1?.mp4", "other.mp4")}
    (folder / "pages").mkdir()
    out = folder / "pages" / "page.html"
    write_page([sure, unsure, failed], videos, out, truth=truth)
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    browser.open(page)
    browser.wait_for("player.readyState >= 2 && !player.seeking")
    yield browser
    browser.evaluate("state.unsaved = false")  # the page would ask whether to leave


def data_of(page: Path) -> dict[str, object]:
    """What the page's script reads."""
    source = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', source, re.DOTALL)
    assert found is not None
    loaded: dict[str, object] = json.loads(found[1])
    return loaded


def saved(browser: Browser) -> list[tuple[str, ...]]:
    """The rows of the CSV that the page saves, without its header."""
    header, *rows = csv.reader(io.StringIO(browser.evaluate("csvText()"), newline=""))
    assert header == ["video", "start_seconds", "stop_seconds", "label"]
    return [tuple(row) for row in rows]


def as_rows(video: str, *segments: tuple[float, float, str]) -> list[tuple[str, ...]]:
    return [(video, f"{start:.3f}", f"{stop:.3f}", label) for start, stop, label in segments]


OTHER = as_rows("other.mp4", (1, 2, QUOTED))


def seek(browser: Browser, seconds: float) -> None:
    browser.evaluate(f"seek({seconds})")
    browser.wait_for("!player.seeking")


def place_in_strip(browser: Browser, seconds: float, *, y: float = 24) -> tuple[float, float]:
    """Where a time is in the window, in CSS pixels; by default at the height of the segments."""
    left, top = browser.evaluate("(({left, top}) => [left, top])(element.strip.getBoundingClientRect())")
    return left + browser.evaluate(f"toX({seconds})"), top + y


def test_the_page_names_only_the_videos_by_relative_paths(page: Path) -> None:
    videos = data_of(page)["videos"]
    assert isinstance(videos, list)
    addresses = [video["src"] for video in videos]
    assert addresses == ["./../videos/50%25%20%231%3F.mp4", "./../videos/other.mp4"]
    assert all((page.parent / unquote(address)).is_file() for address in addresses)
    assert not re.search(r"https?:|url\(|@import|<link", page.read_text(encoding="utf-8"))


def test_names_are_text(page: Path) -> None:
    read = Page(page)
    assert read.open == []
    assert read.tags["img"] == read.tags["i"] == read.tags["b"] == 0
    assert "<b>bad</b>.mp4: <i>not</i> a video" in read.text
    assert HOSTILE in data_of(page)["labels"]  # type: ignore[operator]
    assert HOSTILE not in read.source


def test_in_chromium_nothing_is_run_fetched_or_refused(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait_for("player.readyState >= 2")
    addresses = {event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")}
    addresses = {address for address in addresses if not address.startswith("data:")}  # icons of Chromium's controls
    assert {Path(unquote(address)).name for address in addresses} == {"page.html", "50% #1?.mp4"}
    assert all(address.startswith("file:///") for address in addresses)
    for event in ("Page.javascriptDialogOpening", "Log.entryAdded", "Runtime.exceptionThrown"):
        assert browser.happened(event) == []
    texts = browser.evaluate("[...document.querySelectorAll('#segments tbody bdi')].map((one) => one.textContent)")
    assert HOSTILE in texts
    assert browser.evaluate("document.images.length") == 0


def test_the_least_certain_come_first(opened: Browser) -> None:
    assert opened.evaluate("[...element.videos.options].map((one) => one.textContent)") == [
        "50% #1?.mp4 (3 segments, least certain 0.40)",
        "other.mp4 (1 segment, least certain 0.95)",
    ]
    rows = "[...document.querySelectorAll('#segments tbody tr')].map((row) => row.cells[3].textContent)"
    assert opened.evaluate(rows) == ["0.400", "0.600", "0.900"]
    opened.evaluate("document.querySelector('[data-key=start] button').click()")
    assert opened.evaluate(rows) == ["0.900", "0.400", "0.600"]
    assert opened.evaluate("document.querySelector('[aria-sort=ascending]').dataset.key") == "start"


def test_the_video_plays_and_the_playhead_follows(opened: Browser) -> None:
    seek(opened, 0.5)
    before = opened.evaluate("element.playhead.getBoundingClientRect().left")
    opened.press(" ")
    opened.wait_for("player.currentTime > 0.9")
    opened.press(" ")
    assert opened.evaluate("player.paused")
    opened.wait_for("element.playhead.getBoundingClientRect().left > " + str(before))
    expected = opened.evaluate("element.strip.getBoundingClientRect().left + toX(player.currentTime)")
    assert opened.evaluate("element.playhead.getBoundingClientRect().left") == pytest.approx(expected - 1, abs=2)


def test_a_click_on_the_strip_seeks_and_chooses_the_segment(opened: Browser) -> None:
    opened.drag(place_in_strip(opened, 5.5))
    opened.wait_for("!player.seeking")
    assert opened.evaluate("player.currentTime") == pytest.approx(5.5, abs=0.05)
    assert opened.evaluate("[state.selected.start, state.selected.label]") == [5, "walk"]
    opened.drag(place_in_strip(opened, 4.25, y=120))
    opened.wait_for("!player.seeking")
    assert opened.evaluate("player.currentTime") == pytest.approx(4.25, abs=0.05)


def test_playback_stays_in_the_segment(opened: Browser) -> None:
    opened.press("l")
    opened.evaluate("element.loop.click()")
    opened.evaluate("element.speed.value = '4'; element.speed.dispatchEvent(new Event('change'))")
    opened.press("n")
    assert opened.evaluate("state.selected.start") == 5
    opened.press(" ")
    opened.wait_for("player.paused && !player.seeking && player.currentTime > 5.9")
    assert opened.evaluate("player.currentTime") == pytest.approx(6, abs=0.01)
    opened.evaluate("element.loop.click()")
    opened.evaluate("window.wraps = 0; player.addEventListener('seeking', () => { window.wraps += 1; })")
    opened.press(" ")
    opened.wait_for("window.wraps >= 3")
    assert 4.9 < opened.evaluate("player.currentTime") < 6.3
    assert not opened.evaluate("player.paused")
    opened.press(" ")


def test_edges_move_by_keys_and_stay_apart(opened: Browser) -> None:
    assert opened.evaluate("state.selected.start") == 2
    seek(opened, 2.3)
    opened.press("[")
    opened.press("ArrowRight", shift=True)
    opened.press("ArrowRight", shift=True)
    opened.press("ArrowLeft", shift=True)
    opened.press("e")
    opened.press("ArrowRight", shift=True)
    expected = as_rows("50% #1?.mp4", (0, 2, "walk"), (2.4, 3.6, HOSTILE), (5, 6, "walk"))
    assert saved(opened) == [*expected, *OTHER]
    seek(opened, 1.0)
    opened.press("]")
    assert saved(opened)[1][1:3] == ("2.400", "2.410")
    assert "cannot be" in opened.evaluate("element.message.textContent")


def test_an_edge_is_dragged_and_one_undo_brings_it_back(opened: Browser) -> None:
    opened.drag(place_in_strip(opened, 3.5), place_in_strip(opened, 4.5))
    assert float(saved(opened)[1][2]) == pytest.approx(4.5, abs=0.05)
    opened.press("z", control=True)
    assert saved(opened)[1][1:3] == ("2.000", "3.500")
    assert opened.evaluate("element.undo.disabled")
    opened.evaluate("element.redo.click()")
    assert float(saved(opened)[1][2]) == pytest.approx(4.5, abs=0.05)


def test_arrows_and_frames_step(opened: Browser) -> None:
    seek(opened, 4.0)
    opened.press("ArrowRight")
    opened.wait_for("!player.seeking")
    assert opened.evaluate("player.currentTime") == pytest.approx(4.1, abs=1e-3)
    opened.press("ArrowLeft")
    opened.press("ArrowLeft")
    opened.wait_for("!player.seeking")
    assert opened.evaluate("player.currentTime") == pytest.approx(3.9, abs=1e-3)
    opened.press(".")
    opened.wait_for("!player.seeking")
    assert opened.evaluate("player.currentTime") == pytest.approx(3.94, abs=1e-3)


def test_labels_are_typed_and_chosen_and_the_csv_has_what_was_edited(opened: Browser) -> None:
    opened.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "label"
    opened.call("Input.insertText", text='jump, "high" [n]')
    opened.press("Enter")
    opened.press("n")
    assert opened.evaluate("state.selected.start") == 5
    opened.press("3")
    seek(opened, 7.0)
    opened.press("a")
    opened.press("]")
    opened.evaluate("typeTime('stop', '0:07,5')")
    expected = as_rows(
        *("50% #1?.mp4", (0, 2, "walk"), (2, 3.5, 'jump, "high" [n]'), (5, 6, QUOTED), (7, 7.5, QUOTED)),
    )
    assert saved(opened) == [*expected, *OTHER]
    opened.press("Delete")
    assert saved(opened) == [*expected[:3], *OTHER]
    text = opened.evaluate("csvText()")
    assert text.count("\r\n") == text.count("\n") == 5
    assert '"jump, ""high"" [n]"' in text


def test_save_downloads_the_csv_and_unsaved_changes_warn(opened: Browser, tmp_path: Path) -> None:
    opened.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    leave = "(() => { const event = new Event('beforeunload', { cancelable: true }); return !dispatchEvent(event); })()"
    assert opened.evaluate(leave) is False
    opened.press("Delete")
    assert opened.evaluate(leave) is True
    opened.evaluate("element.save.click()")
    for _ in range(200):
        if (tmp_path / "page.csv").is_file():
            break
        opened.evaluate("new Promise((done) => setTimeout(done, 20))")
    expected = opened.evaluate("csvText()").encode()
    assert (tmp_path / "page.csv").read_bytes() == expected
    assert opened.evaluate(leave) is False


def test_overlapping_segments_of_one_label_are_named_when_saved(opened: Browser) -> None:
    opened.evaluate("save()")
    assert opened.evaluate("element.message.textContent") == "Saved page.csv."
    opened.evaluate("setLabel('walk'); moveEdge('start', 1.5); save()")
    message = opened.evaluate("element.message.textContent")
    assert "0:00.000 to 0:02.000 and 0:01.500 to 0:03.500 overlap and have the label walk" in message


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_page_fits_the_window(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, height=800)
    browser.wait_for("player.readyState >= 1")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    small = "[...document.querySelectorAll('#editor button')].filter((one) => one.offsetHeight < 32).length"
    assert browser.evaluate(small) == 0


def test_a_video_that_the_browser_cannot_play_is_named(browser: Browser, folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "old.avi", 20, codec="mpeg4")
    write_page([Timeline("old.avi", SEGMENTS)], {"old.avi": tmp_path / "old.avi"}, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.wait_for("!element.refused.hidden")
    assert "cannot play old.avi" in browser.evaluate("element.refused.textContent")
    assert "timeline annotate" in browser.evaluate("element.refused.textContent")


def test_long_curves_are_thinned_and_keep_their_extremes(tmp_path: Path) -> None:
    curve = make_curve(90_000, ("a", "b"))
    curve.probabilities[45_678, 0], curve.probabilities[12_345, 1] = 2, -1
    write_page([Timeline("a.mp4", (), 8.0, curve)], {"a.mp4": tmp_path / "a.mp4"}, tmp_path / "page.html")
    videos = data_of(tmp_path / "page.html")["videos"]
    assert isinstance(videos, list)
    first, second = videos[0]["curves"]
    assert 1000 < len(first["values"]) == len(first["seconds"]) <= 2000
    assert first["seconds"][first["values"].index(2)] == round(float(curve.pts_seconds[45_678]), 3)
    assert second["seconds"][second["values"].index(-1)] == round(float(curve.pts_seconds[12_345]), 3)
    assert (first["seconds"][0], first["seconds"][-1]) == (0, round(float(curve.pts_seconds[-1]), 3))


def test_a_video_without_a_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 videos is not found: a.mp4, b.mp4; .* --videos DIR"):
        write_page([Timeline("a.mp4"), Timeline("b.mp4")], {}, tmp_path / "page.html")
    with pytest.raises(UsageError, match=r"no timeline to show: a.mp4: broken"):
        write_page([Timeline("a.mp4", error="broken")], {}, tmp_path / "page.html")
    with pytest.raises(VidpipeError, match=r"cannot be written"):
        write_page([Timeline("a.mp4")], {"a.mp4": tmp_path / "a.mp4"}, tmp_path / "no" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_every_control_has_a_name_and_the_strip_tells_its_time(opened: Browser) -> None:
    controls = "[...document.querySelectorAll('button, input, select')].filter((one) => !one.hidden)"
    named = "(one) => one.textContent.trim() || one.ariaLabel || one.labels?.[0]?.textContent.trim()"
    assert opened.evaluate(f"{controls}.filter((one) => !({named})(one)).length") == 0
    seek(opened, 1.0)
    strip = "[element.strip.role, element.strip.ariaValueNow, element.strip.ariaValueText, element.current.textContent]"
    assert opened.evaluate(strip) == ["slider", "1.0", "0:01.0 walk", "walk (truth: run)"]


def test_keys_that_are_typed_into_a_field_edit_nothing_else(opened: Browser) -> None:
    before = saved(opened)
    opened.press("Enter")
    for key in ("n", "[", "a", "2", " "):
        opened.press(key)
    assert opened.evaluate("element.label.value") == "n[a2 "
    opened.press("Escape")
    assert saved(opened) == before
    assert opened.evaluate("[element.label.value, player.paused]") == [HOSTILE, True]


def test_undo_goes_back_to_the_video_that_was_edited(opened: Browser) -> None:
    opened.press("Delete")
    opened.evaluate("showVideo(data.videos[1])")
    opened.wait_for("player.readyState >= 2")
    opened.press("1")
    assert saved(opened)[2:] == as_rows("other.mp4", (1, 2, "walk"))
    opened.press("u")
    assert saved(opened)[2:] == OTHER
    opened.press("u")
    assert opened.evaluate("element.videos.selectedIndex") == 0
    assert len(saved(opened)) == 4


def test_with_thousands_of_segments_an_edit_is_quick(browser: Browser, folder: Path, tmp_path: Path) -> None:
    segments = tuple(Segment(place / 500, (place + 0.9) / 500, f"class {place % 20}", 0.5) for place in range(4000))
    curve = make_curve(40_000, tuple(f"class {number}" for number in range(20)))
    video = folder / "videos" / "other.mp4"
    write_page([Timeline("long.mp4", segments, 8.0, curve)], {"long.mp4": video}, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.wait_for("player.readyState >= 2 && !player.seeking")
    assert browser.evaluate("document.querySelectorAll('#segments tbody tr').length") == 200
    edits = "for (let count = 0; count < 10; count += 1) setLabel(count % 2 ? 'one' : 'two');"
    elapsed_ms = f"(() => {{ const start = performance.now(); {edits} return performance.now() - start; }})()"
    assert browser.evaluate(elapsed_ms) / 10 < 500  # 40 ms on two cores; 260 ms if all rows and curves are drawn again
    browser.evaluate("element.more.click()")
    assert browser.evaluate("document.querySelectorAll('#segments tbody tr').length") == 4000
    browser.evaluate("state.unsaved = false")
