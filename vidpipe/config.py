"""Every setting, once: its default, range and help make the options, the `--help` texts and the checks of config files.

[extract]                       [train]
sampling = "uniform"            head = "statistics,lstm"
num_frames = 16                 fusion = "late"
backbone = "resnet50"           labels = "labels.csv"
"""

import dataclasses
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from vidpipe.errors import ConfigError, UsageError, unknown_name

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_HEAD",
    "DEFAULT_POSE_SIZE",
    "DUPLICATES_SETTINGS",
    "DUPLICATE_THRESHOLD",
    "EXACT_DECODING",
    "EXPLAIN_SETTINGS",
    "FINETUNE_SETTINGS",
    "HEAD_NAMES",
    "LINEAR_HEADS",
    "PREDICT_SETTINGS",
    "RAY_SETTINGS",
    "SEARCH_SETTINGS",
    "SECTIONS",
    "SEEDLESS_HEADS",
    "ClustersConfig",
    "Config",
    "Decoding",
    "DetectorConfig",
    "EmbeddingConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "LabelsConfig",
    "PredictConfig",
    "Sampling",
    "Setting",
    "TimelineConfig",
    "TrainConfig",
    "check_names",
    "load_section",
    "make_config",
    "save_config",
    "settings",
]

DEFAULT_NUM_FRAMES = {"uniform": 16, "scene": 4, "keyframe": 16}
DEFAULT_FPS = 2.0
DEFAULT_DECODER = "pyav"
DEFAULT_POSE_SIZE = 256
DUPLICATE_THRESHOLD = 13.0
"""Score from which on a pair of videos counts as duplicates, in standard deviations of chance; see docs/search.md."""
LINEAR_HEADS = ("mean", "statistics")
DEFAULT_HEAD = "statistics,lstm"
SEEDLESS_HEADS = (*LINEAR_HEADS, "neighbours")
"""The heads that are the same for every seed."""
HEAD_NAMES = ("auto", "lstm", "bilstm", "gru", "attention", "tcn", "transformer", "neighbours", *LINEAR_HEADS)
RAY_SETTINGS = ("ray_address", "ray_actors", "ray_cpus", "ray_gpus")
"""Settings of `extract` that go with `--executor ray`."""
PREDICT_SETTINGS = (
    "weights",
    "detector_weights",
    "device",
    "engine",
    "decoder",
    "batch_size",
    "workers",
    "timeout",
    "video_column",
    "executor",
    *RAY_SETTINGS,
)
"""Settings of `extract` that `predict` has too. The others change features; `predict` takes them from the run."""

EXPLAIN_SETTINGS = ("weights", "device", "decoder", "workers", "timeout", "video_column")
"""Settings of `extract` that `explain` has too."""

FINETUNE_SETTINGS = ("weights", "decoder", "workers", "timeout", "video_column")
"""Settings of `extract` that `finetune` has too."""

SEARCH_SETTINGS = ("weights", "detector_weights", "device", "engine", "decoder", "batch_size", "workers", "timeout")
"""Settings of `extract` that `search similar` has too."""
DUPLICATES_SETTINGS = ("executor", "ray_address")
"""Settings of `extract` that `search duplicates` has too."""


@dataclass(frozen=True)
class Setting:
    """One setting: its name, type, default and allowed values."""

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
    """Whether the value is a list of names, separated by commas; its option may be given several times."""
    is_path: bool = False
    """Whether the value is a file or folder, relative to the working folder."""
    metavar: str = ""
    """Placeholder of the value in the help; empty for the type's own."""
    flags: tuple[str, ...] = ()
    """Other names of the option."""

    def check(self, value: Any) -> Any:
        """Convert a value to the setting's type, and check it.

        Args:
            value: a whole number where a float is expected, a list of names where several are allowed, and a path where
                text is expected are converted.

        Returns:
            the value, as the setting's type.

        Raises:
            ConfigError: the value is of another type, out of range, or not one of the choices.
        """
        if value is None and self.default is None:
            return None
        value = self._converted(value)
        is_bool = isinstance(value, bool)
        if not isinstance(value, self.type) or is_bool != (self.type is bool):
            raise ConfigError(f"{self.name} = {_as_toml(value)}: write {self._how_to_write}")
        for chosen in str(value).split(",") if self.several else [value]:
            if self.choices and chosen not in self.choices:
                raise ConfigError(unknown_name(self.name, str(chosen), self.choices))
        if not self._in_range(value):
            raise ConfigError(f"{self.name} = {value!r}: {self.allowed} is needed")
        return value

    def _converted(self, value: Any) -> Any:
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.type is str and isinstance(value, os.PathLike):
            return os.fspath(value)
        if self.several and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return ",".join(value)
        return value

    @property
    def _how_to_write(self) -> str:
        """How to write a value of the type in TOML."""
        if self.several:
            examples = self.choices[:2] or (self.default or "NAME",)
            return f'names in quotes with commas between them, such as "{",".join(examples)}"'
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
    """A value as written in TOML: `"many"`, `true`, `[1, 2]`."""
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
        """Check that the values do not contradict each other.

        Args:
            values: by name; those missing are not known yet.

        Raises:
            UsageError: two values contradict each other.
        """

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        """Return the settings of a file that an option makes obsolete, because it selects another method.

        Args:
            from_file: values from the config file.
            given: values from the options, which override the file.

        Returns:
            names of settings whose values in the file are ignored.
        """
        return set()


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are sampled; `vidpipe.video.sampling` has the rules."""

    method: str
    num_frames: int | None = None
    """Frames of the video (uniform), of each scene (scene), or at most of the key frames (keyframe)."""
    fps: float | None = None
    """Frames per second (fps)."""
    clip_seconds: float | None = None
    """`num_frames` are of every clip of this length, not of the whole video (uniform)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the method and its parameter, as in a feature store's key."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        parameter = f"{self.fps:g} fps" if self.method == "fps" else f"{self.num_frames} frames"
        if self.method == "fps":
            return parameter
        if self.method == "keyframe":
            return f"up to {self.num_frames} key frames"
        each = "" if self.clip_seconds is None else f" every {self.clip_seconds:g} s"
        return f"{self.method}, {parameter}{' a scene' * (self.method == 'scene')}{each}"


