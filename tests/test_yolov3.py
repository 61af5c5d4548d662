"""YOLO v3: its outputs and boxes are OpenCV's, its loss is Darknet's, and it learns.

OpenCV 5 has no reader of Darknet's files, so OPENCV holds what OpenCV 4.14 computed. With OpenCV 4, more is compared:
    pip install --no-deps --target /tmp/opencv4 'opencv-python-headless<5'
    PYTHONPATH=/tmp/opencv4 pytest tests/test_yolov3.py -m "slow or not slow"
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torchvision.ops import box_iou

from tests.darknet import config, random_numbers, write_weights
from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError, WeightsError
from vidpipe.regions.detections import COCO_IDS, PERSON, Detections
from vidpipe.regions.load import load_detector
from vidpipe.regions.networks.anchors import fit_anchors
from vidpipe.regions.networks.darknet_weights import load_darknet_weights
from vidpipe.regions.networks.letterbox import Letterbox
from vidpipe.regions.networks.yolov3 import YoloSettings, YoloV3, anchors_for, build, settings_for
from vidpipe.regions.networks.yolov3_boxes import boxes_of, join_scales, priors_of
from vidpipe.regions.networks.yolov3_detector import YoloDetector, load_yolov3
from vidpipe.regions.networks.yolov3_loss import IGNORE_THRESHOLD, loss
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights

SMALL = YoloSettings(class_ids=(1, 18, 62), size=96, width=1 / 8, blocks=(1, 2, 2, 2, 1), anchors=anchors_for(96))
TINY = replace(SMALL, size=64, blocks=(1, 1, 1, 1, 1), anchors=anchors_for(64))
WITH_OPENCV_4 = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromDarknet"), reason="needs OpenCV 4, see the head of the file"
)
NOT_SURE = 0.2
"""OpenCV's region layer gives 0 where the product of objectness and class is not above this."""
OPENCV: dict[str, Any] = {
    "conv_36": [-0.273249, 0.210211, -0.056506, -0.079134, 0.019864, -0.7685],
    "conv_48": [0.192225, -0.278563, 0.01251, 0.437892, 0.383674, 0.510577],
    "conv_60": [-0.126626, -0.686829, -0.225687, -0.39936, 0.318269, -0.473322],
    "regions": [
        [0.144037, 0.11968, 0.412168, 0.242529, 0.591289, 0.41663, 0.349758, 0.240749],
        [0.738899, 0.73293, 0.145718, 0.463699, 0.548727, 0.253043, 0.272839, 0.308533],
        [0.539455, 0.203665, 0.038866, 0.069227, 0.380693, 0.0, 0.0, 0.0],
        [0.70921, 0.448956, 0.033236, 0.01721, 0.334698, 0.20469, 0.213099, 0.230382],
        [0.790208, 0.706078, 0.052621, 0.076158, 0.609772, 0.0, 0.29692, 0.233779],
        [0.953842, 0.953621, 0.055266, 0.068842, 0.618649, 0.0, 0.298025, 0.237456],
    ],
}
"""What `opencv` gives for the network of SMALL: `sampled` raw outputs of each scale, and predictions."""


def darknet_files(settings: YoloSettings, folder: Path) -> tuple[Path, Path]:
    """A .cfg, and random .weights for it."""
    text = config(
        width=settings.width,
        blocks=settings.blocks,
        num_classes=len(settings.class_ids),
        size=settings.size,
        anchors=settings.anchors,
    )
    (folder / "yolov3.cfg").write_text(text)
    return folder / "yolov3.cfg", write_weights(random_numbers(text), folder / "yolov3.weights")


def picture(size: int) -> NDArray[np.float32]:
    return np.random.RandomState(1).uniform(0, 1, (1, 3, size, size)).astype(np.float32)


def computed(settings: YoloSettings, weights: Path) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Our raw outputs, and our predictions in the form of OpenCV's region layer: see `opencv`."""
    network = build(settings).eval()
    load_darknet_weights(network, weights)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(picture(settings.size)))
    raw = join_scales(outputs, settings.num_anchors)[0]
    left, top, right, bottom = boxes_of(raw, priors(settings)).T / settings.size
    scores = raw[:, 4:5].sigmoid() * raw[:, 5:].sigmoid()
    boxes = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=1)
    found = torch.cat([boxes, raw[:, 4:5].sigmoid(), scores * (scores > NOT_SURE)], dim=1)
    return [one.numpy() for one in outputs], found.numpy()


