"""Regions on the real clips of ../shared/data, with the networks there; skipped where they are not."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.commands import run
from vidpipe.features.store import FeatureStore
from vidpipe.regions.detections import Detections
from vidpipe.regions.load import load_detector
from vidpipe.regions.masks import people_mask
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights
from vidpipe.video.reader import read_frames
from vidpipe.video.sampling import uniform_indices

pytestmark = pytest.mark.real_clips

FILES = {
    "movenet": "movenet_multipose.onnx",
    "centernet": "centernet_coco.onnx",
    "person_mask": "person_mask.onnx",
}
NOSE, HIPS, ANKLES = 0, (11, 12), (15, 16)


@pytest.fixture(scope="module")
def found(shared_data: Path) -> dict[str, list[Detections]]:
    """What each network finds in a frame of a clip of each interaction, most of two people."""
    clips = [sorted(folder.glob("*.avi"))[2] for folder in sorted((shared_data / "clips/interaction").glob("*/"))]
    frames = [read_frames(clip, lambda reader: uniform_indices(len(reader.pts_seconds), 4)[:1])[1] for clip in clips]
    result = {}
    for name, file in FILES.items():
        spec = find_detector(name)
        detector = load_detector(spec, find_detector_weights(spec, str(shared_data / "models" / file)))
        result[name] = [detector.detect(one.transpose(0, 3, 1, 2))[0] for one in frames]
    return result


def people_of(name: str, one: Detections) -> NDArray[np.float32]:
    """(K, 4) their boxes, from left to right."""
    boxes = one.boxes[one.people(find_detector(name).min_score)]
    return boxes[boxes[:, 0].argsort()]


def iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    corner, stop = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = float(np.prod((stop - corner).clip(0)))
    return common / (float(np.prod(one[2:] - one[:2])) + float(np.prod(other[2:] - other[:2])) - common)


def test_two_networks_find_the_same_people(found: dict[str, list[Detections]]) -> None:
    pairs = [
        (people_of("movenet", one), people_of("centernet", other))
        for one, other in zip(found["movenet"], found["centernet"], strict=True)
    ]
    assert [len(one) for one, _ in pairs] == [len(other) for _, other in pairs]
    assert sum(len(one) for one, _ in pairs) >= 2 * 6
    assert np.median([iou(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)]) > 0.7


def test_key_points_are_in_the_order_of_coco(found: dict[str, list[Detections]]) -> None:
    for one in found["movenet"]:
        assert one.key_points is not None
        for points in one.key_points[one.people(0.3)]:
            assert points[NOSE, 1] < points[HIPS, 1].min() < points[ANKLES, 1].min()


def test_the_mask_lies_in_the_boxes_and_fills_a_good_part_of_them(found: dict[str, list[Detections]]) -> None:
    for boxes, mask in zip(found["centernet"], found["person_mask"], strict=True):
        people = people_mask(mask, 0.5)
        inside = np.zeros_like(people)
        for left, top, right, bottom in people_of("centernet", boxes).round().astype(int).clip(0):
            inside[top:bottom, left:right] = True
        assert people[inside].mean() > 0.3
        assert people[~inside].mean() < 0.05


def test_surveillance_clips_are_cropped_to_their_people_or_left_whole(shared_data: Path, tmp_path: Path) -> None:
    clips = [shared_data / "clips/fight/fight" / name for name in ("fi004.mp4", "fi062.mp4", "fi092.mp4")]
    model = shared_data / "models" / FILES["movenet"]
    chosen = ("--regions", "people", "--detector", "movenet", "--detector-weights", model)
    result = run("extract", *clips, "-o", tmp_path / "s", "--backbone", "lenet5", "--backbone", "flow", *chosen)
    assert result.exit_code == 0, result.output
    image, flow = (FeatureStore.open(tmp_path / "s" / name) for name in ("lenet5", "flow"))
    for video_id in image:
        assert np.array_equal(image[video_id].region[0], flow[video_id].region[0])
    assert image["fi062.mp4"].region[0, 2] < 0.9
    assert image["fi092.mp4"].region[0].tolist() == [0, 0, 1, 1]
