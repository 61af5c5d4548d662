"""COCO JSON of frames: what is read, what is refused, and how it is scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.media import moving_square, write_frames
from vidpipe.errors import LabelsError
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.training.augmentation import augment, flip, zoom
from vidpipe.regions.training.coco import FrameName, as_coco, read_annotations, write_coco
from vidpipe.regions.training.examples import Examples, Learned, split_by_file
from vidpipe.regions.training.frames import read_annotated_frames
from vidpipe.regions.training.scoring import score_contents, score_files

HEIGHT, WIDTH = 40, 60


def ellipse(left: float, top: float, right: float, bottom: float) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x, y = (2 * columns - left - right) / (right - left), (2 * rows - top - bottom) / (bottom - top)
    return np.asarray(x**2 + y**2 <= 1, np.float32)


def drawn(array: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Masks or key points that are there."""
    assert array is not None
    return array


def objects(boxes: list[tuple[float, ...]], *, classes: list[int] | None = None, scores: Any = 1.0) -> Detections:
    """Ellipses, with key points at their middle."""
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    points = np.zeros((len(boxes), 17, 3), np.float32)
    points[:, 5] = np.stack([corners[:, [0, 2]].mean(1), corners[:, [1, 3]].mean(1), np.full(len(boxes), 2)], axis=1)
    return Detections(
        HEIGHT,
        WIDTH,
        corners,
        np.broadcast_to(np.float32(scores), len(boxes)).copy(),
        np.array(classes or [PERSON] * len(boxes), np.int64),
        key_points=points,
        masks=np.array([ellipse(*one) for one in boxes], np.float32).reshape(-1, HEIGHT, WIDTH),
    )


def random_objects(rng: np.random.Generator, count: int) -> Detections:
    corners = rng.uniform(0, (40, 25), (count, 2))
    sizes = rng.uniform((8, 8), (20, 15), (count, 2))
    boxes = [(*corner, *(corner + size)) for corner, size in zip(corners, sizes, strict=True)]
    return objects(boxes, classes=rng.integers(1, 3, count).tolist(), scores=rng.uniform(0.1, 1, count))


def shifted(one: Detections, rng: np.random.Generator) -> Detections:
    """What a detector of medium quality finds of some objects."""
    boxes = one.boxes + rng.normal(0, 1.5, one.boxes.shape)
    return objects([tuple(box) for box in boxes], classes=one.classes.tolist(), scores=rng.uniform(0.1, 1, len(one)))


CLASSES = {PERSON: "person", 2: "ball"}


@pytest.fixture(scope="module")
def pair() -> tuple[dict[str, Any], dict[str, Any]]:
    """The truth and what is found, in 12 frames of two classes."""
    rng = np.random.default_rng(2)
    truths = [random_objects(rng, 3) for _ in range(12)]
    names = [FrameName("a.mp4", index) for index in range(12)]
    found = [shifted(one, rng) for one in truths]
    return (
        as_coco(zip(names, truths, strict=True), CLASSES, scores=False),
        as_coco(zip(names, found, strict=True), CLASSES, scores=True),
    )


# Reading and writing


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    truth = random_objects(np.random.default_rng(0), 4)
    write_coco(tmp_path / "a.json", as_coco([(FrameName("v/a.mp4", 7), truth)], CLASSES, scores=False))
    annotations = read_annotations(tmp_path / "a.json")
    (frame,) = annotations.frames
    found = frame.truth(masks=True, key_points=True)
    assert (frame.name, annotations.classes) == (FrameName("v/a.mp4", 7), CLASSES)
    assert np.allclose(found.boxes, truth.boxes, atol=0.02)
    assert np.array_equal(found.classes, truth.classes)
    assert np.array_equal(drawn(found.masks), drawn(truth.masks))
    assert np.allclose(drawn(found.key_points), drawn(truth.key_points), atol=0.01)


def test_polygons_and_lists_of_run_lengths_are_masks_too(tmp_path: Path) -> None:
    content = as_coco([(FrameName("a.mp4", 0), objects([(10, 5, 30, 25)] * 2))], CLASSES, scores=False)
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[5:25, 10:30] = True
    runs = np.diff(np.flatnonzero(np.diff(square.T.ravel(), prepend=False, append=False)), prepend=0).tolist()
    content["annotations"][0]["segmentation"] = [[10, 5, 30, 5, 30, 25, 10, 25]]
    content["annotations"][1]["segmentation"] = {
        "size": [HEIGHT, WIDTH],
        "counts": [*runs, HEIGHT * WIDTH - sum(runs)],
    }
    write_coco(tmp_path / "a.json", content)
    masks = read_annotations(tmp_path / "a.json").frames[0].truth(masks=True).masks
    assert masks is not None
    assert np.array_equal(masks.astype(bool), [square, square])