@dataclass(frozen=True)
class Decoding:
    """How frames are decoded, as far as it changes their pixels."""

    fast_decode: str = "off"
    """One of `vidpipe.video.container.FAST_DECODE`."""
    decoder: str = "pyav"
    """`nvdec`, or `pyav` for those with the same pixels as PyAV."""

    def as_dict(self) -> dict[str, str] | None:
        """Return what differs from exact decoding, as in a feature store's key; None where nothing does."""
        return {name: value for name, value in vars(self).items() if value != getattr(EXACT_DECODING, name)} or None


EXACT_DECODING = Decoding()


@dataclass(frozen=True)
class ExtractConfig(_Checked):
    """Settings of `vidpipe extract`."""

    sampling: str = _setting(
        "uniform",
        "Which frames to sample. keyframe: of the frames that the file stores as key frames, which decode fastest.",
        choices=("uniform", "fps", "scene", "keyframe"),
    )
    num_frames: int | None = _setting(
        None,
        "Frames of each video (uniform; default 16), of each scene (scene; default 4), or at most of the key frames "
        "(keyframe; default 16).",
        low=1,
    )
    fps: float | None = _setting(None, "Frames to sample per second of video (fps; default 2).", low=0, above=True)
    clip_seconds: float | None = _setting(
        None,
        "Take --num-frames of every CLIP_SECONDS of a video, not of the whole video: a long video is sampled as "
        "clips of this length would be (uniform). For timelines.",
        low=0,
        above=True,
    )
    backbone: str = _setting(
        "resnet50",
        "Frozen model, one or more of: a name that `vidpipe backbones` lists, timm/NAME, torchvision/NAME, "
        "transformers/NAME. Each video is decoded once for all of them.",
        several=True,
    )
    weights: str = _setting(
        "default", "`default`, `random` (for tests, and to train from scratch), or a .pth, .pt or .safetensors file."
    )
    pool: str = _setting(
        "auto",
        "How to pool the model's output into one feature. Convolutional networks: avg or max over the last feature "
        "map. Transformers: token (the class token), tokens (mean of the patch tokens) or attention. auto: what the "
        "weights were trained for.",
        choices=("auto", "avg", "max", "token", "tokens", "attention", "none"),
    )
    crop: str = _setting(
        "centre",
        "What an image model sees of a frame: the centre crop that its weights were trained with, or the whole picture "
        "at the same size.",
        choices=("centre", "whole"),
    )
    input_size: int | None = _setting(
        None,
        "Pixels of the shorter side of what a network sees. Fewer are faster. [default: as its weights were trained]",
        low=16,
        high=2048,
    )
    grid: int = _setting(
        1,
        "Also pool each of GRID × GRID cells of the picture (image models with a feature map; head: attention).",
        low=1,
        high=7,
    )
    window_stride: float | None = _setting(
        None,
        "Video models: a window of frames at each WINDOW_STRIDE seconds of video, in place of one around each sampled "
        "frame.",
        low=0.01,
    )
    regions: str = _setting(
        "whole",
        "What the backbone sees of each frame. people: a box around all people of the video. tracks: a box around each "
        "person, who has a feature sequence of their own. mask: people alone; all else is painted over. background: "
        "all but people, who are painted over. faces: a box around each face, by person as for tracks.",
        choices=("whole", "people", "tracks", "mask", "background", "faces"),
    )
    detector: str | None = _setting(
        None,
        "Detector of people (--regions, --backbone pose), a name that `vidpipe backbones --kind detector` lists. "
        "[default: fasterrcnn_mobilenet for people and tracks, deeplab_mobilenet for mask and background, mtcnn for "
        "faces, keypointrcnn for pose]",
    )
    detector_weights: str = _setting(
        "default",
        "Weights of the detector: `default`, `random` (for tests), or a .pth, .pt, .safetensors or .onnx file; for "
        "mtcnn a folder with its three files, or facenet-pytorch's wheel.",
    )
    refine: str = _setting(
        "none",
        "Refine masks of people (--regions mask and background). crf: fit them to the edges of the frame, with a fully "
        "connected conditional random field.",
        choices=("none", "crf"),
    )
    pose_size: int = _setting(
        DEFAULT_POSE_SIZE,
        "Pixels of the longer side of the frames in which movenet looks for key points (--backbone pose). Small people "
        "need more; the time grows with the square.",
        low=64,
        high=1280,
    )
    dtype: str = _setting("float32", "Type of the stored features.", choices=("float32", "float16"))
    device: str = _setting("auto", "Device that runs the image model.", choices=("auto", "cpu", "cuda"))
    engine: str = _setting(
        "auto",
        "Library that runs the image model. auto: ONNX Runtime for convolutional networks on a CPU, otherwise torch.",
        choices=("auto", "torch", "onnx"),
    )
    decoder: str = _setting(
        DEFAULT_DECODER,
        "Preferred decoder. pyav and decord give the same frames. nvdec decodes on an NVIDIA GPU (pip install "
        "'vidpipe[nvdec]'), and its pixels differ slightly.",
        choices=("pyav", "decord", "nvdec"),
    )
    fast_decode: str = _setting(
        "off",
        "Skip the loop filter of H.264, HEVC, VP8 and VP9, which smooths the edges of blocks. nonref: in frames that "
        "no other frame refers to. all: in all frames; the error grows until the next key frame. Changes features.",
        choices=("off", "nonref", "all"),
    )
    precision: str = _setting(
        "full",
        "Arithmetic precision of the image model. half is for GPUs, and changes features by up to 1 %.",
        choices=("full", "half"),
    )
    cuda_graphs: bool = _setting(
        False,
        "On a GPU, launch all kernels of the image model at once, as a CUDA graph, where that is measured to be "
        "faster.",
    )
    batch_size: int | None = _setting(
        None, "Frames in a batch of the image model (default 8 on a CPU, 64 on a GPU).", low=1
    )
    workers: int = _setting(0, "Number of decoding processes; 0 chooses it from the cores and the device.", low=0)
    timeout: float = _setting(
        120.0, "Time limit in seconds for decoding one chunk of a video (128 packets or frames).", low=0, above=True
    )
    seal_videos: int = _setting(256, "Seal a shard after this number of videos, the most that a crash can lose.", low=1)
    seal_seconds: float = _setting(60.0, "Seal a shard after this number of seconds, if that comes first.", low=0)
    executor: str = _setting(
        "local",
        "What does the work: this machine, or the nodes of a Ray cluster, which share the folders of videos and store "
        "(pip install 'vidpipe[ray]').",
        choices=("local", "ray"),
    )
    ray_address: str | None = _setting(
        None,
        "Ray cluster to use: HOST:PORT, or auto for the one that this machine belongs to. [default: RAY_ADDRESS; "
        "without it, a Ray of its own on this machine]",
    )
    ray_actors: int | None = _setting(
        None, "Number of actors, the processes of Ray that extract. [default: as many as fit]", low=1
    )
    ray_cpus: int | None = _setting(
        None,
        "Cores of an actor. [default: 4, or those of the smallest node; with GPUs, a GPU's share of its node]",
        low=1,
    )
    ray_gpus: float | None = _setting(
        None, "GPUs of an actor; 0.5: two actors share one. [default: 1 where nodes have GPUs]", low=0
    )
    video_column: str | None = _setting(
        None,
        "Column of an INPUT's CSV with the videos. Default: `video`, or a common name such as filename or path.",
        metavar="COLUMN",
    )

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        sampling = values.get("sampling", "uniform" if "fps" not in values else "fps")
        if values.get("fps") is not None and sampling != "fps":
            raise UsageError(f"--fps goes with --sampling fps, not with --sampling {sampling}")
        if values.get("num_frames") is not None and sampling == "fps":
            raise UsageError(
                "--num-frames goes with --sampling uniform, scene or keyframe; with --sampling fps, give --fps"
            )
        if values.get("clip_seconds") is not None and sampling != "uniform":
            raise UsageError(f"--clip-seconds goes with --sampling uniform, not with --sampling {sampling}")
        _check_key_frames(values, sampling)
        if values.get("fast_decode", "off") != "off" and values.get("decoder", DEFAULT_DECODER) != "pyav":
            raise UsageError(f"--fast-decode goes with --decoder pyav, not with --decoder {values['decoder']}")
        has_pose = "pose" in str(values.get("backbone", "")).split(",")
        if values.get("detector") is not None and values.get("regions", "whole") == "whole" and not has_pose:
            raise UsageError(
                "--detector goes with --regions people, tracks, faces, mask or background, or with --backbone pose; "
                "give one of them"
            )
        if "facenet" in str(values.get("backbone", "")).split(",") and values.get("regions", "faces") != "faces":
            raise UsageError("--backbone facenet sees faces alone, and not whole pictures; add --regions faces")
        if values.get("refine", "none") != "none" and values.get("regions", "whole") not in ("mask", "background"):
            raise UsageError("--refine goes with --regions mask or background; give one of them")
        if values.get("pose_size", DEFAULT_POSE_SIZE) != DEFAULT_POSE_SIZE and not has_pose:
            raise UsageError("--pose-size goes with --backbone pose")
        given = [name for name in RAY_SETTINGS if values.get(name) is not None]
        if given and values.get("executor", "local") != "ray":
            raise UsageError(f"--{given[0].replace('_', '-')} goes with --executor ray")

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        sampling = given.get("sampling")
        if sampling is None or sampling == from_file.get("sampling"):
            return set()
        if "sampling" in from_file:
            return {"num_frames", "fps", "clip_seconds"}
        return {"num_frames", "clip_seconds"} if sampling == "fps" else {"fps"}

    @property
    def backbones(self) -> tuple[str, ...]:
        """The names in `backbone`."""
        return tuple(self.backbone.split(","))

    @property
    def decoding(self) -> Decoding:
        """The settings of the decoder that change pixels."""
        return Decoding(self.fast_decode, "nvdec" if self.decoder == "nvdec" else "pyav")

    def resolve_sampling(self) -> Sampling:
        """Return the sampling method with its parameter, or the parameter's default."""
        if self.sampling == "fps":
            return Sampling("fps", fps=self.fps or DEFAULT_FPS)
        num_frames = self.num_frames or DEFAULT_NUM_FRAMES[self.sampling]
        return Sampling(self.sampling, num_frames=num_frames, clip_seconds=self.clip_seconds)


