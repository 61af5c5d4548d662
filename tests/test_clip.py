"""Clip backbones: each is compared with the module, the preset and the published facts of its own library."""

import gc
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.commands import run
from tests.media import write_video
from vidpipe.backbones.clip import ClipBackbone
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.image import build_network, load_backbone
from vidpipe.backbones.sizes import count, count_backbone, written_sizes
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import UsageError, WeightsError
from vidpipe.features.store import FeatureStore
from vidpipe.video.resize import resize_and_crop

VIDEO_MODELS = [name for name, spec in BACKBONES.items() if spec.family == "clip"]
QUICK = ("r3d_18",)
"""The others are marked slow: a window takes them seconds."""
COUNTED_FRAMES = 16
"""torchvision publishes the operations of so many frames, whatever the network's own window is."""


def each(names: list[str]) -> list[Any]:
    """Names as parameters of a test, those of large backbones marked slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def published(spec: BackboneSpec) -> Any:
    """torchvision's weights with the backbone's URL."""
    return next(one for one in torchvision.models.get_model_weights(spec.builder) if one.url == spec.weights)


def video_of(num_frames: int, height: int = 120, width: int = 164) -> NDArray[np.uint8]:
    """(T, H, W, 3) smooth noise that drifts."""
    random = np.random.default_rng(0)
    scene = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([np.roll(scene, 3 * number, axis=1) for number in range(num_frames)])


@dataclass
class Entry:
    """A video model built with weights from a file that torchvision's own module wrote."""

    spec: BackboneSpec
    backbone: ClipBackbone
    windows: Tensor
    """(1, W, 3, H, W) uint8, as vidpipe resizes and crops them."""
    expected: Tensor
    """(1, D), what torchvision's own classifier is given, after the preset's own transforms."""
    path: Path


