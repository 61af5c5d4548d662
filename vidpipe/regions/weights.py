"""Where a detector's weights come from: torchvision's download, or a file."""

import logging
from pathlib import Path

from vidpipe.backbones.downloads import download_file, sha256
from vidpipe.backbones.weights import WeightsFile, torch_home
from vidpipe.errors import UsageError, WeightsError
from vidpipe.regions.spec import DetectorSpec

__all__ = ["default_detector_path", "find_detector_weights"]

logger = logging.getLogger(__name__)


def default_detector_path(spec: DetectorSpec) -> Path | None:
    """Return where the default weights are, or would be after a download; None where there are none."""
    return torch_home() / "hub" / "checkpoints" / spec.weights.rsplit("/", 1)[1] if spec.weights else None


def find_detector_weights(spec: DetectorSpec, weights: str) -> WeightsFile:
    """Find a detector's weights; the default weights are downloaded if needed.

    Args:
        spec: the detector.
        weights: `default`, `random`, or a file's path.

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


def _file_wanted(spec: DetectorSpec) -> str:
    if spec.library == "onnx":
        return f"give the ONNX file of {spec.name} with --detector-weights FILE"
    if spec.library == "vidpipe":
        return f"give Darknet's {spec.name}.weights, or a .safetensors file of vidpipe's, with --detector-weights FILE"
    return "give a .pth, .pt or .safetensors file with --detector-weights FILE, or 'default'"


def _download(spec: DetectorSpec, path: Path) -> None:
    try:
        download_file(spec.weights, path)
    except Exception as error:  # each downloading library has its own errors
        raise WeightsError(
            f"the weights of the detector {spec.name} cannot be downloaded ({error}). Download {spec.weights} on "
            f"another machine and put it at {path}, or give it with --detector-weights FILE"
        ) from error
