"""Every setting, once: its default, range and help feed the options, `--help` and the config file's check.

[extract]                       [train]
sampling = "uniform"            head = "statistics"
num_frames = 16                 motion = "centred,magnitude"
backbone = "resnet50"           labels = "labels.csv"
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from vidpipe.errors import ConfigError, UsageError, unknown_name

__all__ = [
    "HEAD_NAMES",
    "LINEAR_HEADS",
    "SECTIONS",
    "EvaluateConfig",
    "ExtractConfig",
    "LabelsConfig",
    "PredictConfig",
    "Sampling",
    "Setting",
    "TrainConfig",
    "load_section",
    "save_config",
    "settings",
]

DEFAULT_NUM_FRAMES = {"uniform": 16, "scene": 4}
DEFAULT_FPS = 2.0
DEFAULT_DECODER = "pyav"
LINEAR_HEADS = ("mean", "statistics")
HEAD_NAMES = ("auto", "lstm", "bilstm", "gru", "attention", "tcn", "transformer", *LINEAR_HEADS)


@dataclass(frozen=True)
class Setting:
    """What a field of a config allows, beside its type and default."""

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    """The range is [low, high]; `above` excludes low itself."""
    above: bool = False
    several: bool = False
    """Whether the value is a list of choices, with commas between them."""
    is_path: bool = False
    """Whether the value is a file or folder, relative to the working folder."""
    metavar: str = ""
    """What stands for the value in the help; empty for that of the type."""
    flags: tuple[str, ...] = ()
    """The option's other names."""

    def check(self, value: Any) -> Any:
        """The value, as the field's type.

        Raises:
            ConfigError: it is of another type, out of range or none of the choices.
        """
        if value is None and self.default is None:
            return None
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if self.several and isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = ",".join(value)
        is_bool = isinstance(value, bool)
        if not isinstance(value, self.type) or is_bool != (self.type is bool):
            raise ConfigError(f"{self.name} = {_as_toml(value)}: write {self._how_to_write}")
        for chosen in str(value).split(",") if self.several else [value]:
            if self.choices and chosen not in self.choices:
                raise ConfigError(unknown_name(self.name, str(chosen), self.choices))
        if not self._in_range(value):
            raise ConfigError(f"{self.name} = {value!r}: {self.allowed} is needed")
        return value

    @property
    def _how_to_write(self) -> str:
        """A value of the type, as TOML wants it."""
        if self.several:
            return f'names in quotes with commas between them, such as "{",".join(self.choices[:2])}"'
        if self.type is str:
            return f'text in quotes, such as "{self.choices[0]}"' if self.choices else "text in quotes"
        kinds = {int: "a whole number without quotes", float: "a number without quotes", bool: "true or false"}
        return kinds[self.type]

    def _in_range(self, value: Any) -> bool:
        above_low = self.low is None or (value > self.low if self.above else value >= self.low)
        return bool(above_low and (self.high is None or value <= self.high))

    @property
    def allowed(self) -> str:
        """The range in words: `1 or more`, `above 0`, `0 to 0.9`."""
        if self.high is not None:
            return f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}"
        return f"above {self.low:g}" if self.above else f"{self.low:g} or more"


def _as_toml(value: Any) -> str:
    """A value as it stands in a file: `"many"`, `true`, `[1, 2]`."""
    return "a table" if isinstance(value, dict) else json.dumps(value, ensure_ascii=False, default=str)


def _setting(default: Any, help: str, **limits: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **limits})


class _Checked:
    """Checks each field against its `Setting` when the config is made."""

    def __post_init__(self) -> None:
        for setting in settings(type(self)):
            object.__setattr__(self, setting.name, setting.check(getattr(self, setting.name)))
        self.check_together(dataclasses.asdict(self))  # type: ignore[call-overload]

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        """Refuse values that contradict one another; what is not among them is not known yet.

        Raises:
            UsageError: two of them do.
        """

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        """The settings of a file that belong to a method which an option replaces.

        Args:
            from_file: what the file says.
            given: what the options say; it wins over the file.

        Returns:
            names of settings, whose values in the file do not count.
        """
        return set()


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken; see `vidpipe.video.sampling` for the rules."""

    method: str
    num_frames: int | None = None
    """Frames of the video (uniform) or of each scene (scene)."""
    fps: float | None = None
    """Frames per second (fps)."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a feature store's key: the method and its own parameter."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        parameter = f"{self.fps:g} fps" if self.method == "fps" else f"{self.num_frames} frames"
        return (
            parameter if self.method == "fps" else f"{self.method}, {parameter}{' a scene' * (self.method == 'scene')}"
        )


