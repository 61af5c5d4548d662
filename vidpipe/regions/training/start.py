"""The weights from which a training begins."""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vidpipe.backbones.weights import load_tensors
from vidpipe.errors import WeightsError, count_of
from vidpipe.regions.networks.segmentation import SegmentationNetwork, load_fitting
from vidpipe.regions.networks.yolov3_detector import read_yolov3
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.trained import read_header
from vidpipe.regions.weights import find_detector_weights

__all__ = ["load_start", "starts_with_batch_norm"]

logger = logging.getLogger(__name__)

_MIN_FITTING = 0.4
"""The share of the network's tensors that weights of the same network, or its backbone's, have at least."""


def starts_with_batch_norm(weights: str) -> bool:
    """Return whether a network that begins from weights has batch normalisation, as it needs from random ones.

    Args:
        weights: `default`, `random`, or a file's path.

    Returns:
        Whether the file has it; True where there is none.

    Raises:
        WeightsError: the file cannot be read.
    """
    if weights in ("default", "random") or Path(weights).suffix == ".weights":
        return True
    return any("running_mean" in name for name in load_tensors(Path(weights)))


def load_start(spec: DetectorSpec, weights: str, network: nn.Module) -> bool:
    """Load the weights from which a training begins, as far as they fit.

    Args:
        spec: the detector.
        weights: `default`, `random`, or a file's path.
        network: with random weights.

    Returns:
        Whether it begins from weights; False where they are random.

    Raises:
        WeightsError: the weights cannot be downloaded or read, or belong to another network.
    """
    if weights == "random":
        return False
    if weights == "default" and not spec.weights:
        logger.info("%s has no published weights that vidpipe can fetch: it begins from random ones", spec.name)
        return False
    file = find_detector_weights(spec, weights)
    assert file.path is not None
    _check_detector(file.path, spec)
    is_darknet = file.path.suffix == ".weights"
    tensors = read_yolov3(file).state_dict() if is_darknet and spec.name == "yolov3" else load_tensors(file.path)
    _load_fitting(network, tensors, file.path, spec)
    return True


def _check_detector(path: Path, spec: DetectorSpec) -> None:
    header = read_header(path)
    if header is not None and header.detector != spec.name:
        raise WeightsError(f"{path}: these are weights of {header.detector}, not of {spec.name}")


def _load_fitting(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, spec: DetectorSpec) -> None:
    wanted = network.state_dict()
    if isinstance(network, SegmentationNetwork):
        num_fitting = load_fitting(network, tensors)
    else:
        fitting = {name: one for name, one in tensors.items() if name in wanted and one.shape == wanted[name].shape}
        network.load_state_dict(fitting, strict=False)
        num_fitting = len(fitting)
    if num_fitting < _MIN_FITTING * len(wanted):
        raise WeightsError(
            f"{path}: these are not weights of {spec.name}: {num_fitting} of its {len(wanted)} tensors are there"
        )
    num_random = len(wanted) - num_fitting
    logger.info("begins from %s; %s begin at random", path, count_of(num_random, "tensor"))
