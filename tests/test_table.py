"""Walks the image models of the table of backbones; each row is compared with the library that provides the model."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from sys import modules
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.flow import FlowParameters
from vidpipe.backbones.image import FrozenBackbone, build_network, load_backbone
from vidpipe.backbones.lenet import DigitClassifier
from vidpipe.backbones.sizes import count, count_backbone, written_sizes
from vidpipe.backbones.spec import POOLINGS, BackboneSpec
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import UsageError

IMAGE_MODELS = [name for name, spec in BACKBONES.items() if spec.family == "image"]
QUICK = ("lenet5", "resnet18", "mobilenet_v3_small", "efficientnet_lite0", "vit_tiny")
"""One of each kind; the others are marked slow."""
FADING = ("inception_resnet_v2", "dinov2", "dinov3", "facenet")
"""With random weights as they are drawn these tell no picture from another."""
MAX_EXPORTED = 30_000_000
"""Parameters of the largest backbone that is exported to ONNX here."""
BUILT_AS_FOR_WEIGHTS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "inception_v3": {"transform_input": True, "init_weights": False},
        "googlenet": {"transform_input": True, "init_weights": False, "aux_logits": False},
    }
)


def each(names: list[str]) -> list[Any]:
    """Names as parameters of a test, those of large backbones marked slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@dataclass
class Entry:
    """A line of the table, built with weights from a file that its library wrote, and what the library makes of it."""

    spec: BackboneSpec
    backbone: FrozenBackbone
    frames: Tensor
    """(2, 3, H, W) uint8."""
    expected: Tensor
    """(2, D), by the library alone."""
    path: Path


def pixels(spec: BackboneSpec, frames: Tensor) -> Tensor:
    """As the library's own preprocessing normalises them."""
    mean, std = list(spec.preprocessing.mean), list(spec.preprocessing.std)
    normalised: Tensor = normalize(frames / 255, mean, std)
    return normalised


def the_librarys_own(spec: BackboneSpec, request: pytest.FixtureRequest) -> nn.Module:
    """The whole network as a user of the library builds it."""
    if spec.name == "facenet":
        network: nn.Module = request.getfixturevalue("facenet_pytorch").InceptionResnetV1().eval()
        return network
    if spec.library == "vidpipe":
        return DigitClassifier().eval()
    if spec.library == "timm":
        return timm.create_model(spec.builder).eval()
    kwargs = BUILT_AS_FOR_WEIGHTS.get(spec.builder, {})
    model: nn.Module = torchvision.models.get_model(spec.builder, weights=None, **kwargs)
    return model.eval()


def enliven(model: nn.Module, side: int) -> None:
    """Give weights that tell pictures apart: batch normalisation learns its statistics, layers are not scaled down."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the running statistics become the plain mean over what is seen
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2].startswith("gamma"):
                parameter.fill_(1.0)
        if norms:
            model.train()(torch.randn(2, 3, side, side))
    model.eval()


def the_librarys_feature(spec: BackboneSpec, model: Any, inputs: Tensor) -> Tensor:
    """(N, 3, H, W) normalised -> (N, D), what the library's own classifier is given."""
    if spec.name == "facenet":  # without its classifier, it gives its vectors
        vectors: Tensor = model(inputs)
        return vectors
    if spec.library == "timm":
        return timms_feature(spec, model, inputs)
    seen: list[Tensor] = []
    last = next(getattr(model, name) for name in ("output", "fc", "classifier") if hasattr(model, name))
    last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(inputs)
    places = 36 if spec.name == "alexnet" else 49 if spec.name.startswith("vgg") else 1  # these classify whole maps
    return seen[0].reshape(len(inputs), spec.dim, places).mean(dim=2)


def timms_feature(spec: BackboneSpec, model: Any, inputs: Tensor) -> Tensor:
    if spec.name.startswith("dinov2"):  # built again at the smaller size, as timm itself does it
        smaller = timm.create_model(spec.builder, img_size=spec.input_size, num_classes=0).eval()
        convert = modules[type(model).__module__].checkpoint_filter_fn
        smaller.load_state_dict(convert(model.state_dict(), smaller))
        model = smaller
    given: Tensor = model.forward_features(inputs)
    if spec.name.startswith("dinov3"):  # timm takes the mean; the paper's probes take the class token
        return given[:, 0]
    feature: Tensor = model.forward_head(given, pre_logits=True)
    return feature


