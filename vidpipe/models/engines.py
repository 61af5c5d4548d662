"""What runs a backbone on frames: PyTorch, or ONNX Runtime, which does the same sums about twice as fast on a CPU.

A backbone is exported once, in a process of its own, and the export is kept beside torch's weights, under a name that
says what it was made from (`export_path`). An engine takes and gives NumPy arrays, so that a process that runs ONNX
needs no torch.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import UsageError, VidpipeError
from vidpipe.models.spec import BackboneSpec
from vidpipe.models.weights import WeightsFile, torch_home
from vidpipe.records import Preprocessing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch import Tensor

    from vidpipe.models.frozen import FrozenBackbone

__all__ = ["Engine", "Finish", "OnnxEngine", "TorchEngine", "export_path", "load_engine"]

logger = logging.getLogger(__name__)

EXPORT_VERSION = 2
"""Of how vidpipe exports a graph; raise it when `_export` or a module of `vidpipe.models.frozen` changes."""
EXPORTERS = ("torch", "torchvision", "timm", "onnxscript")
"""The packages that build the network and write its graph; the last one may be missing."""
EXPORT_PAYS_FRAMES = 1000
"""An export takes about as long as PyTorch takes for so many frames."""
TOLERANCE = 1e-4
"""How much an export's features may differ from PyTorch's, of the largest one."""
GPU_DEVICE_FILES = ("nvidiactl", "dxg", "nvhost-gpu", "nvgpu", "kfd")
"""What the driver of a GPU that torch can use puts into /dev: NVIDIA's, WSL 2's, Jetson's (two of them) and ROCm's."""


class Engine(Protocol):
    """A backbone that is ready to run."""

    name: str
    """`torch` or `onnx`."""
    device: str
    """`cpu` or `cuda`."""
    dim: int
    """D"""
    preprocessing: Preprocessing
    most_in_flight: int
    """Batches to start before the first one is waited for: on a GPU the next ones are copied while one is computed."""

    def start(self, frames: NDArray[np.uint8]) -> "Finish":
        """Begin on (N, 3, H, W) RGB, resized and cropped; what is given waits for the end."""


Finish = Callable[[], tuple[NDArray[np.float32], float]]
"""Gives the features (N, D), and the seconds in which the device was at work on them."""


class TorchEngine:
    """Runs a backbone with PyTorch.

    Args:
        backbone: on the device where it is to run.
        precision: `full`, or `half` for float16: about twice as fast on a GPU, features within 1 % (relative norm).
    """

    name = "torch"

    def __init__(self, backbone: "FrozenBackbone", *, precision: str = "full") -> None:
        import torch

        self.device = backbone.device.type
        self.dim, self.preprocessing = backbone.dim, backbone.preprocessing
        self.most_in_flight = 2 if self.device == "cuda" else 0
        self._backbone = backbone.half() if precision == "half" else backbone
        if self.device == "cuda":
            self._backbone = self._backbone.to(memory_format=torch.channels_last)

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        """See `Engine.start`."""
        import torch

        with torch.inference_mode():
            if self.device == "cuda":
                return self._start_on_gpu(torch.from_numpy(frames))
            started = time.perf_counter()
            features: NDArray[np.float32] = self._backbone(torch.from_numpy(frames)).float().numpy()
        seconds = time.perf_counter() - started
        return lambda: (features, seconds)

    def _start_on_gpu(self, frames: "Tensor") -> Finish:
        """Nothing here waits: the copies go from and to pinned memory, the kernels are only launched."""
        import torch

        begin, end, copied = (torch.cuda.Event(enable_timing=True) for _ in range(3))  # type: ignore[no-untyped-call]
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):  # full precision is float32
            on_device = frames.pin_memory().to("cuda", non_blocking=True)
            begin.record()
            rows = self._backbone(on_device.contiguous(memory_format=torch.channels_last)).float()
            end.record()
        features = torch.empty(rows.shape, pin_memory=True).copy_(rows, non_blocking=True)
        copied.record()

        def finish() -> tuple[NDArray[np.float32], float]:
            copied.synchronize()
            return features.numpy(), begin.elapsed_time(end) / 1000

        return finish


class OnnxEngine:
    """Runs a backbone's export with ONNX Runtime, on the CPU."""

    name, device, most_in_flight = "onnx", "cpu", 0

    def __init__(self, path: Path, *, dim: int, preprocessing: Preprocessing) -> None:
        self._session = _session(path)
        self.dim, self.preprocessing = dim, preprocessing

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        """See `Engine.start`."""
        started = time.perf_counter()
        features: NDArray[np.float32] = self._session.run(None, {"frames": frames})[0]
        seconds = time.perf_counter() - started
        return lambda: (features, seconds)


