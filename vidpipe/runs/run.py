"""A run folder: what `train` writes. `predict` needs only this folder and the backbone's weights. It holds no pickle.

run/
  model.safetensors    the head and the baseline
  run.json             config, class_names, feature key, metrics, versions
  config.toml          the settings, as --config reads them
  splits.csv           the subset of each video; itself a labels file
  history.csv          a line an epoch; history_refit.csv: of the fit to all videos
  metrics.json         metrics of the head and the baseline on the validation and test sets
  predictions.csv      what the head and the baseline predict for each validation and test video
  folds.csv            with --folds: the same for each video, by the fold that tested it
  leaks.csv            videos in two subsets that look alike, if there are any
  history.png  confusion.png
  report.html          if `vidpipe report` wrote it; tensorboard/ with --tensorboard

The folder is written aside and renamed as a whole; see `vidpipe.runs.run_folder`. The CSV files are read and written by
`vidpipe.runs.tables`.
"""

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vidpipe.config import TrainConfig, save_config
from vidpipe.errors import ConfigError, RunError, UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.runs.metrics import Evaluation, FoldScores
from vidpipe.runs.run_folder import RUN_FORMAT, find_training_folder, finish_replacement
from vidpipe.runs.tables import Epoch, FoldRow, PredictionRow, SplitRow, read_rows, write_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidpipe.datasets.leaks import Leak
    from vidpipe.features.store import FeatureStore
    from vidpipe.heads.heads import Head

__all__ = ["BASELINE", "EVALUATION_SETS", "Run", "check_key", "save_run"]

VERSION = 4
NEW_NAMES = {"learned_parts": "learned_subsets", "inverse_penalty": "C"}
"""Keys of run.json, and of its config, that have another name since version 4; version 3 is read too."""
BASELINE = "mean"
"""The head that is always trained too, and reported beside the one asked for."""
EVALUATION_SETS = {"test": "the test set", "folds": "the test folds", "val": "the validation set"}
"""What a run may have metrics on, the most reliable first."""


def _installed_versions() -> dict[str, str]:
    packages = ("vidpipe", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


@dataclass(frozen=True)
class Run:
    """A trained head with all that is needed to use it.

    The tables are read when they are first asked for. One that is missing or damaged raises a `RunError`.
    """

    path: Path
    config: TrainConfig
    class_names: tuple[str, ...]
    key: FeatureKey
    dim: int
    """D of the features."""
    metrics: Mapping[str, Any]
    """By evaluation set, then by head, as metrics.json holds them; `evaluations` has them as records."""
    grouping: str
    """Where the split comes from and what it keeps together, in a sentence."""
    learned_subsets: tuple[str, ...]
    """The subsets (train, val, test) that the saved head is fitted to; the metrics are of a head fitted to train."""
    choice: str = ""
    """Why --head auto chose the head."""
    warnings: tuple[str, ...] = ()
    """Caveats about the metrics: every warning of the training."""
    versions: Mapping[str, str] = field(default_factory=_installed_versions)
    """Versions of Python and of the packages that trained it."""

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a run folder.

        Args:
            path: the folder that `vidpipe train` wrote.

        Returns:
            The run; its tables and its model are read when they are asked for.

        Raises:
            UsageError: there is no such folder.
            RunError: the folder holds no run, or one that is incomplete or of another version.
        """
        path = Path(path)
        finish_replacement(path)
        document = _read_document(path)
        with _reading_run_json(path):
            return cls(
                path=path,
                config=TrainConfig(**document["config"]),
                class_names=tuple(document["class_names"]),
                key=FeatureKey.from_dict(document["feature_key"]),
                dim=int(document["feature_dim"]),
                metrics=dict(document["metrics"]),
                grouping=document["grouping"],
                learned_subsets=tuple(document["learned_subsets"]),
                choice=document["choice"],
                warnings=tuple(document["warnings"]),
                versions=dict(document["versions"]),
            )

    @property
    def evaluation_set(self) -> str:
        """The evaluation set of the headline metrics: the first of `EVALUATION_SETS` with metrics; "" without any."""
        return next((name for name in EVALUATION_SETS if name in self.metrics), "")

    @cached_property
    def evaluations(self) -> Mapping[str, Mapping[str, Evaluation]]:
        """The metrics by evaluation set, then by head: `evaluations["test"]["lstm"]`; folds are pooled."""
        with _reading_run_json(self.path):
            return {
                name: {head: Evaluation.from_dict(values) for head, values in self.metrics[name].items()}
                for name in EVALUATION_SETS
                if name in self.metrics
            }

    @cached_property
    def fold_scores(self) -> Mapping[str, FoldScores]:
        """Top-1 in cross-validation, by head; empty without cross-validation."""
        with _reading_run_json(self.path):
            return {head: FoldScores.from_dict(values) for head, values in self.metrics.get("folds", {}).items()}

    @cached_property
    def splits(self) -> tuple[SplitRow, ...]:
        """Every video of the run with its subset."""
        return read_rows(self.path / "splits.csv", SplitRow)

    @cached_property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of the head that the metrics are of."""
        return read_rows(self.path / "history.csv", Epoch)

    @cached_property
    def predictions(self) -> tuple[PredictionRow, ...]:
        """What each head predicts for each validation and test video; empty without such videos."""
        return read_rows(self.path / "predictions.csv", PredictionRow) if {"val", "test"} & self.metrics.keys() else ()

    @cached_property
    def folds(self) -> tuple[FoldRow, ...]:
        """What each head predicts in cross-validation; empty without cross-validation."""
        return read_rows(self.path / "folds.csv", FoldRow) if "folds" in self.metrics else ()

    @cached_property
    def leaks(self) -> "tuple[Leak, ...]":
        """Pairs of videos in two subsets that look alike, most alike first."""
        path = self.path / "leaks.csv"
        if not path.exists():
            return ()
        from vidpipe.datasets.leaks import Leak

        return read_rows(path, Leak)

    @property
    def learned(self) -> tuple[SplitRow, ...]:
        """The videos that the saved head is fitted to."""
        return tuple(row for row in self.splits if row.split in self.learned_subsets)

    def load_heads(self, device: "torch.device") -> "dict[str, Head]":
        """Load the head and the baseline.

        Args:
            device: where the heads run.

        Returns:
            The heads by name, ready to use: `{"lstm": …, "mean": …}`.

        Raises:
            RunError: the model file is missing or damaged, or does not fit the run.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from vidpipe.heads.heads import build_head

        path = self.path / "model.safetensors"
        try:
            tensors = load_file(path)
            heads = {}
            for name in dict.fromkeys((self.config.head, BASELINE)):
                head = build_head(name, self.dim, len(self.class_names), self.config)
                prefix = f"{name}."
                head.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
                heads[name] = head.to(device).eval()
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{path}: cannot be loaded ({error})") from error
        return heads


def _read_document(path: Path) -> dict[str, Any]:
    """Read run.json, with the names of the current version."""
    try:
        document = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _no_run(path) from None
    except NotADirectoryError:
        raise RunError(f"{path}: is a file; a run is a folder") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: run.json cannot be read ({error})") from error
    if not isinstance(document, dict) or document.get("format") != RUN_FORMAT:
        raise RunError(f"{path}: run.json is not that of a run; train the run again")
    if document.get("version") == VERSION:
        return document
    if document.get("version") == VERSION - 1:
        with _reading_run_json(path):
            return _renamed(document) | {"config": _renamed(document["config"])}
    raise RunError(
        f"{path}: run.json has version {document.get('version')}; this vidpipe reads {VERSION - 1} and {VERSION}. "
        "Train the run again with this vidpipe"
    )


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {NEW_NAMES.get(name, name): value for name, value in values.items()}


def _no_run(path: Path) -> UsageError | RunError:
    remedy = f"`vidpipe train STORE -o {path}` makes a run"
    if (training := find_training_folder(path)).is_dir():
        remedy = f"an unfinished training is in {training}: `vidpipe train` with --resume continues it"
    if not path.exists():
        return UsageError(f"{path}: no such folder; {remedy}")
    return RunError(f"{path}: no run: it has no run.json; {remedy}")


@contextmanager
def _reading_run_json(path: Path) -> Iterator[None]:
    """Raise a RunError where run.json does not hold what it should."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise RunError(
            f"{path}: run.json is incomplete or damaged ({type(error).__name__}: {error}); train the run again"
        ) from error


