"""Where a detector's weights come from: torchvision's download, or a file."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from vidpipe.backbones.downloads import download_file, sha256
from vidpipe.backbones.weights import WeightsFile, load_tensors, torch_home
from vidpipe.errors import RunError, UsageError, WeightsError
from vidpipe.regions.networks.mtcnn_files import find_mtcnn_weights
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.table import find_detector

if TYPE_CHECKING:
    from torch import nn

__all__ = ["default_detector_path", "find_detector_of_features", "find_detector_weights", "load_weights"]

logger = logging.getLogger(__name__)


def default_detector_path(spec: DetectorSpec) -> Path | None:
    """Return where the default weights are, or would be after a download; None where there are none."""
    return torch_home() / "hub" / "checkpoints" / spec.weights.rsplit("/", 1)[1] if spec.weights else None


def find_detector_weights(spec: DetectorSpec, weights: str) -> WeightsFile:
    """Find a detector's weights; the default weights are downloaded if needed.

    Args:
        spec: the detector.
        weights: `default`, `random`, or a file's path; of mtcnn also a folder's.

    Returns:
        The file, with its sha256.

    Raises:
        UsageError: there is no such file, or the detector needs one.
        WeightsError: the weights cannot be downloaded.
    """
    if weights == "random":
        if spec.library == "onnx":
            raise UsageError(f"{spec.name} has no random weights: {_file_wanted(spec)}")
        logger.warning("%s runs with RANDOM weights: what it finds is meaningless; for tests only", spec.name)
        return WeightsFile("random", None, "random")
    if spec.name == "mtcnn":
        return find_mtcnn_weights(weights)
    if weights != "default":
        path = Path(weights)
        if not path.is_file():
            raise UsageError(f"--detector-weights {weights}: no such file; {_file_wanted(spec)}")
        return WeightsFile(sha256(path), path, f"file {path}")
    default = default_detector_path(spec)
    if default is None:
        raise UsageError(f"{spec.name} has no default weights: {_file_wanted(spec)}")
    if not default.exists():
        _download(spec, default)
    return WeightsFile(sha256(default), default, spec.weights)


def find_detector_of_features(
    name: str, weights_id: str, *, weights: str, detector: str
) -> tuple[DetectorSpec, WeightsFile]:
    """Find the detector that features were made with, and weights for it, which may be others.

    Args:
        name: the detector, from the features' key.
        weights_id: its weights, from the features' key.
        weights: `default`, or a file's path; not used where the key says `random`.
        detector: what it is called in the message.

    Returns:
        The detector, and the weights.

    Raises:
        RunError: this vidpipe does not have the detector.
        UsageError: there is no such weights file, or the detector needs one.
        WeightsError: the weights cannot be downloaded.
    """
    try:
        spec = find_detector(name)
    except UsageError as error:
        raise RunError(f"{detector} is not available: {error}") from error
    return spec, find_detector_weights(spec, "random" if weights_id == "random" else weights)


def _file_wanted(spec: DetectorSpec) -> str:
    if spec.library == "onnx":
        return f"give the ONNX file of {spec.name} with --detector-weights FILE"
    if spec.name == "yolov3":
        return "give Darknet's yolov3.weights, or a .safetensors file that you trained, with --detector-weights FILE"
    if not spec.weights:
        return f"give a .safetensors file of a {spec.name} that you trained with --detector-weights FILE"
    return "give a .pth, .pt or .safetensors file with --detector-weights FILE, or 'default'"


def _download(spec: DetectorSpec, path: Path) -> None:
    try:
        download_file(spec.weights, path)
    except Exception as error:  # each downloading library has its own errors
        raise WeightsError(
            f"the weights of the detector {spec.name} cannot be downloaded ({error}). Download {spec.weights} on "
            f"another machine and put it at {path}, or give it with --detector-weights FILE"
        ) from error


def load_weights(network: "nn.Module", spec: DetectorSpec, path: Path) -> None:
    """Load a file of weights into a network that it fits.

    Args:
        network: the detector's.
        spec: the detector.
        path: a .pth, .pt or .safetensors file.

    Raises:
        WeightsError: the file cannot be read, or holds another network's weights.
    """
    tensors, wanted = load_tensors(path), network.state_dict()
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    misfits = sorted(
        {name for name in tensors.keys() | needed if name not in tensors or name not in wanted}
        | {name for name in needed & tensors.keys() if tensors[name].shape != wanted[name].shape}
    )
    if misfits:
        raise WeightsError(
            f"{path}: these are not weights of {spec.name}: {len(misfits)} tensors do not fit, such as {misfits[0]}"
        )
    network.load_state_dict(dict(tensors), strict=False)
