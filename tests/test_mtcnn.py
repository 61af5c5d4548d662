"""MTCNN finds what facenet-pytorch's finds, and its weights come from a folder or from the wheel."""

import zipfile
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.commands import run
from tests.faces import SIDE, bright_mtcnn, draw_faces, write_bright_mtcnn, write_wheel
from tests.media import write_frames
from vidpipe.errors import UsageError, VidpipeError, WeightsError
from vidpipe.regions.detections import FACE, Detections
from vidpipe.regions.load import load_detector
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights
from vidpipe.video.reader import read_frames
from vidpipe.video.sampling import uniform_indices

SPEC = find_detector("mtcnn")
PHOTO = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"


def found_in(frames: NDArray[np.uint8], weights: str) -> tuple[Detections, ...]:
    """What is found in frames (N, H, W, 3)."""
    detector = load_detector(SPEC, find_detector_weights(SPEC, weights), device="cpu")
    return detector.detect(frames.transpose(0, 3, 1, 2))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_mtcnn(tmp_path_factory.mktemp("mtcnn"))


def test_faces_are_found_at_their_places_and_only_there(weights: Path) -> None:
    places = [[(0, 30, 20), (1, 100, 60)], [(2, 5, 90)], []]
    for place, one in zip(places, found_in(np.stack([draw_faces(one) for one in places]), str(weights)), strict=True):
        centres = (one.boxes[:, :2] + one.boxes[:, 2:]) / 2
        faces = np.array([(left + SIDE / 2, top + SIDE / 2) for _, left, top in place]).reshape(-1, 2)
        distances = np.abs(centres[:, None] - faces[None]).max(axis=2)  # (K, F)
        assert (distances.min(axis=1, initial=99) < 7).all()
        assert (distances.min(axis=0, initial=99) < 7).all()
        assert (one.classes == FACE).all()
        assert (np.diff(one.scores) <= 0).all()


def test_a_frame_smaller_than_a_face_has_none(weights: Path) -> None:
    (one,) = found_in(np.full((1, 15, 20, 3), 255, np.uint8), str(weights))
    assert len(one) == 0


def test_a_face_at_the_edge_stays_inside_the_frame(weights: Path) -> None:
    (one,) = found_in(draw_faces([(0, 0, 0), (1, 140, 100)])[None], str(weights))
    assert len(one) >= 2
    assert (one.boxes >= 0).all()
    assert (one.boxes <= [160, 120, 160, 120]).all()


def test_a_folder_and_a_wheel_with_the_same_files_are_the_same_weights(weights: Path, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "facenet_pytorch.whl", weights)
    one, other = (find_detector_weights(SPEC, str(path)) for path in (weights, wheel))
    assert one.id == other.id
    frame = draw_faces([(0, 30, 20)])[None]
    assert np.array_equal(found_in(frame, str(weights))[0].boxes, found_in(frame, str(wheel))[0].boxes)


