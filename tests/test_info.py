"""What `info` says of a file that it cannot read, and of a run that is not to be relied on."""

from pathlib import Path

import numpy as np
import pytest

from tests.commands import run
from tests.media import write_sound, write_video
from tests.pages import Page
from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.records import LabeledVideo
from vidpipe.runs.run import Run
from vidpipe.stages.train import train


def _sound(folder: Path) -> Path:
    return write_sound(folder / "sound.wav")


def _text(folder: Path) -> Path:
    (folder / "notes.mp4").write_text("no video")
    return folder / "notes.mp4"


def _empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def _cut(folder: Path) -> Path:
    whole = write_video(folder / "whole.mkv", 30).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 4])
    return folder / "cut.mkv"


def _nowhere(folder: Path) -> Path:
    return folder / "nowhere.mp4"


def _below_a_file(folder: Path) -> Path:
    return _text(folder) / "video.mp4"


def _name_too_long(folder: Path) -> Path:
    return folder / ("x" * 300)


def _folder(folder: Path) -> Path:
    return folder


def _damaged_run(folder: Path) -> Path:
    (folder / "run.json").write_text("{")
    return folder


def _damaged_store(folder: Path) -> Path:
    (folder / "store.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "make",
    [
        _sound,
        _text,
        _empty,
        _cut,
        _nowhere,
        _below_a_file,
        _name_too_long,
        _folder,
        _damaged_run,
        _damaged_store,
    ],
)
def test_every_error_names_the_file(tmp_path: Path, make: object) -> None:
    assert callable(make)
    path = make(tmp_path)
    result = run("info", path)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith(f"Error: {path}: ")
    assert "a bug in vidpipe" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def beaten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose head sees nothing but noise, and whose baseline sees the class."""
    folder, random = tmp_path_factory.mktemp("beaten"), np.random.default_rng(0)
    sequences, videos = [], []
    for number in range(40):
        sequence = make_sequence(f"{'ab'[number % 2]}/{number}.mp4", length=6, dim=4, seed=number)
        sequence.features[:] = random.standard_normal((6, 4)) + (number % 2) * 10
        sequences.append(sequence)
        videos.append(LabeledVideo(sequence.video_id, "ab"[number % 2]))
    config = TrainConfig(head="statistics", motion="centred", unit_frames=False, device="cpu")
    train(make_store(folder / "store", sequences), videos, folder / "run", config=config)
    return folder / "run"


def test_a_model_that_the_baseline_beats_is_a_headline_in_the_report_and_in_info(beaten: Path) -> None:
    top1 = {head: figures["top1"] for head, figures in Run.open(beaten).metrics["test"].items()}
    assert top1["statistics"] < top1["mean"] == 1.0
    message = f"he baseline (1.000) beats statistics ({top1['statistics']:.3f}): do not rely on this model"
    assert f"t{message}" in run("info", beaten).stdout
    assert run("report", beaten, "-o", beaten.parent / "page.html").exit_code == 0
    page = Page(beaten.parent / "page.html")
    header = page.source[page.source.index("<header>") : page.source.index("</header>")]
    assert f"T{message}" in header
    assert header.index("beats") < header.index("top-1")


@pytest.mark.slow
def test_a_model_that_beats_its_baseline_has_no_such_headline(beaten: Path, tmp_path: Path) -> None:
    store = beaten.parent / "store"
    assert run("train", store, "-o", tmp_path / "run", "--motion", "raw", "--device", "cpu").exit_code == 0
    assert "do not rely" not in run("info", tmp_path / "run").stdout
    assert run("report", tmp_path / "run").exit_code == 0
    assert "do not rely" not in (tmp_path / "run/report.html").read_text()