def _check_key_frames(values: Mapping[str, Any], sampling: str) -> None:
    """Refuse what needs the frames between key frames."""
    if sampling != "keyframe":
        return
    if values.get("window_stride") is not None:
        raise UsageError(
            "--window-stride takes windows of neighbouring frames, and --sampling keyframe decodes key frames alone; "
            "leave one of them out"
        )
    if values.get("regions", "whole") in ("people", "tracks", "faces"):
        raise UsageError(
            f"--regions {values['regions']} looks for people between the key frames, too; use --sampling uniform or "
            "fps, or --regions mask or background"
        )


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """Settings of `vidpipe train`."""

    head: str = _setting(
        DEFAULT_HEAD,
        "Classifiers over a feature sequence, one or more; each stream gets one of each, and their predictions are "
        "fused. auto compares several within --budget.",
        choices=HEAD_NAMES,
        several=True,
    )
    streams: str | None = _setting(
        None, "Streams to use, one or more names of stores. [default: all; image models first]", several=True
    )
    fusion: str | None = _setting(
        None,
        "How to fuse streams. late: add the log-probabilities of each stream's heads. early: join the streams before "
        "linear heads; neural heads stay late. [default: late]",
        choices=("late", "early"),
    )
    motion: str | None = _setting(
        None,
        "Input of the head, one or more of: raw (the features), centred (minus the clip's mean), difference (to the "
        "previous frame), magnitude (absolute difference). [default: by the stream's backbone]",
        choices=("raw", "centred", "difference", "magnitude"),
        several=True,
    )
    unit_frames: bool | None = _setting(
        None, "First scale each frame's feature to length 1. [default: by the stream's backbone]"
    )
    scale_sharing: float | None = _setting(
        None,
        "0: scale each feature by its own standard deviation; 1: scale a transform by one number. [default: by the "
        "stream's backbone]",
        low=0,
        high=1,
    )
    statistics: str | None = _setting(
        None,
        "Statistics over time for the head `statistics`: one or more of mean, deviation, thirds. [default: by the "
        "stream's backbone]",
        choices=("mean", "deviation", "thirds"),
        several=True,
    )
    C: float | None = _setting(
        None,
        "Inverse of the regularisation strength (heads mean and statistics). [default: by the stream's backbone]",
        low=0,
        above=True,
    )
    components: int = _setting(
        64,
        "Project what a recurrent head sees on its first principal components, where it has more than 512 numbers; 0: "
        "do not.",
        low=0,
    )
    hidden_size: int = _setting(128, "Hidden size of a neural head.", low=1)
    num_layers: int = _setting(1, "Number of layers (lstm, bilstm, gru, transformer).", low=1)
    bidirectional: bool = _setting(True, "Read the sequence in both directions (lstm, gru).")
    dropout: float = _setting(0.5, "Dropout on the input, before the classifier and between layers.", low=0, high=0.95)
    ensemble: int = _setting(1, "Number of neural heads, with different seeds, in one model.", low=1)
    budget: float = _setting(300.0, "Time limit in seconds for comparing heads (--head auto).", low=0)
    epochs: int | None = _setting(
        None, "Maximum number of epochs of a neural head (default 60; fewer for many videos).", low=1
    )
    batch_size: int | None = _setting(None, "Videos in a batch (default: a twelfth of them, 16 to 64).", low=1)
    lr: float = _setting(3e-3, "Learning rate of AdamW.", low=0, above=True)
    schedule: str = _setting("cosine", "Learning rate schedule.", choices=("constant", "cosine"))
    weight_decay: float = _setting(1e-2, "Weight decay of AdamW.", low=0)
    label_smoothing: float = _setting(0.1, "Label smoothing: the probability spread over all classes.", low=0, high=0.9)
    balance: str = _setting(
        "none",
        "Balance classes of unequal size: weights in the loss, or sampling rare classes more often.",
        choices=("none", "weights", "sampling"),
    )
    mixup: float = _setting(0.0, "Mixup: parameter of the Beta distribution; 0 turns it off.", low=0)
    drop_frames: float = _setting(0.0, "Drop each frame with this probability in training.", low=0, high=0.9)
    shift_frames: int = _setting(
        0, "Skip a random number of frames at the beginning in training, at most this one.", low=0
    )
    jitter: float = _setting(
        0.5,
        "Training of recurrent heads: scale a clip, and add a row to all its steps, at random with this deviation, as "
        "another scene would.",
        low=0,
    )
    subsequence: float = _setting(
        0.5,
        "Train on a random contiguous subsequence of at least this fraction of a clip's frames.",
        low=0,
        high=1,
        above=True,
    )
    reverse: bool = _setting(False, "Also train on reversed clips. Use it only if no action is the reverse of another.")
    patience: int = _setting(20, "Stop after this number of epochs without a lower validation loss.", low=1)
    val_fraction: float | None = _setting(
        None,
        "Fraction of the training videos used for validation (default 0.15; 0 for several heads or streams, which "
        "are fused by folds).",
        low=0,
        high=0.9,
    )
    test_fraction: float = _setting(
        0.2, "Fraction of the videos used as the test set, where the labels have no split.", low=0, high=0.9
    )
    window: float | None = _setting(
        None,
        "Labels of intervals: length in seconds of the windows of long videos that the classifier learns. [default: "
        "the median interval; of a store with --clip-seconds, the length of its clips]",
        low=0,
        above=True,
    )
    targets: str = _setting(
        "windows",
        "Labels of intervals: what gets a label in training. windows: parts of long videos, with any head. rows: each "
        "row of a video, with the head tcn or bilstm over the whole of it.",
        choices=("windows", "rows"),
    )
    background: str = _setting("background", "Labels of intervals: the class of time that none of them covers.")
    folds: int | None = _setting(
        None,
        "Cross-validate with this number of folds by group; then train on all videos but a test set from the labels.",
        low=2,
    )
    leave_one_group_out: bool = _setting(False, "Cross-validate with each group as a fold.")
    check_background: bool = _setting(
        False,
        "Also test the classifier on altered test videos: one frozen frame, frames in random order, and those of "
        "--without-people and --only-people. It shows whether the place was learned.",
    )
    repeats: int = _setting(1, "Repeat cross-validation, or the random split, with this number of seeds.", low=1)
    refit: bool = _setting(
        True, "After testing, refit the saved head on all videos outside a test set that the labels define."
    )
    calibrate: bool = _setting(
        True, "Calibrate probabilities with a temperature, fitted on videos outside the training set."
    )
    seed: int = _setting(0, "Seed of the split, the initial weights and the order of the videos.", low=0)
    device: str = _setting("auto", "Device that trains the head.", choices=("auto", "cpu", "cuda"))
    threads: int = _setting(
        0,
        "Number of CPU threads; 0 uses one, which is fastest for small heads. Another number may give a slightly "
        "different model.",
        low=0,
    )

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        heads = str(values.get("head", DEFAULT_HEAD)).split(",")
        _check_heads(heads)
        if values.get("ensemble", 1) > 1 and all(head in SEEDLESS_HEADS for head in heads):
            raise UsageError(
                f"--ensemble goes with neural heads: {' and '.join(heads)} {'is' if len(heads) == 1 else 'are'} the "
                "same for every seed; use --ensemble 1, or another --head"
            )
        if values.get("fusion") == "early" and not any(head in (*LINEAR_HEADS, "auto") for head in heads):
            raise UsageError(
                f"--fusion early joins the streams of linear heads, and {' and '.join(heads)} "
                f"{'is' if len(heads) == 1 else 'are'} not linear; use --fusion late, or add --head statistics"
            )
        if values.get("folds") is not None and values.get("leave_one_group_out"):
            raise UsageError("--folds and --leave-one-group-out are two protocols; give only one")
        if values.get("check_background") and values.get("targets") == "rows":
            raise UsageError("--check-background goes with --targets windows: it tests labels, not rows of long videos")

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        return {
            *(["ensemble"] if _are_seedless(given.get("head")) else []),
            *(["leave_one_group_out"] if given.get("folds") is not None else []),
            *(["folds"] if given.get("leave_one_group_out") else []),
        }

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads named in `head`."""
        return tuple(self.head.split(","))

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The streams named in `streams`; none for all."""
        return tuple(self.streams.split(",")) if self.streams else ()


