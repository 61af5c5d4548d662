"""A run folder is written aside and renamed: at any moment it holds the old run or the new one, never a mixture.

    RUN                     the run: the older one until the new one is complete
    RUN.training/           during a training, and after an interrupted one
      lock                  held by the process that trains
      training.json         {"format", "pid", "host", "since", "replaces"}: the process, and a hash of the run in RUN
      history*.csv  checkpoint*.safetensors  tensorboard*/    see `vidpipe.training.checkpoints`
      writing/              the new run while it is written; the old one for a moment after the two are exchanged
      new/  old/            on a file system that cannot exchange two folders: the complete new run, and the old one

A killed training leaves RUN.training/ behind, and --resume continues it. Where a file system cannot exchange folders,
the exchange takes two renames. A kill between them leaves the new run in new/ and none in RUN; the next command that
opens RUN moves it there (`finish_replacement`).
"""

import ctypes
import json
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import EINVAL, ENOSYS, ENOTSUP, EXDEV
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

from vidpipe.errors import RunError, UsageError, first_few
from vidpipe.features.locks import HeldError, acquire, release

logger = logging.getLogger(__name__)

__all__ = [
    "RUN_FORMAT",
    "TrainingFolder",
    "check_apart_from_store",
    "find_training_folder",
    "finish_replacement",
    "open_training_folder",
    "replace_folder",
    "sync_tree",
]

RUN_FORMAT, TRAINING_FORMAT = "vidpipe-run", "vidpipe-training"
RUN_FILES = (
    *("model.safetensors", "run.json", "config.toml", "splits.csv", "metrics.json", "predictions.csv", "folds.csv"),
    *("truth.jsonl", "timelines.jsonl", "timelines.png"),
    *(
        "backbone.safetensors",
        "leaks.csv",
        "history*.csv",
        "history.png",
        "confusion.png",
        "report.html",
        "tensorboard*",
    ),
)
"""Name patterns of all files that vidpipe writes into a run folder."""
CHECKPOINTS = "checkpoint*.safetensors"
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NO_EXCHANGE = {EINVAL, ENOSYS, ENOTSUP, EXDEV}


def find_training_folder(run_path: Path) -> Path:
    """Return the folder in which the training of a run works: `runs/fight` -> `runs/fight.training`."""
    target = run_path.resolve()
    return target.with_name(f"{target.name}.training")


def check_apart_from_store(run_path: Path, store_path: Path) -> None:
    """Check that a run folder and a store are apart: neither is, contains or lies in the other.

    Args:
        run_path: the folder of the run.
        store_path: the folder of the store.

    Raises:
        UsageError: they are not apart.
    """
    run, store = run_path.resolve(), store_path.resolve()
    if run == store or run in store.parents or store in run.parents:
        how = "is" if run == store else "contains" if run in store.parents else "lies in"
        raise UsageError(f"{run_path}: {how} the store {store_path}; give the run another folder with -o")


def finish_replacement(run_path: Path) -> None:
    """Finish a replacement that was interrupted between its two renames; otherwise do nothing."""
    with suppress(OSError):  # an impossible path, another process that does the same, or a read-only folder
        new, target = find_training_folder(run_path) / "new", run_path.resolve()
        if not target.exists() and (new / "run.json").exists():
            new.rename(target)


