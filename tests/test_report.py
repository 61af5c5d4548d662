"""The report page against the files of its run, and in a real Chromium where there is one."""

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser
from tests.commands import run
from tests.media import write_video
from tests.pages import IMAGE, LABELS, SCRIPT, Page, train_run
from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.records import LabeledVideo
from vidpipe.report.charts import axis_over
from vidpipe.stages.train import train

QUICK = TrainConfig(head="lstm", motion="raw", hidden_size=4, epochs=3, device="cpu")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes, groups and videos have names that mean something to a browser."""
    return train_run(tmp_path_factory.mktemp("hostile"), LABELS, 72, QUICK)


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validated run of 101 classes."""
    config = TrainConfig(head="statistics", motion="raw", statistics="mean", folds=2, val_fraction=0.0, device="cpu")
    return train_run(tmp_path_factory.mktemp("folded"), tuple(f"class_{n:03}" for n in range(101)), 606, config)


@cache
def report(run_path: Path) -> Page:
    """The page of a run, written once beside it."""
    result = run("report", run_path, "-o", run_path.parent / "page.html")
    assert result.exit_code == 0, result.output
    return Page(run_path.parent / "page.html")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def shown(name: str) -> str:
    """A name as the page shows it: what cannot be seen as its escape."""
    return name.replace("\u202e", "\\u202e")


def test_the_page_is_written_into_the_run(hostile: Path) -> None:
    result = run("report", hostile)
    assert result.exit_code == 0, result.output
    wrong = [row for row in read_rows(hostile / "predictions.csv") if row["head"] == "lstm" and row["right"] == "0"]
    num_wrong = sum(row["split"] == "test" for row in wrong)
    assert (
        result.stdout == f"{hostile / 'report.html'}: the {min(12, num_wrong)} most confident of {num_wrong} mistakes\n"
    )
    first = (hostile / "report.html").read_bytes()
    run("report", hostile)
    assert (hostile / "report.html").read_bytes() == first
    assert not list(hostile.glob(".*"))


def test_the_confusion_matrix_is_that_of_the_predictions(folded: Path) -> None:
    rows = [row for row in read_rows(folded / "folds.csv") if row["head"] == "statistics"]
    counts = Counter((row["label"], row["predicted"]) for row in rows)
    (_, *names), *lines = report(folded).tables["matrix"]
    assert names == [f"class_{n:03}" for n in range(101)] == [line[0] for line in lines]
    drawn = {(line[0], name): int(cell) for line in lines for name, cell in zip(names, line[1:], strict=True) if cell}
    assert drawn == counts


def test_the_most_confused_pairs_come_first(folded: Path) -> None:
    rows = [row for row in read_rows(folded / "folds.csv") if row["head"] == "statistics" and row["right"] == "0"]
    counts = Counter((row["label"], row["predicted"]) for row in rows)
    pairs = {(label, predicted): int(count) for label, predicted, count, _ in report(folded).tables["pairs"][1:]}
    assert list(pairs.values()) == sorted(counts.values(), reverse=True)[:20]
    assert all(counts[pair] == count for pair, count in pairs.items())


def test_a_class_has_its_recall_and_precision(hostile: Path) -> None:
    rows = [row for row in read_rows(hostile / "predictions.csv") if (row["head"], row["split"]) == ("lstm", "test")]
    table = {line[0]: line for line in report(hostile).tables["per-class"][1:]}
    assert set(table) == {shown(label) for label in LABELS}
    for label in LABELS:
        correct = [row["right"] == "1" for row in rows if row["label"] == label]
        found = [row["right"] == "1" for row in rows if row["predicted"] == label]
        expected = [f"{sum(found) / max(1, len(found)):.3f}", f"{sum(correct) / len(correct):.3f}"]
        assert table[shown(label)][2:4] == expected


@pytest.mark.parametrize("written_by", ["this version", "an earlier version"])
def test_a_class_without_test_videos_shows_dashes_and_is_left_out_of_the_means(
    half_tested: Path, tmp_path: Path, written_by: str
) -> None:
    copied = copy_run(half_tested, tmp_path / "run")
    document = json.loads((copied / "run.json").read_text())
    found = document["metrics"]["test"]["statistics"]
    assert [row["f1"] is None for row in found["per_class"]] == [False, False, True]
    if written_by == "an earlier version":
        for head in document["metrics"]["test"].values():
            head["per_class"][2] |= {"precision": 0.0, "recall": 0.0, "f1": 0.0}
            head["top5"] = 1.0
        (copied / "run.json").write_text(json.dumps(document))
    page = report(copied)
    table = {line[0]: line[1:] for line in page.tables["per-class"][1:]}
    assert table["c"] == ["0", "–", "–", "–", "–", "–"]
    f1 = [row["f1"] for row in found["per_class"][:2]]
    assert f"{np.mean(f1):.3f}" in page.tables["scores"][1]
    assert "1 class has no videos there" in page.text
    assert "2 of 3 in the test set" in page.text
    assert "top-5" not in page.text


