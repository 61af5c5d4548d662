"""Runs a backbone with ONNX Runtime on the CPU.

A backbone is exported once, in a process of its own. The export is kept beside torch's weights, under a name that
identifies what it was made from (`export_path`).
"""

import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.engine import Finish
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.weights import WeightsFile, torch_home
from vidpipe.errors import VidpipeError
from vidpipe.records import Preprocessing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["OnnxEngine", "export_path", "load_onnx", "open_session"]

logger = logging.getLogger(__name__)

EXPORT_VERSION = 2
"""Increase it when `_export`, or the computation in `vidpipe.backbones.image`, changes."""
EXPORTERS = ("torch", "torchvision", "timm", "onnxscript")
"""The packages that build the network and write its graph; onnxscript may be missing."""
TOLERANCE = 1e-4
"""The largest difference from PyTorch's features that an export may have, relative to the largest feature."""


class OnnxEngine:
    """Runs a backbone's export with ONNX Runtime, on the CPU."""

    name, device, max_in_flight = "onnx", "cpu", 0

    def __init__(self, path: Path, *, dim: int, preprocessing: Preprocessing, num_threads: int | None = None) -> None:
        self._session = open_session(path, num_threads=num_threads)
        self.dim, self.preprocessing = dim, preprocessing

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        """See `Engine.start`."""
        started = time.perf_counter()
        features: NDArray[np.float32] = self._session.run(None, {"frames": frames})[0]
        seconds = time.perf_counter() - started
        return lambda: (features, seconds)


def export_path(spec: BackboneSpec, weights: WeightsFile, pool: str, grid: int = 1) -> Path:
    """Return the path of a backbone's export, whether it exists or not; its name covers all that the graph depends on.

    These are the weights, the pooling, the grid, the preprocessing and the versions of the libraries that build and
    export it.
    """
    made_from = {
        "backbone": [spec.library, spec.builder, spec.feature_map, spec.kind, spec.dim],
        "preprocessing": spec.preprocessing.as_dict(),
        "versions": [EXPORT_VERSION, *(version(name) for name in EXPORTERS if find_spec(name))],
    }
    digest = sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    name = spec.name.replace("/", "_")
    pooling = pool if grid == 1 else f"{pool}-grid{grid}"
    return torch_home() / "vidpipe" / f"{name}-{weights.id[:16]}-{pooling}-{digest[:16]}.onnx"


def load_onnx(
    spec: BackboneSpec, weights: WeightsFile, pool: str, grid: int = 1, *, num_threads: int | None = None
) -> OnnxEngine:
    """Load a backbone's export; make it first where there is none.

    Args:
        spec: the backbone.
        weights: its weights.
        pool: one of `spec.poolings`.
        grid: as for `vidpipe.backbones.image.load_backbone`.
        num_threads: as for `open_session`.

    Returns:
        The engine.

    Raises:
        UsageError: the grid does not go with the backbone.
        VidpipeError: the export's features differ from PyTorch's.
    """
    path = export_path(spec, weights, pool, grid)
    if weights.path is not None and path.exists():
        try:
            return OnnxEngine(path, dim=spec.dim, preprocessing=spec.preprocessing, num_threads=num_threads)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            logger.info("%s cannot be used and is made again (%s)", path, error)
    logger.info("exporting %s to ONNX, once", spec.name)
    with TemporaryDirectory(prefix="vidpipe-") as folder:
        aside = Path(folder) / "backbone.onnx"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            process.submit(_export, spec, weights, pool, grid, aside).result()
        engine = OnnxEngine(aside, dim=spec.dim, preprocessing=spec.preprocessing, num_threads=num_threads)
        if weights.path is not None:
            _keep(aside, path)
    return engine


def _keep(aside: Path, path: Path) -> None:
    """Keep an export among torch's files; where it cannot be written, the next run makes it again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writing = path.with_suffix(f".{os.getpid()}")
        writing.write_bytes(aside.read_bytes())
        os.replace(writing, path)
    except OSError as error:
        logger.debug("%s: the export is not kept (%s)", path, error)


def _export(spec: BackboneSpec, weights: WeightsFile, pool: str, grid: int, path: Path) -> None:
    """Export a backbone; in a process of its own, because torch's exporter takes much memory."""
    import contextlib
    import warnings

    import torch

    from vidpipe.backbones.image import load_backbone

    backbone = load_backbone(spec, weights=weights, pool=pool, device="cpu", grid=grid)
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
    difference = np.abs(open_session(path).run(None, {"frames": frames.numpy()})[0] - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise VidpipeError(f"the features of its export differ from PyTorch's by {difference:g}")


def open_session(path: Path, *, num_threads: int | None = None) -> "InferenceSession":
    """Open a network for ONNX Runtime, on the CPU.

    Args:
        path: the .onnx file.
        num_threads: how many threads compute; None for one on each core that the process may use.

    Returns:
        The session.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.intra_op_num_threads = cores if num_threads is None else num_threads
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # its threads share the cores with decoders
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
