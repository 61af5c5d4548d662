"""What `extract --regions` shows a backbone: people's boxes and masks, by a detector whose answer is known."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.commands import LENET, run
from tests.media import write_frames
from vidpipe.backbones.stream import Stream
from vidpipe.backbones.table import BACKBONES
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.errors import RunError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import Preprocessing
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.finder import RegionFinder
from vidpipe.regions.people import WHOLE_PICTURE, people_region
from vidpipe.video.reader import open_video
from vidpipe.video.resize import crop_to_region, paint_over
from vidpipe.video.view import Look, View, plan_video

HEIGHT, WIDTH = 120, 160
BACKGROUND, FIGURE = (40, 90, 60), (250, 250, 250)
SIZE = Preprocessing((64, 64), (64, 64), "bilinear", (0.5, 0.25, 0.75), (1.0, 1.0, 1.0))


def frame(*boxes: tuple[int, int, int, int], color: tuple[int, ...] = FIGURE) -> NDArray[np.uint8]:
    """(H, W, 3) with figures in these boxes: left, top, right, bottom."""
    picture = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = color
    return picture


def detections(*boxes: tuple[int, int, int, int], score: float = 0.9, class_: int = PERSON) -> Detections:
    count = len(boxes)
    return Detections(
        HEIGHT,
        WIDTH,
        np.array(boxes, np.float32).reshape(count, 4),
        np.full(count, score, np.float32),
        np.full(count, class_),
    )


@pytest.fixture(scope="module")
def white_mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the form of person_mask that takes every pixel that is nearly white for a person."""
    path = tmp_path_factory.mktemp("detector") / "white.onnx"
    shape = [1, 256, 256, 3]
    nodes = [
        helper.make_node("ReduceMin", ["pixels", "axes"], ["least"], keepdims=1),
        helper.make_node("Sub", ["least", "limit"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["steep"]),
        helper.make_node("Sigmoid", ["steep"], ["mask"]),
    ]
    constants = {"axes": np.array([3]), "limit": np.array([0.7], np.float32), "steepness": np.array([100], np.float32)}
    graph = helper.make_graph(
        nodes,
        "white",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 256, 256, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def config(regions: str, weights: Path) -> ExtractConfig:
    return ExtractConfig(
        backbone="lenet5", device="cpu", regions=regions, detector="person_mask", detector_weights=str(weights)
    )


def finder_of(regions: str, weights: Path) -> RegionFinder:
    finder = RegionFinder.of(config(regions, weights))
    assert finder is not None
    return finder


# Boxes


def test_the_region_is_a_square_around_all_people_of_all_frames_with_a_margin() -> None:
    frames = [detections((60, 50, 70, 70)), detections((80, 55, 90, 60)), detections()]
    region = people_region(frames, min_score=0.5, margin=0.1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    assert region.round(3).tolist() == [57, 42, 36, 36]  # the box 60 … 90, 50 … 70, its longer side 30 and 3 around it


def test_a_region_at_the_edge_is_moved_inward_and_cut_to_the_picture() -> None:
    corner = people_region([detections((-5, 90, 20, 120))], min_score=0.5, margin=0.1)
    assert (corner * [WIDTH, HEIGHT, WIDTH, HEIGHT]).round(3).tolist() == [0, 84, 36, 36]
    wide = people_region([detections((0, 50, 150, 60))], min_score=0.5, margin=0.1)
    assert wide.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "found", [detections(), detections((5, 5, 9, 9), score=0.4), detections((5, 5, 9, 9), class_=18)]
)
def test_where_no_person_is_found_the_region_is_the_whole_picture(found: Detections) -> None:
    assert np.array_equal(people_region([found], min_score=0.5, margin=0.1), WHOLE_PICTURE)


def test_regions_stay_inside_the_picture_whatever_the_boxes() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        boxes = random.uniform(-30, 200, (3, 4)).astype(np.float32)
        region = people_region([replace(detections(*[(0, 0, 1, 1)] * 3), boxes=boxes)], min_score=0, margin=0.3)
        assert (region[:2] >= 0).all()
        assert (region[2:] > 0).all()
        assert (region[:2] + region[2:] <= 1).all()


def test_people_of_a_video_get_one_box_and_the_crop_holds_them_all(white_mask: Path, tmp_path: Path) -> None:
    boxes = [(20 + 5 * number, 40, 32 + 5 * number, 70) for number in range(10)]
    reader = open_video(write_frames(tmp_path / "a.mp4", [frame(box) for box in boxes], options={"crf": "1"}))
    view = finder_of("people", white_mask).applied_to(View(Sampling("uniform", num_frames=4), SIZE))
    plan = pickle.loads(pickle.dumps(view)).planner(reader, view, lambda: ())
    assert plan.rows.region is not None
    assert np.array_equal(plan.rows.region, plan.rows.region[[0] * 4])
    x, y, width, height = plan.rows.region[0] * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    assert (x < 20, y < 40) == (True, True)
    assert x + width > 32 + 5 * 9
    assert y + height > 70
    assert (width < 0.62 * WIDTH, abs(width - height) < 1) == (True, True)
    crop = crop_to_region(frame(boxes[0]), plan.rows.region[0])
    assert (crop == 250).all(axis=2).sum() == 12 * 30
    assert np.array_equal(plan.rows.frame_index, plan_video(reader, view, lambda: ()).rows.frame_index)


# Masks


@pytest.mark.parametrize(("regions", "hides_people"), [("background", True), ("mask", False)])
def test_hidden_pixels_have_the_mean_colour_and_the_others_are_untouched(
    regions: str, hides_people: bool, white_mask: Path
) -> None:
    frames = np.stack([frame((40, 30, 60, 90)), frame((100, 20, 120, 80), (10, 10, 30, 50)), frame()])
    find = finder_of(regions, white_mask).applied_to(View(Sampling("uniform", num_frames=4), SIZE)).hidden
    assert find is not None
    look = pickle.loads(pickle.dumps(find))
    hidden = np.stack([look_at(look, one) for one in frames])
    seen = paint_over(frames, hidden, SIZE)
    white = (frames == 250).all(axis=3)
    assert (hidden == (white == hides_people)).mean() > 0.99  # the mask is resized from 256 × 256
    assert np.array_equal(seen[~hidden], frames[~hidden])
    assert (seen[hidden] == [128, 64, 191]).all()
    assert hidden[2].all() == (not hides_people)


# Extraction


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, label in enumerate(("left", "right", "left", "right", "left", "right")):
        step = 4 if label == "right" else -4
        boxes = [(70 + number + step * at, 50, 82 + number + step * at, 80) for at in range(8)]
        write_frames(folder / label / f"{number}.mp4", [frame(box) for box in boxes], options={"crf": "1"})
    write_frames(folder / "nobody.mp4", [frame()] * 8)
    return folder


def test_a_store_of_people_has_their_region_and_the_key_says_by_what(
    videos: Path, white_mask: Path, tmp_path: Path
) -> None:
    chosen = ("--regions", "people", "--detector", "person_mask", "--detector-weights", white_mask)
    command = ("extract", videos, "-o", tmp_path / "s", "--num-frames", 4, *LENET, *chosen)
    result = run(*command)
    assert result.exit_code == 0, result.output
    store = FeatureStore.open(tmp_path / "s")
    assert store.key.regions == finder_of("people", white_mask).as_dict()
    assert np.array_equal(store["nobody.mp4"].region, [[0, 0, 1, 1]] * 4)
    region = store["right/1.mp4"].region
    assert np.array_equal(region, region[[0] * 4])
    assert region[0, 2] < 0.5
    dry = run(*command, "--dry-run")
    assert (dry.exit_code, "would extract 0 videos" in dry.stdout) == (0, True)
    other = run("extract", videos, "-o", tmp_path / "s", "--num-frames", 4, *LENET)
    assert other.exit_code != 0
    assert "lenet5 features, regions people by person_mask; you asked for lenet5 features, whole frames" in other.stderr


@pytest.mark.slow
def test_features_of_the_background_are_those_of_a_video_painted_by_hand(white_mask: Path, tmp_path: Path) -> None:
    mean = tuple(round(255 * value) for value in BACKBONES["lenet5"].preprocessing.mean)
    boxes = [(40 + 8 * at, 50, 64 + 8 * at, 90) for at in range(4)]
    for name, color in (("white", FIGURE), ("painted", mean)):
        frames = [frame(box, color=color) for box in boxes]
        write_frames(tmp_path / f"videos/{name}.mp4", frames, options={"crf": "1"})
    chosen = ("--regions", "background", "--detector", "person_mask", "--detector-weights", white_mask)
    for store, path, options in (("found", "videos/white.mp4", chosen), ("whole", "videos", ())):
        result = run("extract", tmp_path / path, "-o", tmp_path / store, *LENET, *options)
        assert result.exit_code == 0, result.output
    found = FeatureStore.open(tmp_path / "found")["white.mp4"].features
    whole = FeatureStore.open(tmp_path / "whole")
    by_hand, plain = whole["painted.mp4"].features, whole["white.mp4"].features
    assert np.abs(found - by_hand).max() < 0.2 * np.abs(plain - by_hand).max()


def test_a_run_predicts_with_the_regions_it_was_trained_on(videos: Path, white_mask: Path, tmp_path: Path) -> None:
    chosen = ("--regions", "people", "--detector", "person_mask", "--detector-weights", white_mask)
    stores, trained = tmp_path / "s", tmp_path / "run"
    inputs = (videos / "left", videos / "right")
    labels = tmp_path / "labels.csv"
    labels.write_text("video,label\n" + "\n".join(f"{n}.mp4,{'left' if n % 2 == 0 else 'right'}" for n in range(6)))
    assert run("extract", *inputs, "-o", stores, "--num-frames", 4, *LENET, *chosen).exit_code == 0
    fit = ("train", stores, "-o", trained, "--labels", labels, "--head", "mean", "--test-fraction", 0)
    result = run(*fit)
    assert result.exit_code == 0, result.output
    asked = ("predict", trained, videos / "left/0.mp4", "--device", "cpu", "--workers", 1, "--format", "json")
    fresh = run(*asked, "--detector-weights", white_mask)
    assert fresh.exit_code == 0, fresh.output
    stored = run(*asked, "--store", stores)
    assert fresh.stdout == stored.stdout
    without = run(*asked)
    assert without.exit_code == 2
    assert "give the ONNX file of person_mask with --detector-weights FILE" in without.stderr
    assert run("explain", "run", trained, videos / "left/0.mp4", "-o", tmp_path / "why").exit_code == 2
    assert run(*asked, "--timeline", "--follow").exit_code == 2


def test_a_refined_mask_takes_in_what_has_the_colour_of_the_figure(white_mask: Path) -> None:
    """The network takes pixels above 0.7 for a person; the middle of this figure is a little darker."""
    picture = frame((60, 30, 100, 90), color=(186, 186, 186))
    picture[50:70, 60:100] = 174, 186, 186
    find = replace(config("background", white_mask), refine="crf")
    finder = RegionFinder.of(find)
    assert finder is not None
    view = View(Sampling("uniform", num_frames=4), SIZE)
    hidden, plain = finder.applied_to(view).hidden, finder_of("background", white_mask).applied_to(view).hidden
    assert hidden is not None
    assert plain is not None
    figure = np.s_[30:90, 60:100]
    assert look_at(hidden, picture)[figure].mean() > look_at(plain, picture)[figure].mean() + 0.2
    assert look_at(hidden, picture).sum() < 1.1 * 60 * 40
    assert not look_at(hidden, frame()).any()


def look_at(look: Look, picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return what a look gives of one frame."""
    (found,) = look.detect(picture[None])
    return look.read(found, picture)


# Keys and settings


def test_without_regions_the_key_is_as_before() -> None:
    key = Stream.of(ExtractConfig(backbone="lenet5", regions="whole")).key
    assert "regions" not in key.as_dict()
    assert key == Stream.of(ExtractConfig(backbone="lenet5")).key


def test_the_finder_of_a_key_is_that_of_the_settings(white_mask: Path) -> None:
    finder = finder_of("mask", white_mask)
    assert RegionFinder.of_key(finder.as_dict(), weights=str(white_mask), device="cpu") == finder
    with pytest.raises(RunError, match=r"other settings of person_mask \(weights\)"):
        RegionFinder.of_key({**finder.as_dict(), "weights": "0" * 64}, weights=str(white_mask), device="cpu")
    with pytest.raises(RunError, match="detector is not available"):
        RegionFinder.of_key({**finder.as_dict(), "detector": "new_net"}, weights=str(white_mask), device="cpu")


def test_refined_masks_have_a_key_of_their_own(white_mask: Path) -> None:
    plain = finder_of("mask", white_mask)
    refined = RegionFinder.of(replace(config("mask", white_mask), refine="crf"))
    assert refined is not None
    assert set(refined.as_dict()) - set(plain.as_dict()) == {"crf"}
    assert RegionFinder.of_key(refined.as_dict(), weights=str(white_mask), device="cpu") == refined
    keys = [Stream.of(ExtractConfig(backbone="lenet5"), regions=one.as_dict()).key for one in (plain, refined)]
    assert keys[0].difference(keys[1]) == (
        "lenet5 features, regions mask by person_mask, no crf here, "
        "lenet5 features, regions mask by person_mask, crf asked for"
    )
    other = {**refined.as_dict(), "crf": {**refined.as_dict()["crf"], "num_iterations": 9}}
    with pytest.raises(RunError, match=r"other settings of person_mask \(crf\)"):
        RegionFinder.of_key(other, weights=str(white_mask), device="cpu")


def test_a_wrong_detector_file_leaves_no_store_that_refuses_the_right_one(
    videos: Path, white_mask: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no network")
    asked = ("extract", videos, "-o", tmp_path / "store", *LENET, "--regions", "mask", "--detector", "person_mask")
    refused = run(*asked, "--detector-weights", wrong)
    assert refused.exit_code == 1
    assert "wrong.onnx" in refused.stderr
    assert not (tmp_path / "store").exists()
    assert run(*asked, "--detector-weights", white_mask).exit_code == 0


def test_settings_that_do_not_go_together_are_refused(white_mask: Path) -> None:
    with pytest.raises(UsageError, match="movenet finds boxes and key points; detectors with masks: maskrcnn"):
        RegionFinder.of(ExtractConfig(regions="mask", detector="movenet"))
    with pytest.raises(UsageError, match="--detector goes with --regions"):
        ExtractConfig(detector="movenet")
    with pytest.raises(UsageError, match="--refine goes with --regions mask or background"):
        ExtractConfig(regions="people", refine="crf")
    regions = finder_of("people", white_mask).as_dict()
    with pytest.raises(UsageError, match="--grid 2 divides whole pictures"):
        Stream.of(ExtractConfig(backbone="efficientnet_lite0", grid=2), regions=regions)