@dataclass(frozen=True)
class ExtractConfig(_Checked):
    """What `vidpipe extract` does to each video."""

    sampling: str = _setting("uniform", "Which frames to take.", choices=("uniform", "fps", "scene"))
    num_frames: int | None = _setting(
        None, "Frames of each video (uniform; default 16) or of each scene (scene; default 4).", low=1
    )
    fps: float | None = _setting(None, "Frames per second to take (fps; default 2).", low=0, above=True)
    backbone: str = _setting(
        "resnet50", "Frozen image model: `vidpipe backbones` lists them; or timm/NAME, torchvision/NAME."
    )
    weights: str = _setting("default", "`default`, `random` (for tests), or a .pth, .pt or .safetensors file.")
    pool: str = _setting(
        "auto",
        "What makes a feature of what the model sees: avg or max over its last feature map; for transformers token (of "
        "the class), tokens (their mean) or attention. auto: what the weights were trained for.",
        choices=("auto", "avg", "max", "token", "tokens", "attention", "none"),
    )
    dtype: str = _setting("float32", "Type of the stored features.", choices=("float32", "float16"))
    device: str = _setting("auto", "Where the image model runs.", choices=("auto", "cpu", "cuda"))
    engine: str = _setting(
        "auto",
        "What runs the image model; auto: ONNX Runtime for convolutional networks on the CPU, else torch.",
        choices=("auto", "torch", "onnx"),
    )
    decoder: str = _setting(
        DEFAULT_DECODER, "What decodes first; both give the same frames.", choices=("pyav", "decord")
    )
    precision: str = _setting(
        "full",
        "Arithmetic of the image model; half is for GPUs, and changes features by up to 1 %.",
        choices=("full", "half"),
    )
    batch_size: int | None = _setting(
        None, "Frames to put through the image model at once (default 8 on the CPU, 64 on a GPU).", low=1
    )
    workers: int = _setting(0, "Decoding processes; 0 takes as many as the cores and the device suggest.", low=0)
    timeout: float = _setting(
        120.0, "Seconds that decoding one chunk of a video (128 packets or frames) may take.", low=0, above=True
    )
    seal_videos: int = _setting(256, "Videos after which a shard is sealed: what a crash can cost.", low=1)
    seal_seconds: float = _setting(60.0, "Seconds after which a shard is sealed, if that comes first.", low=0)
    video_column: str | None = _setting(
        None,
        "Column of an INPUT's CSV that names the videos; by default `video`, or a usual name such as filename or path.",
        metavar="COLUMN",
    )

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        sampling = values.get("sampling", "uniform" if "fps" not in values else "fps")
        if values.get("fps") is not None and sampling != "fps":
            raise UsageError(f"--fps goes with --sampling fps, not with --sampling {sampling}")
        if values.get("num_frames") is not None and sampling == "fps":
            raise UsageError("--num-frames goes with --sampling uniform or scene; with --sampling fps, give --fps")

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        sampling = given.get("sampling")
        if sampling is None or sampling == from_file.get("sampling"):
            return set()
        if "sampling" in from_file:
            return {"num_frames", "fps"}
        return {"num_frames"} if sampling == "fps" else {"fps"}

    def resolve_sampling(self) -> Sampling:
        """The sampling method with its own parameter filled in."""
        if self.sampling == "fps":
            return Sampling("fps", fps=self.fps or DEFAULT_FPS)
        return Sampling(self.sampling, num_frames=self.num_frames or DEFAULT_NUM_FRAMES[self.sampling])


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """How `vidpipe train` fits a head to a feature store."""

    head: str = _setting(
        "statistics", "The classifier over a feature sequence; auto compares some, see --budget.", choices=HEAD_NAMES
    )
    motion: str = _setting(
        "centred,magnitude",
        "What the head sees, one or more of: raw (the features), centred (less the clip's mean), difference (to the "
        "frame before), magnitude (of the difference).",
        choices=("raw", "centred", "difference", "magnitude"),
        several=True,
    )
    unit_frames: bool = _setting(True, "Scale each frame's feature to length 1 first.")
    scale_sharing: float = _setting(
        1.0, "0 scales each feature by its own deviation, 1 all of a transform by one number.", low=0, high=1
    )
    statistics: str = _setting(
        "deviation,thirds",
        "Over time, for the head statistics: one or more of mean, deviation, thirds.",
        choices=("mean", "deviation", "thirds"),
        several=True,
    )
    C: float = _setting(30.0, "C of the logistic regression that the heads mean and statistics are.", low=0, above=True)
    hidden_size: int = _setting(256, "Size of a neural head's hidden state.", low=1)
    num_layers: int = _setting(1, "Layers of lstm, bilstm, gru and transformer.", low=1)
    bidirectional: bool = _setting(False, "Read the sequence in both directions (lstm, gru).")
    dropout: float = _setting(0.5, "Dropout on the input, before the classifier and between layers.", low=0, high=0.95)
    ensemble: int = _setting(1, "Neural heads of so many seeds, in one model.", low=1)
    budget: float = _setting(300.0, "Seconds that --head auto may compare heads for.", low=0)
    epochs: int = _setting(100, "Most epochs to train a neural head.", low=1)
    batch_size: int = _setting(32, "Videos in a training step.", low=1)
    lr: float = _setting(1e-3, "Learning rate of AdamW.", low=0, above=True)
    schedule: str = _setting("constant", "Learning rate over the epochs.", choices=("constant", "cosine"))
    weight_decay: float = _setting(1e-2, "Weight decay of AdamW.", low=0)
    label_smoothing: float = _setting(0.0, "Share of each label spread over all classes.", low=0, high=0.9)
    balance: str = _setting(
        "none",
        "For classes of unequal size: weights in the loss, or sampling of the rarer ones more often.",
        choices=("none", "weights", "sampling"),
    )
    mixup: float = _setting(0.0, "Mix pairs of clips; the parameter of the Beta distribution, 0 for none.", low=0)
    drop_frames: float = _setting(0.0, "Leave out each frame with this probability in training.", low=0, high=0.9)
    shift_frames: int = _setting(0, "Begin up to so many frames later in training.", low=0)
    subsequence: float = _setting(
        1.0, "Least share of a clip's frames to train on, one piece.", low=0, high=1, above=True
    )
    reverse: bool = _setting(False, "Train on clips backwards too: only where no action is another's reverse.")
    patience: int = _setting(20, "Epochs without a better validation loss before training stops.", low=1)
    val_fraction: float = _setting(0.15, "Part of the training videos to validate on.", low=0, high=0.9)
    test_fraction: float = _setting(
        0.2, "Part of the videos kept for the test, where the labels name no split.", low=0, high=0.9
    )
    folds: int | None = _setting(
        None, "Cross-validate: so many folds by group; then train on all videos outside a given test part.", low=2
    )
    leave_one_group_out: bool = _setting(False, "Cross-validate: each group is a fold.")
    repeats: int = _setting(1, "Cross-validate, or draw the test part, with so many seeds.", low=1)
    refit: bool = _setting(
        True, "After the test, fit the head that is kept to all videos, but for a test part that the labels name."
    )
    calibrate: bool = _setting(
        True, "Fit one temperature to videos not learned from, so that probabilities mean what they say."
    )
    seed: int = _setting(0, "Seed of the split, the weights and the order of the videos.", low=0)
    device: str = _setting("auto", "Where the head is trained.", choices=("auto", "cpu", "cuda"))
    threads: int = _setting(
        0,
        "CPU threads to train with; 0 takes one for each available core, up to 16. Another number of threads may give "
        "a slightly different model.",
        low=0,
    )

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        head = values.get("head")
        if values.get("ensemble", 1) > 1 and head in LINEAR_HEADS:
            raise UsageError(
                f"--ensemble goes with neural heads: the fit of {head} is the same for every seed; "
                "take --ensemble 1, or another --head"
            )
        if values.get("folds") is not None and values.get("leave_one_group_out"):
            raise UsageError("--folds and --leave-one-group-out are two protocols; give one of them")

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        return {
            *(["ensemble"] if given.get("head") in LINEAR_HEADS else []),
            *(["leave_one_group_out"] if given.get("folds") is not None else []),
            *(["folds"] if given.get("leave_one_group_out") else []),
        }

    @property
    def transforms(self) -> tuple[str, ...]:
        """The names in `motion`."""
        return tuple(self.motion.split(","))

    @property
    def statistic_names(self) -> tuple[str, ...]:
        """The names in `statistics`."""
        return tuple(self.statistics.split(","))


