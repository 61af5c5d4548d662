"""The demo's annotations against the pictures and videos that it draws."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.annotated import write_annotated_figures
from vidpipe.demo import figures
from vidpipe.demo.annotations import EVERY, annotate_figure
from vidpipe.demo.figures import Figure, Joints, Scene, draw, pose, random_figure, random_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`videos/` and `annotations.json`, of short videos."""
    folder = tmp_path_factory.mktemp("annotated")
    write_annotated_figures(folder, seed=5, actions=("walk_left", "walk_right"))
    return folder


def decode(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def in_colour(scene: Scene, color: tuple[int, int, int]) -> Scene:
    """The scene with nothing behind the figure but a colour; objects before it stay."""
    return Scene(Image.new("RGB", scene.behind.size, color), scene.before, scene.left_end, scene.right_end)


def covered(figure: Figure, scene: Scene, joints: Joints, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float64]:
    """How much of each pixel the figure covers: all of it where black and white behind it give the same colour."""
    monkeypatch.setattr(figures, "_paint_shadow", lambda *_: None)
    black, white = (np.asarray(draw(figure, in_colour(scene, (value,) * 3), joints), np.int64) for value in (0, 255))
    share = 1 - (white - black).mean(axis=2) / 255
    hidden = np.asarray(scene.before.getchannel("A").reduce(figures.SUPERSAMPLING)) / 255
    return np.asarray(share - hidden)


@pytest.mark.parametrize("action", ["walk_left", "squat_down", "wave_then_jump", "raise_arms"])
def test_a_mask_is_the_pixels_through_which_the_background_is_not_seen(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    figure, scene = random_figure(rng), random_scene(240, 192, rng, indoors=action != "squat_down")
    for phase in (0.0, 0.4, 0.9):
        found = annotate_figure(figure, scene, pose(action, phase))
        share = covered(figure, scene, pose(action, phase), monkeypatch)
        assert found.masks is not None
        assert (share[found.masks[0] == 1] > 0.48).all()
        assert (share[found.masks[0] == 0] < 0.52).all()
        rows, columns = np.nonzero(found.masks[0])
        assert found.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_masks_are_what_moves_in_the_decoded_videos(folder: Path) -> None:
    coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    decoded: dict[str, NDArray[np.uint8]] = {}
    for image, annotation in zip(coco["images"], coco["annotations"], strict=True):
        frames = decoded.setdefault(image["file_name"], decode(folder / "videos" / image["file_name"]))
        background = np.median(frames, axis=0)  # a walking figure is nowhere in most frames
        moved = np.abs(frames[image["frame_index"]] - background).max(axis=2) > 24
        mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
        assert moved[mask].mean() > 0.75
        assert moved[~mask].mean() < 0.06  # the shadow


def test_every_fourth_frame_of_every_video_is_annotated_once(folder: Path) -> None:
    coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    for path in (folder / "videos").rglob("*.mp4"):
        name = path.relative_to(folder / "videos").as_posix()
        images = [image for image in coco["images"] if image["file_name"] == image["video"] == name]
        frames = decode(path)
        assert [image["frame_index"] for image in images] == list(range(0, len(frames), EVERY))
        assert {(image["height"], image["width"]) for image in images} == {frames.shape[1:3]}


def test_pycocotools_reads_the_file_and_agrees_on_areas_and_boxes(folder: Path) -> None:
    coco = COCO(str(folder / "annotations.json"))
    assert coco.loadCats(coco.getCatIds())[0]["name"] == "person"
    annotations: list[dict[str, Any]] = coco.loadAnns(coco.getAnnIds())
    assert annotations
    for one in annotations:
        assert coco_mask.area(one["segmentation"]) == one["area"]
        assert coco_mask.toBbox(one["segmentation"]).tolist() == one["bbox"]
        points = np.reshape(one["keypoints"], (17, 3))
        assert (points[:, 2] > 0).sum() == one["num_keypoints"] == 14
        assert (points[[0, 3, 4]] == 0).all()  # no nose, no ears


def test_key_points_lie_on_the_figure_where_they_are_visible_and_the_left_is_at_the_right(folder: Path) -> None:
    coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    num_visible = num_hidden = 0
    for one in coco["annotations"]:
        mask, points = coco_mask.decode(one["segmentation"]), np.reshape(one["keypoints"], (17, 3))
        on_figure = [bool(mask[int(y), int(x)]) for x, y, _ in points]
        assert on_figure == [visibility == 2 for *_, visibility in points] or not all(points[:, 2])
        assert points[5, 0] > points[6, 0]  # shoulders
        assert points[5, 1] == points[6, 1] < points[11, 1] == points[12, 1] < min(points[15:, 1])
        num_visible += (points[:, 2] == 2).sum()
        num_hidden += (points[:, 2] == 1).sum()
    assert num_visible > 10 * num_hidden > 0  # a plant hides some
