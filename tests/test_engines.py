import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.media import write_video
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.engines.load import _has_cuda, load_engine
from vidpipe.backbones.engines.onnx import export_path
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.errors import UsageError

LITE0 = BACKBONES["efficientnet_lite0"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of ~/.cache/torch."""
    return tmp_path_factory.mktemp("torch")


@pytest.fixture(autouse=True)
def in_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(cache))


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    smooth = np.random.default_rng(0).integers(0, 256, (5, 3, 14, 14), dtype=np.uint8)
    return smooth.repeat(16, axis=2).repeat(16, axis=3)


def engine(
    name: str,
    *,
    pool: str = "avg",
    precision: str = "full",
    num_frames: int = 10**6,
    weights: WeightsFile | None = None,
) -> Engine:
    return load_engine(
        LITE0,
        weights=weights or find_weights(LITE0, "default"),
        pool=pool,
        device="cpu",
        engine=name,
        precision=precision,
        num_frames=num_frames,
    )


def features(engine: Engine, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return engine.start(frames)()[0]


@pytest.mark.slow
def test_onnx_gives_pytorchs_features(frames: NDArray[np.uint8]) -> None:
    expected = features(engine("torch"), frames)
    exported = engine("onnx")
    assert (exported.name, exported.dim, exported.preprocessing) == ("onnx", 1280, LITE0.preprocessing)
    for some in (slice(0, 5), slice(0, 1), slice(1, 4)):
        assert np.allclose(features(exported, frames[some]), expected[some], atol=1e-4)


@pytest.mark.slow
def test_half_precision_is_within_a_hundredth_and_never_by_onnx(frames: NDArray[np.uint8]) -> None:
    expected, halved = (features(engine("auto", precision=name), frames) for name in ("full", "half"))
    difference = np.linalg.norm(halved - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert (difference > 0).all()
    assert (difference < 1e-2).all()
    assert halved.dtype == np.float32
    with pytest.raises(UsageError, match="use --engine torch with --precision half"):
        engine("onnx", precision="half")


@pytest.mark.slow
def test_an_export_is_made_once_and_kept(cache: Path) -> None:
    engine("onnx")
    path = export_path(LITE0, find_weights(LITE0, "default"), "avg")
    assert path.is_relative_to(cache)
    written = path.stat().st_mtime_ns
    engine("onnx")
    assert path.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_damaged_export_is_made_again() -> None:
    lenet5 = BACKBONES["lenet5"]  # the one that is exported soonest
    weights = find_weights(lenet5, "default")
    path = export_path(lenet5, weights, "none")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no network")
    made_again, expected = (
        load_engine(lenet5, weights=weights, pool="none", device="cpu", engine=name, num_frames=10**6)
        for name in ("auto", "torch")
    )
    assert made_again.name == "onnx"
    digits = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    assert np.allclose(features(made_again, digits), features(expected, digits), atol=1e-4)
    assert path.stat().st_size > 100_000


@pytest.mark.slow
def test_an_export_is_never_taken_for_that_of_other_preprocessing() -> None:
    """LeNet-5 under two means: the graph that is exported normalises, so each needs its own."""
    lenet5 = BACKBONES["lenet5"]
    shifted = replace(lenet5, preprocessing=replace(lenet5.preprocessing, mean=(0.5, 0.5, 0.5)))
    weights = find_weights(lenet5, "default")
    digits = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    rows = {
        (name, spec.preprocessing.mean): features(
            load_engine(spec, weights=weights, pool="none", device="cpu", engine=name, num_frames=10**6), digits
        )
        for spec in (lenet5, shifted)
        for name in ("onnx", "torch")
    }
    for mean in (lenet5.preprocessing.mean, shifted.preprocessing.mean):
        assert np.allclose(rows["onnx", mean], rows["torch", mean], atol=1e-4)
    assert not np.allclose(rows["torch", lenet5.preprocessing.mean], rows["torch", (0.5, 0.5, 0.5)], atol=1e-2)


def test_an_exports_name_changes_with_all_that_the_graph_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    lenet5 = BACKBONES["lenet5"]
    weights = find_weights(lenet5, "default")
    specs = [replace(lenet5, kind="map"), replace(lenet5, builder="LeNet6"), replace(lenet5, feature_map="layer1")]
    others = [export_path(spec, weights, "none") for spec in specs]
    others += [export_path(lenet5, replace(weights, id="1" * 64), "none"), export_path(lenet5, weights, "avg")]
    own = export_path(lenet5, weights, "none")
    monkeypatch.setattr("vidpipe.backbones.engines.onnx.version", lambda name: "99")
    assert len({own, *others, export_path(lenet5, weights, "none")}) == len(others) + 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is always asked")
@pytest.mark.parametrize("name", ["nvidiactl", "dxg", "nvhost-gpu", "kfd"])
def test_torch_is_asked_for_a_gpu_wherever_a_driver_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not _has_cuda(tmp_path)
    (tmp_path / name).touch()
    assert _has_cuda(tmp_path)


def test_auto_does_not_export_for_a_few_frames_or_for_random_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert engine("auto", num_frames=16).name == "torch"
    assert engine("auto", weights=find_weights(LITE0, "random")).name == "torch"


def test_auto_leaves_transformers_to_torch(tmp_path: Path) -> None:
    spec = BACKBONES["vit_tiny"]
    save_file(timm.create_model(spec.builder).state_dict(), tmp_path / "vit.safetensors")
    weights = find_weights(spec, str(tmp_path / "vit.safetensors"))
    made = load_engine(spec, weights=weights, pool="auto", device="cpu", engine="auto", num_frames=10**6)
    assert made.name == "torch"


def test_onnx_does_not_go_with_a_gpu() -> None:
    with pytest.raises(UsageError, match="--engine torch"):
        load_engine(
            LITE0,
            weights=find_weights(LITE0, "default"),
            pool="avg",
            device="cuda",
            engine="onnx",
            num_frames=1,
        )


def test_an_extraction_with_onnx_loads_no_torch_in_its_main_process(tmp_path: Path) -> None:
    engine("onnx")
    video = write_video(tmp_path / "a.mp4", 5)
    program = f"""
import sys
from pathlib import Path
from vidpipe.config import ExtractConfig
from vidpipe.stages.extract import extract
from vidpipe.video.files import find_videos

if __name__ == "__main__":
    config = ExtractConfig(backbone="efficientnet_lite0", device="cpu", workers=1)
    assert extract(find_videos([Path({str(video)!r})]), Path({str(tmp_path / "s")!r}), config=config).num_stored == 1
    assert "torch" not in sys.modules
"""
    (tmp_path / "main.py").write_text(program)
    subprocess.run([sys.executable, str(tmp_path / "main.py")], check=True)
