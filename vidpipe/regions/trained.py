"""Files of detectors that `vidpipe regions train` made: safetensors, with what is needed to build the network again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidpipe.errors import VidpipeError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT", "TrainedHeader", "read_header", "write_trained"]

FORMAT = "vidpipe-detector"


@dataclass(frozen=True)
class TrainedHeader:
    """What a file of a trained detector says of it."""

    detector: str
    """Its name in the table of detectors."""
    classes: Mapping[int, str]
    """The names of the classes that it finds; `PERSON` is people, or the only class."""
    size: int
    """The side in pixels of the square that it learned to see."""
    settings: str
    """Of the network, as JSON."""


def write_trained(path: Path, tensors: "Mapping[str, Tensor]", header: TrainedHeader) -> None:
    """Write a trained detector; the file appears when it is complete.

    Args:
        path: the file; it is replaced.
        tensors: the network's state.
        header: what the file says of it.

    Raises:
        VidpipeError: the file cannot be written.
    """
    from safetensors.torch import save

    metadata = {
        "format": FORMAT,
        "detector": header.detector,
        "classes": json.dumps(dict(header.classes)),
        "size": str(header.size),
        "settings": header.settings,
    }
    aside = path.with_name(f"{path.name}.partial")
    try:
        aside.write_bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, metadata))
        aside.replace(path)
    except OSError as error:
        raise VidpipeError(f"{path}: cannot be written ({error.strerror}); choose another file with -o") from error


def read_header(path: Path) -> TrainedHeader | None:
    """Return what a file says of its detector.

    Args:
        path: any file of weights.

    Returns:
        The header; None where `vidpipe regions train` did not write the file.

    Raises:
        WeightsError: the file is damaged, or of another version of vidpipe.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({error})") from error
    if metadata.get("format") != FORMAT:
        return None
    try:
        classes = {int(id): str(name) for id, name in json.loads(metadata["classes"]).items()}
        return TrainedHeader(metadata["detector"], classes, int(metadata["size"]), metadata["settings"])
    except (KeyError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: a trained detector of another version of vidpipe ({type(error).__name__}: {error})"
        ) from error
