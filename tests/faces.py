"""Weights for the networks of faces, and the package facenet-pytorch as their oracle."""

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from vidpipe.backbones.image import build_network
from vidpipe.backbones.table import find_backbone
from vidpipe.regions.networks.mtcnn import Mtcnn

WHEEL = "facenet_pytorch-2.6.0-py3-none-any.whl"
SIDE = 20
"""Pixels of a drawn face."""
BRIGHT = 0.3
"""Faces have a mean of 210 (0.64), and the background one of 40 (-0.68)."""
TINTS = ((255, 120, 255), (120, 255, 255), (255, 255, 120))
"""Colours of one brightness."""


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


def bright_mtcnn(limit: float = BRIGHT, gain: float = 8.0) -> Mtcnn:
    """MTCNN with weights by which a face is a square that is brighter than the limit, -1 to 1."""
    network = Mtcnn()
    with torch.no_grad():
        for part in (network.pnet, network.rnet, network.onet):
            for parameter in part.parameters():
                parameter.zero_()
            for layer in part.children():
                _pass_mean_on(layer)
        for name, num_seen in (("pnet.conv4_1", 1), ("rnet.dense5_1", 9), ("onet.dense6_1", 9)):
            score: Any = network.get_submodule(name)
            score.weight[1, :num_seen] = gain / num_seen
            score.bias.copy_(torch.tensor([0.0, -gain * limit]))
        _fit_boxes(network.onet)
    return network.eval()


def _pass_mean_on(layer: nn.Module) -> None:
    """The first channel becomes the mean of what it sees of the first channel before it; of pixels, of all colours."""
    if isinstance(layer, nn.PReLU):
        layer.weight.fill_(1.0)
    elif isinstance(layer, nn.Conv2d):
        seen = layer.weight[0] if layer.in_channels == 3 else layer.weight[0, 0]
        seen.fill_(1 / seen.numel())
    elif isinstance(layer, nn.Linear) and layer.in_features in (576, 1152):  # 3 × 3 places
        places = torch.arange(9)
        layer.weight[places, places * layer.in_features // 9] = 1.0


def _fit_boxes(onet: Any) -> None:
    """O-Net learns to move boxes to the squares: least squares on drawn ones."""
    random, seen = np.random.default_rng(0), list[Tensor]()
    windows, moves = torch.full((600, 3, 48, 48), -0.68), torch.empty(600, 4)
    for window, move in zip(windows, moves, strict=True):
        side = int(random.integers(34, 62))
        left, top = (random.integers(-18, 19, 2) + (48 - side) // 2).tolist()
        window[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0.64
        move.copy_(torch.tensor([left, top, left + side - 48, top + side - 48]) / 48)
    handle = onet.prelu5.register_forward_hook(lambda module, given, output: seen.append(output))
    onet(windows)
    handle.remove()
    places = torch.cat([seen[0][:, :9], torch.ones(600, 1)], dim=1)
    solution = torch.linalg.lstsq(places, moves).solution  # (10, 4)
    onet.dense6_2.weight[:, :9] = solution[:9].T
    onet.dense6_2.bias.copy_(solution[9])


def write_bright_mtcnn(folder: Path, limit: float = BRIGHT) -> Path:
    """A folder with the weights of `bright_mtcnn`, as facenet-pytorch's wheel has them."""
    folder.mkdir(parents=True, exist_ok=True)
    network = bright_mtcnn(limit)
    for name in ("pnet", "rnet", "onet"):
        torch.save(network.get_submodule(name).state_dict(), folder / f"{name}.pt")
    return folder


def write_wheel(path: Path, weights: Path) -> Path:
    """A wheel with these files, in facenet-pytorch's folders."""
    with zipfile.ZipFile(path, "w") as wheel:
        for file in sorted(weights.iterdir()):
            wheel.write(file, f"facenet_pytorch/data/{file.name}")
    return path


def write_facenet(path: Path) -> Path:
    """A file as facenet-pytorch publishes them: the state dict with the classifier of 8,631 people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    classifier = {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}
    torch.save(weights_by_name(build_network(find_backbone("facenet"))) | classifier, path)
    return path


def draw_faces(faces: Sequence[tuple[int, int, int]], width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """(H, W, 3) a dark picture with faces: who it is, and its left and top in pixels."""
    frame = np.full((height, width, 3), 40, np.uint8)
    for who, left, top in faces:
        frame[top : top + SIDE, left : left + SIDE] = np.array(TINTS, np.uint8)[_pattern(who)]
    return frame


def _pattern(who: int) -> NDArray[np.int64]:
    """(SIDE, SIDE) the tint of each pixel: blocks of 5 pixels, others for each person."""
    return np.random.default_rng(who).integers(0, len(TINTS), (4, 4)).repeat(5, axis=0).repeat(5, axis=1)


HEADS = ((40, 40), (110, 40))
"""Where the network of `write_head_detector` sees two heads, in pixels of a picture of 160 × 120."""
HEAD_BOX = (24.0, 29.8)
"""Width and height of their faces."""
_POINTS = ((0, 3), (6, -2), (-6, -2), (13, 0), (-13, 0))
"""Nose, eyes and ears, from the middle of a head, in pixels."""


def write_head_detector(path: Path) -> Path:
    """Write a network of the form of MoveNet that sees two people; the second one's face only while a lamp is on."""
    people = np.zeros((6, 56), np.float32)
    for person, (x, y) in zip(people, HEADS, strict=False):
        for number, (right, down) in enumerate(_POINTS):
            person[3 * number : 3 * number + 3] = (y + down) / 120, (x + right) / 160, 0.9
        person[51:] = (y - 20) / 120, (x - 20) / 160, 1.0, (x + 20) / 160, 0.9
    off = np.ones_like(people)
    off[1, 2:15:3] = 0
    nodes = [
        helper.make_node("Slice", ["input", "first", "stop", "axes"], ["corner"]),
        helper.make_node("Cast", ["corner"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["light"], keepdims=0),
        helper.make_node("Greater", ["light", "half"], ["on"]),
        helper.make_node("Where", ["on", "people", "without"], ["output_0"]),
    ]
    constants = {
        "first": np.array([160, 224]),
        "stop": np.array([192, 256]),
        "axes": np.array([1, 2]),
        "half": np.array(128, np.float32),
        "people": people[None],
        "without": (people * off)[None],
    }
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("input", TensorProto.INT32, [1, "h", "w", 3])],
        [helper.make_tensor_value_info("output_0", TensorProto.FLOAT, [1, 6, 56])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def draw_heads(left: int | None, right: int | None, *, lamp: bool = True) -> NDArray[np.uint8]:
    """(H, W, 3) a dark picture with faces, by number, at the two places; and the lamp in the corner."""
    frame = np.full((120, 160, 3), 40, np.uint8)
    for who, (x, y) in zip((left, right), HEADS, strict=True):
        if who is not None:
            face = np.array(TINTS, np.uint8)[_pattern(who)].repeat(2, axis=0).repeat(2, axis=1)  # (40, 40, 3)
            frame[y - 20 : y + 20, x - 20 : x + 20] = face
    frame[96:, 136:] = 255 if lamp else 0
    return frame