def enliven(model: nn.Module) -> None:
    """Give batch normalisation the statistics of noise: as drawn, S3D's weights fade every picture."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = None  # the running statistics become the plain mean over what is seen
    with torch.no_grad():
        model.train()(torch.randn(1, 3, 16, 224, 224))
    model.eval()


def given_to_the_classifier(model: Any, pixels: Tensor) -> Tensor:
    """(N, 3, W, H, W) -> (N, D)"""
    seen: list[Tensor] = []
    last: nn.Module = next(getattr(model, name) for name in ("fc", "classifier", "head") if hasattr(model, name))
    last.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(pixels)
    return seen[0].reshape(*seen[0].shape[:2], -1).mean(dim=2)


@pytest.fixture(scope="module", params=each(VIDEO_MODELS))
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    spec = BACKBONES[request.param]
    assert spec.window is not None
    torch.manual_seed(1)
    model = torchvision.models.get_model(spec.builder, weights=None).eval()
    if spec.name == "s3d":
        enliven(model)
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    safetensors.torch.save_model(model, str(path))
    video = video_of(spec.window.num_frames)
    pixels = published(spec).transforms()(torch.from_numpy(video).permute(0, 3, 1, 2))[None]
    expected = given_to_the_classifier(model, pixels)
    del model
    backbone = load_backbone(spec, weights=find_weights(spec, str(path)), device="cpu")
    assert isinstance(backbone, ClipBackbone)
    windows = torch.from_numpy(resize_and_crop(video, spec.preprocessing))[None]
    yield Entry(spec, backbone, windows, expected, path)
    path.unlink()
    gc.collect()


def test_a_clip_backbone_gives_what_its_library_gives_its_own_classifier(entry: Entry) -> None:
    features = entry.backbone(entry.windows)
    assert features.shape == (1, entry.spec.dim)
    assert features.dtype == torch.float32
    assert entry.expected.std() > 1e-2
    assert (features - entry.expected).abs().max() < 1e-4


def test_weights_without_the_classifier_give_the_same_backbone(entry: Entry, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(entry.path)
    kept = {f"module.{name}": one for name, one in tensors.items() if not name.startswith(("fc.", "classif", "head."))}
    assert len(kept) < len(tensors)
    torch.save({"state_dict": kept}, tmp_path / "kept.pth")
    again = load_backbone(entry.spec, weights=find_weights(entry.spec, str(tmp_path / "kept.pth")), device="cpu")
    ours, theirs = entry.backbone.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_clip_backbone_is_frozen_and_describes_itself(entry: Entry) -> None:
    backbone, spec = entry.backbone, entry.spec
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert (backbone.dim, backbone.pooling, backbone.preprocessing) == (spec.dim, spec.poolings[0], spec.preprocessing)
    assert len(backbone.weights_id) == 64


@pytest.mark.parametrize("name", each([name for name in VIDEO_MODELS if name not in ("swin3d_s", "swin3d_b_22k")]))
def test_the_shortest_window_gives_a_feature_too(name: str) -> None:
    spec = BACKBONES[name]
    assert spec.window is not None
    backbone = load_backbone(spec, weights=find_weights(spec, "random"), device="cpu")
    shortest = torch.zeros((1, spec.window.min_frames, *spec.input_shape[1:]), dtype=torch.uint8)
    assert backbone(shortest).isfinite().all()


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_a_map_pools_over_time_and_space(pool: str) -> None:
    spec = BACKBONES["r3d_18"]
    backbone = load_backbone(spec, weights=find_weights(spec, "random"), pool=pool, device="cpu")
    windows = torch.from_numpy(resize_and_crop(video_of(16), spec.preprocessing))[None]
    maps = backbone.feature_map(windows)
    assert maps.shape == (1, 512, 2, 7, 7)
    flat = maps.flatten(2)
    assert torch.allclose(backbone(windows), flat.mean(dim=2) if pool == "avg" else flat.amax(dim=2), atol=1e-6)


# the table


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_the_table_agrees_with_torchvision(name: str) -> None:
    spec, weights = BACKBONES[name], published(BACKBONES[name])
    transforms, meta, window = weights.transforms(), weights.meta, spec.window
    assert window is not None
    resize = spec.preprocessing.resize
    assert list(resize if isinstance(resize, tuple) else [resize]) == transforms.resize_size
    assert list(spec.preprocessing.size) == transforms.crop_size
    assert spec.preprocessing.interpolation == transforms.interpolation.value
    assert (spec.preprocessing.mean, spec.preprocessing.std) == (tuple(transforms.mean), tuple(transforms.std))
    assert {spec.top1_dataset: spec.top1} == {data: its["acc@1"] for data, its in meta["_metrics"].items()}
    assert window.min_frames == meta.get("min_temporal_size", 1)
    fps, clips, num_frames = re.findall(r"`(?:frame_rate|clips_per_video|clip_len)=([\d.]+)`", meta["_docs"])
    assert (window.fps, window.num_frames) == (float(fps), int(num_frames))
    assert spec.top1_source.startswith(f"torchvision, {clips} clip")


def test_the_table_has_all_video_models_of_torchvision() -> None:
    theirs = torchvision.models.list_models(module=torchvision.models.video)
    all_weights = {one.url for name in theirs for one in torchvision.models.get_model_weights(name)}
    assert {BACKBONES[name].weights for name in VIDEO_MODELS} == all_weights


@pytest.mark.parametrize("name", VIDEO_MODELS)
@pytest.mark.parametrize("size", [(96, 128), (360, 480), (240, 426), (200, 112)])
def test_frames_are_resized_as_the_preset_does_without_antialiasing(name: str, size: tuple[int, int]) -> None:
    spec = BACKBONES[name]
    preset = published(spec).transforms()
    preset.mean, preset.std = [0.0] * 3, [1.0] * 3
    video = video_of(2, *size)
    theirs = preset(torch.from_numpy(video).permute(0, 3, 1, 2)) * 255  # (3, T, H, W)
    ours = resize_and_crop(video, spec.preprocessing).transpose(1, 0, 2, 3)
    assert np.array_equal(theirs.round().byte().numpy(), ours)


@pytest.mark.parametrize("name", each(VIDEO_MODELS))
def test_the_written_sizes_are_those_counted(name: str) -> None:
    counted = count_backbone(BACKBONES[name])
    assert written_sizes()[name].num_parameters == counted.num_parameters
    assert written_sizes()[name].gmacs == pytest.approx(counted.gmacs, abs=1e-4)


@pytest.mark.parametrize("name", each(VIDEO_MODELS))
def test_counting_a_whole_network_gives_torchvisions_published_sizes(name: str) -> None:
    spec = BACKBONES[name]
    with torch.device("meta"):
        network = build_network(spec).eval()
    size = count(network, 3, COUNTED_FRAMES, *spec.preprocessing.size)
    assert size.num_parameters == published(spec).meta["num_params"]
    assert size.gmacs == pytest.approx(published(spec).meta["_ops"], abs=1e-3)


# what users meet


def test_extraction_with_a_clip_backbone_stores_windows(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 75, fps=25)
    options = ("--backbone", "r3d_18", "--weights", "random", "--num-frames", 3, "--device", "cpu", "--workers", 1)
    assert run("extract", tmp_path / "videos", "-o", tmp_path / "s", *options).exit_code == 0
    store = FeatureStore.open(tmp_path / "s")
    sequence = store["a.mp4"]
    assert sequence.features.shape == (3, 512)
    assert sequence.rows.frame_index.tolist() == [12, 37, 60]  # the last window is moved inward
    seconds = sequence.stop_seconds - sequence.start_seconds
    assert np.allclose(seconds, 16 / 15, atol=0.04)
    assert store.key.window == {"num_frames": 16, "fps": 15, "min_frames": 1}


def test_backbones_lists_the_models_of_a_kind_with_their_windows_and_their_dataset() -> None:
    rows = [json.loads(line) for line in run("backbones", "--kind", "clip", "--format", "json").stdout.splitlines()]
    assert [row["name"] for row in rows] == VIDEO_MODELS
    assert {row["top1_dataset"] for row in rows} == {"Kinetics-400"}
    s3d = next(row for row in rows if row["name"] == "s3d")
    assert s3d["window"] == {"num_frames": 128, "fps": 15, "min_frames": 14}
    images = [json.loads(line) for line in run("backbones", "--kind", "image", "--format", "json").stdout.splitlines()]
    assert {row["top1_dataset"] for row in images} == {"ImageNet-1k", None}
    assert {row["kind"] for row in images} == {"image"}
    table = run("backbones", "--kind", "clip").stdout
    assert "16 at 7.5 fps" in table
    assert "Kinetics-400" in table
    assert "resnet50" not in table
    described = run("backbones", "s3d").stdout
    assert "128 at 15 fps, at least 14" in described


def test_torchvisions_video_models_have_names_of_their_own() -> None:
    result = run("backbones", "torchvision/r3d_18")
    assert result.exit_code == 2
    assert "is a video model, which has a name of its own: --backbone r3d_18" in result.stderr


def test_weights_of_another_video_model_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    safetensors.torch.save_model(torchvision.models.video.mc3_18(), str(tmp_path / "mc3.safetensors"))
    spec = find_backbone("r3d_18")
    with pytest.raises(WeightsError, match=r"these are not weights of r3d_18: .* of another shape"):
        load_backbone(spec, weights=find_weights(spec, str(tmp_path / "mc3.safetensors")), device="cpu")


@pytest.mark.parametrize(
    ("name", "pool", "allowed"), [("r3d_18", "token", "avg or max"), ("mvit_v1_b", "avg", "token or tokens")]
)
def test_a_pooling_that_does_not_go_with_a_video_model_is_refused(name: str, pool: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=f"--pool {pool} does not go with {name}, .*; --pool {allowed}"):
        find_backbone(name).resolve_pool(pool)


def test_onnx_does_not_run_video_models() -> None:
    spec = find_backbone("r3d_18")
    weights = find_weights(spec, "random")
    with pytest.raises(UsageError, match=r"--engine onnx runs image models, and r3d_18 .* use --engine torch"):
        load_engine(spec, weights=weights, pool="auto", device="cpu", engine="onnx", num_frames=1)
    automatic = load_engine(spec, weights=weights, pool="auto", device="cpu", engine="auto", num_frames=10_000)
    assert automatic.name == "torch"