@dataclass(frozen=True)
class LabelsConfig(_Checked):
    """Where `vidpipe train` and `vidpipe evaluate` have labels from."""

    labels: str | None = _setting(
        None,
        "CSV with columns video,label and optionally split,group; or the official split files of UCF101, HMDB51 or "
        "Kinetics. Without it, a video's label is the name of its folder.",
        is_path=True,
    )
    video_column: str | None = _setting(
        None,
        "Column of --labels that names the videos; by default `video`, or a usual name such as filename or path.",
        metavar="COLUMN",
    )
    label_column: str | None = _setting(
        None,
        "Column of --labels that holds the labels; by default `label`, or a usual name such as class.",
        metavar="COLUMN",
    )
    group_by: str | None = _setting(
        None,
        "What tells which clips come from one source: a column of --labels, or a regular expression over the "
        "video's id whose first bracket is the group.",
        metavar="COLUMN|REGEX",
    )
    split: str = _setting(
        "1",
        "Which of UCF101's or HMDB51's splits to take, where --labels is their folder; all: each (train).",
        choices=("1", "2", "3", "all"),
        flags=("--official-split",),
    )
    skip_missing: bool = _setting(False, "Leave out labels whose video is not in the store.")


@dataclass(frozen=True)
class EvaluateConfig(_Checked):
    """How `vidpipe evaluate` shows what a run is worth."""

    device: str = _setting("auto", "Where the head runs.", choices=("auto", "cpu", "cuda"))
    plot: str | None = _setting(None, "Write the confusion matrix to this PNG file.", is_path=True)
    format: str = _setting("table", "Form of the output; json: one JSON object a line.", choices=("table", "json"))


