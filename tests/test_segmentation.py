"""Networks of semantic segmentation against plain torch, hand computations and torchvision's VGG-16."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, relu
from torchvision.models.vgg import VGG, cfgs, make_layers

from vidpipe.errors import UsageError, WeightsError
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.load import load_detector
from vidpipe.regions.networks.fcn import STRIDES, BilinearUpsampling, Fcn, convolutional
from vidpipe.regions.networks.segmentation import (
    SEGMENTATION_NETWORKS,
    VOC_CLASS_IDS,
    SegmentationNetwork,
    SegmentationSettings,
    build,
    class_map,
    load_fitting,
    loss,
)
from vidpipe.regions.table import DETECTORS, find_detector
from vidpipe.regions.weights import find_detector_weights

DOG = 18
SMALL = {
    "fcn8s": SegmentationSettings("fcn8s", (PERSON, DOG), size=64, width=1 / 16, batch_norm=True),
    "unet": SegmentationSettings("unet", (PERSON, DOG), size=64, width=1 / 16, encoder="tu-lcnet_050"),
}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def random_scores(network: Fcn) -> Fcn:
    """Score layers are zero at first: give them values."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.startswith("score"):
            nn.init.normal_(parameter)
    return network.eval()


def pictures(*size: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(0))


def truth(*objects: tuple[int, tuple[slice, slice]], height: int = 40, width: int = 50) -> Detections:
    """Objects that fill rectangles."""
    masks = np.zeros((len(objects), height, width), np.float32)
    for mask, (_, place) in zip(masks, objects, strict=True):
        mask[place] = 1
    classes = np.array([class_id for class_id, _ in objects], np.int64)
    boxes = np.zeros((len(objects), 4), np.float32)
    return Detections(height, width, boxes, np.ones(len(objects), np.float32), classes, masks=masks)


# FCN


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_upsampling_begins_as_bilinear_interpolation(factor: int) -> None:
    maps = pictures(2, 3, 4, 5)
    expected = interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    assert torch.allclose(BilinearUpsampling(3, factor)(maps), expected, atol=1e-5)


