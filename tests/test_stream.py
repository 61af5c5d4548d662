"""A stream resolves once what changes a feature, from the settings of an extraction or from the key of a run."""

import base64
import io
from collections import UserDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.models import get_model
from torchvision.transforms.v2.functional import normalize

from tests.commands import LENET as LENET_OPTIONS
from tests.commands import run
from tests.media import write_frames
from vidpipe.backbones import table
from vidpipe.backbones.stream import WEIGHTS_NOT_READ, Stream
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.errors import RunError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.runs.run import Run
from vidpipe.stages.extract import extract
from vidpipe.stages.predict import predict
from vidpipe.video.files import find_videos
from vidpipe.video.thumbnails import read_thumbnails

LENET = ExtractConfig(backbone="lenet5", device="cpu", workers=1, num_frames=4)


class CountedTable(UserDict[str, Any]):
    """A table of backbones that counts how often a backbone is looked up."""

    num_found = 0

    def __getitem__(self, name: str) -> Any:
        CountedTable.num_found += 1
        return super().__getitem__(name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountedTable]:
    monkeypatch.setattr(table, "BACKBONES", CountedTable(table.BACKBONES))
    CountedTable.num_found = 0
    return CountedTable


def test_an_extraction_and_a_prediction_find_the_backbone_once(
    made: Path, tmp_path: Path, counted: type[CountedTable]
) -> None:
    videos = find_videos([made / "new/a.mp4"])
    assert extract(videos, tmp_path / "s", config=LENET).num_stored == 1
    assert counted.num_found == 1
    assert len(list(predict(Run.open(made / "run"), videos, config=LENET))) == 1
    assert counted.num_found == 2


def test_a_dry_run_finds_the_backbone_once_and_an_unknown_one_is_refused(
    made: Path, counted: type[CountedTable], tmp_path: Path
) -> None:
    dry_run = ("extract", made / "new", "--num-frames", 4, "--dry-run", "-o")
    assert run(*dry_run, made / "features", "--backbone", "lenet5").exit_code == 0
    assert counted.num_found == 1
    result = run(*dry_run, tmp_path / "s", "--backbone", "lenet6")
    assert result.exit_code == 2
    assert "did you mean 'lenet5'?" in result.stderr


def test_the_key_of_the_settings_is_the_key_of_the_store(made: Path) -> None:
    stream = Stream.of(LENET)
    assert stream.key == FeatureStore.open(made / "features").key
    assert stream.key.resolve_sampling() == Sampling("uniform", num_frames=4)
    assert stream.weights.id == stream.key.weights
    assert Stream.of_key(stream.key, weights="default", owner="run") == stream


def test_a_pooling_that_does_not_go_with_the_backbone_is_refused_before_the_weights_are_looked_for() -> None:
    with pytest.raises(UsageError, match="--pool max does not go with lenet5"):
        Stream.of(replace(LENET, pool="max", weights="nowhere.pth"))


def test_weights_can_be_left_unread() -> None:
    stream = Stream.of(replace(LENET, weights="nowhere.pth"), weights=WEIGHTS_NOT_READ)
    assert stream.weights.path is None


def test_a_run_of_other_weights_or_of_an_unknown_backbone_is_refused_by_its_path() -> None:
    key = Stream.of(LENET).key
    with pytest.raises(RunError, match=r"^my_run: .* other weights of lenet5 .* give that file with --weights"):
        Stream.of_key(replace(key, weights="0" * 64), weights="default", owner="my_run")
    with pytest.raises(RunError, match=r"^my_run: its backbone is not available: unknown backbone 'new_net'"):
        Stream.of_key(replace(key, backbone="new_net"), weights="default", owner="my_run")


def test_random_weights_of_a_key_need_no_file() -> None:
    stream = Stream.of_key(replace(Stream.of(LENET).key, weights="random"), weights="nowhere.pth", owner="run")
    assert (stream.weights.id, stream.weights.path) == ("random", None)


def test_the_engine_runs_the_backbone_of_the_stream() -> None:
    engine = Stream.of(LENET).load_engine(device="cpu", engine="torch", num_videos=1)
    assert (engine.name, engine.device, engine.dim) == ("torch", "cpu", 84)
    assert engine.preprocessing == Stream.of(LENET).spec.preprocessing


# The whole picture

WHOLE = (*LENET_OPTIONS, "--num-frames", 4, "--crop", "whole")


def wide_frames(side_colour: tuple[int, int, int]) -> list[NDArray[np.uint8]]:
    """Eight frames of 256 × 64, grey in the middle; the centre crop sees nothing of the sides."""
    frame = np.full((64, 256, 3), 128, np.uint8)
    frame[:, :64] = frame[:, -64:] = side_colour
    return [frame] * 8


def distance(store: FeatureStore, one: str, other: str) -> float:
    return float(np.abs(store[one].features - store[other].features).max())


