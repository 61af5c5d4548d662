"""A run folder holds the old run or the new one, whatever happens during a training; nothing else is replaced."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.run_kills import kill_often
from tests.commands import run
from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.runs import run_folder
from vidpipe.runs.run import Run
from vidpipe.stages.train import train
from vidpipe.training import checkpoints

CONFIG = TrainConfig(head="mean", device="cpu")
LSTM = TrainConfig(head="lstm", motion="raw", hidden_size=4, epochs=4, device="cpu")
Made = tuple[FeatureStore, list[LabeledVideo]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    sequences = [make_sequence(f"{label}/{n}.mp4", 4, dim=4, seed=n) for label in "ab" for n in range(12)]
    videos = [LabeledVideo(sequence.video_id, sequence.video_id[0]) for sequence in sequences]
    return make_store(tmp_path_factory.mktemp("made") / "store", sequences), videos


class BrokenOffError(Exception):
    """Ends a training early."""


def break_off(head: str, epoch: object) -> None:
    if head == "lstm" and epoch.epoch == 2:  # type: ignore[attr-defined]
        raise BrokenOffError


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills as the bench does")
def test_a_killed_training_leaves_the_old_run_or_the_new_one(tmp_path: Path) -> None:
    outcome = kill_often(4, 1, tmp_path)
    assert outcome.num_kills == 4
    assert outcome.wrong == []


def test_an_interrupted_training_leaves_the_old_run_as_it_was_and_resume_replaces_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    path = tmp_path / "run"
    train(*made, path, config=CONFIG)
    (path / "report.html").write_text("of the old run")
    before = files_of(path)
    with pytest.raises(BrokenOffError):
        train(*made, path, config=LSTM, overwrite=True, on_epoch=break_off)
    assert files_of(path) == before
    assert (tmp_path / "run.training/checkpoint.safetensors").exists()
    with pytest.raises(RunError, match=r"an interrupted training is in run\.training/; continue it with --resume"):
        train(*made, path, config=LSTM)
    train(*made, path, config=LSTM, resume=True)
    train(*made, tmp_path / "whole", config=LSTM)
    assert files_of(path) == files_of(tmp_path / "whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", "whole"}


def test_an_unfinished_run_cannot_be_opened(made: Made, tmp_path: Path) -> None:
    seen = []

    def look(head: str, epoch: object) -> None:
        result = run("info", tmp_path / "run")
        seen.append((result.exit_code, (tmp_path / "run").exists()))
        with pytest.raises((RunError, UsageError), match=r"unfinished training is in .*run\.training"):
            Run.open(tmp_path / "run")

    train(*made, tmp_path / "run", config=CONFIG, on_epoch=look)
    assert seen
    assert all(code != 0 and not exists for code, exists in seen)


def test_a_replacement_killed_between_its_two_renames_is_finished_by_the_next_reader(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, training = tmp_path / "run", tmp_path / "run.training"
    for name, config in (("run", CONFIG), ("new", LSTM)):
        train(*made, tmp_path / name, config=config)
    training.mkdir()
    path.rename(training / "old")
    (tmp_path / "new").rename(training / "new")
    expected = files_of(training / "new")
    (training / "training.json").write_text(json.dumps({"format": "vidpipe-training", "replaces": "0" * 64}))
    assert run("info", path).exit_code == 0
    assert files_of(path) == expected
    with pytest.raises(RunError, match="training is done"):
        train(*made, path, config=LSTM, resume=True)
    assert not training.exists()


def test_a_file_system_that_cannot_exchange_folders_gets_the_same_run(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_exchange", lambda one, other: False)
    for config in (CONFIG, LSTM):
        train(*made, tmp_path / "run", config=config, overwrite=True)
    train(*made, tmp_path / "new", config=LSTM)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "new")
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", "new"}


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_two_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not run_folder._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["other"]
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["one"]


def test_only_a_run_or_an_empty_folder_is_replaced(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    train(*made, folder, config=CONFIG)
    (folder / "holiday.jpg").write_text("not vidpipe's")
    with pytest.raises(
        UsageError, match=r"contains files that are not part of a run: holiday\.jpg; give another folder"
    ):
        train(*made, folder, config=CONFIG, overwrite=True)
    for name in ("run.json", "metrics.json"):
        (folder / name).unlink()
    with pytest.raises(
        UsageError, match=r"contains other files and no run: config\.toml, confusion\.png, .* and \d more"
    ):
        train(*made, folder, config=CONFIG, overwrite=True)
    assert (folder / "holiday.jpg").exists()
    assert not (tmp_path / "photos.training").exists()


def test_a_training_folder_with_other_files_is_not_emptied(made: Made, tmp_path: Path) -> None:
    (tmp_path / "run.training").mkdir()
    (tmp_path / "run.training/plan.txt").write_text("not vidpipe's")
    with pytest.raises(UsageError, match=r"run\.training: training needs this folder, but it contains other files"):
        train(*made, tmp_path / "run", config=CONFIG, overwrite=True)
    assert (tmp_path / "run.training/plan.txt").exists()


@pytest.mark.parametrize(("where", "how"), [("store", "is"), ("store/run", "lies in"), (".", "contains")])
def test_a_run_and_a_store_cannot_share_a_folder(made: Made, tmp_path: Path, where: str, how: str) -> None:
    store = make_store(tmp_path / "place/store", [made[0][video.video_id] for video in made[1]])
    before = sorted(tmp_path.rglob("*"))
    result = run("train", store.path, "-o", tmp_path / "place" / where, "--overwrite", "--head", "mean")
    assert result.exit_code == 2
    assert f"{how} the store" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_training_into_the_same_folder_is_refused(made: Made, tmp_path: Path) -> None:
    finished = []

    def train_again(head: str, epoch: object) -> None:
        command = [sys.executable, "-m", "vidpipe", "train", str(made[0].path), "-o", str(tmp_path / "run")]
        finished.append(subprocess.run([*command, "--overwrite", "--resume"], capture_output=True, text=True))

    train(*made, tmp_path / "run", config=replace(CONFIG, refit=False), on_epoch=train_again)
    assert finished[0].returncode == 1
    assert f"another vidpipe process trains this run (pid {os.getpid()} on " in finished[0].stderr
    assert Run.open(tmp_path / "run").config.head == "mean"
    assert {entry.name for entry in tmp_path.iterdir()} == {"run"}


def test_the_working_folder_is_not_replaced(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the working folder"):
        train(*made, Path("."), config=CONFIG)


def test_files_of_a_run_and_checkpoints_obey_the_umask(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    before = os.umask(0o027)
    try:
        with pytest.raises(BrokenOffError):
            train(*made, tmp_path / "run", config=LSTM, tensorboard=True, on_epoch=break_off)
        left = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run.training").iterdir()}
        train(*made, tmp_path / "run", config=LSTM, resume=True)
        assert run("report", tmp_path / "run").exit_code == 0
        assert run("store", "export", made[0].path, "-o", tmp_path / "exported", "--format", "h5").exit_code == 0
    finally:
        os.umask(before)
    assert left["checkpoint.safetensors"] == 0o640
    made_files = [*(tmp_path / "run").iterdir(), *(tmp_path / "exported").iterdir()]
    assert {path.name: path.stat().st_mode & 0o777 for path in made_files} == {
        path.name: 0o750 if path.is_dir() else 0o640 for path in made_files
    }


PROGRAM = """
from vidpipe.training import checkpoints
from vidpipe.cli import main
checkpoints.SECONDS_BETWEEN = {seconds}
main()
"""


@pytest.mark.parametrize(
    ("seconds", "then"),
    [(0.0, "with --resume continues from there"), pytest.param(99.0, "starts over", marks=pytest.mark.slow)],
)
def test_ctrl_c_reports_the_progress_of_the_training_and_how_to_continue(
    made: Made, tmp_path: Path, seconds: float, then: str
) -> None:
    arguments = ["train", str(made[0].path), "-o", str(tmp_path / "run"), "--head", "lstm", "--device", "cpu"]
    settings = ["--epochs", "100000", "--patience", "100000", "--hidden-size", "4", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(seconds=seconds), *arguments, *settings],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    assert process.stderr is not None
    deadline = time.monotonic() + 60
    history = tmp_path / "run.training/history.csv"
    while time.monotonic() < deadline and not (history.exists() and len(history.read_text().splitlines()) > 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped after epoch " in stderr
    assert " of lstm" in stderr
    assert then in stderr
    assert "Traceback" not in stderr
    assert "Aborted" not in stderr
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run.training").exists() == (seconds == 0.0)


def test_resume_without_a_checkpoint_warns_that_it_starts_from_the_beginning(made: Made, tmp_path: Path) -> None:
    result = run("train", made[0].path, "-o", tmp_path / "run", "--head", "mean", "--resume")
    assert result.exit_code == 0, result.output
    assert "no checkpoint to resume from; the training starts from the beginning" in result.stderr
