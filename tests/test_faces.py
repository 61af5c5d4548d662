"""`extract --regions faces`: faces are found, linked and cut out, and `search similar` compares people."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.commands import LENET, run
from tests.faces import HEAD_BOX, HEADS, draw_heads, write_bright_mtcnn, write_facenet, write_head_detector
from tests.media import write_frames
from tests.people import iou
from tests.schemas import problems
from vidpipe.config import ExtractConfig
from vidpipe.errors import UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.regions.detections import FACE, PERSON, Detections
from vidpipe.regions.faces import face_regions_at, faces_of, heads_of, link_faces
from vidpipe.regions.finder import RegionFinder
from vidpipe.regions.linking import Track
from vidpipe.regions.table import find_detector
from vidpipe.video.reader import read_frames

RATE = 8
FACENET = ("--backbone", "facenet", "--device", "cpu", "--workers", "1", "--engine", "torch")


def found(boxes: NDArray[np.floating[Any]]) -> Detections:
    """Faces in a frame of 640 × 480."""
    return Detections(
        480, 640, boxes.astype(np.float32), np.full(len(boxes), 0.95, np.float32), np.full(len(boxes), FACE)
    )


# Heads by key points


@pytest.mark.parametrize(
    ("points", "box"),
    [
        (
            [(369.8, 283.6), (412.5, 236.9), (317.7, 241.9), (462.1, 266.9), (266.0, 278.0)],
            (270.3, 162.9, 451.5, 384.1),
        ),
        ([(199.8, 141.7), (217.1, 124.4), (184.2, 125.8), (241.1, 134.2), (162.5, 135.1)], (167.2, 93.8, 236.1, 179.5)),
    ],
)
def test_the_box_of_key_points_is_nearly_that_of_mtcnn(
    points: list[tuple[float, float]], box: tuple[float, float, float, float]
) -> None:
    """MoveNet's points, and the box that facenet-pytorch finds, of Grace Hopper's photo in two sizes."""
    key_points = np.zeros((1, 17, 3), np.float32)
    key_points[0, :5] = [(*point, 0.6) for point in points]
    boxes, is_seen = heads_of(key_points)
    assert is_seen.tolist() == [True]
    assert iou(boxes[0].astype(float), np.array(box)) > 0.8


@pytest.mark.parametrize("hidden", [[0], [1, 2], [1, 3, 4]], ids=["from behind", "no eye", "two points"])
def test_a_head_whose_face_is_not_seen_has_no_face(hidden: list[int]) -> None:
    key_points = np.full((1, 17, 3), 0.9, np.float32)
    key_points[0, :5, :2] = [(100, 100), (115, 90), (85, 90), (130, 95), (70, 95)]
    assert heads_of(key_points)[1].tolist() == [True]
    key_points[0, hidden, 2] = 0.1
    assert heads_of(key_points)[1].tolist() == [False]


def test_a_head_of_few_pixels_has_no_face() -> None:
    key_points = np.full((1, 17, 3), 0.9, np.float32)
    key_points[0, :5, :2] = [(10, 10), (11.5, 9), (8.5, 9), (13, 9.5), (7, 9.5)]
    assert heads_of(key_points)[1].tolist() == [False]


def test_the_scores_of_keypoint_rcnn_are_logits() -> None:
    key_points = np.zeros((1, 17, 3), np.float32)
    key_points[0, :5] = [(100, 100, 2), (115, 90, 2), (85, 90, 2), (130, 95, 2), (70, 95, -9)]
    person = Detections(
        200, 200, np.array([[50, 50, 150, 190]], np.float32), np.ones(1, np.float32), np.array([PERSON]), key_points
    )
    assert len(faces_of(person, find_detector("keypointrcnn"))) == 1
    key_points[0, 0, 2] = -9
    assert len(faces_of(person, find_detector("keypointrcnn"))) == 0


# Tracks


def test_faces_that_pass_each_other_by_their_own_width_a_step_keep_their_numbers() -> None:
    seconds = np.arange(16) / RATE
    steps = np.stack([np.arange(16) * 25.0, np.zeros(16)] * 2, axis=1)  # (16, 4)
    right, left = np.array([40, 100, 64, 130]) + steps, np.array([560, 210, 586, 242]) - steps
    tracks = link_faces([found(np.stack(pair)) for pair in zip(right, left, strict=True)], seconds, min_score=0.9)
    assert len(tracks) == 2
    for track, boxes in zip(tracks, (right, left), strict=True):
        assert np.abs(track.boxes - boxes).max() < 1e-3


def test_a_face_has_a_region_only_where_it_was_found() -> None:
    seconds = np.arange(16) / RATE
    boxes = np.array([100, 100, 173, 146.0]) + np.outer(np.arange(16), [8, 0, 8, 0])
    frames = [found(boxes[[place]] if place not in (5, 6, 7) else np.zeros((0, 4))) for place in range(16)]
    (track,) = link_faces(frames, seconds, min_score=0.9)
    times = np.array([0.0, 0.3125, 0.5, 0.7, 0.8, 1.0, 1.875])
    there, region = face_regions_at(track, seconds, times, (640, 480))
    assert times[there].tolist() == [0.0, 0.3125, 0.5, 1.0, 1.875]
    x, y, width, height = (region * [640, 480, 640, 480]).T
    assert np.allclose(x, 100 + 64 * times[there] - 3.5, atol=1e-3)  # 14 of 160 pixels are margin, on both sides
    assert np.allclose([y[0], width[0], height[0]], [100 - 46 * 7 / 146, 80, 46 * 160 / 146], atol=1e-3)


def test_the_region_of_a_face_at_the_edge_ends_there() -> None:
    track = Track(0, np.array([[-10.0, 0, 30, 40], [620, 470, 700, 500]]), np.ones(2, np.bool_))
    _, region = face_regions_at(track, np.array([0.0, 1.0]), np.array([0.0, 1.0]), (640, 480))
    assert (region >= 0).all()
    assert (region[:, :2] + region[:, 2:] <= 1 + 1e-6).all()
    assert (region[:, 2:] * [640, 480] >= 1 - 1e-3).all()


# From videos to people in other videos


PEOPLE = {"a.mp4": (0, 1), "b.mp4": (1, 2), "c.mp4": (2, 0), "d.mp4": (3, 4)}
"""Who is at the left and at the right of each video."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and videos of people; in `half.mp4`, the second face is seen in the first half alone."""
    folder = tmp_path_factory.mktemp("faces")
    write_facenet(folder / "vggface2.pt")
    write_head_detector(folder / "heads.onnx")
    for name, pair in PEOPLE.items():
        write_frames(folder / "videos" / name, [draw_heads(*pair)] * 24, options={"crf": "4"})
    half = [draw_heads(5, 6 if number < 25 else None, lamp=number < 25) for number in range(50)]
    write_frames(folder / "videos/half.mp4", half, options={"crf": "4"})
    write_frames(folder / "new.mp4", [draw_heads(4, 1)] * 24, options={"crf": "18"})
    write_frames(folder / "dark.mp4", [np.full((120, 160, 3), 40, np.uint8)] * 24)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    path, weights = folder / "features", ("--weights", folder / "vggface2.pt")
    chosen = ("--regions", "faces", "--detector", "movenet", "--detector-weights", folder / "heads.onnx")
    result = run("extract", folder / "videos", "-o", path, "--num-frames", 4, *FACENET, *weights, *chosen)
    assert result.exit_code == 0, result.output
    return path