@pytest.mark.parametrize("names", [{5: "horse", 3: "person", 9: "ball"}, {7: "player"}])
def test_people_or_the_only_class_have_the_class_of_people(tmp_path: Path, names: dict[int, str]) -> None:
    first = 3 if 3 in names else 7
    content = as_coco([(FrameName("a.mp4", 0), objects([(1, 1, 9, 9)], classes=[first]))], names, scores=False)
    write_coco(tmp_path / "a.json", content)
    annotations = read_annotations(tmp_path / "a.json")
    assert annotations.classes[PERSON] == names[first]
    assert sorted(annotations.classes.values()) == sorted(names.values())
    assert annotations.frames[0].truth().classes.tolist() == [PERSON]


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key) and None


def changed(where: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[where][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("categories"), "has no categories"),
        (lambda content: content.update(categories=[]), "has no categories"),
        (lambda content: content.update(annotations=[]), "has no annotations"),
        (changed("annotations", category_id=4), "category 4, which is not among the categories: 1 person, 2 ball"),
        (changed("annotations", image_id=9), "image 9, which is not there"),
        (changed("annotations", bbox=[1, 2]), "bbox is left, top, width and height"),
        (changed("images", frame_index=None), "a.mp4 is no picture .* and frame_index is None"),
        (lambda content: content["images"][0].pop("width"), "'width' is missing"),
        (changed("annotations", segmentation=[]), r"frame 3 of a.mp4: has no mask \('segmentation'\)"),
        (changed("annotations", segmentation={"size": [9, 9], "counts": [81]}), "a.mp4: .*mask"),
    ],
)
def test_annotations_that_cannot_be_used_are_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = as_coco([(FrameName("a.mp4", 3), objects([(10, 5, 30, 25)]))], CLASSES, scores=False)
    change(content)
    write_coco(tmp_path / "a.json", content)
    with pytest.raises(LabelsError, match=message) as caught:
        read_annotations(tmp_path / "a.json").check(masks=True, key_points=False)
    assert str(caught.value).startswith(str(tmp_path / "a.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"images": {}}'])
def test_a_file_that_is_no_coco_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(LabelsError, match="JSON"):
        read_annotations(tmp_path / "a.json")


# Frames


def annotated(path: Path, *names: FrameName, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    truth = objects([(2, 2, 20, 20)])
    frame = Detections(*size, truth.boxes, truth.scores, truth.classes)
    write_coco(path, as_coco([(name, frame) for name in names], CLASSES, scores=False))
    return path


def test_frames_are_those_that_the_annotations_name(tmp_path: Path) -> None:
    frames = moving_square(1, to_the_right=True)
    write_frames(tmp_path / "videos" / "a.mp4", frames)
    size = frames[0].shape[:2]
    Image.fromarray(frames[2]).save(tmp_path / "videos" / "b.png")
    names = FrameName("a.mp4", 5), FrameName("b.png"), FrameName("a.mp4", 1)
    annotations = read_annotations(annotated(tmp_path / "a.json", *names, size=size))
    read = {frame.name: image for frame, image in read_annotated_frames(annotations, tmp_path / "videos")}
    assert set(read) == set(names)
    assert np.array_equal(read[names[1]], frames[2])
    for name in (names[0], names[2]):
        assert np.abs(read[name].astype(int) - frames[name.frame_index]).mean() < 8  # it was compressed


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (FrameName("a.mp4", 99), None, r"frame 99 of a.mp4 is annotated, and the video has \d+ frames"),
        (FrameName("a.mp4", 0), (30, 30), "annotated as 30 × 30 pixels, and has"),
        (FrameName("c.mp4", 0), None, "names c.mp4, and there is no"),
        (FrameName("b.png"), (30, 30), "b.png is annotated as 30 × 30"),
    ],
)
def test_annotations_of_other_frames_are_one_line(
    tmp_path: Path, name: FrameName, size: tuple[int, int] | None, message: str
) -> None:
    frames = moving_square(1, to_the_right=True)
    write_frames(tmp_path / "a.mp4", frames)
    Image.fromarray(frames[0]).save(tmp_path / "b.png")
    annotations = read_annotations(annotated(tmp_path / "a.json", name, size=size or frames[0].shape[:2]))
    with pytest.raises(LabelsError, match=message) as caught:
        list(read_annotated_frames(annotations, tmp_path))
    assert str(caught.value).startswith(str(tmp_path / "a.json"))


# Examples


@pytest.mark.parametrize("size", [32, 96])
def test_objects_are_where_their_pixels_are_in_the_square(tmp_path: Path, size: int) -> None:
    truth = objects([(10, 5, 30, 25), (22, 12, 58, 38)])
    assert truth.masks is not None
    colour = (255 * truth.masks[1])[..., None].repeat(3, 2).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    write_coco(tmp_path / "a.json", as_coco([(FrameName("a.png"), truth)], CLASSES, scores=False))
    learned = Learned(masks=True, key_points=True)
    examples = Examples.read(read_annotations(tmp_path / "a.json"), tmp_path, size=size, learned=learned)
    found = examples.truth(0)
    assert found.masks is not None
    assert found.key_points is not None
    bright = examples.pictures[0, 0] > 127 + 20
    agreement = (found.masks[1] > 0.5) & bright
    assert agreement.sum() / ((found.masks[1] > 0.5) | bright & (examples.pictures[0, 0] != 127)).sum() > 0.85
    for box, mask, point in zip(found.boxes, found.masks, found.key_points[:, 5], strict=True):
        rows, columns = np.nonzero(mask)
        bounds = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.allclose(box, bounds, atol=1.5)
        assert np.allclose(point, [*(box[:2] + box[2:]) / 2, 2], atol=0.1)


def test_a_mirrored_example_has_its_objects_mirrored() -> None:
    truth = objects([(10, 5, 30, 25)])
    assert truth.masks is not None
    picture = np.repeat((255 * truth.masks).astype(np.uint8), 3, axis=0)
    mirrored, found = flip(picture, truth)
    assert np.array_equal(mirrored[0] > 0, drawn(found.masks)[0] > 0)
    assert found.boxes.tolist() == [[WIDTH - 30, 5, WIDTH - 10, 25]]
    assert found.key_points is not None
    assert found.key_points[0, 6].tolist() == [WIDTH - 20, 15, 2]  # the left shoulder is the right one now
    assert not found.key_points[0, 5].any()
    again, back = flip(mirrored, found)
    assert np.array_equal(again, picture)
    assert np.array_equal(drawn(back.key_points), drawn(truth.key_points))
    assert np.array_equal(back.boxes, truth.boxes)


@pytest.mark.parametrize(("scale", "shift"), [(1.5, (-4, 3)), (0.7, (6, -5)), (1.0, (-12, 0))])
def test_objects_are_zoomed_with_their_picture(scale: float, shift: tuple[float, float]) -> None:
    truth = objects([(20, 12, 40, 28)])
    assert truth.masks is not None
    picture = np.repeat((255 * truth.masks).astype(np.uint8), 3, axis=0)
    zoomed, found = zoom(picture, truth, scale=scale, shift=shift)
    assert found.masks is not None
    assert found.key_points is not None
    bright = (zoomed[0] > 191).astype(int)
    assert np.abs(bright - found.masks[0]).mean() < 0.03
    rows, columns = np.nonzero(found.masks[0])
    assert np.allclose(found.boxes[0], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1.1)
    middle = [30 + shift[0], 20 + shift[1]]  # the ellipse is in the middle of the picture
    assert np.allclose(found.key_points[0, 5], [*middle, 2], atol=1e-4)
    width = (truth.boxes[0, 2] - truth.boxes[0, 0]) * scale
    assert found.boxes[0, 2] - found.boxes[0, 0] == pytest.approx(width, abs=1e-3)


def test_an_object_that_is_shifted_out_of_the_picture_is_left_out() -> None:
    truth = objects([(20, 12, 40, 28), (2, 2, 12, 12)])
    _, found = zoom(np.zeros((3, HEIGHT, WIDTH), np.uint8), truth, scale=1.0, shift=(-9, 0))
    assert found.boxes.tolist() == [[11, 12, 31, 28]]
    assert found.masks is not None
    assert len(found.masks) == 1


def test_the_same_seed_alters_an_example_in_the_same_way() -> None:
    truth = objects([(10, 5, 30, 25)])
    picture = np.full((3, HEIGHT, WIDTH), 100, np.uint8)
    first, second, other = (augment(picture, truth, np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert first.dtype == np.uint8


def test_validation_has_videos_of_its_own(tmp_path: Path) -> None:
    names = [FrameName(f"{number}.mp4", index) for number in range(5) for index in range(3)]
    annotations = read_annotations(annotated(tmp_path / "a.json", *names))
    train, val = split_by_file(annotations, 0.4, seed=1)
    files = [{frame.name.file_name for frame in one.frames} for one in (train, val)]
    assert files[0] | files[1] == {f"{number}.mp4" for number in range(5)}
    assert not files[0] & files[1]
    assert len(val.frames) == 6


# Scores


@pytest.mark.parametrize(("kind", "metric"), [("boxes", "bbox"), ("masks", "segm"), ("key_points", "keypoints")])
def test_average_precision_is_that_of_pycocotools(
    pair: tuple[dict[str, Any], dict[str, Any]], kind: str, metric: str, tmp_path: Path
) -> None:
    truth, found = pair
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    coco = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes([{**one} for one in found["annotations"]]), metric)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    score = getattr(score_contents(truth, found), kind)
    assert 0.02 < score.map < 0.98
    assert [score.map, score.ap50, score.ap75] == pytest.approx(evaluation.stats[:3].tolist(), abs=1e-9)
    assert np.mean(list(score.per_class.values())) == pytest.approx(score.map)


def test_iou_and_dice_are_those_of_the_counted_pixels(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    truth, found = pair
    scores = score_contents(truth, found).overlap
    assert scores is not None
    for category, name in CLASSES.items():
        both = either = total = 0
        for image in truth["images"]:
            masks = []
            for content, least in ((truth, 0.0), (found, 0.5)):
                chosen = [
                    coco_mask.decode(one["segmentation"])
                    for one in content["annotations"]
                    if one["image_id"] == image["id"] and one["category_id"] == category
                    if one.get("score", 1) >= least
                ]
                masks.append(np.any([np.zeros((HEIGHT, WIDTH)), *chosen], axis=0))
            both += (masks[0] & masks[1]).sum()
            either += (masks[0] | masks[1]).sum()
            total += masks[0].sum() + masks[1].sum()
        assert scores.per_class[name] == pytest.approx((both / either, 2 * both / total), abs=1e-6)
    assert scores.dice == pytest.approx(np.mean([dice for _, dice in scores.per_class.values()]))


def test_the_truth_itself_is_perfect_and_nothing_is_worth_nothing(
    pair: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    truth, _ = pair
    perfect = score_contents(truth, {**truth, "annotations": [one | {"score": 1} for one in truth["annotations"]]})
    assert perfect.masks is not None
    assert perfect.overlap is not None
    assert (perfect.boxes.map, perfect.masks.map, perfect.overlap.iou) == pytest.approx((1, 1, 1))
    nothing = score_contents(truth, {**truth, "annotations": []})
    assert (nothing.boxes.map, nothing.num_found) == (0, 0)


def test_frames_and_classes_are_matched_by_name(pair: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    truth, found = json.loads(json.dumps(pair))
    expected = score_contents(*pair)
    for one in found["images"]:
        one["id"] += 100
    for one in found["categories"]:
        one["id"] += 50
    for one in found["annotations"]:
        one["image_id"] += 100
        one["category_id"] += 50
    found["images"].reverse()
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    (tmp_path / "results.json").write_text(json.dumps(pair[1]["annotations"]))
    assert score_files(tmp_path / "truth.json", tmp_path / "found.json") == expected
    assert score_files(tmp_path / "truth.json", tmp_path / "results.json") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: [one.update(file_name="b.mp4") for one in found["images"]], "no frame is in both files"),
        (lambda found: [one.update(name="horse") for one in found["categories"]], "no class is in both files"),
        (lambda found: found["annotations"][0].pop("score"), "has no score"),
        (lambda found: found["annotations"][0].pop("bbox"), "'bbox' is missing"),
    ],
)
def test_files_that_cannot_be_compared_are_one_line(
    pair: tuple[dict[str, Any], dict[str, Any]],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], Any],
    message: str,
) -> None:
    truth, found = json.loads(json.dumps(pair))
    change(found)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    with pytest.raises(LabelsError, match=message):
        score_files(tmp_path / "truth.json", tmp_path / "found.json")
