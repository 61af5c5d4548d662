"""A run folder: what `train` writes. `predict` needs only this folder and the backbone's weights. It holds no pickle.

run/
  model.safetensors    the classifier and the baseline
  backbone.safetensors the weights of a fine-tuned backbone, as --weights reads them; only after `vidpipe finetune`
  run.json             config, class_names, streams, members, metrics, versions
  config.toml          the settings, as --config reads them
  splits.csv           the subset of each video; itself a labels file
  history.csv          a line an epoch; history_refit.csv: of the fit to all videos
  metrics.json         metrics of the classifier, its parts and the baseline on the validation and test sets
  predictions.csv      what the classifier, its members and the baseline predict for each validation and test video
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
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vidpipe.config import TrainConfig, save_config
from vidpipe.errors import ConfigError, RunError, UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.heads.members import BASELINE, Member, name_classifier
from vidpipe.runs.background_check import BackgroundCheck
from vidpipe.runs.fine_tuning import FineTuning
from vidpipe.runs.metrics import Evaluation, FoldScores
from vidpipe.runs.run_folder import RUN_FORMAT, find_training_folder, finish_replacement
from vidpipe.runs.tables import Epoch, FoldRow, PredictionRow, SplitRow, read_rows, write_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vidpipe.datasets.leaks import Leak
    from vidpipe.datasets.streams import Stores
    from vidpipe.features.store import FeatureStore
    from vidpipe.heads.fusion import Fusion
    from vidpipe.heads.heads import Head
    from vidpipe.heads.rows import RowHead

__all__ = ["EVALUATION_SETS", "Run", "RunMember", "RunStream", "save_run", "stores_of"]

VERSION, READ_VERSIONS = 5, (3, 4, 5)
NEW_NAMES = {"learned_parts": "learned_subsets", "inverse_penalty": "C"}
"""Keys of run.json, and of its config, that have another name since version 4."""
EVALUATION_SETS = {"test": "the test set", "folds": "the test folds", "val": "the validation set"}
"""What a run may have metrics on, the most reliable first."""


def _installed_versions() -> dict[str, str]:
    packages = ("vidpipe", "torch", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


@dataclass(frozen=True)
class RunStream:
    """A stream that a run was trained on."""

    name: str
    key: FeatureKey
    dim: int
    """D of the features."""


@dataclass(frozen=True)
class RunMember:
    """A member of a run's classifier."""

    streams: tuple[str, ...]
    head: str
    weight: float
    """Of its log-probabilities in the fusion."""
    inputs: tuple[Mapping[str, Any], ...]
    """For each of the streams, what the head sees of it: the settings of `vidpipe.heads.inputs.HeadInput`."""

    @property
    def member(self) -> Member:
        """What the member is."""
        return Member(self.streams, self.head)