def test_evaluate_shows_a_class_without_videos_as_dashes_and_says_so(half_tested: Path) -> None:
    store, labels = half_tested.parent / "store", half_tested.parent / "labels.csv"
    result = run("evaluate", half_tested, store, "--labels", labels)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert lines["c"][1:6] == ["–", "–", "–", "–", "0"]
    assert "over 2 of 3 classes" in result.stdout
    assert "1 class of 3 without a video: –, and not in the means" in result.stdout
    assert "top-5" not in result.stdout
    found = json.loads(run("evaluate", half_tested, store, "--labels", labels, "--format", "json").stdout)
    assert (found["top5"], found["per_class"][2]["f1"], found["baseline"]["mean"]["top5"]) == (None, None, None)


def test_the_baseline_and_the_majority_class_are_shown_with_the_model(folded: Path) -> None:
    rows = read_rows(folded / "folds.csv")
    scores = {(line[0], line[1]): line for line in report(folded).tables["scores"][1:]}
    for head, name in (("statistics", "statistics"), ("mean", "mean (baseline)")):
        correct = [row["right"] == "1" for row in rows if row["head"] == head]
        assert scores[name, "folds"][2] == f"{np.mean(correct):.3f}"
    assert scores["majority class “class_000”", "folds"][2] == f"{1 / 101:.3f}"


def test_folds_are_shown_with_their_interval(folded: Path) -> None:
    page = report(folded)
    found = json.loads((folded / "metrics.json").read_text())["folds"]["statistics"]
    interval = f"{found['estimate']['low']:.3f} to {found['estimate']['high']:.3f}"
    assert interval in page.text
    assert f"95 % CI, bootstrap over groups: {interval}" in " ".join(page.text.split())
    per_fold = defaultdict(list)
    for row in read_rows(folded / "folds.csv"):
        if row["head"] == "statistics":
            per_fold[row["fold"]].append(row["right"] == "1")
    found = {
        line[1]: line[4]
        for table in page.tables.values()
        for line in table
        if line[0] == "statistics" and len(line) == 5
    }
    assert {fold: f"{np.mean(correct):.3f}" for fold, correct in per_fold.items()}.items() <= found.items()


def test_mistakes_are_sorted_by_confidence(hostile: Path) -> None:
    rows = [row for row in read_rows(hostile / "predictions.csv") if (row["head"], row["split"]) == ("lstm", "test")]
    wrong = sorted((row for row in rows if row["right"] == "0"), key=lambda row: -float(row["probability"]))
    text = " ".join(report(hostile).text.split("Most confident mistakes")[2].split())
    found = re.findall(r"/(\d+\.mp4) Label .+? with probability ([\d.]+)\. ", text)
    assert wrong
    assert found == [(row["video"].rsplit("/", 1)[1], f"{float(row['probability']):.3f}") for row in wrong[:12]]


def test_the_reliability_table_bins_the_confidences_by_tenths(folded: Path) -> None:
    bins = defaultdict(list)
    for row in read_rows(folded / "folds.csv"):
        if row["head"] == "statistics":
            bins[min(9, int(10 * float(row["probability"])))].append((float(row["probability"]), int(row["right"])))
    expected = [[*(f"{mean:.3f}" for mean in np.mean(bins[key], axis=0)), str(len(bins[key]))] for key in sorted(bins)]
    assert report(folded).tables["reliability"][1:] == expected


def test_a_curve_has_a_point_for_every_epoch(hostile: Path) -> None:
    page = report(hostile)
    lines = [value.split() for tag, name, value in page.attributes if (tag, name) == ("polyline", "points")]
    num_epochs = len(read_rows(hostile / "history.csv"))
    assert [len(line) for line in lines] == [num_epochs] * 4 + [2, len(page.tables["reliability"]) - 1]
    heights = [float(point.split(",")[1]) for point in lines[0]]  # of the training loss, from the top
    losses = [float(row["train_loss"]) for row in read_rows(hostile / "history.csv")]
    assert np.argsort(heights).tolist() == np.argsort(losses)[::-1].tolist()