def _check_heads(heads: list[str]) -> None:
    twice = next((head for head in heads if heads.count(head) > 1), None)
    if twice is not None:
        raise UsageError(f"--head {twice} is given twice; each head is trained once for each stream")
    if "auto" in heads and len(heads) > 1:
        raise UsageError("--head auto chooses the heads itself; give it alone")


def _are_seedless(head: str | None) -> bool:
    return head is not None and all(name in SEEDLESS_HEADS for name in head.split(","))


@dataclass(frozen=True)
class LabelsConfig(_Checked):
    """Settings of labels, for `vidpipe train` and `vidpipe evaluate`."""

    labels: str | None = _setting(
        None,
        "Labels: a CSV with columns video,label and optionally split,group; or the official split files of UCF101, "
        "HMDB51 or Kinetics. Default: the name of each video's folder.",
        is_path=True,
    )
    video_column: str | None = _setting(
        None,
        "Column of --labels with the videos. Default: `video`, or a common name such as filename or path.",
        metavar="COLUMN",
    )
    label_column: str | None = _setting(
        None,
        "Column of --labels with the labels. Default: `label`, or a common name such as class.",
        metavar="COLUMN",
    )
    group_by: str | None = _setting(
        None,
        "How to group clips from one source: a column of --labels; or `duplicates`, which joins videos with the same "
        "footage (and the groups of the labels); or a regular expression that matches a video's id and whose first "
        "capture group is the group.",
        metavar="COLUMN|duplicates|REGEX",
    )
    split: str = _setting(
        "1",
        "Official split of UCF101 or HMDB51 to use, where --labels is its folder. all: cross-validate over the three "
        "(train only).",
        choices=("1", "2", "3", "all"),
        flags=("--official-split",),
    )
    skip_missing: bool = _setting(False, "Ignore labels of videos that are not in the store.")


