"""The comparison of runs against their own files, and the reason where two cannot be compared."""

import csv
import io
from collections.abc import Iterator
from math import comb
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import Browser
from tests.commands import run
from tests.pages import IMAGE, LABELS, SCRIPT, Page, train_run
from vidpipe.config import TrainConfig
from vidpipe.runs.run import Run

LINEAR = TrainConfig(head="statistics", motion="raw", statistics="mean", device="cpu")
NAMES = ("good", f"{SCRIPT.replace('/', '')}", "folded", "of two")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same videos, one of folds, and one of other classes."""
    folder = tmp_path_factory.mktemp("compare")
    made = {
        NAMES[0]: (LABELS, LINEAR),
        NAMES[1]: (LABELS, TrainConfig(head="statistics", motion="difference", C=1e-3, device="cpu")),
        NAMES[2]: (LABELS, TrainConfig(head="mean", folds=3, device="cpu")),
        NAMES[3]: (LABELS[:2], LINEAR),
    }
    paths = []
    for number, (name, (labels, config)) in enumerate(made.items()):
        path = train_run(folder / str(number), labels, 72, config)
        paths.append(path.rename(folder / name))
    return paths


def correct_videos(path: Path) -> dict[str, bool]:
    """Whether a run predicts each of its test videos correctly."""
    head = Run.open(path).config.head
    with (path / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["head"], row["split"]) == (head, "test")]
    return {row["video"]: row["right"] == "1" for row in rows}


@pytest.fixture(scope="module")
def page(runs: list[Path]) -> Path:
    path = runs[0].parent / "page.html"
    result = run("report", "--compare", *runs, "-o", path)
    assert result.exit_code == 0, result.output
    return path


def test_runs_on_the_same_videos_are_compared_by_mcnemars_test(runs: list[Path], page: Path) -> None:
    one, other = correct_videos(runs[0]), correct_videos(runs[1])
    assert one.keys() == other.keys()
    only_one = sum(right and not other[video] for video, right in one.items())
    only_other = sum(right and not one[video] for video, right in other.items())
    assert only_one > only_other
    differing = only_one + only_other
    p_value = min(1.0, 2 * sum(comb(differing, k) for k in range(only_other + 1)) / 2**differing)
    expected = [NAMES[0], NAMES[1], str(only_one), str(only_other), str(len(one)), f"{p_value:.3f}"]
    assert Page(page).tables["pairs"][1] == expected


def test_runs_on_other_videos_or_classes_are_not_comparable(runs: list[Path], page: Path) -> None:
    text = " ".join(Page(page).text.split())
    assert "good and folded: tested on different videos (12 and 72, 12 in common)." in text
    assert "good and of two: they have different classes; tested on different videos (" in text
    assert len(Page(page).tables["pairs"]) == 2
    assert "Some of these runs cannot be compared" in page.read_text(encoding="utf-8")
    result = run("report", "--compare", runs[0], runs[2], "-o", page.with_name("two.html"))
    assert "good and folded cannot be compared: tested on different videos (" in result.stdout


def test_the_table_has_the_metrics_of_each_run(runs: list[Path], page: Path) -> None:
    shown = {line[0]: line for line in Page(page).tables["runs"][1:]}
    for path in runs[:2]:
        opened = Run.open(path)
        figures = opened.metrics["test"]
        line = shown[path.name]
        top1, baseline = (f"{figures[head]['top1']:.3f}" for head in ("statistics", "mean"))
        assert line[1:6] == [top1, "–", baseline, f"{figures['statistics']['macro_f1']:.3f}", "test set"]
        assert line[7:] == ["statistics", opened.config.motion, "resnet50", "uniform, 16 frames", "72"]
    folds = Run.open(runs[2]).metrics["folds"]["mean"]
    interval = "{low:.3f} to {high:.3f}".format(**folds["estimate"])
    top1, macro_f1 = f"{folds['estimate']['mean']:.3f}", f"{folds['macro_f1']:.3f}"
    assert shown["folded"][1:6] == [top1, interval, "–", macro_f1, "3 folds"]
    text = page.read_text(encoding="utf-8")
    for path in runs:
        for warning in Run.open(path).warnings:
            assert warning.split(":")[0].split("<")[0][:30] in text


def test_the_table_is_printed_to_stdout(runs: list[Path], tmp_path: Path) -> None:
    result = run("report", "--compare", *runs[:2], "-o", tmp_path / "page.html")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "top-1", "95"]
    assert [line.split()[0] for line in lines[1:3]] == list(NAMES[:2])
    assert "McNemar's exact p" in result.stdout


def test_names_are_text_in_the_page(page: Path) -> None:
    found = Page(page)
    assert found.open == []
    assert found.tags["script"] == 1
    assert found.tags["img"] == 0
    assert NAMES[1] in found.text
    assert IMAGE not in found.source


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", 0), "--compare takes two runs or more"),
        ((0, 1), "several runs: compare them with --compare"),
        (("--compare", 0, 1, "--videos", "."), "no --videos"),
    ],
)
def test_conflicting_arguments_are_an_error(runs: list[Path], arguments: tuple[object, ...], message: str) -> None:
    given = [runs[one] if isinstance(one, int) else one for one in arguments]
    result = run("report", *given)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("width", [390, 1280])
def test_in_chromium_the_page_fits_a_phone_and_a_desk(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.happened("Log.entryAdded") == []
    assert browser.happened("Runtime.exceptionThrown") == []
    assert browser.happened("Page.javascriptDialogOpening") == []
    assert Image.open(io.BytesIO(browser.screenshot())).size == (width, 800)
    browser.evaluate("document.querySelector('#runs [data-key=top1] button').click()")
    top1 = browser.evaluate("[...document.querySelectorAll('#runs tbody tr')].map((row) => row.cells[1].textContent)")
    assert top1 == sorted(top1)