def priors(settings: YoloSettings) -> Any:
    return priors_of(settings, settings.size, settings.size, torch.device("cpu"))


def opencv(config_file: Path, weights: Path, size: int) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """The outputs of OpenCV's last convolutions, before any activation, and of its region layers.

    A region layer applies the logistic function to x, y, the objectness and the classes, and the exponential to width
    and height; it multiplies classes with the objectness: (P, 5 + K), the box relative to the picture.
    """
    network = getattr(cv2.dnn, "readNetFromDarknet")(str(config_file), str(weights))  # noqa: B009
    regions = [name for name in network.getLayerNames() if name.startswith("yolo_")]
    convolutions = [f"conv_{int(name.removeprefix('yolo_')) - 1}" for name in regions]
    network.setInput(picture(size))
    raw = [np.array(one) for one in network.forward(convolutions)]
    network.setInput(picture(size))
    found = [one.reshape(-1, one.shape[-1]) for one in network.forward(regions)]
    return raw, np.concatenate(found)


def sampled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Six values, spread evenly."""
    found: NDArray[np.float32] = values[np.linspace(0, len(values) - 1, 6).astype(int)]
    return found


def test_outputs_and_boxes_are_those_that_opencv_computed(tmp_path: Path) -> None:
    raw, found = computed(SMALL, darknet_files(SMALL, tmp_path)[1])
    for name, one in zip(("conv_36", "conv_48", "conv_60"), raw, strict=True):
        assert np.allclose(sampled(one.ravel()), OPENCV[name], atol=1e-5)
    assert np.allclose(sampled(found), OPENCV["regions"], atol=1e-5)


@WITH_OPENCV_4
@pytest.mark.parametrize(
    "settings", [SMALL, pytest.param(YoloSettings(), marks=pytest.mark.slow)], ids=["small", "full"]
)
def test_outputs_and_boxes_equal_opencvs(settings: YoloSettings, tmp_path: Path) -> None:
    config_file, weights = darknet_files(settings, tmp_path)
    (raw, found), (their_raw, their_found) = computed(settings, weights), opencv(config_file, weights, settings.size)
    for one, their in zip(raw, their_raw, strict=True):
        assert np.allclose(one, their, atol=1e-4)
    sure = abs(found[:, 5:] - NOT_SURE).min(axis=1) > 1e-4
    assert np.allclose(found[sure], their_found[sure], atol=1e-4)


def test_a_full_network_has_the_numbers_of_the_published_file() -> None:
    with torch.device("meta"):
        network = build(YoloSettings())
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    num_statistics = sum(buffer.numel() for buffer in network.buffers() if buffer.ndim)
    assert num_parameters == find_detector("yolov3").num_parameters
    assert 20 + 4 * (num_parameters + num_statistics) == 248_007_048  # bytes of pjreddie.com/media/files/yolov3.weights


@pytest.mark.parametrize("content", [b"", b"text", b"a text that is no file of weights", bytes(20 + 4 * 1000)])
def test_weights_of_another_network_are_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.weights").write_bytes(content)
    with pytest.raises(WeightsError, match=r"other\.weights: these are not Darknet's weights .* and it has 546,004"):
        load_darknet_weights(build(TINY), tmp_path / "other.weights")


def test_a_file_of_before_version_0_2_has_a_shorter_header(tmp_path: Path) -> None:
    _, new = darknet_files(TINY, tmp_path)
    numbers = new.read_bytes()[20:]
    old = tmp_path / "old.weights"
    old.write_bytes(np.array([0, 1, 0, 7], "<i4").tobytes() + numbers)
    assert np.array_equal(computed(TINY, old)[1], computed(TINY, new)[1])


# --- the detector


def with_outputs(settings: YoloSettings, outputs: Sequence[Tensor]) -> YoloV3:
    """A network that gives these raw outputs for every batch."""
    network = build(settings)
    network.register_forward_hook(lambda *_: tuple(outputs))
    return network


def nothing_found(settings: YoloSettings) -> list[Tensor]:
    """Raw outputs (1, A, 5 + K, h, w) of three scales, of objectness and classes near 0."""
    shape = (1, settings.num_anchors, 5 + len(settings.class_ids))
    outputs = [torch.zeros(*shape, settings.size // stride, settings.size // stride) for stride in (32, 16, 8)]
    for one in outputs:
        one[:, :, 4:] = -20
    return outputs


def test_boxes_are_mapped_back_to_the_pixels_of_the_frame() -> None:
    outputs = nothing_found(SMALL)
    # In the 96 pixels, stride 16: the cell (1, 2) and the anchor 4 of 9, twice; then another class of the same box.
    for anchor, row, column, objectness, number, sure in [(1, 1, 2, 2, 0, 3), (1, 1, 3, 1, 0, 3), (1, 1, 2, 2, 2, 1)]:
        outputs[1][0, anchor, 4, row, column] = objectness
        outputs[1][0, anchor, 5 + number, row, column] = sure
    outputs[1][0, 1, 0, 1, 3] = -20  # the second is one pixel to the right of the first
    outputs[1][0, 1, 0, 1, 2] = np.log(15)
    detector = YoloDetector(with_outputs(SMALL, [one.flatten(1, 2) for one in outputs]).eval())
    (found,) = detector.detect(np.zeros((1, 3, 200, 400), np.uint8))
    assert found.classes.tolist() == [1, 62]
    assert np.allclose(found.scores, [1 / (1 + np.exp(-2)) / (1 + np.exp(-one)) for one in (3, 1)])
    # The frame is 96 × 48 pixels of the square, and begins at row 24.
    width, height = (one * 96 / 416 for one in (62, 45))
    x, y = 2 * 16 + 15, 16 + 8 - 24
    expected = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * 400 / 96
    assert np.allclose(found.boxes, expected.clip(0), atol=1e-3)


def test_frames_of_any_form_are_centred_in_the_square() -> None:
    frames = np.full((2, 3, 30, 50), 200, np.uint8)
    letterbox = Letterbox.of(30, 50, 64)
    pictures = letterbox.pictures(frames)
    assert pictures.shape == (2, 3, 64, 64)
    rows = np.flatnonzero(pictures[0, 0, :, 0] == 200)
    assert (rows[0], len(rows)) == (13, 38)
    assert (pictures[:, :, :13] == 127).all()
    assert np.allclose(letterbox.to_square(np.array([[0, 0, 50, 30]], np.float32)), [[0, 13, 64, 51]])
    boxes = np.array([[1, 2, 30, 20]], np.float32)
    assert np.allclose(letterbox.to_frame(letterbox.to_square(boxes)), boxes, atol=1e-4)


# --- the loss


def darknet_deltas(outputs: Sequence[Tensor], settings: YoloSettings, truth: Detections) -> list[NDArray[np.float64]]:
    """The negative gradients that forward_yolo_layer of Darknet's yolo_layer.c computes, one number at a time."""
    size, deltas = settings.size, []
    boxes = [
        ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        for left, top, right, bottom in truth.boxes.astype(np.float64)
    ]
    for scale, output in enumerate(outputs):
        values = output.detach().double().numpy()[0]  # (A, 5 + K, h, w)
        logistic, delta = 1 / (1 + np.exp(-values)), np.zeros_like(values)
        stride, mask = size // values.shape[2], [6 - 3 * scale + one for one in range(3)]
        for n, j, i in np.ndindex(values.shape[0], *values.shape[2:]):
            anchor_width, anchor_height = settings.anchors[mask[n]]
            centre = ((i + logistic[n, 0, j, i]) * stride, (j + logistic[n, 1, j, i]) * stride)
            form = (np.exp(values[n, 2, j, i]) * anchor_width, np.exp(values[n, 3, j, i]) * anchor_height)
            if max(overlap((*centre, *form), box) for box in boxes) <= IGNORE_THRESHOLD:
                delta[n, 4, j, i] = -logistic[n, 4, j, i]
        for (x, y, width, height), number in zip(boxes, truth.classes.tolist(), strict=True):
            ious = [overlap((0, 0, *anchor), (0, 0, width, height)) for anchor in settings.anchors]
            best = int(np.argmax(ious))
            if best not in mask:
                continue
            n, j, i = mask.index(best), int(y / stride), int(x / stride)
            weight = 2 - width * height / size**2
            delta[n, 0, j, i] = weight * (x / stride - i - logistic[n, 0, j, i])
            delta[n, 1, j, i] = weight * (y / stride - j - logistic[n, 1, j, i])
            delta[n, 2, j, i] = weight * (np.log(width / settings.anchors[best][0]) - values[n, 2, j, i])
            delta[n, 3, j, i] = weight * (np.log(height / settings.anchors[best][1]) - values[n, 3, j, i])
            delta[n, 4, j, i] = 1 - logistic[n, 4, j, i]
            for index, class_id in enumerate(settings.class_ids):
                delta[n, 5 + index, j, i] = (class_id == number) - logistic[n, 5 + index, j, i]
        deltas.append(delta)
    return deltas


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes: centre x, y, width, height."""
    common = 1.0
    for axis in (0, 1):
        low = max(one[axis] - one[axis + 2] / 2, other[axis] - other[axis + 2] / 2)
        high = min(one[axis] + one[axis + 2] / 2, other[axis] + other[axis + 2] / 2)
        common *= max(high - low, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def truths(boxes: Sequence[Sequence[float]], classes: Sequence[int], size: int) -> Detections:
    scores = np.ones(len(boxes), np.float32)
    return Detections(size, size, np.array(boxes, np.float32).reshape(-1, 4), scores, np.array(classes, np.int64))


def test_the_gradients_of_the_loss_are_those_of_darknet() -> None:
    random = np.random.default_rng(3)
    outputs = [torch.from_numpy(random.normal(0, 0.4, one.shape)).float() for one in nothing_found(SMALL)]
    outputs[0][0, 2, :4, 1, 0] = torch.tensor([3.0, 0, -0.3, 0])  # a neighbour that finds the last object, too
    outputs = [one.requires_grad_() for one in outputs]
    truth = truths([[5, 40, 12, 61], [50, 5, 94, 59], [50, 6, 64, 17], [2, 13, 66, 83]], [18, 1, 62, 1], SMALL.size)
    network = with_outputs(SMALL, [one.flatten(1, 2) for one in outputs])
    loss(network, torch.zeros(1, 3, SMALL.size, SMALL.size), [truth]).backward()  # type: ignore[no-untyped-call]
    expected = darknet_deltas(outputs, SMALL, truth)
    num_ignored = 0
    for output, delta in zip(outputs, expected, strict=True):
        assert output.grad is not None
        assert np.allclose(-output.grad[0], delta, atol=1e-5)
        num_ignored += int((delta[:, 4] == 0).sum())
    assert num_ignored == 1


def test_a_picture_without_objects_teaches_that_nothing_is_there() -> None:
    network = build(TINY)
    found = loss(network, torch.zeros(2, 3, 64, 64), [truths([], [], 64)] * 2)
    num_predictions = 3 * (2**2 + 4**2 + 8**2)
    assert 0 < found.item() < 0.1 * num_predictions


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the network has no category 2; it has \[1, 18, 62\]"):
        loss(build(TINY), torch.zeros(1, 3, 64, 64), [truths([[1, 1, 9, 9]], [2], 64)])


def drawn(seed: int) -> tuple[NDArray[np.uint8], Detections]:
    """Noise with a bright box of category 1 and a dark one of category 18."""
    random = np.random.default_rng(seed)
    frame = random.integers(90, 150, (3, 64, 64), dtype=np.uint8)
    boxes = []
    for left, colour in ((random.integers(2, 12), 250), (random.integers(34, 44), 5)):
        top, width, height = random.integers(2, 24), random.integers(12, 18), random.integers(20, 36)
        frame[:, top : top + height, left : left + width] = colour
        boxes.append([float(one) for one in (left, top, left + width, top + height)])
    return frame, truths(boxes, [1, 18], 64)


def fit(network: YoloV3, num_pictures: int, num_steps: int) -> list[float]:
    """The losses of steps, each with eight of the pictures."""
    optimiser, losses = torch.optim.Adam(network.parameters()), []
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, total_steps=num_steps)
    examples = [drawn(seed) for seed in range(num_pictures)]
    for step in range(num_steps):
        batch = [examples[(8 * step + one) % num_pictures] for one in range(8)]
        pixels = torch.from_numpy(np.stack([frame for frame, _ in batch])) / 255
        value = loss(network, pixels, [truth for _, truth in batch])
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(value.item())
    return losses


def test_the_loss_of_a_small_network_falls() -> None:
    torch.manual_seed(0)
    losses = fit(build(TINY), num_pictures=8, num_steps=12)
    assert losses[-1] < losses[0] / 2


@pytest.mark.slow
def test_a_small_network_finds_what_is_drawn_in_pictures_that_it_has_not_seen() -> None:
    torch.manual_seed(0)
    network = build(TINY)
    fit(network, num_pictures=256, num_steps=300)
    unseen = [drawn(seed) for seed in range(1000, 1032)]
    found = YoloDetector(network.eval()).detect(np.stack([frame for frame, _ in unseen]))
    ious = [
        box_iou(torch.from_numpy(one.boxes[one.classes == number][:1]), torch.from_numpy(box)[None]).item()
        for one, (_, truth) in zip(found, unseen, strict=True)
        for box, number in zip(truth.boxes, truth.classes, strict=True)
    ]
    assert np.mean(np.array(ious) > 0.5) >= 0.75


# --- anchors, settings and files


def test_anchors_are_the_forms_of_the_boxes() -> None:
    random = np.random.default_rng(0)
    forms = np.array([[10, 10], [12, 60], [80, 30], [200, 210]])
    sizes = np.concatenate([form * random.uniform(0.9, 1.1, (50, 2)) for form in forms])
    anchors = np.array(fit_anchors(sizes, 4))
    assert np.allclose(anchors, forms, rtol=0.05)


def test_small_boxes_count_as_much_as_large_ones_in_anchors() -> None:
    sizes = np.array([[4, 4], [4, 5], [16, 16], [16, 17], [300, 300], [340, 340]])
    assert np.allclose(fit_anchors(sizes, 3), [[4.0, 4.5], [16.0, 16.5], [320.0, 320.0]])
    with pytest.raises(ValueError, match="9 anchors need as many different sizes of boxes, got 6"):
        fit_anchors(sizes)


def test_a_network_for_ones_own_boxes_has_their_anchors_where_there_are_enough() -> None:
    sizes = np.random.default_rng(0).uniform(20, 40, (30, 2))
    settings = settings_for((1,), size=128, width=0.25, box_sizes=sizes)
    assert settings.anchors == fit_anchors(sizes)
    assert (settings.blocks, settings.width) == ((1, 1, 1, 1, 1), 0.25)
    assert settings_for((1,), size=416, width=1, box_sizes=sizes[:8]) == YoloSettings(class_ids=(1,))


def test_settings_go_to_json_and_back() -> None:
    assert YoloSettings.from_json(SMALL.to_json()) == SMALL
    assert YoloSettings().class_ids == COCO_IDS
    for text in ("", "{}", "[1]", SMALL.to_json().replace("96", "97", 1)):
        with pytest.raises(ValueError, match=r"settings|size|Expecting"):
            YoloSettings.from_json(text)


def test_a_file_of_vidpipe_brings_its_settings(tmp_path: Path) -> None:
    network, path = build(TINY).eval(), tmp_path / "mine.safetensors"
    save_file(network.state_dict(), path, metadata={"detector": "yolov3", "settings": TINY.to_json()})
    spec = find_detector("yolov3")
    detector = load_detector(spec, find_detector_weights(spec, str(path)), device="cpu")
    frames = np.stack([drawn(0)[0]])
    (found,), (expected,) = detector.detect(frames), YoloDetector(network).detect(frames)
    assert np.array_equal(found.boxes, expected.boxes)
    save_file({"other": torch.zeros(1)}, path, metadata={"settings": TINY.to_json()})
    with pytest.raises(WeightsError, match=r"mine\.safetensors: these are not weights of yolov3: its tensors have"):
        load_detector(spec, find_detector_weights(spec, str(path)), device="cpu")


def test_weights_that_are_not_there_are_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"yolov3 has no default weights: give Darknet's yolov3\.weights"):
        find_detector_weights(find_detector("yolov3"), "default")


@pytest.mark.slow
def test_the_full_network_is_loaded_from_darknets_file(tmp_path: Path) -> None:
    _, weights = darknet_files(YoloSettings(), tmp_path)
    detector = load_yolov3(WeightsFile("file", weights, "file"), torch.device("cpu"))
    (found,) = detector.detect(np.zeros((1, 3, 120, 160), np.uint8))
    assert 0 < len(found) <= 100
    assert set(found.classes.tolist()) <= set(COCO_IDS)
    assert PERSON in COCO_IDS
