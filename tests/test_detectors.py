"""Every detector of the table gives what its own network gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from tests.commands import run
from vidpipe.errors import UsageError, WeightsError
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.load import load_detector
from vidpipe.regions.masks import detections_of_mask, people_mask
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.table import DETECTORS, find_detector
from vidpipe.regions.weights import find_detector_weights

TORCHVISION = {name: spec for name, spec in DETECTORS.items() if spec.library == "torchvision"}
VOC_PERSON = 15
QUICK = ("ssdlite",)
"""The others are marked slow."""
CLASSIFIERS = ("cls_logits", "classification_head.module_list", "mask_fcn_logits", "classifier.4")
"""Layers whose random weights are scaled, so that something is found; their prior probabilities are removed."""


def pictures(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, 3, height, width), dtype=np.uint8)


def excited(spec: DetectorSpec) -> nn.Module:
    """torchvision's network with random weights that are sure of what they find."""
    torch.manual_seed(1)
    options = {"aux_loss": True} if spec.name.startswith(("deeplab", "fcn")) else {}
    network: nn.Module = torchvision.models.get_model(
        spec.builder, weights=None, weights_backbone=None, **options
    ).eval()
    if spec.name == "keypointrcnn":  # as torchvision does for its published weights
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if any(part in name for part in CLASSIFIERS):
                parameter.mul_(0 if name.endswith("bias") else 0.1 if spec.name == "fcn_resnet50" else 60)
            if name.endswith("cls_score.bias"):
                parameter[PERSON] = 5
            if name.startswith("classifier.4.bias"):
                parameter[VOC_PERSON] = 5
    return network


def file_of(network: nn.Module, path: Path) -> Path:
    safetensors.torch.save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TORCHVISION]
)
def test_a_detector_of_torchvision_finds_what_its_own_module_finds(name: str, tmp_path: Path) -> None:
    spec, frames = find_detector(name), pictures()
    network = excited(spec)
    weights = find_detector_weights(spec, str(file_of(network, tmp_path / "weights.safetensors")))
    found = load_detector(spec, weights, device="cpu").detect(frames)
    preset = torchvision.models.get_model_weights(spec.builder).DEFAULT.transforms()
    with torch.no_grad():
        if spec.name.startswith(("deeplab", "fcn")):
            check_masks(found, network(preset(torch.from_numpy(frames)))["out"].softmax(1)[:, VOC_PERSON, None])
        else:
            check_objects(found, network([preset(torch.from_numpy(frame)) for frame in frames]))


def check_masks(found: tuple[Detections, ...], expected: torch.Tensor) -> None:
    masks = torch.nn.functional.interpolate(expected, (120, 160), mode="bilinear")[:, 0].numpy()
    assert (masks > 0.5).any()
    for one, mask in zip(found, masks, strict=True):
        assert len(one) == (mask >= 0.5).any()
        assert one.masks is not None
        assert np.allclose(one.masks, mask[None][: len(one)], atol=1e-5)


def check_objects(found: tuple[Detections, ...], expected: list[dict[str, torch.Tensor]]) -> None:
    assert sum(len(one) for one in found) > 0
    for one, module in zip(found, expected, strict=True):
        assert np.allclose(one.boxes, module["boxes"], atol=1e-5)
        assert np.allclose(one.scores, module["scores"], atol=1e-5)
        assert np.array_equal(one.classes, module["labels"])
        if "masks" in module:
            assert one.masks is not None
            assert np.allclose(one.masks, module["masks"][:, 0], atol=1e-5)
        if "keypoints" in module:
            assert one.key_points is not None
            assert np.allclose(one.key_points[..., :2], module["keypoints"][..., :2], atol=1e-5)
            assert np.allclose(one.key_points[..., 2], module["keypoints_scores"], atol=1e-5)


@pytest.mark.parametrize("spec", TORCHVISION.values(), ids=TORCHVISION)
def test_a_row_states_what_torchvision_states(spec: DetectorSpec) -> None:
    published: Any = torchvision.models.get_model_weights(spec.builder).DEFAULT
    figures = next(iter(published.meta["_metrics"].values()))
    assert (spec.weights, spec.num_parameters) == (published.url, published.meta["num_params"])
    assert spec.score == figures.get("box_map", figures.get("miou"))
    assert {"masks": "mask_map" in figures or "miou" in figures, "key points": "kp_map" in figures}.get(spec.kind, True)


def test_random_weights_are_the_same_in_every_process() -> None:
    spec = find_detector("ssdlite")
    weights = find_detector_weights(spec, "random")
    one, other = (load_detector(spec, weights, device="cpu").detect(pictures()) for _ in range(2))
    assert np.array_equal(one[0].boxes, other[0].boxes)


def test_weights_of_another_detector_are_refused(tmp_path: Path) -> None:
    path = file_of(torchvision.models.mobilenet_v3_small(weights=None), tmp_path / "other.safetensors")
    spec = find_detector("ssdlite")
    with pytest.raises(WeightsError, match="not weights of ssdlite"):
        load_detector(spec, find_detector_weights(spec, str(path)))


def test_an_onnx_file_of_another_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    spec = find_detector("movenet")
    with pytest.raises(WeightsError, match="cannot be read as an ONNX network"):
        load_detector(spec, find_detector_weights(spec, str(tmp_path / "text.onnx")))
    torch.onnx.export(nn.Conv2d(3, 2, 1).eval(), (torch.zeros(1, 3, 8, 8),), tmp_path / "conv.onnx", verbose=False)
    with pytest.raises(WeightsError, match=r"not the network of movenet: its outputs are .*\[1, 6, 56\]"):
        load_detector(spec, find_detector_weights(spec, str(tmp_path / "conv.onnx")))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("movenet", "default", "give the ONNX file of movenet with --detector-weights FILE"),
        ("movenet", "random", "movenet has no random weights"),
        ("ssdlite", "nowhere.pth", "nowhere.pth: no such file"),
    ],
)
def test_weights_that_are_not_there_are_refused_with_the_remedy(name: str, weights: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_detector_weights(find_detector(name), weights)


def test_an_unknown_detector_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'movenet'"):
        find_detector("movnet")


def test_a_mask_becomes_one_person_with_the_box_of_its_pixels() -> None:
    mask = np.zeros((60, 80), np.float32)
    mask[10:50, 20:30] = 0.875
    found = detections_of_mask(mask, 60, 80)
    assert found.boxes.tolist() == [[20, 10, 30, 50]]
    assert (found.classes.tolist(), found.scores.tolist()) == ([PERSON], [0.875])
    assert np.array_equal(people_mask(found, 0.5), mask > 0)
    assert not people_mask(found, 0.9).any()
    nobody = detections_of_mask(np.zeros((60, 80), np.float32), 120, 160)
    assert len(nobody) == 0
    assert np.array_equal(people_mask(nobody, 0.5), np.zeros((120, 160), np.bool_))


def test_a_record_whose_shapes_do_not_fit_is_refused() -> None:
    found = detections_of_mask(np.ones((4, 6), np.float32), 4, 6)
    with pytest.raises(ValueError, match=r"boxes of .* are \(1, 4\), got \(2, 4\)"):
        replace(found, boxes=np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"masks of .* are \(1, 4, 6\), got \(1, 6, 4\)"):
        replace(found, masks=np.zeros((1, 6, 4), np.float32))


def test_the_detectors_are_listed() -> None:
    result = run("backbones", "--kind", "detector")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in DETECTORS)
    assert "COCO val2017" in run("backbones", "--kind", "detector", "maskrcnn").stdout
    assert run("backbones", "--kind", "detector", "--download").exit_code == 2