@dataclass(frozen=True)
class EvaluateConfig(_Checked):
    """Settings of `vidpipe evaluate`."""

    device: str = _setting("auto", "Device that runs the head.", choices=("auto", "cpu", "cuda"))
    plot: str | None = _setting(None, "Write the confusion matrix to a PNG file.", is_path=True)
    format: str = _setting("table", "Output format; json: one JSON object a line.", choices=("table", "json"))


@dataclass(frozen=True)
class PredictConfig(_Checked):
    """Settings of `vidpipe predict`."""

    top: int | None = _setting(
        None,
        "Number of most probable classes to show for each video; csv gets columns label_1,probability_1 and so on. "
        "[default: 5; csv: no ranking]",
        low=1,
    )
    min_confidence: float = _setting(
        0.0, "Answer `none of these` if the most probable class has a lower probability.", low=0, high=1
    )
    uncertain: int | None = _setting(
        None,
        "Print only the N least certain videos, least certain first, to correct their labels and train on them. "
        "Format csv, unless --format is given.",
        low=1,
    )
    store: str | None = _setting(
        None,
        "Use features from this store where it has them; with --timeline or --executor ray, make it and keep the "
        "others in it.",
        is_path=True,
    )
    format: str = _setting("table", "Output format; json: one JSON object a line.", choices=("table", "json", "csv"))


