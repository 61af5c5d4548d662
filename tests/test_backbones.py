"""Held against torchvision and timm themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image
from timm.data.imagenet_info import ImageNetInfo
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import UsageError
from vidpipe.video.resize import resize_and_crop

BUILT_AS_FOR_WEIGHTS = {"inception_v3": {"transform_input": True, "init_weights": False}}
TORCHVISION = [name for name, spec in BACKBONES.items() if spec.library == "torchvision" and spec.window is None]
TIMM = [name for name, spec in BACKBONES.items() if spec.library == "timm"]


def calibrated_model(name: str) -> torch.nn.Module:
    """torchvision's own model, built as for its weights, with random ones that keep activations at a natural size."""
    torch.manual_seed(1)
    model: torch.nn.Module = torchvision.models.get_model(name, weights=None, **BUILT_AS_FOR_WEIGHTS.get(name, {}))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the running statistics become the plain mean over what is seen
    with torch.no_grad():
        model.train()(torch.randn(4, 3, find_backbone(name).input_size, find_backbone(name).input_size))
    return model.eval()


@pytest.fixture(scope="module", params=["resnet50", "inception_v3"])
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, torch.nn.Module, Path]:
    model = calibrated_model(request.param)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(model.state_dict(), path)
    return request.param, model, path


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_features_equal_torchvisions_at_its_pooling_layer(
    reference: tuple[str, torch.nn.Module, Path], pool: str
) -> None:
    name, model, path = reference
    spec = find_backbone(name)
    video = np.random.default_rng(0).integers(0, 256, (2, 360, 480, 3), dtype=np.uint8)
    frames = resize_and_crop(video, spec.preprocessing)
    published = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    pixels = functional.normalize(torch.from_numpy(frames) / 255, published.mean, published.std)
    if pool == "max":
        model.avgpool = torch.nn.AdaptiveMaxPool2d(1)
    else:
        model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    with torch.no_grad():
        pooling_layer = create_feature_extractor(model, ["avgpool"], suppress_diff_warning=True)
        expected = pooling_layer(pixels)["avgpool"].flatten(1)

    backbone = load_backbone(spec, weights=find_weights(spec, str(path)), pool=pool, device="cpu")
    features = backbone(torch.from_numpy(frames))

    assert features.shape == (2, 2048)
    assert expected.abs().max() > 0.1
    assert (features - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_table_agrees_with_torchvision(name: str) -> None:
    spec = BACKBONES[name]
    weights = torchvision.models.get_model_weights(spec.builder).DEFAULT
    transforms = weights.transforms()
    assert [spec.preprocessing.resize] == transforms.resize_size
    assert [spec.preprocessing.crop] == transforms.crop_size
    assert spec.preprocessing.interpolation == transforms.interpolation.value
    assert (list(spec.preprocessing.mean), list(spec.preprocessing.std)) == (transforms.mean, transforms.std)
    assert spec.weights == weights.url
    assert spec.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]


@pytest.mark.parametrize("name", TIMM)
def test_the_table_agrees_with_timm(name: str) -> None:
    spec = BACKBONES[name]
    published = timm.get_pretrained_cfg(spec.builder)
    assert published is not None
    assert (spec.preprocessing.mean, spec.preprocessing.std) == (published.mean, published.std)
    assert spec.preprocessing.interpolation == published.interpolation
    if not spec.weights.startswith("package:"):
        file = "open_clip_model" if name.startswith("clip") else "model"
        address = f"https://huggingface.co/{published.hf_hub_id}/resolve/main/{file}.safetensors"
        assert spec.weights == (address if published.hf_hub_id else published.url)
    if name.startswith(("clip", "siglip", "dinov2")):  # sizes and crops as their own authors', not as timm's
        return
    assert published.input_size == (3, *spec.preprocessing.size)
    assert int(spec.input_size / published.crop_pct) == spec.preprocessing.resize