def scores_of_vgg(network: Fcn, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By plain functions: the scores of pool3, of pool4 and of fc7."""
    parts = network.state_dict()
    pool3, pool4, pool5 = (network.features[:stop](pixels) for stop in (17, 24, 31))
    fc6 = relu(conv2d(pool5, parts["fc6.0.weight"], parts["fc6.0.bias"], padding=3))
    fc7 = relu(conv2d(fc6, parts["fc7.0.weight"], parts["fc7.0.bias"]))
    zero = torch.zeros(1)
    skip3, skip4 = (
        conv2d(pool, parts[f"{name}.weight"], parts[f"{name}.bias"]) if f"{name}.bias" in parts else zero
        for name, pool in (("score_pool3", pool3), ("score_pool4", pool4))
    )
    return skip3, skip4, conv2d(fc7, parts["score.weight"], parts["score.bias"])


def enlarged(scores: Tensor, factor: int) -> Tensor:
    return interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)


def by_hand(name: str, pool3: Tensor, pool4: Tensor, scores: Tensor) -> Tensor:
    if name == "fcn32s":
        return enlarged(scores, 32)
    if name == "fcn16s":
        return enlarged(enlarged(scores, 2) + pool4, 16)
    return enlarged(enlarged(enlarged(scores, 2) + pool4, 2) + pool3, 8)


@pytest.mark.parametrize("name", STRIDES)
def test_an_fcn_adds_the_scores_of_its_pools_and_enlarges_them(name: str) -> None:
    network, pixels = random_scores(Fcn(STRIDES[name], 4, width=1 / 16)), pictures(2, 3, 96, 64)
    with torch.no_grad():
        expected = by_hand(name, *scores_of_vgg(network, pixels))
        assert expected.std() > 0.1
        assert torch.allclose(network(pixels), expected, atol=1e-4)


def vgg16(width: float) -> VGG:
    """torchvision's VGG-16 with random weights; its narrow version has its classifier's layers."""
    if width == 1:
        return torchvision.models.vgg16(weights=None).eval()
    layers = [layer if isinstance(layer, str) else round(layer * width) for layer in cfgs["D"]]
    with torch.device("meta"):
        network = VGG(nn.Sequential())
    network.features = make_layers(layers)
    inner, outer = round(512 * width) * 49, round(4096 * width)
    network.classifier = nn.Sequential(
        nn.Linear(inner, outer), nn.ReLU(), nn.Dropout(), nn.Linear(outer, outer), nn.ReLU(), nn.Dropout(),
        nn.Linear(outer, 1000),
    )  # fmt: skip
    return network.eval()


@pytest.mark.parametrize("width", [1 / 16, pytest.param(1.0, marks=pytest.mark.slow)])
def test_a_classifier_that_became_convolutions_gives_the_same_logits(width: float) -> None:
    torch.manual_seed(0)
    classifier, pixels = vgg16(width), pictures(1, 3, 224, 224)
    weights = classifier.state_dict()
    network = Fcn(32, 1000, width=width).eval()
    network.load_state_dict(convolutional(weights), strict=False)
    network.score.load_state_dict(
        {"weight": weights["classifier.6.weight"][..., None, None], "bias": weights["classifier.6.bias"]}
    )
    with torch.no_grad():
        scores = network.score(network.fc7(network.fc6(network.features(pixels))))  # (1, 1000, 7, 7)
        expected = classifier(pixels)
    assert torch.allclose(scores[..., 3, 3], expected, atol=1e-5)  # the window of this cell is the whole picture


def test_the_last_upsampling_of_an_fcn_does_not_learn() -> None:
    fixed = [name for name, parameter in Fcn(8, 2, width=1 / 16).named_parameters() if not parameter.requires_grad]
    assert fixed == ["upsample.weight"]


@pytest.mark.parametrize("name", STRIDES)
def test_a_row_states_the_parameters_of_the_network(name: str) -> None:
    with torch.device("meta"):
        network = build(SegmentationSettings(name))
    assert sum(one.numel() for one in network.parameters()) == find_detector(name).num_parameters


# All networks


def test_channels_of_voc_are_the_categories_of_coco() -> None:
    categories = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    classes = torchvision.models.segmentation.FCN_ResNet50_Weights.DEFAULT.meta["categories"][1:]
    renamed = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle"} | {
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }
    assert [categories[number] for number in VOC_CLASS_IDS] == [renamed.get(name, name) for name in classes]


@pytest.mark.parametrize("name", SEGMENTATION_NETWORKS)
def test_settings_are_read_as_they_were_written(name: str) -> None:
    settings = SegmentationSettings(name, (PERSON, DOG), size=160, width=0.25, encoder="resnet18", batch_norm=True)
    assert SegmentationSettings.from_json(settings.to_json()) == settings
    assert DETECTORS[name].has_masks


@pytest.mark.parametrize("text", ["{}", '{"network": "unet", "class_ids": [1], "depth": 3}', "[1]", "text"])
def test_text_without_settings_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no settings|Expecting value"):
        SegmentationSettings.from_json(text)


def test_unknown_networks_and_encoders_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown segmentation network 'fcn8'; did you mean 'fcn8s'"):
        SegmentationSettings("fcn8")
    with pytest.raises(UsageError, match="at least one class"):
        SegmentationSettings("unet", ())
    for encoder in ("resnet19", "tu-resnet19"):
        with pytest.raises(UsageError, match=f"no encoder '{encoder}'; resnet18"):
            build(replace(SMALL["unet"], encoder=encoder))


def test_without_its_package_a_unet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.regions.networks.segmentation.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"unet needs a package: pip install 'vidpipe\[segmentation\]'$"):
        build(SMALL["unet"])


@pytest.mark.parametrize("name", SMALL)
def test_pictures_of_any_size_get_the_logits_of_all_their_pixels(name: str) -> None:
    network, pixels = build(SMALL[name]).eval(), pictures(1, 3, 45, 70)
    padded = torch.cat([pixels, pixels[:, :, -1:].expand(-1, -1, 19, -1)], dim=2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 26)], dim=3)  # (1, 3, 64, 96)
    normalised = (padded - MEAN[:, None, None]) / STD[:, None, None]
    with torch.no_grad():
        assert torch.allclose(network(pixels), network.body(normalised)[..., :45, :70], atol=1e-6)


# Learning


def test_a_class_map_has_the_later_of_two_objects_and_no_other_classes() -> None:
    objects = (
        (PERSON, np.s_[0:20, 0:20]),
        (DOG, np.s_[10:30, 10:30]),
        (62, np.s_[35:40, :]),
    )
    channels = class_map(truth(*objects), (PERSON, DOG))
    assert channels[5, 5] == 1
    assert channels[15, 15] == 2
    assert [int((channels == number).sum()) for number in range(3)] == [2000 - 300 - 400, 300, 400]


class Echo(nn.Module):
    """Gives fixed logits, whatever the pixels."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits


def loss_by_hand(logits: NDArray[np.float64], target: NDArray[np.int64]) -> tuple[float, float]:
    """Cross entropy weighted by the fourth root of inverse shares, and 1 - Dice of each class, averaged."""
    shares = [(target == number).mean() for number in range(3)]
    weighted = total = 0.0
    overlap, sums = np.zeros(3), np.zeros(3)
    for n, y, x in np.ndindex(*target.shape):
        probabilities = np.exp(logits[n, :, y, x]) / np.exp(logits[n, :, y, x]).sum()
        own = target[n, y, x]
        weight = shares[own] ** -0.25
        weighted, total = weighted - weight * np.log(probabilities[own]), total + weight
        overlap[own] += probabilities[own]
        sums += probabilities
        sums[own] += 1
    return weighted / total, float((1 - 2 * overlap / sums)[1:].mean())


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_is_weighted_cross_entropy_and_for_a_unet_dice_as_well(name: str) -> None:
    logits = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    truths = [
        truth((PERSON, np.s_[0:10, 0:10]), height=32, width=32),
        truth((DOG, np.s_[20:30, 5:9]), height=32, width=32),
    ]
    target = torch.stack([class_map(one, (PERSON, DOG)) for one in truths]).numpy()
    network = SegmentationNetwork(Echo(logits), SMALL[name])
    cross_entropy, dice = loss_by_hand(logits.double().numpy(), target)
    expected = cross_entropy + dice if name == "unet" else cross_entropy
    assert loss(network, pictures(2, 3, 32, 32), truths).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_loss_falls_when_a_small_network_learns(name: str) -> None:
    torch.manual_seed(0)
    network, place = build(SMALL[name]).train(), np.s_[8:40, 10:50]
    pixels, truths = pictures(2, 3, 64, 64) / 4, [truth((PERSON, place), height=64, width=64)] * 2
    pixels[:, :, *place] += 0.7
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        losses.append(loss(network, pixels, truths))
        optimizer.zero_grad()
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.75 * losses[0]


def test_training_begins_from_a_classifier_of_imagenet() -> None:
    narrow = vgg16(1 / 16)
    network = build(SegmentationSettings("fcn8s", (PERSON,), width=1 / 16))
    assert load_fitting(network, narrow.state_dict()) == 2 * 13 + 2 * 2
    assert torch.equal(network.body.features[0].weight, narrow.features[0].weight)  # type: ignore[union-attr, index]
    resnet = torchvision.models.resnet18(weights=None)
    unet = build(SegmentationSettings("unet", (PERSON,), width=1 / 16, encoder="resnet18"))
    assert load_fitting(unet, resnet.state_dict()) == len(resnet.state_dict()) - 2  # fc


def test_training_begins_from_the_network_with_a_coarser_stride() -> None:
    coarse, fine = (build(replace(SMALL["fcn8s"], network=name)) for name in ("fcn32s", "fcn16s"))
    load_fitting(fine, coarse.state_dict())
    assert torch.equal(fine.body.fc6[0].weight, coarse.body.fc6[0].weight)  # type: ignore[union-attr, index]


# As detectors


@pytest.fixture
def trained(tmp_path: Path) -> Callable[[str], tuple[SegmentationNetwork, Path]]:
    """Makes a small network that is sure of what it finds, and its file."""

    def make(name: str) -> tuple[SegmentationNetwork, Path]:
        torch.manual_seed(2)
        network = build(SMALL[name]).eval()
        with torch.no_grad():
            for part, parameter in network.named_parameters():
                if "score" in part and "weight" in part and "upsample" not in part:
                    nn.init.normal_(parameter)
                if "segmentation_head" in part:
                    parameter.mul_(30)
        path = tmp_path / f"{name}.safetensors"
        metadata = {"settings": network.settings.to_json()}
        safetensors.torch.save_file(network.state_dict(), path, metadata=metadata)
        return network, path

    return make


@pytest.mark.parametrize("name", SMALL)
def test_a_trained_file_finds_what_its_network_finds(
    name: str, trained: Callable[[str], tuple[SegmentationNetwork, Path]]
) -> None:
    network, path = trained(name)
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 128), dtype=np.uint8)
    spec = find_detector(name)
    found = load_detector(spec, find_detector_weights(spec, str(path)), device="cpu").detect(frames)
    small = interpolate(torch.from_numpy(frames), (48, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = network(small / 255).softmax(dim=1)
    expected = interpolate(probabilities, (96, 128), mode="bilinear")[:, 1:].numpy()
    assert (expected >= 0.5).any()
    for one, masks in zip(found, expected, strict=True):
        there = (masks >= 0.5).any(axis=(1, 2))
        assert one.classes.tolist() == [
            number for number, is_there in zip((PERSON, DOG), there, strict=True) if is_there
        ]
        assert one.masks is not None
        assert np.allclose(one.masks, masks[there], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplab", "deeplab_mobilenet", "fcn_resnet50"])
def test_a_trained_network_of_torchvision_has_its_own_classes(name: str, tmp_path: Path) -> None:
    settings = SegmentationSettings(name, (DOG,), size=96)
    torch.manual_seed(0)
    network = build(settings).eval()
    path, spec = tmp_path / "trained.safetensors", find_detector(name)
    safetensors.torch.save_file(network.state_dict(), path, metadata={"settings": settings.to_json()})
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 64), dtype=np.uint8)
    (found,) = load_detector(spec, find_detector_weights(spec, str(path)), device="cpu").detect(frames)
    normalised = (torch.from_numpy(frames) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    with torch.no_grad():
        expected = network.body(normalised)["out"].softmax(dim=1)[0, 1:].numpy()
    assert found.classes.tolist() == [DOG] * int((expected >= 0.5).any())
    assert found.masks is not None
    assert np.allclose(found.masks, expected[: len(found)], atol=1e-5)


def test_a_trained_file_of_another_network_is_refused(
    trained: Callable[[str], tuple[SegmentationNetwork, Path]], tmp_path: Path
) -> None:
    network, path = trained("fcn8s")
    weights = find_detector_weights(find_detector("fcn16s"), str(path))
    with pytest.raises(WeightsError, match=r"holds weights of fcn8s; use it with --detector fcn8s$"):
        load_detector(find_detector("fcn16s"), weights, device="cpu")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "odd.safetensors", metadata={"settings": "{}"})
    weights = find_detector_weights(find_detector("fcn8s"), str(tmp_path / "odd.safetensors"))
    with pytest.raises(WeightsError, match="cannot be read as weights of fcn8s: these are no settings"):
        load_detector(find_detector("fcn8s"), weights, device="cpu")


def test_a_detector_without_published_weights_asks_for_a_file() -> None:
    with pytest.raises(UsageError, match=r"fcn8s has no default weights: give a .safetensors file of a fcn8s"):
        find_detector_weights(find_detector("fcn8s"), "default")