def test_the_rows_of_a_store_are_the_faces_that_are_seen(store: Path) -> None:
    opened = FeatureStore.open(store)
    assert (opened.key.backbone, opened.key.regions is not None) == ("facenet", True)
    for name in PEOPLE:
        sequence = opened[name]
        assert sequence.rows.track is not None
        assert sequence.rows.track.tolist() == [1, 2] * 4
        assert np.allclose(np.linalg.norm(sequence.features, axis=1), 1, atol=1e-5)
        for number, (x, _) in enumerate(HEADS, start=1):
            its = sequence.person(number).region * [160, 120, 160, 120]
            assert np.allclose(its[:, 0] + its[:, 2] / 2, x, atol=0.5)
            assert np.allclose(its[:, 2:], np.array(HEAD_BOX) * 160 / 146, atol=0.5)
    half = opened["half.mp4"]
    assert half.rows.track is not None
    assert half.rows.track.tolist() == [1, 2, 1, 2, 1, 1]


def similar(store: Path, *arguments: object) -> list[dict[str, Any]]:
    result = run("search", "similar", store, *arguments, "--format", "json", "--device", "cpu")
    assert result.exit_code in (0, 3), result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [problems("search similar STORE VIDEO…", one) for one in answers] == [[]] * len(answers)
    return answers


