"""Deformable convolution: against the paper's formula, and as a part of networks that begin as the pretrained ones."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.commands import run
from tests.media import write_video
from tests.pages import Page
from vidpipe.backbones.deformable import DeformableConv2d, deform_stages
from vidpipe.backbones.image import build_network, load_backbone, load_whole
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.stream import at_input_size
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.errors import UsageError, WeightsError
from vidpipe.explain.offsets import find_sampling_points

SIDE = 64


def small(name: str) -> BackboneSpec:
    return at_input_size(BACKBONES[name], SIDE)


def bilinear(map_: NDArray[np.float64], y: float, x: float) -> float:
    """The value between places; zero outside."""
    top, left = int(np.floor(y)), int(np.floor(x))
    found = 0.0
    for row, column in product((top, top + 1), (left, left + 1)):
        if 0 <= row < map_.shape[0] and 0 <= column < map_.shape[1]:
            found += map_[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return found


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 1, 2)])
def test_it_is_the_sum_of_samples_between_places_as_in_the_papers(stride: int, dilation: int, groups: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 2, 3, stride, padding=dilation, dilation=dilation, groups=groups)
    layer = DeformableConv2d(plain).double()
    nn.init.normal_(layer.offsets.weight, std=0.3)
    maps = torch.randn(1, 4, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        found = layer(maps)[0].numpy()
        offsets, weights = (one[0].numpy() for one in layer.sampling(maps))
    kernel, bias = (one.detach().numpy() for one in plain.parameters())
    assert np.abs(offsets).max() > 1.5
    assert weights.max() > 1.2 > 0.8 > weights.min()
    share = 4 // groups
    for out, row, column in np.ndindex(*found.shape):
        expected = float(bias[out])
        for number, (i, j) in enumerate(product(range(3), range(3))):
            y = row * stride - dilation + i * dilation + offsets[2 * number, row, column]
            x = column * stride - dilation + j * dilation + offsets[2 * number + 1, row, column]
            for channel in range(share):
                seen = bilinear(maps[0, out // (2 // groups) * share + channel].numpy(), y, x)
                expected += kernel[out, channel, i, j] * weights[number, row, column] * seen
        assert found[out, row, column] == pytest.approx(expected, abs=1e-9)


SOME = ("resnet18", "resnext50", "wide_resnet50", "se_resnet50", "timm/resnet26")


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow if one in SOME[2:] else ()) for one in SOME])
def test_a_network_begins_as_the_plain_one(name: str, tmp_path: Path) -> None:
    spec = at_input_size(find_backbone(name), SIDE)
    plain = build_network(spec)
    deformed = build_network(spec)
    layers = deform_stages(deformed, ["layer3", "layer4"], owner=name)
    features = []
    for number, model in enumerate((plain, deformed)):
        save_file(model.state_dict(), tmp_path / f"{number}.safetensors")
        weights = find_weights(spec, str(tmp_path / f"{number}.safetensors"))
        backbone = load_backbone(spec, weights=weights, device="cpu")
        assert sum(isinstance(one, DeformableConv2d) for one in backbone.modules()) == number * len(layers)
        features.append(backbone(pictures()))
    scale = features[0].abs().max()
    assert scale > 0.1
    assert len(layers) >= 4
    torch.testing.assert_close(features[0] / scale, features[1] / scale, rtol=0, atol=1e-5)


def pictures() -> Tensor:
    return torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def drawn_waves(down: float = 0.0, right: float = 0.0) -> Tensor:
    """(1, 2, 32, 32), of which each pixel shows what is `down` and `right` of it."""
    row, column = torch.meshgrid(torch.arange(32.0) + down, torch.arange(32.0) + right, indexing="ij")
    random = torch.Generator().manual_seed(0)
    frequency = torch.rand(2, 12, 2, 1, 1, generator=random) - 0.5
    phase = 6.3 * torch.rand(2, 12, 1, 1, generator=random)
    return torch.sin(frequency[:, :, 0] * row + frequency[:, :, 1] * column + phase).sum(dim=1)[None]


def test_it_learns_where_to_look() -> None:
    """The truth is the plain convolution of the same drawing, moved by 1.5 pixels down and 1 to the left."""
    torch.manual_seed(0)
    plain = nn.Conv2d(2, 4, 3, padding=1).requires_grad_(False)
    layer = DeformableConv2d(plain)
    layer.offsets.weight.requires_grad_(False)  # all places move alike
    (learned,) = (one for one in layer.offsets.parameters() if one.requires_grad)
    inside = (slice(None), slice(None), slice(4, 28), slice(4, 28))
    picture, truth = drawn_waves(), plain(drawn_waves(1.5, -1))[inside]
    optimiser = torch.optim.Adam([learned], lr=0.05)
    losses = []
    for _ in range(150):
        loss = (layer(picture)[inside] - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if len(losses) == 1:
            assert learned.grad is not None
            assert learned.grad.abs().min() > 0
        optimiser.step()
    with torch.no_grad():
        offsets = layer.sampling(picture)[0][0].mean(dim=(1, 2)).view(9, 2)
    assert losses[-1] < losses[0] / 100
    assert offsets.mean(dim=0).tolist() == pytest.approx([1.5, -1], abs=0.3)


def test_what_is_no_resnet_and_what_is_no_stage_is_refused() -> None:
    with pytest.raises(UsageError, match="--deformable goes with ResNets, and efficientnet_lite0 is none; resnet18"):
        deform_stages(build_network(BACKBONES["efficientnet_lite0"]), ["blocks.6"], owner="efficientnet_lite0")
    with pytest.raises(UsageError, match=r"resnet18: .*'layer5'.*did you mean 'layer") as raised:
        deform_stages(build_network(BACKBONES["resnet18"]), ["layer5"], owner="resnet18")
    assert "layer1, layer2, layer3, layer4" in str(raised.value)


def test_weights_of_a_deformable_network_do_not_go_with_another(tmp_path: Path) -> None:
    file = deformed_file(tmp_path)
    with pytest.raises(WeightsError, match="these are not weights of resnet34"):
        load_backbone(small("resnet34"), weights=find_weights(small("resnet34"), str(file)), device="cpu")


def deformed_file(folder: Path, *, down: float = 1.0, right: float = -2.0) -> Path:
    """A resnet18 whose last stage samples everything further down and to the left."""
    model = build_network(BACKBONES["resnet18"])
    for name in deform_stages(model, ["layer4"], owner="resnet18"):
        bias = model.get_parameter(f"{name}.offsets.bias")
        with torch.no_grad():
            bias[:18] = torch.tensor([down, right] * 9)
    save_file(model.state_dict(), folder / "deformed.safetensors")
    return folder / "deformed.safetensors"


def test_sampling_points_are_in_pixels_of_the_picture(tmp_path: Path) -> None:
    spec = BACKBONES["resnet18"]
    network = load_whole(spec, weights=find_weights(spec, str(deformed_file(tmp_path))), device="cpu")
    found = {one.layer: one for one in find_sampling_points(network, torch.zeros(1, 3, 224, 224, dtype=torch.uint8))}
    assert list(found) == [f"layer4.{block}.conv{number}" for block in (0, 1) for number in (1, 2)]
    last = found["layer4.1.conv2"]  # 7 × 7 places of 32 pixels each
    np.testing.assert_allclose(last.learned - last.plain, np.broadcast_to((-2 * 32, 1 * 32), (4, 9, 2)), atol=1e-3)
    assert last.mean_offset == pytest.approx(5**0.5)
    centres = last.plain[:, 4]  # the output places 1 and 5 of 7
    assert sorted(map(tuple, centres.tolist())) == [(x, y) for x in (48, 176) for y in (48, 176)]
    assert (last.plain[0, 5] - last.plain[0, 4]).tolist() == [32, 0]
    first = found["layer4.0.conv1"]  # stride 2: its input has 14 × 14 places of 16 pixels each
    np.testing.assert_allclose(first.learned - first.plain, np.broadcast_to((-2 * 16, 16), (4, 9, 2)), atol=1e-3)
    np.testing.assert_allclose(last.weights, 1)


def test_a_plain_network_has_no_sampling_points() -> None:
    spec = small("resnet18")
    network = load_whole(spec, weights=WeightsFile("random", None, "random"), device="cpu")
    assert find_sampling_points(network, pictures()[:1]) == ()


def test_explain_backbone_draws_the_offsets(tmp_path: Path) -> None:
    Image.new("RGB", (224, 224), (60, 60, 60)).save(tmp_path / "grey.png")
    weights = deformed_file(tmp_path, down=0.5, right=0.5)
    options = ("--weights", weights, "--no-filters", "--channels", 1, "--stage", "layer4", "--device", "cpu")
    result = run("explain", "backbone", "resnet18", tmp_path / "grey.png", "-o", tmp_path / "seen", *options)
    assert result.exit_code == 0, result.output
    files = sorted(file.name for file in (tmp_path / "seen" / "offsets").iterdir())
    assert files == [f"layer4.{block}.conv{number}.png" for block in (0, 1) for number in (1, 2)]
    page = Page(tmp_path / "seen" / "backbone.html")
    assert "layer4.1.conv2: mean offset 0.707 places of its input" in page.text
    assert page.tags["figure"] == 1 + 4
    drawn = np.asarray(Image.open(tmp_path / "seen" / "offsets" / "layer4.1.conv2.png")).astype(int)
    assert drawn.shape == (448, 448, 3)  # the places are 64 pixels apart; the sample in the middle of (1, 1) is at 96
    assert drawn[96 + 32, 96 + 32].tolist() == [255, 150, 40]
    assert abs(drawn[96 + 32, 96 - 15] - 33).max() <= 1  # the picture, darkened


def test_an_extraction_runs_on_weights_with_deformable_layers(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 8)
    arguments = ("--backbone", "resnet18", "--input-size", SIDE, "--num-frames", 2, "--device", "cpu", "--workers", 1)
    weights = deformed_file(tmp_path)
    done = run("extract", tmp_path / "a.mp4", "-o", tmp_path / "s", *arguments, "--weights", weights)
    assert done.exit_code == 0, done.output


def test_replaced_layers_keep_what_a_plain_one_has() -> None:
    model = build_network(BACKBONES["resnext50"])
    before = dict(model.named_parameters())
    deform_stages(model, ["layer2"], owner="resnext50")
    after = dict(model.named_parameters())
    assert all(after[name] is before[name] for name in before)
    layer = model.get_submodule("layer2.0.conv2")
    assert isinstance(layer, DeformableConv2d)
    assert (layer.stride, layer.groups, layer.offsets.stride) == ((2, 2), 32, (2, 2))
