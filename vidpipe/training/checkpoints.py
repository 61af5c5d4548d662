"""What a training writes while it runs: history.csv, TensorBoard events, and the checkpoint that --resume continues.

RUN.training/              see `vidpipe.runs.run_folder`
  history.csv              a line for each epoch of each member
  checkpoint*.safetensors  one for each member: weights and optimiser; the metadata holds the settings and the epochs
                           so far; written aside and renamed, so that it is always complete
  *_refit.*                the same for the refit to all videos
  tensorboard/             with --tensorboard
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import Subsets
from vidpipe.errors import RunError, UsageError
from vidpipe.heads.members import Member
from vidpipe.runs.tables import Epoch, RowWriter
from vidpipe.training.fit import Checkpoint
from vidpipe.training.fusion import label_epoch
from vidpipe.training.selection import HeadChoice

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "SECONDS_BETWEEN",
    "Interrupted",
    "Journal",
    "MemberJournal",
    "check_about",
    "describe",
    "read_checkpoint",
    "write_checkpoint",
]

SECONDS_BETWEEN = 10.0
"""Time between two checkpoints: a crash loses at most so much training."""


class Journal:
    """Writes the history, the TensorBoard events and the checkpoints of one fit of all members.

    Args:
        folder: the training's folder.
        suffix: a part of the files' names: "" or "_refit".
        about: what the training depends on, from `describe`; a checkpoint with another value is refused.
        resume: read the folder's checkpoints.
        tensorboard: write TensorBoard events.

    Raises:
        UsageError: TensorBoard is not installed.
        RunError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, suffix: str = "", *, about: Mapping[str, Any], resume: bool, tensorboard: bool
    ) -> None:
        self._folder, self._suffix, self._about, self._resume = folder, suffix, about, resume
        self._last_seconds = time.monotonic()
        self._num_members = 0
        if resume:
            self._check_all()
        self._events = _summary_writer(folder / f"tensorboard{suffix}") if tensorboard else None
        try:
            self._stream = (folder / f"history{suffix}.csv").open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{folder}: the run cannot be written ({error})") from error
        self._rows = RowWriter(self._stream)

    def _check_all(self) -> None:
        """Check that every checkpoint of the fit is of this training, whatever member it is of."""
        first = f"checkpoint{self._suffix}"
        for path in sorted(self._folder.glob(f"checkpoint{self._suffix}*.safetensors")):
            if path.stem.removeprefix(f"checkpoint{self._suffix}").strip("_").isdigit() or path.stem == first:
                about, _, _ = read_checkpoint(path)
                check_about(path, about, {**self._about, "member": about.get("member")})

    def open_member(self, member: Member) -> "MemberJournal":
        """Begin with the next member.

        Args:
            member: the member; a training fits its members in the same order each time.

        Returns:
            Its part of the journal, with its epochs so far in history.csv.

        Raises:
            RunError: its checkpoint cannot be read, or is of another training.
        """
        number = f"_{self._num_members}" if self._num_members else ""
        self._num_members += 1
        path = self._folder / f"checkpoint{self._suffix}{number}.safetensors"
        about = json.dumps({**self._about, "member": member.name}, sort_keys=True)
        return MemberJournal(self, member, path, about, resume=self._resume)

    def write_row(self, epoch: Epoch) -> None:
        """Add an epoch to history.csv."""
        self._rows.write(epoch)
        self._stream.flush()

    def write_events(self, epoch: Epoch) -> None:
        """Add an epoch to the TensorBoard events."""
        for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
            value = getattr(epoch, name)
            if self._events is not None and value is not None:
                self._events.add_scalar(f"{name}/{epoch.stream}/{epoch.head}/{epoch.member}", value, epoch.epoch)

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether the last checkpoint is ten seconds old."""
        return time.monotonic() - self._last_seconds >= SECONDS_BETWEEN

    def note_checkpoint(self) -> None:
        """Note that a checkpoint is written now."""
        self._last_seconds = time.monotonic()

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._events is not None:
            self._events.close()


class MemberJournal:
    """One member's part of a journal; see `Journal.open_member`."""

    resumed: Checkpoint | None
    """The checkpoint to continue from, if there is one."""

    def __init__(self, journal: Journal, member: Member, path: Path, about: str, *, resume: bool) -> None:
        self._journal, self._member, self._path, self._about = journal, member, path, about
        self._make_last: Callable[[], Checkpoint] | None = None
        try:
            self.resumed = self._read() if resume else None
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error})") from error
        for epoch in self.resumed.history if self.resumed else ():
            journal.write_row(label_epoch(epoch, member))

    def on_epoch(self, epoch: Epoch) -> None:
        """Add an epoch to history.csv and to the TensorBoard events."""
        labelled = label_epoch(epoch, self._member)
        self._journal.write_row(labelled)
        self._journal.write_events(labelled)

    def on_checkpoint(self, make: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint if the last one is ten seconds old."""
        self._make_last = make
        if self._journal.is_checkpoint_due:
            self._write(make())

    def finish(self) -> None:
        """Write the last checkpoint of a finished fit, if the last one written is ten seconds old."""
        if self._make_last is not None and self._journal.is_checkpoint_due:
            self._write(self._make_last())
        self._make_last = None

    def _write(self, state: Checkpoint) -> None:
        numbers = {"member": state.member, "best_loss": state.best_loss, "best_epoch": state.best_epoch}
        progress = json.dumps({**numbers, "history": [dataclasses.asdict(epoch) for epoch in state.history]})
        write_checkpoint(self._path, self._about, progress, state.tensors)
        self._journal.note_checkpoint()

    def _read(self) -> Checkpoint | None:
        if not self._path.exists():
            return None
        about, progress, tensors = read_checkpoint(self._path)
        check_about(self._path, about, json.loads(self._about))
        history = [Epoch(**row) for row in progress["history"]]
        return Checkpoint(**{**progress, "history": history}, tensors=tensors)


def write_checkpoint(path: Path, about: str, progress: str, tensors: "Mapping[str, Tensor]") -> None:
    """Write a checkpoint aside, and rename it.

    Args:
        path: the file.
        about: what the training depends on, as JSON.
        progress: how far it is, as JSON.
        tensors: by name.

    Raises:
        OSError: the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    aside = path.with_suffix(".partial")
    aside.write_bytes(save(copies, {"about": about, "progress": progress}))
    aside.replace(path)


def check_about(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that a checkpoint is of this training.

    Args:
        path: the checkpoint, for the message.
        found: what its training depends on.
        expected: what this one depends on.

    Raises:
        RunError: they differ.
    """
    if found != json.loads(json.dumps(expected)):
        raise RunError(
            f"{path}: left by a training with other settings or videos; "
            "give the same settings and labels, or start over with --overwrite"
        )


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, "Tensor"]]:
    """Read what `write_checkpoint` wrote.

    Args:
        path: the file.

    Returns:
        What the training depends on, its progress, and its tensors.

    Raises:
        RunError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return json.loads(metadata["about"]), json.loads(metadata["progress"]), tensors
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete it to start over") from error


@dataclass(frozen=True)
class Interrupted:
    """What an interrupted training had decided, and --resume keeps."""

    choice: HeadChoice
    threads: int

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Read it from a training's folder.

        Args:
            folder: the training's folder.

        Returns:
            The decisions; None without a checkpoint.

        Raises:
            RunError: the checkpoint cannot be read.
        """
        paths = sorted(folder.glob("checkpoint*.safetensors"))
        if not paths:
            return None
        about, _, _ = read_checkpoint(paths[0])
        return cls(HeadChoice(about["config"]["head"], about["choice"]), about["config"]["threads"])


def _summary_writer(folder: Path) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard: pip install 'vidpipe[tensorboard]' first") from error
    return SummaryWriter(str(folder))


def describe(
    config: TrainConfig, subsets: Subsets, choice: str, refit_epochs: Mapping[str, int] | None
) -> dict[str, Any]:
    """Describe what a fit depends on, for `Journal`.

    Args:
        config: the settings.
        subsets: `train` and `val`.
        choice: the reason for the head that --head auto chose; empty where the user named the head.
        refit_epochs: by member, the number of epochs of a refit; None for the first fit.

    Returns:
        Plain values, for JSON.
    """
    video_ids = [*subsets["train"].video_ids, "", *subsets["val"].video_ids]
    return {
        "config": dataclasses.asdict(config),
        "videos": video_ids,
        "streams": subsets["train"].streams,
        "choice": choice,
        "refit_epochs": refit_epochs,
    }