def test_leaks_are_listed_by_name(hostile: Path, tmp_path: Path) -> None:
    copy = copy_run(hostile, tmp_path / "run")
    columns = "video,split,other,other_split,cosine,same,duplicate_score"
    lines = [columns, "<u>a</u>.mp4,train,b.mp4,test,0.9712,False,17.25", "c.mp4,train,d.mp4,val,1.0,True,0.0"]
    (copy / "leaks.csv").write_text("\n".join(lines))
    page = report(copy)
    found = [line for table in page.tables.values() for line in table if line[-1] in ("yes", "no")]
    assert found == [
        ["<u>a</u>.mp4", "train", "b.mp4", "test", "0.9712", "17.25", "no"],
        ["c.mp4", "train", "d.mp4", "val", "1.0", "", "yes"],
    ]
    assert page.tags["u"] == 0


def test_each_caveat_is_shown_once_before_the_metrics(hostile: Path) -> None:
    text = report(hostile).text.lower()
    warnings = json.loads((hostile / "run.json").read_text())["warnings"]
    assert any("only 6 groups" in warning for warning in warnings)
    for warning in warnings:
        assert text.index(warning.lower()) < text.index("metrics of the model and its baselines")
        assert text.count(warning.lower()) == 1


def test_the_page_describes_the_training(hostile: Path) -> None:
    page = report(hostile)
    document = json.loads((hostile / "run.json").read_text())
    key = document["streams"][0]["key"]
    for fact in (key["backbone"], key["weights"], document["versions"]["torch"], document["grouping"], "hidden_size"):
        assert fact in page.text
    parts = {line[0]: line[1:3] for table in page.tables.values() for line in table if line[0] in ("train", "test")}
    splits = read_rows(hostile / "splits.csv")
    for part, (num_videos, num_groups) in parts.items():
        groups = [row["group"] for row in splits if row["split"] == part]
        assert (int(num_videos), int(num_groups)) == (len(groups), len(set(groups)))


def test_a_group_in_two_subsets_is_counted_once_and_reported(tmp_path: Path) -> None:
    sequences = [make_sequence(f"{number}.mp4", length=4, dim=8, seed=number) for number in range(24)]
    videos = []
    for number in range(24):
        group, split = "alone" if number < 4 else f"g{number % 3}", "test" if number >= 16 else "train"
        videos.append(LabeledVideo(f"{number}.mp4", "ab"[number % 2], split=split, group=group))
    config = TrainConfig(head="mean", device="cpu")
    train(make_store(tmp_path / "store", sequences), videos, tmp_path / "run", config=config)
    page = report(tmp_path / "run")
    assert "4 groups, with the model’s top-1 on each" in page.text
    assert "3 of 4 groups are in more than one subset" in page.text


def test_names_are_text_wherever_they_come_from(hostile: Path) -> None:
    page = report(hostile)
    assert page.open == []
    assert page.tags["script"] == 1
    assert page.tags["i"] == page.tags["b"] == page.tags["img"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for name in (SCRIPT, IMAGE, "<i>0</i>", "{{ 7 * 7 }}"):
        assert name in page.text
    assert "\u202e" not in page.source


def test_the_page_names_nothing_outside_itself(hostile: Path) -> None:
    page = report(hostile)
    addresses = [
        value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "xlink:href")
    ]
    assert addresses
    assert all(re.match(r"#|data:image/", address) for address in addresses)
    assert not re.search(
        r"https?:|//\w|url\(|@import|<link", page.source.split("</style>")[0] + page.source.split("<script>")[1]
    )
    policy = next(
        value for tag, name, value in page.attributes if (tag, name) == ("meta", "content") and "src" in value
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_headings_captions_and_labels_are_there_for_screen_readers(folded: Path) -> None:
    page = report(folded)
    assert page.tags["h1"] == page.tags["main"] == 1
    assert page.tags["caption"] == page.tags["table"] - 1  # the confusion matrix has its region's label
    assert {value for tag, name, value in page.attributes if (tag, name) == ("html", "lang")} == {"en"}
    described = [name for tag, name, _ in page.attributes if tag == "svg" and name in ("aria-label", "aria-hidden")]
    assert len(described) == page.tags["svg"]


def test_frames_of_the_mistakes_are_shown_where_the_videos_are(hostile: Path, tmp_path: Path) -> None:
    rows = [row for row in read_rows(hostile / "predictions.csv") if (row["head"], row["split"]) == ("lstm", "test")]
    wrong = sorted((row for row in rows if row["right"] == "0"), key=lambda row: -float(row["probability"]))
    there, broken, missing = [row["video"] for row in wrong[:3]]
    write_video(tmp_path / there, 20, first_number=7)
    (tmp_path / broken).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / broken).write_text("no video")
    result = run("report", hostile, "-o", tmp_path / "page.html", "--videos", tmp_path)
    assert result.exit_code == 3, result.output
    assert "1 of them with frames" in result.stdout
    page = Page(tmp_path / "page.html")
    text = " ".join(page.text.split())
    for video, problem in ((there, "its size differs"), (broken, "not a media file"), (missing, "not found in")):
        found = text.split(shown(video))[-1] if problem != "not found in" else text.split(shown(video))[1]
        assert problem in found.split(".mp4")[0]
        assert shown(video) in result.stderr.replace("\\\\", "\\")
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 12  # as a mistake, and as a video that is not typical of its class
    assert all(alt.startswith(shown(there)) for tag, name, alt in page.attributes if (tag, name) == ("img", "alt"))


