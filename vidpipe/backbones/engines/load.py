"""Chooses the engine that runs a backbone, and loads it."""

import logging
import sys
from importlib.util import find_spec
from pathlib import Path

from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.onnx import export_path, load_onnx
from vidpipe.backbones.engines.torch import TorchEngine
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError, VidpipeError

__all__ = ["load_engine"]

logger = logging.getLogger(__name__)

EXPORT_PAYS_FRAMES = 1000
"""Frames that PyTorch computes in about the time of an export."""
GPU_DEVICE_FILES = ("nvidiactl", "dxg", "nvhost-gpu", "nvgpu", "kfd")
"""Files in /dev that the drivers of GPUs for torch create: NVIDIA's, WSL 2's, Jetson's (two of them) and ROCm's."""


def load_engine(
    spec: BackboneSpec,
    *,
    weights: WeightsFile,
    pool: str,
    device: str,
    engine: str,
    precision: str = "full",
    grid: int = 1,
    cuda_graphs: bool = False,
    num_frames: int,
    num_threads: int | None = None,
) -> Engine:
    """Make a backbone ready to run.

    Args:
        spec: from `vidpipe.backbones.table.find_backbone`.
        weights: from `vidpipe.backbones.weights.find_weights`.
        pool: one of `spec.poolings`, or `auto`.
        device: `auto`, `cpu` or `cuda`.
        engine: `torch`, `onnx`, or `auto`: ONNX for convolutional networks on the CPU, where it is installed and the
            export is worth its time.
        precision: `full` or `half`; ONNX runs only in full precision.
        grid: as for `vidpipe.backbones.image.load_backbone`.
        cuda_graphs: as for `vidpipe.backbones.engines.torch.TorchEngine`.
        num_frames: about how many frames it will run on: few are not worth an export.
        num_threads: how many threads of ONNX Runtime compute; None for one on each core. PyTorch's are the process's.

    Returns:
        The engine.

    Raises:
        WeightsError: the weights belong to another model.
        UsageError: the device or the engine is not available, the two do not go together, or the pooling or the
            grid does not go with the backbone.
    """
    pool = spec.resolve_pool(pool)
    if spec.kind == "pose":
        from vidpipe.backbones.engines.described import DescribedEngine

        return DescribedEngine(spec)
    if spec.parameters is not None:
        from vidpipe.backbones.engines.flow import FlowEngine

        return FlowEngine(spec)
    if engine == "onnx":
        _check_onnx(spec, device, precision)
    may_export = engine == "auto" and precision == "full" and spec.window is None
    if engine == "onnx" or (may_export and _onnx_pays(spec, weights, pool, grid, device, num_frames)):
        try:
            return load_onnx(spec, weights, pool, grid, num_threads=num_threads)
        except UsageError:
            raise
        except Exception as error:
            if engine == "onnx":
                raise VidpipeError(f"--engine onnx: {spec.name} cannot be run with ONNX Runtime ({error})") from error
            logger.info("%s runs with PyTorch: it cannot be run with ONNX Runtime (%s)", spec.name, error)
    from vidpipe.backbones.image import load_backbone

    backbone = load_backbone(spec, weights=weights, pool=pool, device=device, grid=grid)
    return TorchEngine(backbone, precision=precision, cuda_graphs=cuda_graphs)


def _check_onnx(spec: BackboneSpec, device: str, precision: str) -> None:
    """Check that ONNX Runtime, where it is asked for, can run a backbone."""
    if find_spec("onnxruntime") is None:
        raise UsageError("--engine onnx needs packages: pip install onnxruntime onnxscript; --engine torch does not")
    if device == "cuda":
        raise UsageError("--engine onnx runs on the CPU; use --engine torch on a GPU")
    if precision == "half":
        raise UsageError("--engine onnx runs in full precision; use --engine torch with --precision half")
    if spec.window is not None:
        raise UsageError(f"--engine onnx runs image models, and {spec.name} sees windows of frames; use --engine torch")


def _onnx_pays(spec: BackboneSpec, weights: WeightsFile, pool: str, grid: int, device: str, num_frames: int) -> bool:
    """Only convolutional networks run faster with ONNX Runtime than with PyTorch: docs/backbones.md."""
    if spec.kind not in ("map", "layer"):
        return False
    if find_spec("onnxruntime") is None or weights.path is None or (device != "cpu" and _has_cuda()):
        return False
    return export_path(spec, weights, pool, grid).exists() or num_frames >= EXPORT_PAYS_FRAMES


def _has_cuda(devices: Path = Path("/dev")) -> bool:
    """Whether torch can use a GPU. Importing torch takes seconds: on Linux it is imported only where a driver is."""
    if sys.platform == "linux" and not any((devices / name).exists() for name in GPU_DEVICE_FILES):
        return False
    import torch

    return torch.cuda.is_available()
