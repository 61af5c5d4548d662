"""Loads a detector, ready to run."""

from importlib.util import find_spec

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError, WeightsError
from vidpipe.regions.detector import Detector
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.trained import read_header

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
        device: `auto`, `cpu` or `cuda`: where a network of torch runs. An ONNX file runs on the CPU.
        num_threads: that compute an ONNX file; None for one on each core.
        longer_side: pixels of the longer side at which MoveNet sees frames; None for 256.

    Returns:
        The detector.

    Raises:
        UsageError: the device, or the library that the detector needs, is not available.
        WeightsError: the weights cannot be read, or belong to another network.
    """
    header = None if weights.path is None else read_header(weights.path)
    if header is not None and header.detector != spec.name:
        raise WeightsError(
            f"{weights.path}: these are weights of {header.detector}, not of {spec.name}; --detector {header.detector} "
            "goes with them"
        )
    if spec.library == "onnx":
        if find_spec("onnxruntime") is None:
            raise UsageError(f"--detector {spec.name} needs a package: pip install onnxruntime")
        from vidpipe.regions.onnx_detectors import ONNX_DETECTORS

        assert weights.path is not None
        return ONNX_DETECTORS[spec.name](weights.path, name=spec.name, num_threads=num_threads, longer_side=longer_side)
    from vidpipe.backbones.image import choose_device
    from vidpipe.regions.segmenter import load_segmenter, settings_of

    if spec.name == "mtcnn":
        from vidpipe.regions.networks.mtcnn_detector import load_mtcnn

        return load_mtcnn(weights, choose_device(device))
    if spec.name == "yolov3":
        from vidpipe.regions.networks.yolov3_detector import load_yolov3

        return load_yolov3(weights, choose_device(device))
    from vidpipe.regions.torch_detectors import load_torch_detector

    settings = settings_of(spec, weights.path)
    if settings is not None:
        return load_segmenter(spec, weights, choose_device(device), settings)
    return load_torch_detector(spec, weights, choose_device(device))