class TrainingFolder:
    """`RUN.training/`, locked by this process.

    Args:
        run_path: the run folder, as the user gave it.
    """

    def __init__(self, run_path: Path) -> None:
        self.run_path, self.path = run_path, find_training_folder(run_path)
        self._is_done = False

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint for --resume to continue."""
        return any(self.path.glob(CHECKPOINTS))

    @property
    def is_done(self) -> bool:
        """Whether the new run is in place: RUN holds a run other than the one to replace."""
        found = _run_hash(self.run_path)
        return self._is_done or (found is not None and found != _read_json(self.path / "training.json").get("replaces"))

    def clear(self) -> None:
        """Remove the files that an interrupted training left."""
        for path in self.path.iterdir():
            if path.name not in ("lock", "lock.marker", "training.json"):
                _remove(path)

    def put_in_place(self, write: Callable[[Path], None]) -> None:
        """Write a run into a folder aside, sync it to disk, and put it in the place of the old run.

        Args:
            write: called with an empty folder, which it fills.

        Raises:
            RunError: the run cannot be written.
        """
        writing = self.path / "writing"
        try:
            _remove(writing)
            writing.mkdir()
            write(writing)
            for path in self.path.glob("tensorboard*"):
                shutil.copytree(path, writing / path.name)
            for path in self.path.glob("history_*.csv"):
                shutil.copyfile(path, writing / path.name)
            sync_tree(writing)
        except OSError as error:
            raise RunError(f"{self.run_path}: the run cannot be written ({error})") from error
        replace_folder(self.run_path.resolve(), writing)
        self._is_done = True

    def remove(self) -> None:
        """Remove the folder of a training that is done, or that left no checkpoint.

        The lock is removed last: another training that takes it after that finds an empty folder, or none.
        """
        with suppress(OSError):
            self.clear()
            for name in ("training.json", "lock"):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()


@contextmanager
def open_training_folder(run_path: Path, *, resume: bool, overwrite: bool) -> Iterator[TrainingFolder]:
    """Lock the training folder of a run; on exit, keep it only if --resume can continue from it.

    Args:
        run_path: the run folder.
        resume: continue from the checkpoint of an interrupted training.
        overwrite: replace an existing run or interrupted training.

    Yields:
        The training folder.

    Raises:
        UsageError: the run folder holds other files than a run, or cannot be replaced as a whole.
        RunError: there is a run and `overwrite` is off, another process trains it, or the folder cannot be written.
    """
    folder = TrainingFolder(run_path)
    _check_target(run_path)
    _check_own(folder.path)
    with _locked(folder):
        _check_claim(folder, resume=resume, overwrite=overwrite)
        try:
            if resume and not folder.has_checkpoint:
                logger.warning("%s: no checkpoint to resume from; the training starts from the beginning", run_path)
            if not folder.has_checkpoint or not resume:
                folder.clear()
            _write_note(folder, keep=resume)
        except OSError as error:
            raise RunError(f"{folder.path}: cannot be written ({error})") from error
        try:
            yield folder
        finally:
            if folder.is_done or not (folder.has_checkpoint or (folder.path / "new").exists()):
                folder.remove()


@contextmanager
def _locked(folder: TrainingFolder) -> Iterator[None]:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = acquire(folder.path / "lock", timeout_seconds=0)
    except HeldError as held:
        raise RunError(
            f"{folder.run_path}: another vidpipe process trains this run ({_holder(folder)}); wait for it, stop it, "
            f"or give another folder with -o{held.remedy}"
        ) from None
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be written ({error})") from error
    try:
        yield
    finally:
        release(lock)


# Checks of existing folders


def _check_target(run_path: Path) -> None:
    """Check that a folder is empty or holds only a run, and can be replaced as a whole."""
    target = run_path.resolve()
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{run_path}: is a file; give a folder for the run with -o")
    if target.is_mount():
        raise UsageError(f"{run_path}: is a mount point; give a folder inside it: -o {run_path / 'run'}")
    if target in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(f"{run_path}: is, or contains, the working folder; give a folder for the run with -o")
    names = sorted(path.name for path in target.iterdir())
    is_run = _read_json(target / "run.json").get("format") == RUN_FORMAT
    others = [name for name in names if not (is_run and any(fnmatch(name, known) for known in RUN_FILES))]
    if others:
        what = "files that are not part of a run" if is_run else "other files and no run"
        raise UsageError(
            f"{run_path}: contains {what}: {first_few(others, 5)}; give another folder with -o, or move these files"
        )


def _check_own(path: Path) -> None:
    """Check that no other files are in `RUN.training/`, which training empties."""
    if not path.exists() or _read_json(path / "training.json").get("format") == TRAINING_FORMAT:
        return
    if not path.is_dir() or {entry.name for entry in path.iterdir()} - {"lock", "lock.marker", "training.partial"}:
        raise UsageError(
            f"{path}: training needs this folder, but it contains other files; give another folder with -o"
        )


def _check_claim(folder: TrainingFolder, *, resume: bool, overwrite: bool) -> None:
    finish_replacement(folder.run_path)
    run_path, has_run = folder.run_path, (folder.run_path / "run.json").exists()
    if resume:
        if has_run and (not (folder.path / "training.json").exists() or folder.is_done):
            folder.remove()
            raise RunError(f"{run_path}: this training is done; there is nothing to resume (--overwrite trains again)")
    elif not overwrite and folder.has_checkpoint and not folder.is_done:
        raise RunError(
            f"{run_path}: an interrupted training is in {folder.path.name}/; continue it with --resume, "
            "or start over with --overwrite"
        )
    elif not overwrite and has_run:
        raise RunError(
            f"{run_path}: there is a run already; give another folder with -o, or replace it with --overwrite"
        )


def _run_hash(run_path: Path) -> str | None:
    try:
        return sha256((run_path / "run.json").read_bytes()).hexdigest()
    except OSError:
        return None


def _write_note(folder: TrainingFolder, *, keep: bool) -> None:
    """Write which process trains, and which run it replaces; `keep` keeps the latter from an interrupted training."""
    path = folder.path / "training.json"
    before = _read_json(path) if keep else {}
    note = {
        "format": TRAINING_FORMAT,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "replaces": before.get("replaces", _run_hash(folder.run_path)),
    }
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(note) + "\n", encoding="utf-8")
    aside.replace(path)


def _holder(folder: TrainingFolder) -> str:
    note = _read_json(folder.path / "training.json")
    return f"pid {note.get('pid')} on {note.get('host')}, since {note.get('since')}" if note else "unknown process"


def _read_json(path: Path) -> dict[str, Any]:
    """Return the contents of a file, or nothing if it is missing or damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


# Replacing a folder


def replace_folder(target: Path, writing: Path) -> None:
    """Put a folder in the place of another. At any moment `target` is one of the two, or `new/` is complete.

    Args:
        target: the folder to replace; it need not exist.
        writing: the new folder, in a folder of its own on the same file system.

    Raises:
        RunError: the old folder cannot be renamed.
        OSError: the new one cannot be renamed.
    """
    if not target.exists() or not any(target.iterdir()):
        writing.replace(target)
    elif not _exchange(writing, target):
        _replace_in_two_steps(target, writing)
    _sync(target.parent)


def _replace_in_two_steps(target: Path, writing: Path) -> None:
    """Rename the old folder away and the new one into its place; after a kill, `finish_replacement` does the rest."""
    new, old = writing.with_name("new"), writing.with_name("old")
    for path in (new, old):
        _remove(path)
    writing.replace(new)
    try:
        target.replace(old)
    except OSError as error:
        raise RunError(f"{target}: cannot be replaced ({error}); the new run is complete in {new}: move it") from error
    with suppress(FileNotFoundError):  # another command has already moved it
        new.replace(target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Sync all files of a folder, and their names, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