@dataclass(frozen=True)
class Run:
    """A trained classifier with all that is needed to use it.

    The tables are read when they are first asked for. One that is missing or damaged raises a `RunError`.
    """

    path: Path
    config: TrainConfig
    class_names: tuple[str, ...]
    streams: tuple[RunStream, ...]
    """At least one; the baseline sees the first."""
    members: tuple[RunMember, ...]
    """The members of the classifier, at least one."""
    metrics: Mapping[str, Any]
    """By evaluation set, then by classifier or part, as metrics.json holds them; `evaluations` has them as records.
    `background_check` and `fine_tuning`, where they were asked for, are sections of their own."""
    grouping: str
    """Where the split comes from and what it keeps together, in a sentence."""
    learned_subsets: tuple[str, ...]
    """The subsets (train, val, test) that the saved classifier is fitted to; the metrics are of one fitted to train."""
    has_found_weights: bool = False
    """Whether the members' weights were found on folds of the training set; otherwise they are the default ones."""
    clip_seconds: float | None = None
    """The median length of what it learned from: videos, or windows of them. None in a run of an older vidpipe."""
    background: str = ""
    """The class of the time that no interval of the labels covers; empty where no such time was learned from."""
    timelines: Mapping[str, Any] = field(default_factory=dict)
    """Of a run from labels of intervals: `decoding`, the settings found on the training videos, and `scores`, by
    subset, as `vidpipe timeline score` gives them. Empty for other runs."""
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
                streams=tuple(
                    RunStream(one["name"], FeatureKey.from_dict(one["key"]), int(one["dim"]))
                    for one in document["streams"]
                ),
                members=tuple(
                    RunMember(tuple(one["streams"]), one["head"], float(one["weight"]), tuple(one["inputs"]))
                    for one in document["members"]
                ),
                metrics=dict(document["metrics"]),
                grouping=document["grouping"],
                learned_subsets=tuple(document["learned_subsets"]),
                has_found_weights=bool(document["has_found_weights"]),
                clip_seconds=document.get("clip_seconds"),
                background=document.get("background", ""),
                timelines=dict(document.get("timelines", {})),
                choice=document["choice"],
                warnings=tuple(document["warnings"]),
                versions=dict(document["versions"]),
            )

    @property
    def classifier(self) -> str:
        """The name of the classifier among the metrics: `fusion`, or the name of its only head."""
        return name_classifier([member.member for member in self.members])

    @property
    def keys(self) -> dict[str, FeatureKey]:
        """The keys of the features by stream."""
        return {stream.name: stream.key for stream in self.streams}

    @property
    def evaluation_set(self) -> str:
        """The evaluation set of the headline metrics: the first of `EVALUATION_SETS` with metrics; "" without any."""
        return next((name for name in EVALUATION_SETS if name in self.metrics), "")

    @cached_property
    def evaluations(self) -> Mapping[str, Mapping[str, Evaluation]]:
        """The metrics by evaluation set, then by classifier or part: `evaluations["test"]["flow/lstm"]`.

        Folds are pooled.
        """
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
    def background_check(self) -> BackgroundCheck | None:
        """What `train --check-background` found; None without it."""
        with _reading_run_json(self.path):
            values = self.metrics.get("background_check")
            return None if values is None else BackgroundCheck.from_dict(values)

    @cached_property
    def fine_tuning(self) -> FineTuning | None:
        """What `finetune` found; None for a run of `train`."""
        with _reading_run_json(self.path):
            values = self.metrics.get("fine_tuning")
            return None if values is None else FineTuning.from_dict(values)

    @cached_property
    def splits(self) -> tuple[SplitRow, ...]:
        """Every video of the run with its subset."""
        return read_rows(self.path / "splits.csv", SplitRow)

    @cached_property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of the members of the classifier that the metrics are of."""
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
        """The videos that the saved classifier is fitted to."""
        return tuple(row for row in self.splits if row.split in self.learned_subsets)

    def load_classifiers(self, device: "torch.device") -> "tuple[Fusion, Fusion]":
        """Load the classifier and the baseline.

        Args:
            device: where they run.

        Returns:
            The two, ready to use; the baseline has one member.

        Raises:
            RunError: the model file is missing or damaged, or does not fit the run.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.config.targets == "rows":
            raise RunError(f"{self.path}: labels the rows of long videos, not whole videos; use predict --timeline")
        path = self.path / "model.safetensors"
        try:
            tensors = _current_names(load_file(path), self.members[0].head)
            fusions = self._build(self.members), self._build(self._baseline)
            for name, fusion in zip(("fusion", BASELINE), fusions, strict=True):
                prefix = f"{name}."
                fusion.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{path}: cannot be loaded ({error})") from error
        return fusions[0].to(device).eval(), fusions[1].to(device).eval()

    def load_row_head(self, device: "torch.device") -> "RowHead":
        """Load the head of a run that labels rows.

        Args:
            device: where it runs.

        Returns:
            The head, ready to use.

        Raises:
            RunError: the model file is missing or damaged, or does not fit the run.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from vidpipe.heads.rows import build_row_head

        path, (member,) = self.path / "model.safetensors", self.members
        dim = sum(stream.dim * stream.key.num_cells for stream in self.streams)
        try:
            head = build_row_head(member.head, dim, len(self.class_names), self.config)
            tensors = load_file(path)
            head.load_state_dict({name.removeprefix("rows."): tensor for name, tensor in tensors.items()})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{path}: cannot be loaded ({error})") from error
        return head.to(device).eval()

    @property
    def _baseline(self) -> tuple[RunMember, ...]:
        return (RunMember((self.streams[0].name,), BASELINE, 1.0, ({},)),)

    def _build(self, members: Sequence[RunMember]) -> "Fusion":
        from vidpipe.heads.fusion import Fusion, MemberHeads
        from vidpipe.heads.heads import build_head

        streams = {stream.name: stream for stream in self.streams}

        def build(member: RunMember, name: str, inputs: Mapping[str, Any]) -> "Head":
            dim, num_cells = streams[name].dim, streams[name].key.num_cells
            config = replace(self.config, **inputs)
            return build_head(member.head, dim, len(self.class_names), config, num_cells=num_cells)

        built = []
        for member in members:
            named = zip(member.streams, member.inputs, strict=True)
            built.append(MemberHeads(member.member, [build(member, name, inputs) for name, inputs in named]))
        return Fusion(built)


def _current_names(tensors: "Mapping[str, Tensor]", head: str) -> "dict[str, Tensor]":
    """The tensors with the names of version 5; before it, a run has those of one head and the baseline."""
    import torch

    if any(name.startswith("fusion.") for name in tensors):
        return dict(tensors)
    renamed: dict[str, Tensor] = {}
    for its_name, its_head in (("fusion", head), (BASELINE, BASELINE)):
        its = {
            name.removeprefix(f"{its_head}."): one for name, one in tensors.items() if name.startswith(f"{its_head}.")
        }
        renamed |= {f"{its_name}.member_heads.0.parts.0.{name}": one for name, one in its.items()}
        renamed |= {f"{its_name}.weights": torch.ones(1), f"{its_name}.temperature": torch.ones(())}
    return renamed


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
    if document.get("version") in READ_VERSIONS:
        with _reading_run_json(path):
            return _with_one_stream(_renamed(document) | {"config": _renamed(document["config"])})
    raise RunError(
        f"{path}: run.json has version {document.get('version')}; this vidpipe reads {READ_VERSIONS[0]} to {VERSION}. "
        "Train the run again with this vidpipe"
    )


def _with_one_stream(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a run up to version 4, with the stream and the member that it implies."""
    name = document["feature_key"]["backbone"].replace("/", "_")
    stream = {"name": name, "key": document["feature_key"], "dim": document["feature_dim"]}
    member = {"streams": [name], "head": document["config"]["head"], "weight": 1.0, "inputs": [{}]}
    config = {"components": 0, "jitter": 0.0} | document["config"]  # settings that these versions do not have
    its = {"streams": [stream], "members": [member], "has_found_weights": False, "config": config}
    return {**document, **its}


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