@pytest.fixture(scope="module", params=each(IMAGE_MODELS))
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    spec = BACKBONES[request.param]
    torch.manual_seed(1)
    library = the_librarys_own(spec, request)
    if spec.name.startswith(FADING):
        enliven(library, spec.input_size)
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    safetensors.torch.save_model(library, str(path))
    side = spec.input_size
    frames = torch.randint(0, 256, (2, 3, side // 4, side // 4), generator=torch.Generator().manual_seed(0))
    frames = nn.functional.interpolate(frames.float(), (side, side), mode="bilinear").round().to(torch.uint8)
    with torch.no_grad():
        expected = the_librarys_feature(spec, library, pixels(spec, frames))
    del library
    backbone = load_backbone(spec, weights=find_weights(spec, str(path)), device="cpu")
    assert isinstance(backbone, FrozenBackbone)
    yield Entry(spec, backbone, frames, expected, path)
    path.unlink()
    gc.collect()


def test_a_backbone_gives_what_its_library_gives_its_own_classifier(entry: Entry) -> None:
    features = entry.backbone(entry.frames)
    assert features.shape == (2, entry.spec.dim)
    assert features.dtype == torch.float32
    largest = entry.expected.abs().max()
    assert (entry.expected[0] - entry.expected[1]).abs().max() > 1e-3 * largest  # it does tell pictures apart
    assert (features - entry.expected).abs().max() <= 1e-5 * largest


def test_a_backbone_is_frozen_and_gives_the_same_feature_twice(entry: Entry) -> None:
    assert not entry.backbone.training
    assert not any(parameter.requires_grad for parameter in entry.backbone.parameters())
    assert torch.equal(entry.backbone(entry.frames), entry.backbone(entry.frames))


def test_a_backbone_describes_itself(entry: Entry) -> None:
    backbone, spec = entry.backbone, entry.spec
    assert (backbone.dim, backbone.input_size, backbone.pooling) == (spec.dim, spec.input_size, POOLINGS[spec.kind][0])
    assert backbone.preprocessing == spec.preprocessing
    assert len(backbone.weights_id) == 64


def test_the_feature_map_pools_to_the_feature(entry: Entry) -> None:
    if entry.spec.kind == "layer":
        with pytest.raises(UsageError, match="no feature map; resnet18"):
            entry.backbone.feature_map(entry.frames)
        return
    maps = entry.backbone.feature_map(entry.frames)
    assert maps.shape[:2] == (2, entry.spec.dim)
    assert min(maps.shape[2:]) >= 6
    entry.backbone.pooling = "avg" if entry.spec.kind == "map" else "tokens"
    mean = entry.backbone(entry.frames)
    entry.backbone.pooling = entry.spec.poolings[0]
    assert torch.allclose(maps.mean(dim=(2, 3)), mean, rtol=1e-4, atol=1e-6)


def test_weights_without_the_classifier_give_the_same_features(entry: Entry, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(entry.path)
    ends = ("fc.", "classifier.", "head.", "output.", *(() if entry.spec.name == "facenet" else ("last_linear.",)))
    kept = {f"module.{name}": tensor for name, tensor in tensors.items() if not name.startswith(ends)}
    torch.save({"state_dict": kept}, tmp_path / "kept.pth")
    del tensors
    weights = find_weights(entry.spec, str(tmp_path / "kept.pth"))
    again = load_backbone(entry.spec, weights=weights, device="cpu")
    (tmp_path / "kept.pth").unlink()
    assert torch.equal(again(entry.frames), entry.backbone(entry.frames))


@pytest.mark.slow
def test_a_small_backbone_runs_with_onnx_too(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if written_sizes()[entry.spec.name].num_parameters >= MAX_EXPORTED:
        pytest.skip("30 million parameters or more: an export would take minutes")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    engine = load_engine(
        entry.spec,
        weights=find_weights(entry.spec, str(entry.path)),
        pool="auto",
        device="cpu",
        engine="onnx",
        num_frames=1,
    )
    expected = entry.backbone(entry.frames).numpy()
    assert np.abs(engine.start(entry.frames.numpy())()[0] - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", each(IMAGE_MODELS))
def test_the_written_sizes_are_those_counted(name: str) -> None:
    counted = count_backbone(BACKBONES[name])
    assert written_sizes()[name].num_parameters == counted.num_parameters
    assert written_sizes()[name].gmacs == pytest.approx(counted.gmacs, abs=1e-4)


@pytest.mark.parametrize("name", each([name for name in IMAGE_MODELS if BACKBONES[name].library == "torchvision"]))
def test_counting_a_whole_network_gives_torchvisions_published_sizes(name: str) -> None:
    spec = find_backbone(name)
    published = torchvision.models.get_model_weights(spec.builder).DEFAULT
    with torch.device("meta"):
        network = build_network(spec).eval()
    side = published.transforms().crop_size[0]
    size = count(network, 3, side, side)
    assert size.num_parameters == published.meta["num_params"]
    assert size.gmacs == pytest.approx(published.meta["_ops"], abs=1e-3)


def test_the_parameters_of_flow_are_those_of_its_module() -> None:
    parameters = FlowParameters()
    assert BACKBONES["flow"].parameters == parameters.as_dict()
    assert BACKBONES["flow"].dim == parameters.dim
