"""A training while it runs: its folder, its threads, its progress, and what Ctrl-C leaves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import Subsets
from vidpipe.errors import InterruptedTrainingError
from vidpipe.heads.members import Member, plan_members, with_heads
from vidpipe.runs.run_folder import TrainingFolder, open_training_folder
from vidpipe.runs.tables import Epoch
from vidpipe.training.checkpoints import SECONDS_BETWEEN, Interrupted, Journal, describe
from vidpipe.training.selection import HeadChoice
from vidpipe.training.threads import DEFAULT_NUM_THREADS, use_threads

__all__ = ["TrainingSession", "open_session"]


@dataclass
class TrainingSession:
    """One training: its settings, where it writes, and how far it is."""

    folder: TrainingFolder
    config: TrainConfig
    """The settings, with the number of threads in use and, once it is chosen, the head."""
    resume: bool
    tensorboard: bool
    on_epoch: Callable[[str, Epoch], None]
    """Called with the name of the member, or of the only head, after each epoch."""
    choice: HeadChoice | None = None
    """The head, and the reason for it; from the start where a training is resumed."""
    stage: str = "before the first epoch"
    """How far the training is, for the message after Ctrl-C."""

    @property
    def reason(self) -> str:
        """Why --head auto chose the head; empty where the user named it."""
        return self.choice.reason if self.choice else ""

    def set_head(self, choice: HeadChoice, streams: Sequence[str]) -> tuple[Member, ...]:
        """Set the heads to train on the streams; return the members of the classifier."""
        self.choice, self.config = (
            choice,
            with_heads(self.config, choice.head, len(streams)) if choice.reason else self.config,
        )
        return plan_members(streams, self.config)

    def open_journal(self, subsets: Subsets, refit_epochs: Mapping[str, int] | None) -> Journal:
        """Open the history and the checkpoints of a fit; `refit_epochs` is None for the first one."""
        suffix = "" if refit_epochs is None else "_refit"
        about = describe(self.config, subsets, self.reason, refit_epochs)
        return Journal(self.folder.path, suffix, about=about, resume=self.resume, tensorboard=self.tensorboard)

    def set_stage(self, stage: str) -> None:
        """Note how far the training is."""
        self.stage = stage

    def record_epoch(self, head: str, epoch: Epoch, *, is_refit: bool) -> None:
        """Note an epoch of a member or of the only head, and pass it to `on_epoch`."""
        self.stage = f"after epoch {epoch.epoch} of {head}{', refitted on all videos' * is_refit}"
        self.on_epoch(head, epoch)


@contextmanager
def open_session(
    run_path: Path,
    config: TrainConfig,
    *,
    resume: bool,
    overwrite: bool,
    tensorboard: bool,
    on_epoch: Callable[[str, Epoch], None],
) -> Iterator[TrainingSession]:
    """Open a run's training folder, and set the number of threads.

    Args:
        run_path: the run's folder.
        config: the settings.
        resume: continue an interrupted training from its checkpoint.
        overwrite: replace the run, or the interrupted training, that is there.
        tensorboard: write TensorBoard events.
        on_epoch: called with the name of the member, or of the only head, after each epoch.

    Yields:
        The session.

    Raises:
        UsageError: the folder holds something else than a run, or cannot be replaced as a whole.
        RunError: the folder cannot be written, its checkpoint cannot be read, or another process trains the run.
        InterruptedTrainingError: Ctrl-C; the last checkpoint is kept.
    """
    with open_training_folder(run_path, resume=resume, overwrite=overwrite) as folder:
        before = Interrupted.find(folder.path) if resume else None
        threads = config.threads or (before.threads if before else DEFAULT_NUM_THREADS)
        choice = before.choice if before else None
        session = TrainingSession(folder, replace(config, threads=threads), resume, tensorboard, on_epoch, choice)
        try:
            with use_threads(threads):
                yield session
        except KeyboardInterrupt:
            raise _interrupted(session) from None


def _interrupted(session: TrainingSession) -> InterruptedTrainingError:
    folder, run_path = session.folder, session.folder.run_path
    kept = f"; the run in {run_path} is unchanged" if (run_path / "run.json").exists() else ""
    if folder.has_checkpoint:
        return InterruptedTrainingError(
            f"stopped {session.stage}; the last checkpoint is in {folder.path}{kept}. "
            "The same command with --resume continues from there"
        )
    return InterruptedTrainingError(
        f"stopped {session.stage}, before the first checkpoint (one is written every {SECONDS_BETWEEN:g} s of fitting)"
        f"{kept}. The same command starts over"
    )