def stores_of(run: Run, stores: "Stores") -> "dict[str, FeatureStore]":
    """Return the stores of a run's streams, after a check of their keys.

    Args:
        run: the run.
        stores: by stream of the run; or one store, for a run of one stream.

    Returns:
        The stores by stream, in the run's order.

    Raises:
        RunError: one is missing, or its features are not of the kind that the run was trained on; the message names
            the backbones or the settings that differ.
    """
    from vidpipe.features.store import FeatureStore

    if isinstance(stores, FeatureStore):
        stores = {run.streams[0].name: stores}
    for name, key in run.keys.items():
        if name not in stores:
            raise RunError(
                f"{run.path} needs features of {len(run.streams)} streams ({', '.join(run.keys)}), and {name} is "
                f"missing here; extract the videos with the run's settings (`vidpipe info {run.path}`)"
            )
        store = stores[name]
        if store.key != key:
            held, needed = store.key.contrast(key)
            raise RunError(
                f"{store.path} holds {held}; {run.path} needs {needed}. Extract the videos with the run's settings "
                f"(`vidpipe info {run.path}`), or give another store; --debug shows all that differs"
            )
    return {name: stores[name] for name in run.keys}


def save_run(
    run: Run,
    folder: Path,
    *,
    classifiers: "Mapping[str, nn.Module]",
    tables: Mapping[str, Sequence[Any]],
) -> None:
    """Write the files of a run.

    Args:
        run: the contents of run.json.
        folder: an empty folder.
        classifiers: by the prefix of their tensors' names: `fusion`, the run's own, and `mean`, the baseline.
        tables: rows of `vidpipe.runs.tables` by file name: `{"splits": [SplitRow(…), …]}`; a table without rows is
            not written.

    Raises:
        RunError: the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {
        f"{name}.{key}": tensor.cpu().clone(memory_format=torch.contiguous_format)  # an ensemble shares some
        for name, classifier in classifiers.items()
        for key, tensor in classifier.state_dict().items()
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
        "streams": [{"name": one.name, "key": one.key.as_dict(), "dim": one.dim} for one in run.streams],
        "members": [dataclasses.asdict(member) for member in run.members],
        "grouping": run.grouping,
        "learned_subsets": run.learned_subsets,
        "has_found_weights": run.has_found_weights,
        "clip_seconds": run.clip_seconds,
        "background": run.background,
        "timelines": run.timelines,
        "choice": run.choice,
        "warnings": run.warnings,
        "metrics": run.metrics,
        "versions": run.versions,
    }


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