@dataclass(frozen=True)
class PredictConfig(_Checked):
    """What `vidpipe predict` tells of each video."""

    top: int | None = _setting(
        None,
        "Classes in the ranking of each video; with csv, adds columns label_1,probability_1 and so on. [default: 5; "
        "csv: no ranking]",
        low=1,
    )
    min_confidence: float = _setting(
        0.0, "Answer `none of these` where the first class is less probable.", low=0, high=1
    )
    uncertain: int | None = _setting(
        None,
        "Print the N least certain videos only (lowest probability of the first class), least certain first, as csv "
        "unless --format says otherwise: to correct and to train on.",
        low=1,
    )
    store: str | None = _setting(None, "Use the features that this store holds.", is_path=True)
    format: str = _setting(
        "table", "Form of the output; json: one JSON object a line.", choices=("table", "json", "csv")
    )


Config = ExtractConfig | TrainConfig | LabelsConfig | EvaluateConfig | PredictConfig

SECTIONS: Mapping[str, tuple[type[Config], ...]] = {
    "extract": (ExtractConfig,),
    "train": (TrainConfig, LabelsConfig),
    "evaluate": (EvaluateConfig, LabelsConfig),
    "predict": (PredictConfig,),
}
"""The tables of a config file, and whose settings each may hold."""


def settings(config: type) -> tuple[Setting, ...]:
    """The settings of a config class, in the order in which they are declared."""
    return tuple(
        Setting(field.name, _plain_type(field.type), field.default, **field.metadata) for field in fields(config)
    )


def _plain_type(annotation: Any) -> type:
    """`int | None` -> int"""
    members = [member for member in getattr(annotation, "__args__", (annotation,)) if member is not type(None)]
    return members[0]  # type: ignore[no-any-return]


def load_section(path: Path, section: str, *, config: type[Config] | None = None) -> dict[str, Any]:
    """The settings that a TOML config file names for one stage.

    Args:
        path: the file.
        section: one of `SECTIONS`; the file may hold the others too.
        config: leave out settings that are not of this class.

    Returns:
        the values by name, of the settings' types.

    Raises:
        ConfigError: the file does not parse, or holds an unknown table, key or value.
    """
    document = _load_toml(path)
    checked = {table: _checked_table(path, table, values) for table, values in document.items()}
    names = [setting.name for one in SECTIONS[section] if config in (None, one) for setting in settings(one)]
    return {name: value for name, value in checked.get(section, {}).items() if name in names}


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; --config names a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; --config names a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; save the file as plain text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _checked_table(path: Path, table: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict) and table not in SECTIONS:
        tables = _tables_with(table)
        where = f"put it below {' or '.join(tables)}" if tables else f"the tables are {', '.join(SECTIONS)}"
        raise ConfigError(f"{path}: {table!r} stands outside a table; {where}")
    if table not in SECTIONS:
        raise ConfigError(f"{path}: {unknown_name('table', table, SECTIONS)}")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {table!r} is a table; write [{table}] on a line of its own")
    known = {setting.name: setting for config in SECTIONS[table] for setting in settings(config)}
    for name in values:
        if name not in known and (tables := _tables_with(name)):
            raise ConfigError(
                f"{path}, [{table}]: {name!r} is no setting of {table}; put it below {' or '.join(tables)}"
            )
        if name not in known:
            raise ConfigError(f"{path}, [{table}]: {unknown_name('key', name, known)}")
    try:
        checked = {name: known[name].check(value) for name, value in values.items()}
        for config in SECTIONS[table]:
            config.check_together(checked)
    except UsageError as error:
        raise ConfigError(f"{path}, [{table}]: {error}") from error
    return checked


def _tables_with(name: str) -> list[str]:
    """`[train]` for `head`: the tables that a setting may stand in."""
    return [
        f"[{table}]"
        for table, configs in SECTIONS.items()
        if any(setting.name == name for config in configs for setting in settings(config))
    ]


def save_config(path: Path, **sections: Config) -> None:
    """Write a config file that `--config` reads back; settings left at None are left out."""
    document = {
        name: {key: value for key, value in dataclasses.asdict(config).items() if value is not None}
        for name, config in sections.items()
    }
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