def test_whole_pictures_show_the_sides_and_centre_crops_do_not(tmp_path: Path) -> None:
    write_frames(tmp_path / "in/dark.mp4", wide_frames((0, 0, 0)))
    write_frames(tmp_path / "in/bright.mp4", wide_frames((255, 255, 255)))
    stores = {}
    for crop in ("centre", "whole"):
        extracted = run("extract", tmp_path / "in", "-o", tmp_path / crop, *LENET_OPTIONS, "--crop", crop)
        assert extracted.exit_code == 0, extracted.output
        stores[crop] = FeatureStore.open(tmp_path / crop)
    assert distance(stores["whole"], "dark.mp4", "bright.mp4") > 0.3
    assert distance(stores["centre"], "dark.mp4", "bright.mp4") < 0.05


def test_a_store_of_centre_crops_refuses_whole_pictures_in_plain_words(made: Path) -> None:
    refused = run("extract", made / "videos", "-o", made / "features", *WHOLE)
    assert refused.exit_code == 1
    assert "holds lenet5 features, centre crops; you asked for lenet5 features, whole pictures;" in refused.stderr


def test_a_run_on_whole_pictures_predicts_from_them(made: Path, tmp_path: Path) -> None:
    assert run("extract", made / "videos", "-o", tmp_path / "features", *WHOLE).exit_code == 0
    trained = run("train", tmp_path / "features", "-o", tmp_path / "run", "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    command = ("predict", tmp_path / "run", made / "videos/left", "--device", "cpu", "--format", "csv")
    fresh, stored = run(*command), run(*command, "--store", tmp_path / "features")
    assert fresh.exit_code == stored.exit_code == 0, fresh.output
    assert fresh.stdout == stored.stdout
    (key,) = Run.open(tmp_path / "run").keys.values()
    assert Stream.of_key(key, weights="default", owner="run").spec.preprocessing.resize == (32, 32)


def test_thumbnails_show_what_the_model_sees(tmp_path: Path) -> None:
    write_frames(tmp_path / "wide.mp4", wide_frames((255, 255, 255)))
    videos, centre = find_videos([tmp_path / "wide.mp4"]), Stream.of(LENET).spec.preprocessing
    for preprocessing, left in ((centre, 128), (centre.whole, 255)):
        thumbnails, _ = read_thumbnails(videos, preprocessing.as_dict())
        content = base64.b64decode(thumbnails["wide.mp4"][0].uri.partition(",")[2])
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("L"))  # (H, W)
        assert picture.shape[0] == picture.shape[1]
        assert picture[:, 3].mean() == pytest.approx(left, abs=8)
        assert picture[:, picture.shape[1] // 2].mean() == pytest.approx(128, abs=8)


@pytest.mark.parametrize("backbone", ["r3d_18", "flow"])
def test_whole_pictures_of_a_model_that_sees_windows_are_refused(backbone: str, made: Path, tmp_path: Path) -> None:
    refused = run("extract", made / "new", "-o", tmp_path / "s", "--backbone", backbone, "--crop", "whole")
    assert refused.exit_code == 2
    assert f"--crop whole goes with image models, and {backbone} sees windows of frames; leave" in refused.stderr


# The input size

SMALL = ExtractConfig(backbone="resnet18", weights="random", input_size=64, device="cpu", num_frames=4)


def test_a_network_sees_pictures_of_the_size_that_is_asked_for() -> None:
    stream = Stream.of(SMALL)
    engine = stream.load_engine(device="cpu", engine="torch", num_videos=1)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    features, _ = engine.start(pictures)()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_model("resnet18", weights=None).eval()
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = model(normalize(torch.from_numpy(pictures) / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)
    assert engine.preprocessing.size == (64, 64)
    assert engine.preprocessing.resize == 73  # 256 of 224 are 73.1 of 64: as much of the picture is seen


@pytest.mark.parametrize("crop", ["centre", "whole"])
@pytest.mark.parametrize("backbone", ["resnet18", "r3d_18", "timm/vit_tiny_patch16_224"])
def test_a_run_has_the_input_size_of_its_features(backbone: str, crop: str) -> None:
    stream = Stream.of(replace(SMALL, backbone=backbone, crop=crop))
    assert min(stream.spec.preprocessing.size) == 64
    assert Stream.of_key(stream.key, weights="default", owner="run") == stream


def test_the_input_size_of_a_backbone_itself_changes_no_key() -> None:
    assert Stream.of(replace(LENET, input_size=32)).key == Stream.of(LENET).key


@pytest.mark.parametrize(("backbone", "message"), [
    ("inception_v3", "--input-size 64: inception_v3 cannot see pictures of this size, and its own is 299; give"),
    ("lenet5", "--input-size 64: lenet5 cannot see pictures of this size, and its own is 32"),
    ("mvit_v1_b", "--input-size 64: mvit_v1_b cannot see pictures of this size"),
    ("flow", "--input-size 64 goes with networks, and flow is none; leave it out"),
])  # fmt: skip
def test_an_input_size_that_a_backbone_cannot_see_is_refused(
    backbone: str, message: str, made: Path, tmp_path: Path
) -> None:
    options = ("--backbone", backbone, "--weights", "random", "--input-size", 64)
    refused = run("extract", made / "new", "-o", tmp_path / "s", *options)
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr
    assert refused.stderr.count("\n") <= 3
    assert not (tmp_path / "s").exists()