def test_the_same_person_is_found_in_other_videos(store: Path) -> None:
    for name, pair in list(PEOPLE.items())[:3]:
        answers = similar(store, name, "-k", 2)
        assert [(one["query"], one["person"]) for one in answers] == [(name, 1), (name, 2)]
        for who, answer in zip(pair, answers, strict=True):
            ((other, place),) = [
                (video, people.index(who) + 1) for video, people in PEOPLE.items() if video != name and who in people
            ]
            first, second = answer["videos"]
            assert (first["video"], first["person"]) == (other, place)
            assert first["score"] > second["score"] + 0.2
            assert second["video"] != name


def test_a_new_video_asks_for_each_of_its_people(store: Path, folder: Path) -> None:
    files = ("--weights", folder / "vggface2.pt", "--detector-weights", folder / "heads.onnx")
    first, second, dark = similar(store, folder / "new.mp4", folder / "dark.mp4", "-k", 3, *files)
    assert (first["videos"][0]["video"], first["videos"][0]["person"]) == ("d.mp4", 2)
    assert {one["video"] for one in second["videos"][:2]} == {"a.mp4", "b.mp4"}
    assert [len({one["video"] for one in answer["videos"]}) for answer in (first, second)] == [3, 3]
    assert (dark["status"], dark["person"]) == ("ok", 1)


