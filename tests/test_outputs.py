"""What a command's output may replace: an older output of the same kind, and nothing else."""

from pathlib import Path

import pytest

from tests.commands import run
from tests.stores import make_sequence, make_store
from vidpipe.cli.outputs import check_replaceable
from vidpipe.config import TrainConfig
from vidpipe.errors import UsageError
from vidpipe.records import LabeledVideo
from vidpipe.stages.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`store/`, and `run/`, which was not refitted on its test set."""
    folder = tmp_path_factory.mktemp("outputs")
    sequences = [make_sequence(f"{label}/{n}.mp4", 4, dim=8, seed=n) for label in "ab" for n in range(8)]
    videos = [LabeledVideo(sequence.video_id, sequence.video_id[0]) for sequence in sequences]
    config = TrainConfig(head="mean", refit=False, device="cpu")
    train(make_store(folder / "store", sequences), videos, folder / "run", config=config)
    return folder


def test_a_report_does_not_replace_the_model_or_any_other_file(made: Path, tmp_path: Path) -> None:
    for path in (made / "run/model.safetensors", made / "run/confusion.png", tmp_path / "own.html"):
        content = path.read_bytes() if path.exists() else b"<html>a page of the user's"
        path.write_bytes(content)
        result = run("report", made / "run", "-o", path)
        assert result.exit_code == 2
        assert f"{path}: exists and is not a report written by vidpipe" in result.stderr
        assert path.read_bytes() == content


def test_a_report_replaces_an_older_report_and_an_empty_file(made: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.touch()
    for _ in range(2):
        assert run("report", made / "run", "-o", page).exit_code == 0
        assert page.read_text().startswith("<!doctype html>")


def test_a_plot_replaces_a_plot_of_vidpipe_and_no_other_picture(made: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    photo = (tmp_path / "photo.png").read_bytes()
    result = run("evaluate", made / "run", made / "store", "--plot", tmp_path / "photo.png")
    assert result.exit_code == 2
    assert "is not a confusion matrix written by vidpipe" in result.stderr
    assert (tmp_path / "photo.png").read_bytes() == photo
    for _ in range(2):
        assert run("evaluate", made / "run", made / "store", "--plot", tmp_path / "plot.png").exit_code == 0


def test_an_export_into_a_folder_that_holds_something_is_refused(made: Path) -> None:
    before = sorted(path.name for path in (made / "run").iterdir())
    result = run("store", "export", made / "store", "-o", made / "run")
    assert result.exit_code != 0
    assert sorted(path.name for path in (made / "run").iterdir()) == before


def test_a_folder_is_no_file_to_write_and_a_device_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_replaceable(tmp_path, "a table", is_own=lambda first: False)
    check_replaceable(Path("/dev/null"), "a table", is_own=lambda first: False)
    check_replaceable(tmp_path / "new", "a table", is_own=lambda first: False)