@dataclass(frozen=True)
class TimelineConfig(_Checked):
    """Settings of `vidpipe predict --timeline`."""

    timeline: bool = _setting(
        False, "Find segments of long videos, each with start, stop and label, instead of one label for each video."
    )
    window: float | None = _setting(
        None,
        "Length of a window in seconds. [default: the median length of what the run learned from]",
        low=0,
        above=True,
    )
    stride: float | None = _setting(
        None,
        "Seconds from the start of a window to the start of the next. [default: a quarter of the window]",
        low=0.01,
    )
    method: str = _setting(
        "viterbi",
        "How segments are read off the classes' probabilities over time. viterbi: one label at a time, with a cost for "
        "each change. threshold: each class for itself, so that segments may overlap.",
        choices=("viterbi", "threshold"),
    )
    change_cost: float | None = _setting(
        None,
        "viterbi: cost of a change of label within a shot, in nats of the evidence of one window. [default: what was "
        "best on the training videos, if their labels are intervals, else 0.5]",
        low=0,
    )
    high: float = _setting(0.5, "threshold: a segment has this probability somewhere.", low=0, high=1)
    low: float = _setting(0.3, "threshold: a segment lasts while its class has this probability.", low=0, high=1)
    max_overlap: float = _setting(
        0.5,
        "threshold: of segments of two classes whose temporal IoU exceeds this, keep the more probable.",
        low=0,
        high=1,
    )
    min_segment: float = _setting(0.0, "Leave out segments that are shorter than this, in seconds.", low=0)
    cuts: bool = _setting(
        True, "End windows at cuts, found where the features of neighbouring frames of an image model differ most."
    )
    curves: bool = _setting(False, "json: give the probability of each class over time too.")
    follow: bool = _setting(
        False,
        "Read one file that is still recorded, or a folder into which a camera puts file after file, and print each "
        "segment as soon as it is certain, as JSON.",
    )
    idle: float = _setting(30.0, "follow: stop after this number of seconds without anything new.", low=0, above=True)
    write_video: str | None = _setting(
        None,
        "Write an H.264 copy of each video into this folder, with its label or its segments burnt in, a box around "
        "each person of --regions tracks, and its sound.",
        is_path=True,
        metavar="DIR",
    )


@dataclass(frozen=True)
class DetectorConfig(_Checked):
    """Settings of `vidpipe regions train`."""

    epochs: int = _setting(50, "Largest number of passes over the annotated frames.", low=1)
    batch_size: int = _setting(8, "Frames in a batch.", low=1)
    learning_rate: float | None = _setting(
        None,
        "Largest learning rate of AdamW; it rises at first, then falls to 0. [default: 1e-3 from random weights, 1e-4 "
        "from others]",
        low=0,
        above=True,
    )
    size: int | None = _setting(
        None,
        "Side in pixels of the square into which frames are fitted, a multiple of 32. [default: the network's own]",
        low=32,
    )
    width: float = _setting(
        1.0,
        "Share of the channels of yolov3, of the fcn networks, and of unet's decoder: 0.125 gives a small network.",
        low=0,
        above=True,
        high=1,
    )
    encoder: str = _setting("resnet34", "unet: encoder, by its name in segmentation-models-pytorch.")
    weights: str = _setting(
        "default",
        "Weights to begin from: `default` (the published ones; random where there are none), `random`, or a file. "
        "Layers for other classes begin at random.",
    )
    val_fraction: float = _setting(
        0.2, "Share of the videos to validate on, without --val-annotations.", low=0, above=True, high=0.9
    )
    patience: int = _setting(10, "Stop after this number of epochs without a better validation score.", low=1)
    device: str = _setting("auto", "Device that trains the detector.", choices=("auto", "cpu", "cuda"))
    seed: int = _setting(0, "Seed of the weights, of the order of frames and of their changes.", low=0)


