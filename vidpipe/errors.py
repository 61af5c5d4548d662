"""The errors that vidpipe raises.

    VidpipeError                 exit code 1: could not do it
    ├── UsageError               exit code 2: wrong usage, such as a path that does not exist
    │   └── ConfigError          a config file, or the value of a setting
    ├── InputError               an input contains no usable videos
    ├── VideoError               one video cannot be read; the others are processed
    │   ├── NotAVideoError       no video stream, a playlist, an empty file
    │   ├── UnreadableFileError  the file cannot be read at the moment; the next run tries it again
    │   ├── DecodeError          the video stream cannot be decoded
    │   ├── DecodeTimeoutError   decoding took longer than --timeout
    │   ├── DecoderCrashError    the decoder crashed its process
    │   └── ActorCrashError      the actor of Ray that extracted it ended, more than once
    ├── ExecutorError            Ray cannot be reached, or its nodes do not fit
    ├── DecodingStoppedError     decoding processes do not start, or do not answer
    ├── StoreError               a feature store, or a path that exists and is not one
    │   ├── KeyMismatchError     it was made with other settings
    │   └── ShardError           one of its HDF5 files is damaged
    ├── LabelsError              a labels file, or labels that do not fit the videos
    ├── WeightsError             weights that are not available, or do not fit
    ├── RunError                 a run folder, or a path that exists and is not one
    ├── TrainingError            training cannot continue
    ├── InterruptedExtractionError  Ctrl-C; finished videos are stored
    └── InterruptedTrainingError    Ctrl-C; the last checkpoint is kept

A message says what is wrong, in which file or value, what is allowed, and what to do.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

__all__ = [
    "ActorCrashError",
    "ConfigError",
    "DecodeError",
    "DecodeTimeoutError",
    "DecoderCrashError",
    "DecodingStoppedError",
    "ExecutorError",
    "InputError",
    "InterruptedExtractionError",
    "InterruptedTrainingError",
    "KeyMismatchError",
    "LabelsError",
    "NotAVideoError",
    "RunError",
    "ShardError",
    "StoreError",
    "TrainingError",
    "UnreadableFileError",
    "UsageError",
    "VideoError",
    "VidpipeError",
    "WeightsError",
    "count_of",
    "first_few",
    "unknown_name",
]


class VidpipeError(Exception):
    """Base class of vidpipe's errors."""

    exit_code = 1


class UsageError(VidpipeError):
    """Wrong usage: an option, a name, or a path that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file cannot be parsed, a key is unknown, or a value is out of range."""


class InputError(VidpipeError):
    """An input contains no usable videos."""


class VideoError(VidpipeError):
    """One video cannot be read."""


class NotAVideoError(VideoError):
    """The file contains no video stream of its own."""


class UnreadableFileError(VideoError):
    """The file cannot be read at the moment: permissions, a disk or network error. The next run tries it again."""


class DecodeError(VideoError):
    """The file contains a video stream that cannot be decoded."""


class DecodeTimeoutError(VideoError):
    """Decoding took longer than the time limit, and its process was killed."""


class DecoderCrashError(VideoError):
    """The decoder crashed its process."""


class ActorCrashError(VideoError):
    """The actor of Ray that extracted the video ended, more than once. The next run tries it again."""


class ExecutorError(VidpipeError):
    """Ray cannot be reached, or its nodes do not fit."""


class DecodingStoppedError(VidpipeError):
    """The decoding processes do not work."""


class StoreError(VidpipeError):
    """A feature store cannot be opened, written or read."""


class KeyMismatchError(StoreError):
    """A feature store was made with other settings."""


class ShardError(StoreError):
    """An HDF5 file of a feature store is not a complete and valid shard."""


class LabelsError(VidpipeError):
    """Labels cannot be read, or do not fit the videos of a store."""


class WeightsError(VidpipeError):
    """Weights cannot be downloaded or loaded."""


class RunError(VidpipeError):
    """A run folder is incomplete, or does not fit the request."""


class TrainingError(VidpipeError):
    """Training cannot continue: a loss is not finite."""


class InterruptedExtractionError(VidpipeError):
    """The user stopped an extraction; finished videos are in the store."""


class InterruptedTrainingError(VidpipeError):
    """The user stopped a training; its last checkpoint is kept, and an older run is unchanged."""


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun: `1 video`, `2 videos`, `1 labelled video`, `2 classes`, `2 epochs`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith(('s', 'x', 'tch', 'sh')) else 's'}"


def first_few(names: Collection[str], limit: int = 3, *, separator: str = ", ") -> str:
    """Return the first few names and the number of the others: `a, b, c and 7 more`."""
    shown = separator.join(list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: `unknown backbone 'resnet5'; did you mean 'resnet50'? Known: …`."""
    names = list(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {name!r}; {hint}Known: {', '.join(names)}"
