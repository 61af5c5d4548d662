"""Settings of `vidpipe train` and `vidpipe evaluate`, and of the labels that both read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidpipe.config.setting import Config, setting
from vidpipe.errors import UsageError

__all__ = [
    "DEFAULT_HEAD",
    "HEAD_NAMES",
    "LINEAR_HEADS",
    "SEEDLESS_HEADS",
    "EvaluateConfig",
    "LabelsConfig",
    "TrainConfig",
]

LINEAR_HEADS = ("mean", "statistics")
DEFAULT_HEAD = "statistics,lstm"
SEEDLESS_HEADS = (*LINEAR_HEADS, "neighbours")
"""The heads that are the same for every seed."""
HEAD_NAMES = ("auto", "lstm", "bilstm", "gru", "attention", "tcn", "transformer", "neighbours", *LINEAR_HEADS)


@dataclass(frozen=True)
class TrainConfig(Config):
    """Settings of `vidpipe train`."""

    head: str = setting(
        DEFAULT_HEAD,
        "Classifiers over a feature sequence, one or more; each stream gets one of each, and their predictions are "
        "fused. auto compares several within --budget.",
        choices=HEAD_NAMES,
        several=True,
    )
    streams: str | None = setting(
        None, "Streams to use, one or more names of stores. [default: all; image models first]", several=True
    )
    fusion: str | None = setting(
        None,
        "How to fuse streams. late: add the log-probabilities of each stream's heads. early: join the streams before "
        "linear heads; neural heads stay late. [default: late]",
        choices=("late", "early"),
    )
    motion: str | None = setting(
        None,
        "Input of the head, one or more of: raw (the features), centred (minus the clip's mean), difference (to the "
        "previous frame), magnitude (absolute difference). [default: by the stream's backbone]",
        choices=("raw", "centred", "difference", "magnitude"),
        several=True,
    )
    unit_frames: bool | None = setting(
        None, "First scale each frame's feature to length 1. [default: by the stream's backbone]"
    )
    scale_sharing: float | None = setting(
        None,
        "0: scale each feature by its own standard deviation; 1: scale a transform by one number. [default: by the "
        "stream's backbone]",
        low=0,
        high=1,
    )
    statistics: str | None = setting(
        None,
        "Statistics over time for the head `statistics`: one or more of mean, deviation, thirds. [default: by the "
        "stream's backbone]",
        choices=("mean", "deviation", "thirds"),
        several=True,
    )
    C: float | None = setting(
        None,
        "Inverse of the regularisation strength (heads mean and statistics). [default: by the stream's backbone]",
        low=0,
        above=True,
    )
    components: int = setting(
        64,
        "Project what a recurrent head sees on its first principal components, where it has more than 512 numbers; 0: "
        "do not.",
        low=0,
    )
    hidden_size: int = setting(128, "Hidden size of a neural head.", low=1)
    num_layers: int = setting(1, "Number of layers (lstm, bilstm, gru, transformer).", low=1)
    bidirectional: bool = setting(True, "Read the sequence in both directions (lstm, gru).")
    dropout: float = setting(0.5, "Dropout on the input, before the classifier and between layers.", low=0, high=0.95)
    ensemble: int = setting(1, "Number of neural heads, with different seeds, in one model.", low=1)
    budget: float = setting(300.0, "Time limit in seconds for comparing heads (--head auto).", low=0)
    epochs: int | None = setting(
        None, "Maximum number of epochs of a neural head (default 60; fewer for many videos).", low=1
    )
    batch_size: int | None = setting(None, "Videos in a batch (default: a twelfth of them, 16 to 64).", low=1)
    lr: float = setting(3e-3, "Learning rate of AdamW.", low=0, above=True)
    schedule: str = setting("cosine", "Learning rate schedule.", choices=("constant", "cosine"))
    weight_decay: float = setting(1e-2, "Weight decay of AdamW.", low=0)
    label_smoothing: float = setting(0.1, "Label smoothing: the probability spread over all classes.", low=0, high=0.9)
    balance: str = setting(
        "none",
        "Balance classes of unequal size: weights in the loss, or sampling rare classes more often.",
        choices=("none", "weights", "sampling"),
    )
    mixup: float = setting(0.0, "Mixup: parameter of the Beta distribution; 0 turns it off.", low=0)
    drop_frames: float = setting(0.0, "Drop each frame with this probability in training.", low=0, high=0.9)
    shift_frames: int = setting(
        0, "Skip a random number of frames at the beginning in training, at most this one.", low=0
    )
    jitter: float = setting(
        0.5,
        "Training of recurrent heads: scale a clip, and add a row to all its steps, at random with this deviation, as "
        "another scene would.",
        low=0,
    )
    subsequence: float = setting(
        0.5,
        "Train on a random contiguous subsequence of at least this fraction of a clip's frames.",
        low=0,
        high=1,
        above=True,
    )
    reverse: bool = setting(False, "Also train on reversed clips. Use it only if no action is the reverse of another.")
    patience: int = setting(20, "Stop after this number of epochs without a lower validation loss.", low=1)
    val_fraction: float | None = setting(
        None,
        "Fraction of the training videos used for validation (default 0.15; 0 for several heads or streams, which "
        "are fused by folds).",
        low=0,
        high=0.9,
    )
    test_fraction: float = setting(
        0.2, "Fraction of the videos used as the test set, where the labels have no split.", low=0, high=0.9
    )
    window: float | None = setting(
        None,
        "Labels of intervals: length in seconds of the windows of long videos that the classifier learns. [default: "
        "the median interval; of a store with --clip-seconds, the length of its clips]",
        low=0,
        above=True,
    )
    targets: str = setting(
        "windows",
        "Labels of intervals: what gets a label in training. windows: parts of long videos, with any head. rows: each "
        "row of a video, with the head tcn or bilstm over the whole of it.",
        choices=("windows", "rows"),
    )
    background: str = setting("background", "Labels of intervals: the class of time that none of them covers.")
    folds: int | None = setting(
        None,
        "Cross-validate with this number of folds by group; then train on all videos but a test set from the labels.",
        low=2,
    )
    leave_one_group_out: bool = setting(False, "Cross-validate with each group as a fold.")
    check_background: bool = setting(
        False,
        "Also test the classifier on altered test videos: one frozen frame, frames in random order, and those of "
        "--without-people and --only-people. It shows whether the place was learned.",
    )
    repeats: int = setting(1, "Repeat cross-validation, or the random split, with this number of seeds.", low=1)
    refit: bool = setting(
        True, "After testing, refit the saved head on all videos outside a test set that the labels define."
    )
    calibrate: bool = setting(
        True, "Calibrate probabilities with a temperature, fitted on videos outside the training set."
    )
    seed: int = setting(0, "Seed of the split, the initial weights and the order of the videos.", low=0)
    device: str = setting("auto", "Device that trains the head.", choices=("auto", "cpu", "cuda"))
    threads: int = setting(
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
class LabelsConfig(Config):
    """Settings of labels, for `vidpipe train` and `vidpipe evaluate`."""

    labels: str | None = setting(
        None,
        "Labels: a CSV with columns video,label and optionally split,group; or the official split files of UCF101, "
        "HMDB51 or Kinetics. Default: the name of each video's folder.",
        is_path=True,
    )
    video_column: str | None = setting(
        None,
        "Column of --labels with the videos. Default: `video`, or a common name such as filename or path.",
        metavar="COLUMN",
    )
    label_column: str | None = setting(
        None,
        "Column of --labels with the labels. Default: `label`, or a common name such as class.",
        metavar="COLUMN",
    )
    group_by: str | None = setting(
        None,
        "How to group clips from one source: a column of --labels; or `duplicates`, which joins videos with the same "
        "footage (and the groups of the labels); or a regular expression that matches a video's id and whose first "
        "capture group is the group.",
        metavar="COLUMN|duplicates|REGEX",
    )
    split: str = setting(
        "1",
        "Official split of UCF101 or HMDB51 to use, where --labels is its folder. all: cross-validate over the three "
        "(train only).",
        choices=("1", "2", "3", "all"),
        flags=("--official-split",),
    )
    skip_missing: bool = setting(False, "Ignore labels of videos that are not in the store.")


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """Settings of `vidpipe evaluate`."""

    device: str = setting("auto", "Device that runs the head.", choices=("auto", "cpu", "cuda"))
    plot: str | None = setting(None, "Write the confusion matrix to a PNG file.", is_path=True)
    format: str = setting("table", "Output format; json: one JSON object a line.", choices=("table", "json"))
