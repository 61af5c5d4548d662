"""Weights for the networks of faces, and the package facenet-pytorch as their oracle."""

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor, nn

WHEEL = "facenet_pytorch-2.6.0-py3-none-any.whl"


@pytest.fixture(scope="session")
def facenet_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """facenet-pytorch's wheel, with MTCNN's weights; it cannot be a dependency, because it wants torch below 2.3."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--retries", "1", "--timeout", "15"]
    done = subprocess.run([*command, "facenet-pytorch==2.6.0"], capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip("facenet-pytorch cannot be downloaded")
    return folder / WHEEL


@pytest.fixture(scope="session")
def facenet_pytorch(facenet_wheel: Path) -> Iterator[ModuleType]:
    """The package itself, out of its wheel."""
    folder = facenet_wheel.parent / "unpacked"
    with zipfile.ZipFile(facenet_wheel) as wheel:
        wheel.extractall(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("facenet_pytorch")


def weights_by_name(network: nn.Module) -> dict[str, Tensor]:
    """Random weights that depend on the tensors' names and shapes alone, and are the same in every version of torch."""
    return {name: _tensor(name, tensor) for name, tensor in network.state_dict().items()}


def _tensor(name: str, like: Tensor) -> Tensor:
    random, end = np.random.default_rng(crc32(name.encode())), name.rpartition(".")[2]
    shape: Any = tuple(like.shape)
    if end == "num_batches_tracked":
        return torch.zeros_like(like)
    if end == "running_var" or (end == "weight" and like.ndim == 1):
        values = random.uniform(0.5, 1.5, shape)
    elif like.ndim == 1:
        values = 0.1 * random.normal(size=shape)
    else:
        values = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))