def check_key(run: Run, store: "FeatureStore") -> None:
    """Check that the features of a store are of the kind that a run was trained on.

    Args:
        run: the run.
        store: the store.

    Raises:
        RunError: they are not; the message names the backbones or the settings that differ.
    """
    if store.key == run.key:
        return
    held, needed = store.key.contrast(run.key)
    raise RunError(
        f"{store.path} holds {held}; {run.path} needs {needed}. Extract the videos with the run's settings "
        f"(`vidpipe info {run.path}`), or give another store; --debug shows all that differs"
    )


def save_run(
    run: Run,
    folder: Path,
    *,
    heads: "Mapping[str, Head]",
    tables: Mapping[str, Sequence[Any]],
) -> None:
    """Write the files of a run.

    Args:
        run: the contents of run.json.
        folder: an empty folder.
        heads: by name, the head and the baseline.
        tables: rows of `vidpipe.runs.tables` by file name: `{"splits": [SplitRow(…), …]}`; a table without rows is
            not written.

    Raises:
        RunError: the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        f"{name}.{key}": tensor.cpu().clone(memory_format=torch.contiguous_format)  # an ensemble shares some
        for name, head in heads.items()
        for key, tensor in head.state_dict().items()
    }
    try:
        (folder / "model.safetensors").write_bytes(save(tensors))  # save_file's files are their owner's alone
        save_config(folder / "config.toml", train=run.config)
        for name, rows in tables.items():
            if rows:
                write_rows(folder / f"{name}.csv", rows)
        _write_json(folder / "metrics.json", run.metrics)
        _write_json(folder / "run.json", _document(run))
    except (OSError, UnicodeEncodeError) as error:  # a label may come from a folder name that is not valid Unicode
        raise RunError(f"{run.path}: the run cannot be written ({error})") from error


def _document(run: Run) -> dict[str, Any]:
    return {
        "format": RUN_FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(run.config),
        "class_names": run.class_names,
        "feature_key": run.key.as_dict(),
        "feature_dim": run.dim,
        "grouping": run.grouping,
        "learned_subsets": run.learned_subsets,
        "choice": run.choice,
        "warnings": run.warnings,
        "metrics": run.metrics,
        "versions": run.versions,
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
