"""The history and the checkpoints of a fit: written, read back, and refused where they are of another training."""

import csv
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainings import QUICK, rising_and_falling
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import RunError
from vidpipe.heads.members import Member
from vidpipe.runs.tables import Epoch
from vidpipe.training import checkpoints
from vidpipe.training.checkpoints import Interrupted, Journal, describe
from vidpipe.training.fit import Checkpoint
from vidpipe.training.selection import HeadChoice

MEMBER = Member(("resnet50",), "lstm")
HISTORY = [Epoch(1, 0.7, 0.5, 0.8, 0.4), Epoch(2, 0.5, 0.75, 0.6, 0.6, member=1)]
STATE = Checkpoint(
    member=1,
    best_loss=0.6,
    best_epoch=2,
    history=HISTORY,
    tensors={"head.weight": torch.arange(6.0).view(2, 3), "optimiser.0.step": torch.tensor(7.0)},
)


@pytest.fixture
def about(tmp_path: Path) -> dict[str, Any]:
    store, videos = rising_and_falling(tmp_path, 8)
    dataset = SequenceDataset(store, videos, ["falling", "rising"])
    subsets = {"train": dataset.select(dataset.video_ids[:6]), "val": dataset.select(dataset.video_ids[6:])}
    return describe(replace(QUICK, threads=3), subsets, "lstm, by 3 folds", None)


@pytest.fixture(autouse=True)
def _always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)


def write(folder: Path, about: dict[str, Any], suffix: str = "") -> None:
    with closing(Journal(folder, suffix, about=about, resume=False, tensorboard=False)) as journal:
        writer = journal.open_member(MEMBER)
        for epoch in HISTORY:
            writer.on_epoch(epoch)
        writer.on_checkpoint(lambda: STATE)


def resume(folder: Path, about: dict[str, Any], suffix: str = "") -> Checkpoint | None:
    with closing(Journal(folder, suffix, about=about, resume=True, tensorboard=False)) as journal:
        return journal.open_member(MEMBER).resumed


def test_a_checkpoint_is_read_back_as_it_was_written(tmp_path: Path, about: dict[str, Any]) -> None:
    write(tmp_path, about)
    found = resume(tmp_path, about)
    assert found is not None
    assert replace(found, tensors={}) == replace(STATE, tensors={})
    assert found.tensors.keys() == STATE.tensors.keys()
    for name, tensor in STATE.tensors.items():
        assert torch.equal(found.tensors[name], tensor)


def test_a_resumed_history_begins_with_the_epochs_of_the_checkpoint(tmp_path: Path, about: dict[str, Any]) -> None:
    write(tmp_path, about)
    before = (tmp_path / "history.csv").read_bytes()
    resume(tmp_path, about)
    assert (tmp_path / "history.csv").read_bytes() == before
    with (tmp_path / "history.csv").open() as stream:
        assert [row["train_loss"] for row in csv.DictReader(stream)] == ["0.7", "0.5"]


def test_without_a_checkpoint_a_fit_starts_from_the_beginning(tmp_path: Path, about: dict[str, Any]) -> None:
    assert resume(tmp_path, about) is None
    assert Interrupted.find(tmp_path) is None


def test_the_first_fit_and_the_refit_have_files_of_their_own(tmp_path: Path, about: dict[str, Any]) -> None:
    write(tmp_path, about, "_refit")
    assert resume(tmp_path, about) is None
    assert resume(tmp_path, about, "_refit") is not None
    assert {"checkpoint_refit.safetensors", "history_refit.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_a_checkpoint_is_written_only_when_the_last_one_is_old_enough(
    tmp_path: Path, about: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 3600.0)
    write(tmp_path, about)
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize("change", [{"videos": ["other.mp4"]}, {"choice": ""}, {"refit_epochs": 4}])
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, about: dict[str, Any], change: dict[str, Any]
) -> None:
    write(tmp_path, about)
    with pytest.raises(RunError, match=r"other settings or videos; .* or start over with --overwrite"):
        resume(tmp_path, {**about, **change})


@pytest.mark.parametrize("damage", ["cut off", "no metadata"])
def test_a_damaged_checkpoint_is_refused_with_the_remedy(tmp_path: Path, about: dict[str, Any], damage: str) -> None:
    write(tmp_path, about)
    path = tmp_path / "checkpoint.safetensors"
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:50])
    else:
        save_file(load_file(path), path)
    for read in (lambda: resume(tmp_path, about), lambda: Interrupted.find(tmp_path)):
        with pytest.raises(RunError, match=r"checkpoint\.safetensors: cannot be read .*; delete it to start over"):
            read()


def test_the_head_and_the_threads_of_an_interrupted_training_are_found(tmp_path: Path, about: dict[str, Any]) -> None:
    write(tmp_path, about)
    assert Interrupted.find(tmp_path) == Interrupted(HeadChoice("lstm", "lstm, by 3 folds"), threads=3)


def test_a_checkpoint_that_is_being_written_does_not_replace_the_last_one(
    tmp_path: Path, about: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, about)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def stop(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, about)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