def test_the_table_and_the_page_say_who(store: Path, tmp_path: Path) -> None:
    result = run("search", "similar", store, "a.mp4", "--page", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "like a.mp4, person 2:" in result.stdout
    assert result.stdout.splitlines()[1].split()[:3] == ["rank", "video", "person"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<bdi>a.mp4</bdi>, person 2" in page
    assert "person 1" in page


def test_where_nobody_is_found_a_video_asks_for_nobody(tmp_path: Path) -> None:
    mtcnn = write_bright_mtcnn(tmp_path / "mtcnn")
    chosen = ("--num-frames", 2, "--regions", "faces", "--detector-weights", mtcnn, *LENET)
    write_frames(tmp_path / "videos/a.mp4", [draw_heads(0, None, lamp=False)] * 6)
    write_frames(tmp_path / "videos/b.mp4", [draw_heads(1, None, lamp=False)] * 6)
    write_frames(tmp_path / "videos/dark.mp4", [draw_heads(None, None, lamp=False)] * 6)
    result = run("extract", tmp_path / "videos", "-o", tmp_path / "s", *chosen)
    assert result.exit_code == 0, result.output
    opened = FeatureStore.open(tmp_path / "s")
    assert (opened["dark.mp4"].rows.track, opened["dark.mp4"].region.tolist()) == (None, [[0, 0, 1, 1]] * 2)
    assert opened["a.mp4"].rows.track is not None
    (answer,) = similar(tmp_path / "s", "dark.mp4")
    assert (answer["status"], answer["person"], answer["videos"]) == ("failed", None, [])
    assert "nobody was found in it" in answer["error"]
    assert all(one["video"] == "b.mp4" for result in similar(tmp_path / "s", "a.mp4") for one in result["videos"])
    only = run("extract", tmp_path / "videos/dark.mp4", "-o", tmp_path / "dark", *chosen)
    assert only.exit_code == 0, only.output
    refused = run("search", "similar", tmp_path / "dark", "dark.mp4")
    assert (refused.exit_code, "nobody was found in any of its videos" in refused.stderr) == (1, True)


def test_another_backbone_takes_the_regions_of_the_store_beside_it(store: Path, folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    (both / "facenet").symlink_to(store)
    chosen = ("--regions", "faces", "--detector", "movenet", "--detector-weights", folder / "heads.onnx")
    result = run("extract", folder / "videos", "-o", both / "lenet5", "--num-frames", 4, *LENET, *chosen)
    assert result.exit_code == 0, result.output
    assert "uses the regions of the videos in" in result.stderr
    one, other = FeatureStore.open(store), FeatureStore.open(both / "lenet5")
    for name in one:
        assert np.array_equal(one[name].region, other[name].region)
        assert np.array_equal(one[name].rows.track, other[name].rows.track)  # type: ignore[arg-type]


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "facenet"}, "facenet sees faces alone, and not whole pictures; add --regions faces"),
        ({"backbone": "facenet", "regions": "people"}, "add --regions faces"),
        ({"regions": "faces", "detector": "centernet"}, "centernet finds boxes; detectors with them: keypointrcnn, "),
        ({"regions": "tracks", "detector": "mtcnn"}, "mtcnn finds faces alone; detectors with boxes: fasterrcnn"),
        ({"regions": "people", "detector": "mtcnn"}, "needs people, and mtcnn finds faces alone"),
        ({"regions": "mask", "detector": "mtcnn"}, "needs masks, and mtcnn finds faces alone"),
        ({"regions": "faces"}, "mtcnn has no default weights"),
    ],
)
def test_what_does_not_go_with_faces_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RegionFinder.of(ExtractConfig(**settings))


# Against facenet-pytorch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_photo_has_the_vector_of_facenet_pytorchs_own_pipeline(
    folder: Path, facenet_pytorch: ModuleType, facenet_wheel: Path, tmp_path: Path
) -> None:
    photo = Image.open(Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg").convert("RGB")
    write_frames(tmp_path / "photo.mp4", [np.asarray(photo)] * 8, options={"crf": "1"}, pixel_format="yuv444p")
    chosen = ("--regions", "faces", "--detector-weights", facenet_wheel, "--weights", folder / "vggface2.pt")
    result = run("extract", tmp_path / "photo.mp4", "-o", tmp_path / "s", "--num-frames", 2, *FACENET, *chosen)
    assert result.exit_code == 0, result.output
    sequence = FeatureStore.open(tmp_path / "s")["photo.mp4"]
    assert sequence.rows.track is not None
    assert sequence.rows.track.tolist() == [1, 1]
    _, frames = read_frames(tmp_path / "photo.mp4", lambda reader: sequence.rows.frame_index)
    resnet = facenet_pytorch.InceptionResnetV1().eval()
    tensors = torch.load(folder / "vggface2.pt", weights_only=True)
    resnet.load_state_dict({name: one for name, one in tensors.items() if not name.startswith("logits.")})
    mtcnn = facenet_pytorch.MTCNN(image_size=160, margin=14)
    for frame, feature, region in zip(frames, sequence.features, sequence.region * [512, 600, 512, 600], strict=True):
        box = mtcnn.detect(Image.fromarray(frame))[0][0].astype(float)
        margin = np.tile(box[2:] - box[:2], 2) * [-7, -7, 7, 7] / 146
        assert np.abs(np.concatenate([region[:2], region[:2] + region[2:]]) - box - margin).max() < 1
        face = mtcnn(Image.fromarray(frame))  # it cuts at the whole pixel before, and vidpipe at the nearest one
        with torch.no_grad():
            expected, mirrored = resnet(torch.stack([face, face.flip(2)])).numpy()
        assert np.linalg.norm(feature - expected) < 0.5 * np.linalg.norm(mirrored - expected)
