"""Loads a detector, ready to run."""

from importlib.util import find_spec

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError
from vidpipe.regions.detector import Detector
from vidpipe.regions.spec import DetectorSpec

__all__ = ["load_detector"]


def load_detector(
    spec: DetectorSpec,
    weights: WeightsFile,
    *,
    device: str = "auto",
    num_threads: int | None = None,
    longer_side: int | None = None,
) -> Detector:
    """Load a detector.

    Args:
        spec: from `vidpipe.regions.table.find_detector`.
        weights: from `vidpipe.regions.weights.find_detector_weights`.
        device: `auto`, `cpu` or `cuda`: where a network of torchvision runs. An ONNX file runs on the CPU.
        num_threads: that compute an ONNX file; None for one on each core.
        longer_side: pixels of the longer side at which MoveNet sees frames; None for 256.

    Returns:
        The detector.

    Raises:
        UsageError: the device or ONNX Runtime is not available.
        WeightsError: the weights cannot be read, or belong to another network.
    """
    if spec.library == "onnx":
        if find_spec("onnxruntime") is None:
            raise UsageError(f"--detector {spec.name} needs a package: pip install onnxruntime")
        from vidpipe.regions.onnx_detectors import ONNX_DETECTORS

        assert weights.path is not None
        return ONNX_DETECTORS[spec.name](weights.path, name=spec.name, num_threads=num_threads, longer_side=longer_side)
    from vidpipe.backbones.image import choose_device
    from vidpipe.regions.torch_detectors import load_torch_detector

    return load_torch_detector(spec, weights, choose_device(device))
