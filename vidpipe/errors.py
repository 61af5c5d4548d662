"""Every error that a user can meet.

    VidpipeError                 exit code 1: could not do it
    ├── UsageError               exit code 2: the request itself is wrong; any path named that is not there
    │   └── ConfigError          a config file, or a setting's value
    ├── InputError               an input path holds nothing that can be used
    ├── VideoError               one video cannot be read; the others go on
    │   ├── NotAVideoError       no video stream, a playlist, an empty file
    │   ├── UnreadableFileError  the file cannot be read just now; tried again in the next run
    │   ├── DecodeError          a video stream that does not decode
    │   ├── DecodeTimeoutError   decoding took longer than --timeout
    │   └── DecoderCrashError    the decoder took its process down
    ├── DecodingStoppedError     no decoding process starts, or answers
    ├── StoreError               a feature store, or a path that is there and holds none
    │   ├── KeyMismatchError     it was made with other settings
    │   └── ShardError           one of its HDF5 files is damaged
    ├── LabelsError              a labels file, or how labels and videos fit together
    ├── WeightsError             weights that cannot be had, or do not fit
    ├── RunError                 a run folder, or a path that is there and holds none
    ├── TrainingError            training that cannot go on
    ├── InterruptedExtractionError  Ctrl-C; what was done is sealed
    └── InterruptedTrainingError    Ctrl-C; the last checkpoint is kept

A message says what is wrong, with which file or value, what is allowed, and what to do.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "DecodeError",
    "DecodeTimeoutError",
    "DecoderCrashError",
    "DecodingStoppedError",
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
    """Base of all errors that vidpipe raises on purpose."""

    exit_code = 1


class UsageError(VidpipeError):
    """The request itself is wrong: an option, a name, a path that is not there."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file that does not parse, an unknown key, a value out of range."""


class InputError(VidpipeError):
    """An input path that holds nothing vidpipe can use."""


class VideoError(VidpipeError):
    """One video cannot be read."""


class NotAVideoError(VideoError):
    """The file holds no video stream of its own."""


class UnreadableFileError(VideoError):
    """The file cannot be read just now: permissions, a disk or network error; it is tried again in the next run."""


class DecodeError(VideoError):
    """The file holds a video stream that cannot be decoded."""


class DecodeTimeoutError(VideoError):
    """Decoding took longer than allowed, and its process was killed."""


class DecoderCrashError(VideoError):
    """The native decoder took its process down."""


class DecodingStoppedError(VidpipeError):
    """The processes that decode cannot be got to work."""


class StoreError(VidpipeError):
    """A feature store cannot be opened, written or read."""


class KeyMismatchError(StoreError):
    """A feature store was made with other settings than those asked for."""


class ShardError(StoreError):
    """An HDF5 file of a feature store is not a whole, valid shard."""


class LabelsError(VidpipeError):
    """Labels cannot be read, or do not fit the videos of a store."""


class WeightsError(VidpipeError):
    """Weights cannot be fetched or loaded."""


class RunError(VidpipeError):
    """A run folder is incomplete or does not fit what is asked of it."""


class TrainingError(VidpipeError):
    """Training cannot go on: a loss that is not finite."""


class InterruptedExtractionError(VidpipeError):
    """The user stopped an extraction; everything finished is in the store."""


class InterruptedTrainingError(VidpipeError):
    """The user stopped a training; its last checkpoint is kept, and the older run is as it was."""


def count_of(count: int, noun: str) -> str:
    """A count with its noun: `1 video`, `2 videos`, `1 labelled video`, `2 classes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def first_few(names: Collection[str], limit: int = 3, *, separator: str = ", ") -> str:
    """Name some, count the rest: `a, b, c and 7 more`."""
    shown = separator.join(list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The text for a name that nobody knows: `unknown backbone 'resnet5'; did you mean 'resnet50'? Known: …`."""
    names = list(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {name!r}; {hint}Known: {', '.join(names)}"