def test_wrong_weights_are_refused_with_the_remedy(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mtcnn has no default weights: give a folder with"):
        find_detector_weights(SPEC, "default")
    with pytest.raises(UsageError, match="nowhere: no such file or folder; give a folder with"):
        find_detector_weights(SPEC, "nowhere")
    with pytest.raises(WeightsError, match=r"no pnet[.]pt in this folder"):
        find_detector_weights(SPEC, str(tmp_path))
    (tmp_path / "text.whl").write_text("no wheel")
    with pytest.raises(WeightsError, match="cannot be read as a wheel"):
        find_detector_weights(SPEC, str(tmp_path / "text.whl"))
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("other/pnet.pt", b"")
    with pytest.raises(WeightsError, match=r"no rnet[.]pt in this file"):
        find_detector_weights(SPEC, str(tmp_path / "other.whl"))
    for name in ("pnet.pt", "rnet.pt", "onet.pt"):
        (tmp_path / name).write_bytes((weights / "pnet.pt").read_bytes())
    with pytest.raises(WeightsError, match=r"rnet[.]pt: these are not weights of mtcnn"):
        found_in(draw_faces([])[None], str(tmp_path))
    (tmp_path / "pnet.pt").write_bytes(b"damaged")
    with pytest.raises(VidpipeError, match=r"pnet[.]pt"):
        found_in(draw_faces([])[None], str(tmp_path))


def test_faces_are_written_as_coco_json(weights: Path, tmp_path: Path) -> None:
    video = write_frames(tmp_path / "a.mp4", [draw_faces([(0, 30, 20)])] * 2)
    chosen = ("--detector", "mtcnn", "--detector-weights", weights)
    result = run("regions", "detect", video, *chosen, "-o", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    assert '"name": "face"' in (tmp_path / "found.json").read_text()


# Against facenet-pytorch


def check_equal(facenet_pytorch: ModuleType, frame: NDArray[np.uint8], found: Detections) -> int:
    """Compare with the package's own cascade, which returns boxes beyond the edges; return the number of faces."""
    own = facenet_pytorch.MTCNN(keep_all=True, select_largest=False)
    boxes, scores = own.detect(Image.fromarray(frame))
    if boxes is None:
        assert len(found) == 0
        return 0
    height, width = frame.shape[:2]
    assert np.abs(np.asarray(boxes, float).clip(0, [width, height] * 2) - found.boxes).max() < 2e-3
    assert np.abs(np.asarray(scores, float) - found.scores).max() < 1e-5
    return len(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(512, 600), (300, 350), (33, 40)])
def test_a_photo_has_the_face_that_facenet_pytorch_finds(
    facenet_pytorch: ModuleType, facenet_wheel: Path, size: tuple[int, int]
) -> None:
    frame = np.asarray(Image.open(PHOTO).convert("RGB").resize(size))
    (found,) = found_in(frame[None], str(facenet_wheel))
    assert check_equal(facenet_pytorch, frame, found) == 1
    assert found.scores[0] > 0.999


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_several_photos_beside_each_other_have_a_face_each(facenet_pytorch: ModuleType, facenet_wheel: Path) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    frame = np.full((400, 700, 3), 90, np.uint8)
    for left, height in ((10, 120), (150, 200), (360, 360)):
        one = np.asarray(photo.resize((height * 512 // 600, height)))
        frame[20 : 20 + one.shape[0], left : left + one.shape[1]] = one
    (found,) = found_in(frame[None], str(facenet_wheel))
    assert check_equal(facenet_pytorch, frame, found) == 3


@pytest.mark.slow
@pytest.mark.real_clips
@pytest.mark.filterwarnings("ignore")
def test_real_clips_have_the_faces_that_facenet_pytorch_finds(
    facenet_pytorch: ModuleType, facenet_wheel: Path, shared_data: Path
) -> None:
    num_faces = 0
    for name in ("no_fight/nofi001.mp4", "no_fight/nofi114.mp4", "fight/fi134.mp4", "no_fight/nofi118.mp4"):
        _, frames = read_frames(
            shared_data / "clips/fight" / name, lambda reader: uniform_indices(len(reader.pts_seconds), 4)
        )
        for frame, found in zip(frames, found_in(frames, str(facenet_wheel)), strict=True):
            num_faces += check_equal(facenet_pytorch, frame, found)
    assert num_faces > 5


@pytest.mark.slow
def test_the_networks_have_the_names_and_shapes_of_facenet_pytorchs(facenet_pytorch: ModuleType) -> None:
    network = bright_mtcnn()
    for part, own in (("pnet", "PNet"), ("rnet", "RNet"), ("onet", "ONet")):
        wanted = {name: one.shape for name, one in getattr(facenet_pytorch, own)(pretrained=False).state_dict().items()}
        assert {name: one.shape for name, one in network.get_submodule(part).state_dict().items()} == wanted
    assert sum(one.numel() for one in network.parameters()) == SPEC.num_parameters
    assert torch.is_tensor(network(torch.zeros(3, 40, 40))[0])