def test_a_run_without_an_evaluation_set_has_a_page(tmp_path: Path) -> None:
    config = TrainConfig(head="mean", motion="raw", val_fraction=0.0, test_fraction=0.0, device="cpu")
    page = report(train_run(tmp_path, ("a", "b"), 24, config))
    assert "This run has no metrics" in page.text
    assert "per-class" not in page.tables


def test_a_run_with_only_a_validation_set_has_a_caveat(tmp_path: Path) -> None:
    config = TrainConfig(head="mean", motion="raw", test_fraction=0.0, device="cpu")
    page = report(train_run(tmp_path, ("a", "b"), 24, config))
    assert "no test set was kept" in page.text.split("Metrics of the model and its baselines")[0]


def copy_run(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_model_that_the_majority_class_beats_has_a_headline(hostile: Path, tmp_path: Path) -> None:
    copy = copy_run(hostile, tmp_path / "run")
    document = json.loads((copy / "run.json").read_text())
    for metrics in document["metrics"]["test"].values():
        metrics["top1"] = 0.0
    (copy / "run.json").write_text(json.dumps(document))
    splits = read_rows(copy / "splits.csv")
    label, _ = Counter(row["label"] for row in splits).most_common(1)[0]
    test_labels = [row["label"] for row in splits if row["split"] == "test"]
    share = test_labels.count(label) / len(test_labels)
    verdict = f"The majority class “{shown(label)}” ({share:.3f}) beats lstm (0.000): do not rely on this model."
    assert verdict in report(copy).text


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("run.json", None, "no run: it has no run.json"),
        ("predictions.csv", None, "predictions.csv cannot be read"),
        (
            "predictions.csv",
            "video,label\na,b\n",
            "(line 2: no column 'split'); train the run again",
        ),
        ("splits.csv", None, "splits.csv cannot be read"),
        ("history.csv", b"epoch\n\xff\xfe\n", "history.csv cannot be read"),
        (
            "history.csv",
            "epoch,train_loss\n1,much\n",
            "history.csv cannot be read (line 2: train_loss 'much'",
        ),
    ],
)
def test_an_incomplete_run_is_reported_in_one_line(
    hostile: Path, tmp_path: Path, name: str, content: str | bytes | None, found: str
) -> None:
    copy = copy_run(hostile, tmp_path / "run")
    (copy / "report.html").unlink(missing_ok=True)
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run("report", copy)
    assert result.exit_code == 1
    assert found in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("output", "exit_code", "found"),
    [
        (".", 2, "is a folder"),
        ("no/such/folder.html", 1, "the report cannot be written"),
        ("/dev/null", 1, "the report cannot be written"),
    ],
)
def test_an_output_that_cannot_be_written_is_reported_in_one_line(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, exit_code: int, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("report", hostile, "-o", output)
    assert result.exit_code == exit_code
    assert found in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    assert Path("/dev/null").is_char_device()


def test_a_folder_of_videos_that_is_not_there_is_wrong_usage(hostile: Path, tmp_path: Path) -> None:
    result = run("report", hostile, "-o", tmp_path / "page.html", "--videos", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "no such file or folder" in result.stderr


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.2, 4.9], (0, 1, 2, 3, 4, 5)),
        ([0.013, 0.04], (0, 0.01, 0.02, 0.03, 0.04)),
        ([100, 730], (0, 200, 400, 600, 800)),
        ([0.0], (0, 1)),
    ],
)
def test_an_axis_runs_between_round_numbers(values: list[float], ticks: tuple[float, ...]) -> None:
    assert axis_over("loss", values, low=0).ticks == pytest.approx(ticks)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def column(browser: Browser, number: int) -> list[str]:
    """The texts of a column of the per-class table, as the browser has it."""
    cells = f"[...document.querySelectorAll('#per-class tbody tr')].map((row) => row.cells[{number}].textContent)"
    return list(browser.evaluate(cells))