def load_engine(
    spec: BackboneSpec,
    *,
    weights: WeightsFile,
    pool: str,
    device: str,
    engine: str,
    precision: str = "full",
    num_frames: int,
) -> Engine:
    """Make a backbone ready to run.

    Args:
        spec: which; see `vidpipe.models.backbones.find_backbone`.
        weights: from `vidpipe.models.weights.find_weights`.
        pool: one of `spec.poolings`, or `auto`.
        device: `auto`, `cpu` or `cuda`.
        engine: `torch`, `onnx` or `auto`: ONNX for convolutional networks on the CPU, where it is installed and pays.
        precision: `full` or `half`; ONNX runs in full precision alone.
        num_frames: about how many frames it will be given: a few are not worth an export.

    Raises:
        WeightsError: the weights are of another model.
        UsageError: the device or the engine is not there, or they do not go together; or the pooling and the backbone.
    """
    pool = spec.resolve_pool(pool)
    if engine == "onnx" and find_spec("onnxruntime") is None:
        raise UsageError("--engine onnx: pip install onnxruntime onnxscript; --engine torch needs neither")
    if engine == "onnx" and device == "cuda":
        raise UsageError("--engine onnx runs on the CPU; on a GPU --engine torch is the one")
    if engine == "onnx" and precision == "half":
        raise UsageError("--engine onnx runs in full precision; --precision half goes with --engine torch")
    may_export = engine == "auto" and precision == "full"
    if engine == "onnx" or (may_export and _onnx_pays(spec, weights, pool, device, num_frames)):
        try:
            return _load_onnx(spec, weights, pool)
        except Exception as error:
            if engine == "onnx":
                raise VidpipeError(f"--engine onnx: {spec.name} cannot be run with ONNX Runtime ({error})") from error
            logger.info("%s runs with PyTorch: it cannot be run with ONNX Runtime (%s)", spec.name, error)
    from vidpipe.models.frozen import load_backbone

    return TorchEngine(load_backbone(spec, weights=weights, pool=pool, device=device), precision=precision)


def _onnx_pays(spec: BackboneSpec, weights: WeightsFile, pool: str, device: str, num_frames: int) -> bool:
    """Convolutional networks gain from it; transformers run as fast with PyTorch, or faster: docs/backbones.md."""
    if spec.kind not in ("map", "layer"):
        return False
    if find_spec("onnxruntime") is None or weights.path is None or (device != "cpu" and _has_cuda()):
        return False
    return export_path(spec, weights, pool).exists() or num_frames >= EXPORT_PAYS_FRAMES


def _has_cuda(devices: Path = Path("/dev")) -> bool:
    """Whether torch has a GPU to run on; on Linux torch, which takes seconds to tell, is asked only beside a driver."""
    if sys.platform == "linux" and not any((devices / name).exists() for name in GPU_DEVICE_FILES):
        return False
    import torch

    return torch.cuda.is_available()


def export_path(spec: BackboneSpec, weights: WeightsFile, pool: str) -> Path:
    """Where a backbone's export lies, or would lie: a name for all that the graph depends on.

    The graph holds the weights, the pooling and the preprocessing's statistics and input size, as the versions of the
    libraries at hand build and export it.
    """
    made_from = {
        "backbone": [spec.library, spec.builder, spec.feature_map, spec.kind, spec.dim],
        "preprocessing": spec.preprocessing.as_dict(),
        "versions": [EXPORT_VERSION, *(version(name) for name in EXPORTERS if find_spec(name))],
    }
    digest = sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    name = spec.name.replace("/", "_")
    return torch_home() / "vidpipe" / f"{name}-{weights.id[:16]}-{pool}-{digest[:16]}.onnx"


def _load_onnx(spec: BackboneSpec, weights: WeightsFile, pool: str) -> OnnxEngine:
    path = export_path(spec, weights, pool)
    if weights.path is not None and path.exists():
        try:
            return OnnxEngine(path, dim=spec.dim, preprocessing=spec.preprocessing)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            logger.info("%s cannot be used and is made anew (%s)", path, error)
    logger.info("exporting %s to ONNX, once", spec.name)
    with TemporaryDirectory(prefix="vidpipe-") as folder:
        aside = Path(folder) / "backbone.onnx"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            process.submit(_export, spec, weights, pool, aside).result()
        engine = OnnxEngine(aside, dim=spec.dim, preprocessing=spec.preprocessing)
        if weights.path is not None:
            _keep(aside, path)
    return engine


def _keep(aside: Path, path: Path) -> None:
    """Put an export among torch's files; where that cannot be, the next run makes it again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writing = path.with_suffix(f".{os.getpid()}")
        writing.write_bytes(aside.read_bytes())
        os.replace(writing, path)
    except OSError as error:
        logger.debug("%s: the export is not kept (%s)", path, error)


def _export(spec: BackboneSpec, weights: WeightsFile, pool: str, path: Path) -> None:
    """Runs in a process of its own: torch's exporter takes much memory and many modules."""
    import contextlib
    import warnings

    import torch

    from vidpipe.models.frozen import load_backbone

    backbone = load_backbone(spec, weights=weights, pool=pool, device="cpu")
    size = spec.input_size
    frames = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(None), torch.inference_mode():
        torch.onnx.export(
            backbone,
            (frames,),
            path,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=["frames"],
            output_names=["features"],
            verbose=False,
        )
    expected = backbone(frames).numpy()
    difference = np.abs(_session(path).run(None, {"frames": frames.numpy()})[0] - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise VidpipeError(f"its export gives other features: off by {difference:g}")


def _session(path: Path) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # its threads share the cores with decoders
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
