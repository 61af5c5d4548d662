"""A run folder: what `train` writes. It is all that `predict` needs but the backbone's weights, and holds no pickle.

run/
  model.safetensors    the head and the baseline
  run.json             config, class_names, feature key, metrics, versions
  config.toml          the settings, as --config reads them
  splits.csv           which video stood in which part; itself a labels file
  history.csv          a line an epoch; history_refit.csv: of the fit to all videos
  metrics.json         validation and test, head and baseline
  predictions.csv      what the head and the baseline say of each validation and test video
  folds.csv            with --folds: the same of each video, by the fold that did not see it
  leaks.csv            videos that look alike on two sides of the split, if any do
  history.png  confusion.png
  report.html          if `vidpipe report` wrote it; tensorboard/ if --tensorboard did

It is written aside and put in place whole; see `vidpipe.runs.run_folder`.
"""

import dataclasses
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vidpipe.config import TrainConfig, save_config
from vidpipe.errors import ConfigError, RunError, UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.runs.run_folder import RUN_FORMAT, find_training_folder, finish_replacement
from vidpipe.runs.tables import SplitRow, read_rows, write_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidpipe.features.store import FeatureStore
    from vidpipe.heads.heads import Head

__all__ = ["BASELINE", "Run", "check_key", "save_run"]

VERSION = 3
BASELINE = "mean"
"""The head that is always trained too and reported beside the one asked for."""


@dataclass(frozen=True)
class Run:
    """A trained head with all that is needed to use it."""

    path: Path
    config: TrainConfig
    class_names: tuple[str, ...]
    key: FeatureKey
    dim: int
    """D of the features."""
    metrics: Mapping[str, Any]
    grouping: str
    """Where the split comes from and what it kept together, in a sentence."""
    learned_parts: tuple[str, ...]
    """Which of train, val and test the head learned from in the end; the metrics are of one that knew train alone."""
    choice: str = ""
    """Why --head auto chose the head."""
    warnings: tuple[str, ...] = ()
    """Caveats about the metrics: every warning of the training."""

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a run folder.

        Raises:
            UsageError: there is no such folder.
            RunError: it is no run, incomplete, or of another version.
        """
        path = Path(path)
        finish_replacement(path)
        try:
            document = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            remedy = f"`vidpipe train STORE -o {path}` makes a run"
            if (training := find_training_folder(path)).is_dir():
                remedy = f"an unfinished training is in {training}: `vidpipe train` with --resume continues it"
            if not path.exists():
                raise UsageError(f"{path}: no such folder; {remedy}") from None
            raise RunError(f"{path}: no run: it has no run.json; {remedy}") from None
        except NotADirectoryError:
            raise RunError(f"{path}: a file; a run is a folder") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: run.json cannot be read ({error})") from error
        if not isinstance(document, dict) or document.get("format") != RUN_FORMAT or document.get("version") != VERSION:
            found = document.get("version") if isinstance(document, dict) else None
            raise RunError(
                f"{path}: run.json is not that of a run of version {VERSION} (found: {found}); "
                "train it again with this vidpipe"
            )
        try:
            return cls(
                path=path,
                config=TrainConfig(**document["config"]),
                class_names=tuple(document["class_names"]),
                key=FeatureKey.from_dict(document["feature_key"]),
                dim=int(document["feature_dim"]),
                metrics=document["metrics"],
                grouping=document["grouping"],
                learned_parts=tuple(document["learned_parts"]),
                choice=document["choice"],
                warnings=tuple(document["warnings"]),
            )
        except (KeyError, ValueError, TypeError, ConfigError) as error:
            raise RunError(f"{path}: run.json is not whole ({type(error).__name__}: {error})") from error

    @cached_property
    def splits(self) -> tuple[SplitRow, ...]:
        """Every video of the run with its part.

        Raises:
            RunError: splits.csv is missing or damaged.
        """
        return read_rows(self.path / "splits.csv", SplitRow)

    @property
    def learned(self) -> tuple[SplitRow, ...]:
        """The videos that the head learned from in the end."""
        return tuple(row for row in self.splits if row.split in self.learned_parts)

    def load_heads(self, device: "torch.device") -> "dict[str, Head]":
        """The head and the baseline, ready to use: `{"lstm": …, "mean": …}`.

        Raises:
            RunError: the model file is missing, damaged or does not fit.
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


def check_key(run: Run, store: "FeatureStore") -> None:
    """Check that a store's features are of the kind that a run was trained on.

    Raises:
        RunError: they are not; it names the backbones, or else the settings that differ.
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
    """Write a run's files.

    Args:
        run: what run.json holds.
        folder: an empty folder.
        heads: by name, the head and the baseline.
        tables: rows of `vidpipe.runs.tables`, by the file's name: `{"splits": [SplitRow(…), …]}`; a table without
            rows is not written.

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
    except (OSError, UnicodeEncodeError) as error:  # a folder's name, and so a label, may be no text
        raise RunError(f"{run.path}: the run cannot be written ({error})") from error


def _document(run: Run) -> dict[str, Any]:
    packages = ("vidpipe", "torch", "numpy", "scikit-learn")
    return {
        "format": RUN_FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(run.config),
        "class_names": run.class_names,
        "feature_key": run.key.as_dict(),
        "feature_dim": run.dim,
        "grouping": run.grouping,
        "learned_parts": run.learned_parts,
        "choice": run.choice,
        "warnings": run.warnings,
        "metrics": run.metrics,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