def test_in_chromium_nothing_is_run_fetched_or_refused(browser: Browser, hostile: Path) -> None:
    report(hostile)
    page = hostile.parent / "page.html"
    browser.open(page)
    requests = [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.happened("Page.javascriptDialogOpening") == []
    assert browser.happened("Log.entryAdded") == []
    assert browser.happened("Runtime.exceptionThrown") == []
    assert SCRIPT in column(browser, 0)


def test_chromium_refuses_what_a_script_in_the_page_would_do(browser: Browser, hostile: Path, tmp_path: Path) -> None:
    """Were a name ever let through, the page's own policy would stop it."""
    report(hostile)
    source = (hostile.parent / "page.html").read_text(encoding="utf-8")
    pierced = tmp_path / "pierced.html"
    pierced.write_text(
        source.replace("<main>", f"<main>{SCRIPT}<img src='http://127.0.0.1:9/x.png'>"), encoding="utf-8"
    )
    browser.open(pierced)
    assert browser.happened("Page.javascriptDialogOpening") == []
    refused = [event["entry"]["text"] for event in browser.happened("Log.entryAdded")]
    assert any("script" in text for text in refused)
    assert any("127.0.0.1:9" in text and "Content Security Policy" in text for text in refused)


def test_in_chromium_the_table_of_classes_sorts(browser: Browser, folded: Path) -> None:
    report(folded)
    page = folded.parent / "page.html"
    recalls = {
        row["label"]: row["recall"]
        for row in json.loads((folded / "metrics.json").read_text())["folds"]["statistics"]["per_class"]
    }
    browser.open(page)
    assert column(browser, 0) == sorted(recalls)
    browser.evaluate("document.querySelector('#per-class [data-key=recall] button').click()")
    assert column(browser, 3) == [f"{recall:.3f}" for recall in sorted(recalls.values())]
    browser.evaluate("document.querySelector('#per-class [data-key=recall] button').click()")
    assert column(browser, 3) == [f"{recall:.3f}" for recall in sorted(recalls.values(), reverse=True)]
    assert (
        browser.evaluate("document.querySelector('[aria-sort]').dataset.key + location.hash") == "recall#sort=-recall"
    )
    browser.open(page, fragment="#sort=-class")
    assert column(browser, 0) == sorted(recalls, reverse=True)


def test_in_chromium_the_page_is_complete_without_javascript(browser: Browser, folded: Path) -> None:
    report(folded)
    browser.open(folded.parent / "page.html", script=False)
    text = browser.evaluate("document.body.innerText")
    for heading in ("Cross-validation", "Confusion matrix", "Calibration"):
        assert heading in text
    assert browser.evaluate("document.querySelectorAll('#per-class tbody tr').length") == 101
    assert browser.evaluate("document.querySelectorAll('button').length") == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_in_chromium_the_page_fits_a_phone_and_a_desk(
    browser: Browser, folded: Path, hostile: Path, width: int
) -> None:
    for path in (folded, hostile):
        report(path)
        browser.open(path.parent / "page.html", width=width)
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        picture = Image.open(io.BytesIO(browser.screenshot()))
        assert picture.size == (width, 800)
        colours = picture.convert("RGB").getcolors(2**24)
        assert colours is not None
        assert len(colours) > 50


def test_in_chromium_the_class_names_of_the_matrix_stay_visible(browser: Browser, folded: Path) -> None:
    report(folded)
    browser.open(folded.parent / "page.html", width=360)
    places = browser.evaluate(
        """(() => {
        const box = document.querySelector(".matrix");
        box.scrollTo(700, 900);
        const outer = box.getBoundingClientRect();
        const row = box.querySelectorAll("tbody th")[60].getBoundingClientRect();
        const column = box.querySelectorAll("thead th")[40].getBoundingClientRect();
        return [box.scrollLeft, box.scrollTop, row.left - outer.left, column.top - outer.top];
    })()"""
    )
    assert places[:2] == [700, 900]
    assert places[2:] == pytest.approx([1, 1], abs=1)
