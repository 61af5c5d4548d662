"""What only a CUDA device can show; skipped by name where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.annotated import write_annotated_figures
from tests.media import write_video
from tests.trainings import QUICK, rising_and_falling
from vidpipe.backbones.engines.torch import TorchEngine
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import find_weights
from vidpipe.config import DetectorConfig, ExtractConfig, TrainConfig
from vidpipe.explain.places import NetworkView
from vidpipe.explain.shares import share_out
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import build_head
from vidpipe.regions.load import load_detector
from vidpipe.regions.table import find_detector
from vidpipe.regions.training.train import train_detector
from vidpipe.regions.weights import find_detector_weights
from vidpipe.stages.extract import extract
from vidpipe.stages.train import train
from vidpipe.video.files import find_videos

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_features_on_the_gpu_are_those_of_the_cpu() -> None:
    frames = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8)
    spec = BACKBONES["efficientnet_lite0"]
    on_cpu, on_gpu = (load_backbone(spec, device=device)(frames).cpu() for device in ("cpu", "cuda"))
    assert (on_cpu - on_gpu).norm() / on_cpu.norm() < 1e-2


def test_yolov3_finds_on_the_gpu_what_it_finds_on_the_cpu() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 120, 160), dtype=np.uint8)
    spec = find_detector("yolov3")
    weights = find_detector_weights(spec, "random")
    on_cpu, on_gpu = (load_detector(spec, weights, device=device).detect(frames) for device in ("cpu", "cuda"))
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert len(one) == len(other) > 0
        assert np.allclose(one.scores, other.scores, atol=1e-3)


@pytest.mark.parametrize(("precision", "tolerance"), [("full", 1e-3), ("half", 1e-2)])
def test_batches_in_flight_come_back_in_order(precision: str, tolerance: float) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 3, 224, 224), dtype=np.uint8)
    spec = BACKBONES["efficientnet_lite0"]
    on_gpu = TorchEngine(load_backbone(spec, device="cuda"), precision=precision)
    on_cpu = TorchEngine(load_backbone(spec, device="cpu"))
    for finish, batch in zip([on_gpu.start(batch) for batch in frames], frames, strict=True):
        (rows, seconds), (expected, _) = finish(), on_cpu.start(batch)()
        assert np.linalg.norm(rows - expected) / np.linalg.norm(expected) < tolerance
        assert seconds > 0


def test_extraction_takes_the_gpu_by_itself(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 20)
    extract(find_videos([tmp_path / "videos"]), tmp_path / "s", config=ExtractConfig(backbone="efficientnet_lite0"))
    assert FeatureStore.open(tmp_path / "s")["a.mp4"].features.shape == (16, 1280)


def test_training_on_the_gpu_learns(tmp_path: Path) -> None:
    store, videos = rising_and_falling(tmp_path)
    config = TrainConfig(**{**vars(QUICK), "device": "cuda"})
    assert train(store, videos, tmp_path / "run", config=config).evaluations["test"]["lstm"].top1 > 0.9


@pytest.mark.parametrize("detector", ["yolov3", "fcn8s", "ssdlite"])
def test_a_detector_learns_on_the_gpu_and_runs_on_the_cpu(tmp_path: Path, detector: str) -> None:
    write_annotated_figures(tmp_path)
    config = DetectorConfig(epochs=2, size=64, weights="random", device="cuda", batch_size=2)
    annotations, path = tmp_path / "annotations.json", tmp_path / "mine.safetensors"
    result = train_detector(annotations, tmp_path / "videos", path, detector=detector, config=config)
    assert result.best_epoch in (1, 2)
    spec = find_detector(detector)
    on_cpu = load_detector(spec, find_detector_weights(spec, str(path)), device="cpu")
    assert len(on_cpu.detect(np.zeros((2, 3, 48, 64), np.uint8))) == 2


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vit_tiny"])
def test_what_a_backbone_saw_is_divided_on_the_gpu_as_on_the_cpu(name: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 224, 224), dtype=np.uint8)
    spec, places = BACKBONES[name], []
    weights = find_weights(spec, "random")
    for device in ("cpu", "cuda"):
        view = NetworkView(load_backbone(spec, weights=weights, device=device), frames)
        torch.manual_seed(0)
        head = build_head("statistics", spec.dim, 3, TrainConfig()).eval()
        shares = share_out(head, view.features, torch.tensor([1.0, -1.0, 0.0]))
        found = view.places([(1.0, shares)])
        assert found is not None
        places.append(found)
    assert (places[0] - places[1]).norm() / places[0].norm() < 5e-2
