"""Video encoders of transformers: each is compared with the classes of its own library, on weights that these save."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from tests.commands import run
from tests.media import moving_square, write_frames, write_video
from vidpipe.backbones.downloads import sha256
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.sizes import count_backbone
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import UsageError, WeightsError
from vidpipe.features.store import FeatureStore
from vidpipe.records import Preprocessing, Window
from vidpipe.video.resize import resize_and_crop

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.slow  # transformers takes seconds to import

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIDEOMAE = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 32,
}
VJEPA2 = {
    "crop_size": 32,
    "frames_per_clip": 8,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_pooler_layers": 1,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
PROCESSORS: dict[str, Callable[[], Any]] = {
    "VideoMAE": lambda: transformers.VideoMAEImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=list(IMAGENET[0]),
        image_std=list(IMAGENET[1]),
    ),
    "VJEPA2": lambda: transformers.VJEPA2VideoProcessor(crop_size=32),
}
"""VideoMAE's repositories on the hub have a processor of images, those of V-JEPA 2 one of videos."""
CLASSES = (
    "VideoMAEForVideoClassification",
    "VideoMAEForPreTraining",
    "VideoMAEModel",
    "VJEPA2ForVideoClassification",
    "VJEPA2Model",
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def family_of(name: str) -> str:
    return "VideoMAE" if name.startswith("VideoMAE") else "VJEPA2"


def enliven(model: nn.Module) -> None:
    """Give every parameter values of its own: as drawn, normalisations do nothing and biases are zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def save(folder: Path, name: str, *, processor: bool = True, **changes: Any) -> Any:
    """Write a tiny model of a class of transformers, as its library does; the model."""
    family = family_of(name)
    settings = {**(VIDEOMAE if family == "VideoMAE" else VJEPA2), **changes}
    if family == "VideoMAE":
        settings.setdefault("use_mean_pooling", name.endswith("Classification"))  # as in the published ones
    torch.manual_seed(1)
    model = getattr(transformers, name)(getattr(transformers, f"{family}Config")(**settings)).eval()
    enliven(model)
    model.save_pretrained(folder)
    if processor:
        PROCESSORS[family]().save_pretrained(folder)
    return model


def video_of(num_frames: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(T, H, W, 3) smooth noise that drifts."""
    random = np.random.default_rng(0)
    scene = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    scene = scene.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return np.stack([np.roll(scene, 3 * number, axis=1) for number in range(num_frames)])


def pixels_of(name: str, video: NDArray[np.uint8], **settings: Any) -> Tensor:
    """(1, T, 3, H, W) what the library's own processor makes of a video."""
    processor = PROCESSORS[family_of(name)]()
    frames = [list(video)] if family_of(name) == "VideoMAE" else video
    result = processor(frames, return_tensors="pt", **settings)
    pixels: Tensor = next(iter(result.values()))
    return pixels


def tokens_of(model: Any, pixels: Tensor) -> Tensor:
    """(N, T, D) the last hidden state of the encoder."""
    base = getattr(model, model.base_model_prefix, model)
    keywords = {"skip_predictor": True} if model.base_model_prefix == "vjepa2" else {}
    tokens: Tensor = base(pixels, **keywords).last_hidden_state
    return tokens


def given_to_the_classifier(model: Any, pixels: Tensor) -> Tensor:
    """(N, D)"""
    model.classifier = nn.Identity()
    logits: Tensor = model(pixels).logits
    return logits


def load(folder: Path, *, pool: str = "auto") -> FrozenNetwork:
    spec = find_backbone(f"transformers/{folder}")
    return load_backbone(spec, weights=find_weights(spec, "default"), pool=pool, device="cpu")


def windows_of(backbone: FrozenNetwork, video: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(resize_and_crop(video, backbone.preprocessing))[None]


# features


@pytest.mark.parametrize("name", CLASSES)
def test_features_are_what_the_librarys_own_classes_make_of_a_video(name: str, tmp_path: Path) -> None:
    model = save(tmp_path, name)
    backbone = load(tmp_path)
    video = video_of(4 if family_of(name) == "VideoMAE" else 8)
    pixels = pixels_of(name, video)
    with torch.no_grad():
        if name.endswith("Classification"):
            expected = given_to_the_classifier(model, pixels)
        else:
            expected = tokens_of(model, pixels).mean(dim=1)
    features = backbone(windows_of(backbone, video))
    assert features.shape == (1, 24)
    assert expected.std() > 0.05
    assert (features - expected).abs().max() < 1e-5
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_mean_of_v_jepa_2s_tokens_is_a_pooling_beside_its_attentive_pooler(tmp_path: Path) -> None:
    model = save(tmp_path, "VJEPA2ForVideoClassification")
    assert find_backbone(f"transformers/{tmp_path}").poolings == ("attention", "tokens")
    backbone = load(tmp_path, pool="tokens")
    video = video_of(8)
    with torch.no_grad():
        expected = tokens_of(model, pixels_of("VJEPA2", video)).mean(dim=1)
    assert (backbone(windows_of(backbone, video)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("num_frames", [2, 6])
def test_v_jepa_2_sees_windows_that_are_shorter(num_frames: int, tmp_path: Path) -> None:
    model = save(tmp_path, "VJEPA2Model")
    backbone = load(tmp_path)
    video = video_of(num_frames)
    with torch.no_grad():
        expected = tokens_of(model, pixels_of("VJEPA2", video)).mean(dim=1)
    assert (backbone(windows_of(backbone, video)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("size", [(48, 64), (64, 48), (90, 160), (24, 30)])
def test_frames_are_prepared_as_the_librarys_processor_does(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    save(tmp_path, name)
    backbone = load(tmp_path)
    video = video_of(2, *size)
    ours = backbone.normalise(windows_of(backbone, video))
    assert (ours - pixels_of(name, video)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["VideoMAEModel", "VJEPA2Model"])
def test_where_a_crop_cannot_be_central_it_starts_at_the_pixel_of_torchvision(name: str, tmp_path: Path) -> None:
    """The library rounds 5.5 down to 5; torchvision, and the code of V-JEPA 2's authors, round it to 6."""
    save(tmp_path, name)
    backbone = load(tmp_path)
    video = video_of(2, 36 if name == "VJEPA2Model" else 32, 43)
    resized = pixels_of(name, video, do_center_crop=False)
    assert resized.shape[-1] - backbone.input_size == 11
    ours = backbone.normalise(windows_of(backbone, video))
    assert (ours - center_crop(resized, [32, 32])).abs().max() < 1e-5


# descriptions


@pytest.mark.parametrize(
    ("name", "window"),
    [("VideoMAEModel", Window(4, 7.5, 4)), ("VJEPA2Model", Window(8, 4.0, 2, multiple=2))],
)
def test_a_description_is_read_from_the_files_of_the_model(name: str, window: Window, tmp_path: Path) -> None:
    save(tmp_path, name)
    spec = find_backbone(f"transformers/{tmp_path}")
    assert (spec.name, spec.dim, spec.family) == (f"transformers/{tmp_path}", 24, "clip")
    assert (spec.poolings, spec.window) == (("tokens",), window)
    assert spec.preprocessing == Preprocessing(36 if name == "VJEPA2Model" else 32, 32, "bilinear", *IMAGENET)


def test_the_published_settings_are_those_of_the_papers(tmp_path: Path) -> None:
    for folder, values in {"videomae": {"model_type": "videomae"}, "vjepa2": {"model_type": "vjepa2"}}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(values))
    videomae, vjepa2 = (find_backbone(f"transformers/{tmp_path}/{folder}") for folder in ("videomae", "vjepa2"))
    assert (videomae.dim, videomae.window) == (768, Window(16, 7.5, 16))
    assert (vjepa2.dim, vjepa2.window) == (1024, Window(64, 4.0, 2, multiple=2))
    assert videomae.preprocessing == Preprocessing(224, 224, "bilinear", *IMAGENET)
    assert vjepa2.preprocessing == Preprocessing(292, 256, "bilinear", *IMAGENET)


def test_random_weights_need_the_configuration_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vjepa2", **VJEPA2}))
    spec = find_backbone(f"transformers/{tmp_path}")
    backbones = [load_backbone(spec, weights=find_weights(spec, "random"), device="cpu") for _ in range(2)]
    windows = windows_of(backbones[0], video_of(8))
    ours, again = (backbone(windows) for backbone in backbones)
    assert torch.equal(ours, again)
    assert ours.isfinite().all()


def test_a_relative_folder_is_looked_up_from_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "model", "VideoMAEModel")
    monkeypatch.chdir(tmp_path)
    spec = find_backbone("transformers/./model")
    assert find_weights(spec, "default").id == sha256(tmp_path / "model" / "model.safetensors")


def test_the_listing_has_the_poolings_the_window_and_the_size(tmp_path: Path) -> None:
    model = save(tmp_path, "VJEPA2ForVideoClassification")
    spec = find_backbone(f"transformers/{tmp_path}")
    used = [one for name, one in model.named_parameters() if "predictor" not in name and "classifier" not in name]
    assert count_backbone(spec).num_parameters == sum(one.numel() for one in used)
    shown = run("backbones", spec.name).stdout
    for line in ("attention, tokens", "8 at 4 fps, at least 2", f"file:{tmp_path}/model.safetensors"):
        assert line in shown
    row = json.loads(run("backbones", spec.name, "--format", "json").stdout)
    assert (row["here"], row["kind"], row["gmacs"] > 0) == (True, "clip", True)


# weights


def test_a_file_of_weights_takes_the_place_of_the_folders(tmp_path: Path) -> None:
    model = save(tmp_path / "model", "VideoMAEForVideoClassification")
    other = tmp_path / "other.safetensors"
    (tmp_path / "model" / "model.safetensors").rename(other)
    spec = find_backbone(f"transformers/{tmp_path}/model")
    backbone = load_backbone(spec, weights=find_weights(spec, str(other)), device="cpu")
    assert backbone.weights_id == sha256(other)
    video = video_of(4)
    with torch.no_grad():
        expected = given_to_the_classifier(model, pixels_of("VideoMAE", video))
    assert (backbone(windows_of(backbone, video)) - expected).abs().max() < 1e-5
    with pytest.raises(WeightsError, match=r"there is no .*model\.safetensors; save the model .* or give a file with"):
        find_weights(spec, "default")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", "VideoMAEModel")
    save(tmp_path / "b", "VideoMAEModel", hidden_size=48)
    spec = find_backbone(f"transformers/{tmp_path}/a")
    weights = find_weights(spec, str(tmp_path / "b" / "model.safetensors"))
    with pytest.raises(WeightsError, match=r"these are not weights of transformers/.*/a: .* of another shape"):
        load_backbone(spec, weights=weights, device="cpu")


def test_a_model_without_its_normalisation_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "VideoMAEForVideoClassification")
    path = tmp_path / "model.safetensors"
    tensors = {name: one for name, one in safetensors.torch.load_file(path).items() if "fc_norm" not in name}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"2 missing \(fc_norm\.bias, fc_norm\.weight\)"):
        load(tmp_path)


# the hub


def in_cache(cache: Path, source: Path, repository: str, *files: str) -> None:
    """Put files of a model where huggingface_hub would have downloaded them."""
    snapshot = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).write_bytes((source / file).read_bytes())
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_model_of_the_hub_is_read_from_the_hubs_cache(cache: Path, tmp_path: Path) -> None:
    save(tmp_path / "model", "VJEPA2Model")
    files = ("config.json", "model.safetensors", "video_preprocessor_config.json")
    in_cache(cache, tmp_path / "model", "owner/vjepa2-tiny", *files)
    spec = find_backbone("transformers/owner/vjepa2-tiny")
    assert spec.weights == "https://huggingface.co/owner/vjepa2-tiny/resolve/main/model.safetensors"
    weights = find_weights(spec, "default")
    assert weights.id == sha256(tmp_path / "model" / "model.safetensors")
    ours, local = load_backbone(spec, weights=weights, device="cpu"), load(tmp_path / "model")
    windows = windows_of(local, video_of(8))
    assert torch.equal(ours(windows), local(windows))


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        find_backbone("transformers/facebook/vjepa2-vitl-fpc64-256")
    for message in (
        "config.json cannot be downloaded",
        "vidpipe backbones --download transformers/facebook/vjepa2-vitl-fpc64-256",
        "models--facebook--vjepa2-vitl-fpc64-256",
        str(cache),
        "https://huggingface.co/facebook/vjepa2-vitl-fpc64-256",
        "--backbone transformers/./FOLDER",
    ):
        assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_a_network_missing_weights_of_a_known_model_are_named(cache: Path, tmp_path: Path) -> None:
    save(tmp_path / "model", "VideoMAEModel")
    in_cache(cache, tmp_path / "model", "owner/model", "config.json", "preprocessor_config.json")
    spec = find_backbone("transformers/owner/model")
    with pytest.raises(WeightsError, match=r"Download .*owner/model/resolve/main/model\.safetensors .*--weights FILE"):
        find_weights(spec, "default")


# what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformers/./nowhere", "there is no folder nowhere; put the saved model back there, or link it there"),
        ("transformers/two words", "neither a name on the Hugging Face hub (transformers/OWNER/MODEL) nor a folder"),
    ],
)
def test_a_model_that_is_not_there_is_reported(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        find_backbone(name)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("config.json", None, UsageError, "has no config.json; name a model saved by"),
        ("config.json", "{", WeightsError, "config.json: cannot be read as JSON"),
        ("config.json", "[]", WeightsError, "holds no configuration"),
        ("config.json", '{"model_type": "bert"}', UsageError, "'bert'; the video encoders that vidpipe opens are"),
        ("config.json", '{"model_type": "vjepa2", "hidden_size": "x"}', WeightsError, "its config.json is not valid"),
        ("config.json", '{"model_type": "vjepa2", "frames_per_clip": 7}', UsageError, "not a window of frames"),
        ("preprocessor_config.json", '{"do_resize": false}', UsageError, "does not resize, rescale and normalise"),
        ("preprocessor_config.json", '{"rescale_factor": 1.0}', UsageError, "rescale_factor 1.0, not 1/255"),
        ("preprocessor_config.json", '{"crop_size": 64}', UsageError, "frames of 64 × 64 pixels, and its config.json"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_reported(
    file: str, content: str | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    save(tmp_path, "VideoMAEModel")
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(error) as raised:
        find_backbone(f"transformers/{tmp_path}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.backbones.video_transformers.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"transformers/owner/model needs a package: pip install 'vidpipe\[transf"):
        find_backbone("transformers/owner/model")


def test_onnx_does_not_run_them(tmp_path: Path) -> None:
    save(tmp_path, "VideoMAEModel")
    spec = find_backbone(f"transformers/{tmp_path}")
    with pytest.raises(UsageError, match=r"--engine onnx runs image models, .* use --engine torch"):
        load_engine(spec, weights=find_weights(spec, "random"), pool="auto", device="cpu", engine="onnx", num_frames=1)


# from videos to predictions


@pytest.mark.parametrize("name", ["VideoMAEForVideoClassification", "VJEPA2ForVideoClassification"])
def test_a_run_on_such_features_predicts_and_names_a_folder_that_was_moved(name: str, tmp_path: Path) -> None:
    save(tmp_path / "model", name)
    for number in range(4):
        for label in ("left", "right"):
            frames = moving_square(number, to_the_right=label == "right")
            write_frames(tmp_path / "videos" / label / f"{number}.mp4", frames)
    backbone = f"transformers/{tmp_path}/model"
    options = ("--num-frames", 3, "--device", "cpu", "--workers", 1)
    extracted = run("extract", tmp_path / "videos", "-o", tmp_path / "s", "--backbone", backbone, *options)
    assert extracted.exit_code == 0, extracted.output
    key = FeatureStore.open(tmp_path / "s").key
    assert (key.backbone, key.weights) == (backbone, sha256(tmp_path / "model" / "model.safetensors"))
    assert key.pooling == ("attention" if name.startswith("VJEPA2") else "tokens")
    trained = run("train", tmp_path / "s", "-o", tmp_path / "run", "--head", "mean", "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    predict = ("predict", tmp_path / "run", tmp_path / "videos" / "left" / "0.mp4", "--device", "cpu", "--workers", 1)
    predicted = run(*predict, "--format", "json")
    assert predicted.exit_code == 0, predicted.output
    assert json.loads(predicted.stdout)["status"] == "ok"
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    moved = run(*predict)
    assert moved.exit_code == 1
    assert f"run: its backbone is not available: {backbone}: there is no folder {tmp_path}/model" in moved.stderr
    assert "put the saved model back there, or link it there" in moved.stderr
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    assert run(*predict, "--format", "json").stdout == predicted.stdout


def test_a_short_video_repeats_its_last_frame_as_often_as_the_model_needs(tmp_path: Path) -> None:
    save(tmp_path / "videomae", "VideoMAEModel")
    save(tmp_path / "vjepa2", "VJEPA2Model")
    write_video(tmp_path / "videos" / "a.mp4", 6, fps=10)  # 0.6 s: 5 frames at 7.5 fps, 3 at 4 fps
    write_video(tmp_path / "videos" / "b.mp4", 3, fps=10)  # 0.3 s: 3 frames at 7.5 fps, 2 at 4 fps
    for name, expected in {"videomae": [0, 1], "vjepa2": [1, 0]}.items():
        options = ("--backbone", f"transformers/{tmp_path}/{name}", "--device", "cpu", "--workers", 1)
        assert run("extract", tmp_path / "videos", "-o", tmp_path / f"s_{name}", *options).exit_code == 0
        store = FeatureStore.open(tmp_path / f"s_{name}")
        repeated = [store[video].rows.num_repeated for video in ("a.mp4", "b.mp4")]
        assert [0 if one is None else int(one.max()) for one in repeated] == expected


def test_nothing_of_the_library_reaches_the_user(tmp_path: Path) -> None:
    save(tmp_path / "model", "VideoMAEForVideoClassification")
    write_frames(tmp_path / "a.mp4", moving_square(0, to_the_right=True))
    command = [sys.executable, "-W", "error", "-m", "vidpipe", "extract", "a.mp4", "-o", "s", "--quiet"]
    command += ["--backbone", "transformers/./model", "--device", "cpu", "--workers", "1"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
