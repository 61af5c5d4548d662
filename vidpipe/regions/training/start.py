"""The weights from which a training begins."""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vidpipe.backbones.weights import load_tensors
from vidpipe.errors import UsageError, WeightsError, count_of
from vidpipe.regions.networks import yolov3
from vidpipe.regions.networks.darknet_weights import load_darknet_weights
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.trained import read_header
from vidpipe.regions.weights import find_detector_weights

__all__ = ["load_start"]

logger = logging.getLogger(__name__)

_MIN_FITTING = 0.5
"""The share of the network's tensors that weights of the same network have; its heads are of other classes."""


def load_start(spec: DetectorSpec, weights: str, network: nn.Module) -> bool:
    """Load the weights from which a training begins, as far as they fit.

    Args:
        spec: the detector.
        weights: `default`, `random`, or a file's path.
        network: with random weights.

    Returns:
        Whether it begins from weights; False where they are random.

    Raises:
        UsageError: there is no such file.
        WeightsError: the weights cannot be downloaded or read, or belong to another network.
    """
    if weights == "random":
        return False
    if weights == "default" and not spec.weights:
        logger.info("%s has no published weights that vidpipe can fetch: it begins from random ones", spec.name)
        return False
    if weights not in ("default", "random") and not Path(weights).is_file():
        raise UsageError(f"--weights {weights}: no such file; give a file, `default` or `random`")
    path = find_detector_weights(spec, weights).path
    assert path is not None
    _check_detector(path, spec)
    _load_fitting(network, _tensors_of(path), path, spec)
    return True


def _tensors_of(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != ".weights":
        return load_tensors(path)
    network = yolov3.build(yolov3.YoloSettings())
    load_darknet_weights(network, path)
    return network.state_dict()


def _check_detector(path: Path, spec: DetectorSpec) -> None:
    header = read_header(path)
    if header is not None and header.detector != spec.name:
        raise WeightsError(f"{path}: these are weights of {header.detector}, not of {spec.name}")


def _load_fitting(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, spec: DetectorSpec) -> None:
    wanted = network.state_dict()
    fitting = {name: one for name, one in tensors.items() if name in wanted and one.shape == wanted[name].shape}
    num_wanted = sum(not name.endswith("num_batches_tracked") for name in wanted)
    if len(fitting) < _MIN_FITTING * num_wanted:
        raise WeightsError(
            f"{path}: these are not weights of {spec.name}: {len(fitting)} of its {num_wanted} tensors are there"
        )
    network.load_state_dict(fitting, strict=False)
    num_random = num_wanted - sum(not name.endswith("num_batches_tracked") for name in fitting)
    logger.info("begins from %s; random: %s of other classes", path, count_of(num_random, "tensor"))
