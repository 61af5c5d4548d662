"""What a backbone sees: stages, activations, filters and attention, each against another way to compute it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from tests.browser import Browser
from tests.commands import run
from tests.media import drifting_frames, read_number, write_video
from tests.pages import Page
from vidpipe.backbones.image import WholeNetwork, load_whole
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.explain.attention import class_attention
from vidpipe.explain.filters import find_filters
from vidpipe.explain.layers import activations, find_stages
from vidpipe.explain.seen_input import read_input
from vidpipe.records import Preprocessing

RANDOM = WeightsFile("random", None, "random")
LITE0 = BACKBONES["efficientnet_lite0"]
NAMES = {
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "vgg16": ["features.3", "features.8", "features.15", "features.22", "features.29"],
    "efficientnet_lite0": ["bn1", *(f"blocks.{number}" for number in range(7)), "bn2"],
    "torchvision/regnet_y_400mf": ["stem", *(f"trunk_output.block{number}" for number in range(1, 5))],
    "timm/swin_tiny_patch4_window7_224": ["patch_embed", *(f"layers.{number}" for number in range(4)), "norm"],
    "timm/vit_tiny_patch16_224": ["patch_embed", *(f"blocks.{number}" for number in range(12)), "norm"],
    "r3d_18": ["stem", "layer1", "layer2", "layer3", "layer4"],
}


def noise(spec: BackboneSpec) -> Tensor:
    return torch.randint(0, 256, (1, *spec.input_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("vgg16", "r3d_18") else ()) for name in NAMES]
)
def test_the_stages_are_the_blocks_by_the_networks_own_names(name: str) -> None:
    spec = find_backbone(name)
    assert [stage.name for stage in find_stages(load_whole(spec, weights=RANDOM), noise(spec))] == NAMES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, spec in BACKBONES.items() if spec.family == "image"])
def test_every_image_model_has_stages_that_end_with_what_is_pooled(name: str) -> None:
    spec = BACKBONES[name]
    stages = find_stages(load_whole(spec, weights=RANDOM), noise(spec))
    assert 3 <= len(stages) <= 60
    assert spec.kind == "layer" or stages[-1].num_channels == spec.dim


def test_activations_of_torchvision_equal_those_of_its_feature_extractor() -> None:
    spec = BACKBONES["resnet18"]
    network, frames = load_whole(spec, weights=RANDOM, device="cpu"), noise(spec)
    found = activations(network, frames, find_stages(network, frames))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_model("resnet18", weights=None).eval().to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (spec.preprocessing.mean, spec.preprocessing.std))
    with torch.no_grad():
        pixels = ((frames / 255 - mean) / std).to(memory_format=torch.channels_last)
        expected = create_feature_extractor(model, list(found))(pixels)
    for name, maps in found.items():
        torch.testing.assert_close(maps, expected[name][0], rtol=1e-6, atol=1e-6)


def test_activations_of_timm_equal_its_own_features() -> None:
    import timm

    network, frames = load_whole(LITE0, weights=find_weights(LITE0, "default"), device="cpu"), noise(LITE0)
    found = activations(network, frames, find_stages(network, frames))
    model = timm.create_model(LITE0.builder, features_only=True)
    model.load_state_dict(network.features.state_dict(), strict=False)
    with torch.no_grad():
        pixels = network.normalise(frames).to(memory_format=torch.channels_last)
        expected = model.eval().to(memory_format=torch.channels_last)(pixels)
    for number, place in enumerate((0, 1, 2, 4, 6)):
        torch.testing.assert_close(found[f"blocks.{place}"], expected[number][0], rtol=1e-6, atol=1e-6)


def test_a_layer_that_the_next_one_changes_in_place_is_shown_as_it_was() -> None:
    spec = BACKBONES["resnet18"]
    network, frames = load_whole(spec, weights=RANDOM, device="cpu"), noise(spec)
    found = activations(network, frames, find_stages(network, frames, ["bn1", "relu"]))
    assert found["bn1"].min() < 0
    assert torch.equal(found["bn1"].relu(), found["relu"])


VERTICAL = torch.tensor([-1.0, 0.0, 1.0]).repeat(5, 1) / 5
"""The difference of two columns, the mean over five rows."""


def hand_built(kernel: Tensor) -> WholeNetwork:
    """A network of one filter, which is known, over the grey of the picture."""
    conv = nn.Conv2d(3, 1, (kernel.shape[0], kernel.shape[1]), bias=False)
    conv.weight.data = kernel.expand(1, 3, -1, -1) / 3
    spec = BackboneSpec(
        name="hand-built",
        dim=1,
        preprocessing=Preprocessing(48, 48, "bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        library="torchvision",
        builder="",
        feature_map="",
        weights="",
        weights_licence="",
    )
    return WholeNetwork(nn.Sequential(conv, nn.ReLU()), spec)


@pytest.mark.parametrize(("kernel", "across"), [(VERTICAL, 1), (VERTICAL.T, 0)], ids=["vertical", "horizontal"])
def test_the_filter_of_a_known_edge_is_stripes_along_it(kernel: Tensor, across: int) -> None:
    network = hand_built(kernel)
    (stage,) = find_stages(network, torch.zeros(1, 3, 48, 48, dtype=torch.uint8), ["1"])
    found = find_filters(network, stage, [0], num_steps=64)
    # No picture of values from 0 to 1 has a mean above 0.5: differences add up to 0, and none is above 1. Stripes of
    # two black and two white pixels reach it. Random black and white pixels have 0.25.
    assert 0.3 < found.activations[0] <= 0.5 * 48 / 44
    grey = found.pictures[0].mean(axis=2)
    steps_of_two = [
        np.abs(np.take(grey, range(2, 48), axis) - np.take(grey, range(46), axis)).mean() for axis in (0, 1)
    ]
    assert steps_of_two[across] > 0.6 * 255
    assert steps_of_two[across] > 2 * steps_of_two[1 - across]


@pytest.fixture(scope="module")
def lite0() -> WholeNetwork:
    return load_whole(LITE0, weights=find_weights(LITE0, "default"), device="cpu")


def drawn_frames() -> Tensor:
    """(8, 3, 224, 224) blocks that drift, numbers as large blocks, and noise"""
    frames = [*drifting_frames(7, width=224, height=224)]
    random = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([*frames, random])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["blocks.1", "blocks.2"])
def test_a_filter_activates_its_channel_more_than_noise_and_drawn_frames_do(lite0: WholeNetwork, name: str) -> None:
    frames = drawn_frames()
    (stage,) = find_stages(lite0, frames[:1], [name])
    found = find_filters(lite0, stage, [0, 5, 9], num_steps=12)
    largest = torch.stack([activations(lite0, one[None], [stage])[name].mean(dim=(1, 2)) for one in frames])
    drawn = largest.amax(dim=0)[[0, 5, 9]].numpy()
    assert (found.activations > 2 * np.maximum(found.noise_activations, drawn)).all()


def test_the_same_seed_gives_the_same_filters_and_another_seed_others(lite0: WholeNetwork) -> None:
    (stage,) = find_stages(lite0, drawn_frames()[:1], ["blocks.0"])

    def pictures(seed: int) -> NDArray[np.uint8]:
        return find_filters(lite0, stage, [3], num_steps=3, seed=seed).pictures

    assert np.array_equal(pictures(4), pictures(4))
    assert not np.array_equal(pictures(4), pictures(5))


def plain_softmax(query: Tensor, key: Tensor) -> Tensor:
    """(A, T, d) -> (A, T, T)"""
    return torch.softmax(query @ key.transpose(1, 2) / query.shape[2] ** 0.5, dim=-1)


def test_attention_of_timm_equals_a_plain_softmax_of_its_queries_and_keys() -> None:
    spec = find_backbone("timm/vit_tiny_patch16_224")
    network, frames = load_whole(spec, weights=RANDOM, device="cpu"), noise(spec)
    attention = class_attention(network, frames)
    assert attention is not None
    expected = {}

    def compute(name: str, layer: nn.Module, tokens: Tensor) -> None:
        query, key, _ = layer.qkv(tokens)[0].reshape(tokens.shape[1], 3, layer.num_heads, -1).permute(1, 2, 0, 3)  # type: ignore[operator]
        expected[name] = plain_softmax(query, key)

    for name in attention.names:
        layer = network.features.get_submodule(name)
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: compute(name, layer, inputs[0]))
    with torch.no_grad():
        network.run(frames)
    check_attention(attention.blocks, attention.heads, attention.rollout, list(expected.values()))


def test_attention_of_torchvision_equals_a_plain_softmax_of_its_queries_and_keys() -> None:
    spec = find_backbone("torchvision/vit_b_32")
    network, frames = load_whole(spec, weights=RANDOM, device="cpu"), noise(spec)
    attention = class_attention(network, frames)
    assert attention is not None
    expected = {}

    def compute(name: str, layer: nn.MultiheadAttention, tokens: Tensor) -> None:
        both = nn.functional.linear(tokens[0], layer.in_proj_weight, layer.in_proj_bias)[:, : 2 * layer.embed_dim]
        query, key = both.reshape(len(both), 2, layer.num_heads, -1).permute(1, 2, 0, 3)
        expected[name] = plain_softmax(query, key)

    for name in attention.names:
        layer = network.features.get_submodule(name)
        layer.register_forward_pre_hook(lambda layer, inputs, name=name: compute(name, layer, inputs[0]))
    with torch.no_grad():
        network.run(frames)
    check_attention(attention.blocks, attention.heads, attention.rollout, list(expected.values()))


def check_attention(blocks: Tensor, heads: Tensor, rollout: Tensor, expected: list[Tensor]) -> None:
    """Compare with the (A, T, T) of each block; the class token is the first."""
    for found, one in zip(blocks, expected, strict=True):
        torch.testing.assert_close(found.flatten(), one.mean(dim=0)[0, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(heads.flatten(1), expected[-1][:, 0, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(heads.sum(dim=(1, 2)) + expected[-1][:, 0, 0], torch.ones(len(heads)))
    # Abnar and Zuidema's recursion: a row of attention and residual, through the blocks from the last to the first.
    row = torch.zeros(expected[0].shape[-1])
    row[0] = 1
    for one in reversed(expected):
        row = row / 2 + row @ one.mean(dim=0) / 2
    torch.testing.assert_close(rollout.flatten(), row[1:], rtol=1e-4, atol=1e-6)


def test_networks_of_timm_compute_the_same_after_their_attention_was_read() -> None:
    spec = find_backbone("timm/vit_tiny_patch16_224")
    network, frames = load_whole(spec, weights=RANDOM, device="cpu"), noise(spec)
    with torch.no_grad():
        before = network.run(frames)
        class_attention(network, frames)
        assert torch.equal(network.run(frames), before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    write_video(folder / "<b>num & bers.mp4", 25, width=160, height=160)
    Image.fromarray(next(drifting_frames(1))).save(folder / "picture.png")
    (folder / "text.jpg").write_text("no picture")
    whole = (folder / "picture.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize(("at_seconds", "number"), [(None, 12), (0.2, 5), (0.0, 0), (1.0, 24)])
def test_the_frame_of_a_video_is_the_middle_one_or_the_one_on_screen(
    folder: Path, at_seconds: float | None, number: int
) -> None:
    seen = read_input(folder / "<b>num & bers.mp4", LITE0, at_seconds=at_seconds)
    assert seen.frames.shape == (1, *LITE0.input_shape)
    assert seen.pts_seconds == pytest.approx(number / 25)
    whole = LITE0.__class__(**{**LITE0.__dict__, "preprocessing": LITE0.preprocessing.whole})
    assert read_number(read_input(folder / "<b>num & bers.mp4", whole, at_seconds=at_seconds).picture) == number


def test_a_video_model_sees_the_window_around_the_middle(tmp_path: Path) -> None:
    video = write_video(tmp_path / "numbers.mp4", 41, width=160, height=160)
    spec = BACKBONES["r3d_18"]
    spec = spec.__class__(**{**spec.__dict__, "preprocessing": spec.preprocessing.whole})
    seen = read_input(video, spec)
    numbers = [read_number(frame.permute(1, 2, 0).numpy()) for frame in seen.frames[0]]
    assert len(numbers) == len(set(numbers)) == spec.window.num_frames  # type: ignore[union-attr]
    assert numbers == sorted(numbers)
    assert read_number(seen.picture) == 20


def explain(*arguments: object) -> str:
    result = run("explain", "backbone", *arguments, "--device", "cpu")
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    options = ("--channels", 3, "--filters", 2, "--steps", 1, "--stage", "blocks.0", "--stage", "blocks.2")
    explain("efficientnet_lite0", folder / "<b>num & bers.mp4", "-o", folder / "out", *options)
    return folder / "out" / "backbone.html"


def test_the_page_shows_each_stage_with_its_channels_and_filters(page: Path) -> None:
    read = Page(page)
    assert re.findall(r"blocks\.\d", read.text) == ["blocks.0", "blocks.2"] * 2
    assert read.tags["figure"] == 2 * 3
    assert read.tags["img"] == 1 + 2 * (3 + 2)
    assert "<b>num & bers.mp4" in read.text
    for kind in ("activations", "filters"):
        files = sorted(page.parent.glob(f"{kind}/*.png"))
        assert [file.name for file in files] == ["blocks.0.png", "blocks.2.png"]
        for file in files:
            with Image.open(file) as image:
                assert image.width > 256


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "chromium") as opened:
        yield opened


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_in_chromium_at_the_width_of_a_telephone(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert browser.evaluate("document.querySelectorAll('b').length") == 0
    assert browser.happened("Log.entryAdded") == []
    addresses = {event["request"]["url"].partition(":")[0] for event in browser.happened("Network.requestWillBeSent")}
    assert addresses <= {"file", "data", "about"}


def test_an_explanation_is_replaced_only_when_asked(page: Path, folder: Path) -> None:
    arguments = ("explain", "backbone", "lenet5", folder / "picture.png", "-o", page.parent, "--device", "cpu")
    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    copy = folder / "copy"
    explain("lenet5", folder / "picture.png", "-o", copy, "--no-filters")
    explain("lenet5", folder / "picture.png", "-o", copy, "--overwrite", "--steps", 1, "--filters", 1, "--stage", "c1")
    assert sorted(file.name for file in copy.rglob("*.png")) == ["c1.png", "c1.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet5", "picture.png"), "did you mean 'resnet50'"),
        (("flow", "picture.png"), "vidpipe explain run"),
        (("mvit_v1_b", "<b>num & bers.mp4"), "r3d_18 is a video model with maps"),
        (("r3d_18", "picture.png"), "give a video"),
        (("lenet5", "none.png"), "no such file"),
        (("lenet5", "text.jpg"), "text.jpg"),
        (("lenet5", "cut.png"), "cannot be read"),
        (("lenet5", "picture.png", "--at", "1"), "leave --at out"),
        (("lenet5", "<b>num & bers.mp4", "--at", "7"), "from 0.00 to 1.00 s"),
        (("lenet5", "picture.png", "--stage", "c2"), "c1, s2, c3.15, s4"),
        (("lenet5", "picture.png", "--stage", "f6"), "no map"),
        (("lenet5", "picture.png", "--filters", "17"), "larger --channels"),
        (("lenet5", "picture.png", "--filters", "2", "--no-filters"), "give one of them"),
    ],
)
def test_bad_input_gets_one_line_with_the_remedy(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    name, file, *options = arguments
    weights = ("--weights", "random") if name == "r3d_18" else ()
    result = run("explain", "backbone", name, folder / file, "-o", folder / "bad", *options, *weights)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "bug" not in result.output
    assert not (folder / "bad").exists()


def test_a_transformer_has_no_filters_and_says_so(folder: Path) -> None:
    vit = ("timm/vit_tiny_patch16_224", folder / "picture.png", "-o", folder / "vit", "--weights", "random")
    refused = run("explain", "backbone", *vit, "--filters", 1)
    assert refused.exit_code == 2
    assert "no convolutional network" in refused.output
    explain(*vit)
    assert sorted(file.name for file in (folder / "vit" / "attention").iterdir()) == [
        "blocks.png",
        "heads.png",
        "rollout.png",
    ]
    assert "no convolutional network" in Page(folder / "vit" / "backbone.html").text
