"""What a training writes while it runs: history.csv, TensorBoard events, and the checkpoint that --resume continues.

RUN.training/              see `vidpipe.runs.run_folder`
  history.csv              a line for each epoch
  checkpoint.safetensors   weights and optimiser; the metadata holds the settings and the epochs so far
                           written aside and renamed, so that it is always complete
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
from vidpipe.runs.tables import Epoch, RowWriter, row_cells
from vidpipe.training.fit import Checkpoint
from vidpipe.training.selection import HeadChoice

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["SECONDS_BETWEEN", "Interrupted", "Journal", "describe"]

SECONDS_BETWEEN = 10.0
"""Time between two checkpoints: a crash loses at most so much training."""


class Journal:
    """Writes the history, the TensorBoard events and the checkpoints of one fit.

    Args:
        folder: the training's folder.
        suffix: a part of the files' names: "" or "_refit".
        about: what the training depends on, from `describe`; a checkpoint with another value is refused.
        resume: read the folder's checkpoint into `resumed`.
        tensorboard: write TensorBoard events.

    Raises:
        UsageError: TensorBoard is not installed.
        RunError: the folder cannot be written, or holds the checkpoint of another training.
    """

    resumed: Checkpoint | None
    """The checkpoint to continue from, if there is one."""

    def __init__(
        self, folder: Path, suffix: str = "", *, about: Mapping[str, Any], resume: bool, tensorboard: bool
    ) -> None:
        self._path, self._about = folder / f"checkpoint{suffix}.safetensors", json.dumps(about, sort_keys=True)
        self._last_seconds = time.monotonic()
        self._events = _summary_writer(folder / f"tensorboard{suffix}") if tensorboard else None
        try:
            self.resumed = self._read() if resume else None
            self._stream = (folder / f"history{suffix}.csv").open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{folder}: the run cannot be written ({error})") from error
        self._rows = RowWriter(self._stream)
        for epoch in self.resumed.history if self.resumed else ():
            self._write_row(epoch)

    def on_epoch(self, epoch: Epoch) -> None:
        """Add an epoch to history.csv and to the TensorBoard events."""
        self._write_row(epoch)
        for name, value in row_cells(epoch).items():
            if self._events is not None and name not in ("epoch", "member"):
                self._events.add_scalar(f"{name}/{epoch.member}", value, epoch.epoch)

    def on_checkpoint(self, make: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint if the last one is ten seconds old."""
        if time.monotonic() - self._last_seconds >= SECONDS_BETWEEN:
            self._write(make())
            self._last_seconds = time.monotonic()

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._events is not None:
            self._events.close()

    def _write_row(self, epoch: Epoch) -> None:
        self._rows.write(epoch)
        self._stream.flush()

    def _write(self, state: Checkpoint) -> None:
        from safetensors.torch import save

        numbers = {"member": state.member, "best_loss": state.best_loss, "best_epoch": state.best_epoch}
        progress = json.dumps({**numbers, "history": [dataclasses.asdict(epoch) for epoch in state.history]})
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.tensors.items()}
        aside = self._path.with_suffix(".partial")
        aside.write_bytes(save(tensors, {"about": self._about, "progress": progress}))
        aside.replace(self._path)

    def _read(self) -> Checkpoint | None:
        if not self._path.exists():
            return None
        about, progress, tensors = _read_checkpoint(self._path)
        if about != json.loads(self._about):
            raise RunError(
                f"{self._path}: left by a training with other settings or videos; "
                "give the same settings and labels, or start over with --overwrite"
            )
        history = [Epoch(**row) for row in progress["history"]]
        return Checkpoint(**{**progress, "history": history}, tensors=tensors)


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, "Tensor"]]:
    """What the training depends on, its progress, and its tensors."""
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
        path = folder / "checkpoint.safetensors"
        if not path.exists():
            return None
        about, _, _ = _read_checkpoint(path)
        return cls(HeadChoice(about["config"]["head"], about["choice"]), about["config"]["threads"])


def _summary_writer(folder: Path) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard: pip install 'vidpipe[tensorboard]' first") from error
    return SummaryWriter(str(folder))


def describe(config: TrainConfig, subsets: Subsets, choice: str, refit_epochs: int | None) -> dict[str, Any]:
    """Describe what a fit depends on, for `Journal`.

    Args:
        config: the settings.
        subsets: `train` and `val`.
        choice: the reason for the head that --head auto chose; empty where the user named the head.
        refit_epochs: number of epochs of a refit; None for the first fit.

    Returns:
        Plain values, for JSON.
    """
    video_ids = [*subsets["train"].video_ids, "", *subsets["val"].video_ids]
    return {
        "config": dataclasses.asdict(config),
        "videos": video_ids,
        "choice": choice,
        "refit_epochs": refit_epochs,
    }