@pytest.mark.parametrize(("height", "width"), [(240, 320), (568, 320), (1, 1), (101, 997), (300, 300)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_and_cropping_are_torchvisions(height: int, width: int, interpolation: str) -> None:
    preprocessing = replace(BACKBONES["resnet50"].preprocessing, interpolation=interpolation)
    video = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    frames = torch.from_numpy(video).permute(0, 3, 1, 2)
    resized = functional.resize(frames, [232], InterpolationMode(interpolation), antialias=True)
    expected = functional.center_crop(resized, [224])
    assert np.array_equal(resize_and_crop(video, preprocessing), expected.numpy())


@pytest.mark.parametrize("name", TORCHVISION)
def test_frames_are_within_a_shade_of_the_published_preprocessing(name: str) -> None:
    photograph = np.array(load_sample_image("china.jpg"))
    preprocessing = find_backbone(name).preprocessing
    published = torchvision.models.get_model_weights(find_backbone(name).builder).DEFAULT.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (published.mean, published.std))
    expected = (published(Image.fromarray(photograph)) * std + mean) * 255
    frames = resize_and_crop(photograph[None], preprocessing)
    difference = (torch.from_numpy(frames[0]).float() - expected).abs()
    assert difference.max() < (2.01 if preprocessing.interpolation == "bicubic" else 1.01)  # Pillow rounds in between
    assert (difference > 0.5).float().mean() < 0.05


def drawn_airliner() -> NDArray[np.uint8]:
    """(300, 480, 3) an airliner in the sky."""
    sky = np.linspace((90, 150, 215), (205, 225, 245), 300)[:, None].repeat(480, axis=1).astype(np.uint8)
    picture = Image.fromarray(sky).resize((1920, 1200))
    draw = ImageDraw.Draw(picture)
    white, gray, dark, blue = (238, 240, 243), (150, 156, 165), (60, 70, 90), (25, 60, 130)
    draw.polygon([(1000, 560), (1180, 560), (820, 330), (760, 330)], fill=gray)  # far wing
    draw.rounded_rectangle((330, 520, 1560, 660), 70, fill=white)  # fuselage
    draw.polygon([(330, 590), (250, 620), (400, 655), (420, 530)], fill=white)  # nose
    draw.polygon([(1400, 520), (1640, 300), (1720, 300), (1640, 540), (1560, 590)], fill=blue)  # fin
    draw.polygon([(1480, 590), (1720, 540), (1760, 545), (1600, 620)], fill=gray)  # tailplane
    draw.polygon([(860, 620), (1060, 620), (1330, 900), (1260, 905)], fill=gray)  # near wing
    draw.rounded_rectangle((900, 690, 1060, 760), 34, fill=white)  # engine
    draw.ellipse((890, 690, 930, 760), fill=dark)
    draw.polygon([(300, 570), (350, 545), (390, 545), (385, 575)], fill=dark)  # cockpit
    for x in range(450, 1420, 34):
        draw.rounded_rectangle((x, 565, x + 14, 588), 5, fill=dark)
    draw.line((380, 610, 1560, 610), fill=blue, width=10)
    return np.array(picture.resize((480, 300), Image.Resampling.LANCZOS))


def named(name: str, picture: NDArray[np.uint8]) -> str:
    """What a backbone of the EfficientNet-Lites with its real weights and their classifier calls a picture."""
    spec = BACKBONES[name]
    weights = find_weights(spec, "default")
    assert weights.path is not None
    frames = resize_and_crop(picture[None], spec.preprocessing)
    features = load_backbone(spec, weights=weights, device="cpu")(torch.from_numpy(frames))
    *_, classifier, bias = torch.load(weights.path, weights_only=True).values()
    return str(ImageNetInfo().index_to_description(int((features @ classifier.T + bias).argmax(dim=1))))


def test_efficientnet_lite0_with_its_real_weights_calls_an_airliner_an_airliner() -> None:
    assert named("efficientnet_lite0", drawn_airliner()).startswith("airliner")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_real_weights_call_a_photograph_of_the_summer_palace_a_palace(name: str) -> None:
    assert named(name, np.array(load_sample_image("china.jpg"))) == "palace"


def test_a_backbone_is_frozen() -> None:
    backbone = load_backbone(BACKBONES["efficientnet_lite0"], device="cpu")
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    features = backbone(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    assert not features.requires_grad


def test_an_unknown_backbone_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown backbone 'resnet5'; did you mean 'resnet50'\?"):
        find_backbone("resnet5")


@pytest.mark.parametrize(
    ("name", "pool", "message"),
    [
        ("dinov2_small", "max", "--pool max does not go with dinov2_small, whose feature is made from its class token; "
         "--pool token or tokens"),
        ("siglip_b16", "token", "whose feature is made from its attention; --pool attention or tokens"),
        ("resnet50", "token", "whose feature is made from its map; --pool avg or max"),
        ("lenet5", "avg", "whose feature is made from its layer; --pool none"),
    ],
)  # fmt: skip
def test_a_pooling_that_does_not_go_with_a_backbone_is_reported(name: str, pool: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_backbone(name).resolve_pool(pool)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", BACKBONES)
def test_auto_is_the_pooling_that_the_weights_were_trained_for(name: str) -> None:
    pooling = find_backbone(name).resolve_pool("auto")
    trained_for = {
        "lenet": "none",
        "facenet": "none",
        "flow": "none",
        "pose": "none",
        "vit": "token",
        "mvit": "token",
        "clip": "token",
        "dino": "token",
        "siglip": "attention",
    }
    assert pooling == next((pool for start, pool in trained_for.items() if name.startswith(start)), "avg")
