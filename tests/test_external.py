"""Any other model of timm and torchvision, by its own name."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

from vidpipe.backbones.engines.onnx import export_path
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.errors import UsageError

SMALL_OF_TIMM = {
    "timm/test_resnet.r160_in1k": "map",
    "timm/test_convnext.r160_in1k": "map",
    "timm/test_vit.r160_in1k": "class token",
    "timm/swin_tiny_patch4_window7_224": "map",
    "timm/mixer_s32_224": "tokens",
}
A_FAMILY_EACH = (
    "densenet161", "maxvit_t", "mnasnet0_5", "regnet_y_400mf", "resnext101_64x4d", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "vgg11", "vit_b_32",
)  # fmt: skip


def frames(side: int) -> Tensor:
    """(2, 3, side, side) uint8"""
    return torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL_OF_TIMM)
def test_a_model_of_timm_gives_what_timms_classifier_is_given(name: str) -> None:
    spec = find_backbone(name)
    assert spec.kind == SMALL_OF_TIMM[name]
    published = timm.get_pretrained_cfg(spec.builder)
    assert published is not None
    assert published.input_size == (3, spec.input_size, spec.input_size)
    backbone = load_backbone(spec, weights=find_weights(spec, "random"), device="cpu")
    torch.manual_seed(0)
    model: Any = timm.create_model(spec.builder).eval()
    pixels = normalize(frames(spec.input_size) / 255, list(published.mean), list(published.std))
    with torch.no_grad():
        given = model.forward_features(pixels)
        if name.startswith("timm/test_convnext"):  # its head has a layer of its own between pooling and classifier
            expected = given.mean(dim=(2, 3))
        else:
            expected = model.forward_head(given, pre_logits=True)
    features = backbone(frames(spec.input_size))
    assert features.shape == (2, spec.dim)
    assert torch.allclose(features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", A_FAMILY_EACH)
def test_d_and_preprocessing_of_torchvisions_models_are_read(model: str) -> None:
    spec = find_backbone(f"torchvision/{model}")
    published = torchvision.models.get_model_weights(model).DEFAULT
    transforms = published.transforms()
    assert [spec.preprocessing.resize] == transforms.resize_size
    assert [spec.preprocessing.crop] == transforms.crop_size
    assert spec.preprocessing.interpolation == transforms.interpolation.value
    assert (spec.weights, spec.top1) == (published.url, published.meta["_metrics"]["ImageNet-1K"]["acc@1"])
    with torch.device("cpu" if model.startswith("regnet") else "meta"):  # a RegNet needs real tensors to be built
        whole = torchvision.models.get_model(model)
    linear = [module for module in whole.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    if model not in ("vgg11", "maxvit_t"):  # these have more layers before the last one
        last = linear[-1]
        assert spec.dim == (last.in_features if isinstance(last, torch.nn.Linear) else last.in_channels)


@pytest.mark.slow
def test_torchvisions_transformer_gives_what_its_head_is_given() -> None:
    spec = find_backbone("torchvision/vit_b_32")
    backbone = load_backbone(spec, weights=find_weights(spec, "random"), device="cpu")
    torch.manual_seed(0)
    model = torchvision.models.vit_b_32().eval()
    seen: list[Tensor] = []
    model.heads.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(normalize(frames(224) / 255, list(spec.preprocessing.mean), list(spec.preprocessing.std)))
    assert torch.allclose(backbone(frames(224)), seen[0], rtol=1e-5, atol=1e-5)
    assert backbone.feature_map(frames(224)).shape == (2, 768, 7, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densenet161", "both libraries have it: --backbone timm/densenet161 or --backbone torchvision/densenet161"),
        ("resnet14t", "timm has it: --backbone timm/resnet14t"),
        ("swin_t", "torchvision has it: --backbone torchvision/swin_t"),
        ("timm/reznet50", "timm has no model 'reznet50'; did you mean 'timm/resnet50'?"),
        ("timm/resnet50.a9_in1k", r"timm has no model 'resnet50.a9_in1k'; did you mean 'timm/resnet50."),
        ("torchvision/resnet5", "torchvision has no model 'resnet5'; did you mean 'torchvision/resnet50'?"),
        ("keras/resnet50", "unknown backbone 'keras/resnet50'; did you mean 'resnet50'?"),
        ("timm/coat_tiny", "timm/coat_tiny cannot be used as a backbone: its output is no feature map"),
    ],
)
def test_an_unknown_external_name_offers_another(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_backbone(name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_export_of_a_model_behind_a_door_is_a_plain_file() -> None:
    path = export_path(find_backbone("timm/test_vit.r160_in1k"), WeightsFile("a" * 64, Path("w"), "file w"), "token")
    assert path.name.startswith("timm_test_vit.r160_in1k-aaaa")