@dataclass(frozen=True)
class FinetuneConfig(_Checked):
    """Settings of `vidpipe finetune`."""

    stream: str | None = _setting(None, "Stream to fine-tune, of a run with several. The new run has this stream only.")
    unfreeze: str = _setting(
        "1",
        "What of the backbone is trained: its last N stages, the stage NAME and all after it, or all. A wrong name "
        "lists the stages.",
        metavar="N|NAME|all",
    )
    lora: int | None = _setting(
        None,
        "Transformers: train low-rank changes of this rank of the linear layers in these stages, in place of their "
        "weights (pip install 'vidpipe[finetune]').",
        low=1,
        high=256,
        metavar="RANK",
    )
    deformable: str | None = _setting(
        None,
        "ResNets: make the 3 × 3 convolutions of these stages deformable, such as layer3,layer4. They begin as plain "
        "ones, and learn where to sample.",
        several=True,
        metavar="STAGE",
    )
    epochs: int = _setting(20, "Largest number of passes over the training videos.", low=1)
    patience: int = _setting(5, "Stop after this number of epochs without a lower validation loss.", low=1)
    batch_size: int = _setting(8, "Videos of a step.", low=1)
    accumulate: int | None = _setting(
        None,
        "Compute a step in this number of parts, whose gradients are added. More parts need less memory. [default: 1 "
        "on a GPU or with --batch-norm train; on a CPU one for each video, which is fastest]",
        low=1,
    )
    checkpointing: bool = _setting(
        False,
        "Compute the backbone again for its gradients, a few frames at a time. It needs less memory and more time.",
    )
    lr: float = _setting(1e-4, "Largest learning rate of the last stage (AdamW).", low=0, above=True)
    lr_decay: float = _setting(
        0.7, "Factor from the learning rate of a stage to that of the stage before it.", low=0, above=True, high=1
    )
    head_lr: float = _setting(
        3e-5, "Largest learning rate of the heads, which begin as fitted to frozen features.", low=0, above=True
    )
    weight_decay: float = _setting(1e-2, "Weight decay of matrices and filters.", low=0)
    warm_up: float = _setting(
        0.1, "Share of the steps in which the learning rate rises; then it falls to 0 as a cosine.", low=0, high=0.9
    )
    ema: float = _setting(
        0.99,
        "Decay of the exponential moving average of the weights, which is validated and saved; 0 turns it off.",
        low=0,
        high=0.99999,
    )
    label_smoothing: float = _setting(0.1, "Label smoothing: the probability spread over all classes.", low=0, high=0.9)
    batch_norm: str = _setting(
        "frozen",
        "Statistics of batch normalisation: those of the weights, or learned anew in the trained stages (for large "
        "batches).",
        choices=("frozen", "train"),
    )
    frames_per_segment: int = _setting(
        3,
        "Uniform sampling of single frames: frames cached of each part of a video, an odd number. An epoch sees one of "
        "them at random; 1 always takes the middle one.",
        low=1,
        high=15,
    )
    crop_scale: float = _setting(
        0.7, "Smallest share of the picture in a random crop; 1 takes the centre crop.", low=0.05, high=1
    )
    flip: str = _setting(
        "auto",
        "Mirror clips at random. auto: unless a label has the word left or right.",
        choices=("auto", "on", "off"),
    )
    colour: float = _setting(
        0.3, "Largest random change of brightness, contrast and saturation; 0 turns it off.", low=0, high=1
    )
    val_fraction: float = _setting(
        0.2,
        "Share of the training videos to validate on, where the run has no validation set. Groups stay together.",
        low=0.05,
        high=0.9,
    )
    cache: str | None = _setting(
        None,
        "Folder to keep the decoded frames in, for other fine-tunings of the same videos. [default: RUN2.frames/, "
        "removed at the end]",
        is_path=True,
        metavar="DIR",
    )
    cache_gb: float = _setting(20.0, "Largest size of the decoded frames in GB.", low=0, above=True)
    checkpoint_seconds: float = _setting(60.0, "Seconds between two checkpoints for --resume.", low=0)
    precision: str = _setting(
        "auto",
        "Arithmetic of the backbone. mixed: bfloat16 where it is safe (GPUs that have it). auto: mixed on such a GPU, "
        "else full.",
        choices=("auto", "full", "mixed"),
    )
    seed: int = _setting(0, "Seed of the order of videos and of their changes.", low=0)
    device: str = _setting("auto", "Device that trains.", choices=("auto", "cpu", "cuda"))
    threads: int = _setting(0, "Number of CPU threads; 0 uses all cores.", low=0)

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        frames = values.get("frames_per_segment", 3)
        if frames % 2 == 0:
            raise UsageError(
                f"--frames-per-segment {frames}: an odd number is needed, so that one frame is the middle one, such as "
                f"{frames + 1}"
            )
        if values.get("lora") is not None and values.get("batch_norm", "frozen") != "frozen":
            raise UsageError("--lora keeps the backbone's own weights; leave --batch-norm train out")


@dataclass(frozen=True)
class EmbeddingConfig(_Checked):
    """Settings of `vidpipe search train`."""

    streams: str | None = _setting(
        None, "Streams to use, one or more names of stores. [default: all; image models first]", several=True
    )
    loss: str = _setting(
        "triplet",
        "triplet: a video is nearer to those of its label than to others, by --margin. contrastive: videos of one "
        "label are pulled together, others pushed apart up to --margin.",
        choices=("triplet", "contrastive"),
    )
    dim: int = _setting(128, "Numbers of an embedding.", low=2, high=1024)
    margin: float | None = _setting(
        None,
        "triplet: of squared distances, which are at most 4. contrastive: of distances, which are at most 2. [default: "
        "0.2 for triplet, 1 for contrastive]",
        low=0,
        high=4,
        above=True,
    )
    epochs: int = _setting(60, "Passes over the videos.", low=1)
    folds: int = _setting(5, "Folds over groups that measure the embedding before it is trained on all videos.", low=2)
    seed: int = _setting(0, "Seed of the batches and of the noise.", low=0)


@dataclass(frozen=True)
class ClustersConfig(_Checked):
    """Settings of `vidpipe search clusters`."""

    streams: str | None = _setting(
        None, "Streams to use, one or more names of stores. [default: all; image models first]", several=True
    )
    method: str = _setting(
        "hdbscan",
        "hdbscan finds the number of clusters, and leaves out videos that are in none. kmeans puts each video into one "
        "of --num-clusters.",
        choices=("hdbscan", "kmeans"),
    )
    num_clusters: int | None = _setting(None, "kmeans: number of clusters.", low=2)
    min_size: int = _setting(5, "hdbscan: videos of the smallest cluster.", low=2)
    components: int = _setting(
        8, "Principal components of the videos' vectors that are clustered; more for more kinds of videos.", low=1
    )
    seed: int = _setting(0, "Seed of kmeans and of the map.", low=0)

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        is_kmeans = values.get("method", "hdbscan") == "kmeans"
        if is_kmeans and values.get("num_clusters") is None:
            raise UsageError("--method kmeans needs --num-clusters; --method hdbscan finds the number itself")
        if not is_kmeans and values.get("num_clusters") is not None:
            raise UsageError("--num-clusters goes with --method kmeans; --method hdbscan finds the number itself")


Config = (
    ExtractConfig
    | TrainConfig
    | LabelsConfig
    | EvaluateConfig
    | PredictConfig
    | TimelineConfig
    | DetectorConfig
    | FinetuneConfig
    | EmbeddingConfig
    | ClustersConfig
)
AnyConfig = TypeVar(
    "AnyConfig",
    ExtractConfig,
    TrainConfig,
    LabelsConfig,
    EvaluateConfig,
    PredictConfig,
    TimelineConfig,
    DetectorConfig,
    FinetuneConfig,
    EmbeddingConfig,
    ClustersConfig,
)

SECTIONS: Mapping[str, tuple[type[Config], ...]] = {
    "extract": (ExtractConfig,),
    "train": (TrainConfig, LabelsConfig),
    "evaluate": (EvaluateConfig, LabelsConfig),
    "predict": (PredictConfig, TimelineConfig),
    "finetune": (FinetuneConfig,),
}
"""The tables of a config file, and the configs whose settings each may contain."""


def settings(config: type) -> tuple[Setting, ...]:
    """Return the settings of a config class, in the order of declaration."""
    return tuple(
        Setting(field.name, _plain_type(field.type), field.default, **field.metadata) for field in fields(config)
    )


def _plain_type(annotation: Any) -> type:
    """`int | None` -> int"""
    members = [member for member in getattr(annotation, "__args__", (annotation,)) if member is not type(None)]
    return members[0]  # type: ignore[no-any-return]


def load_section(path: Path, section: str, *, config: type[Config] | None = None) -> dict[str, Any]:
    """Read one table of a TOML config file.

    Args:
        path: the file.
        section: the table, one of `SECTIONS`; the whole file is checked.
        config: return settings of this class only.

    Returns:
        the values by name, of the settings' types.

    Raises:
        ConfigError: the file does not parse, or contains an unknown table, key or value.
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
        where = f"put it below {tables}" if tables else f"the tables are {', '.join(SECTIONS)}"
        raise ConfigError(f"{path}: {table!r} is outside a table; {where}")
    if table not in SECTIONS:
        raise ConfigError(f"{path}: {unknown_name('table', table, SECTIONS)}")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {table!r} is a table; write [{table}] on a line of its own")
    known = {setting.name: setting for config in SECTIONS[table] for setting in settings(config)}
    for name in values:
        if name not in known and (tables := _tables_with(name)):
            raise ConfigError(f"{path}, [{table}]: {name!r} is not a setting of {table}; put it below {tables}")
        if name not in known:
            raise ConfigError(f"{path}, [{table}]: {unknown_name('key', name, known)}")
    try:
        checked = {name: known[name].check(value) for name, value in values.items()}
        for config in SECTIONS[table]:
            config.check_together(checked)
    except UsageError as error:
        raise ConfigError(f"{path}, [{table}]: {error}") from error
    return checked


def _tables_with(name: str) -> str:
    """`[extract] or [train]`: the tables that a setting may be in; empty for an unknown name."""
    return " or ".join(
        f"[{table}]"
        for table, configs in SECTIONS.items()
        if any(setting.name == name for config in configs for setting in settings(config))
    )


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of settings that are given in Python.

    Args:
        names: the names given.
        known: the names allowed.

    Raises:
        ConfigError: a name is not allowed; the message has the nearest one.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(unknown_name("setting", name, known))


def make_config(config: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
    """Make a config of those values that are its settings; the others are ignored.

    Args:
        config: the class.
        values: by name.

    Returns:
        a config, with defaults for the settings that are missing.

    Raises:
        ConfigError: a value is of another type, out of range, or not one of the choices.
        UsageError: two values contradict each other.
    """
    return config(**{one.name: values[one.name] for one in settings(config) if one.name in values})


def save_config(path: Path, **sections: Config) -> None:
    """Write a config file that `--config` can read; settings that are None are left out."""
    document = {
        name: {key: value for key, value in dataclasses.asdict(config).items() if value is not None}
        for name, config in sections.items()
    }
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
