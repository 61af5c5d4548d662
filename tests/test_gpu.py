"""What only a CUDA device can show; skipped by name where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.annotated import write_annotated_figures
from tests.media import drifting_frames, write_frames, write_video
from tests.trainings import QUICK, rising_and_falling
from vidpipe.backbones.engines.cuda_graphs import EAGER_BATCHES, GraphedNetwork
from vidpipe.backbones.engines.torch import TorchEngine
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import BACKBONES
from vidpipe.backbones.weights import find_weights
from vidpipe.config import DetectorConfig, ExtractConfig, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
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
from vidpipe.video.reader import open_video
from vidpipe.video.reader_nvdec import check_nvdec

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


@pytest.mark.parametrize(("name", "precision"), [("efficientnet_lite0", "full"), ("vit_tiny", "half")])
def test_a_cuda_graph_gives_the_features_of_the_network(name: str, precision: str) -> None:
    batches = np.random.default_rng(0).integers(0, 256, (EAGER_BATCHES + 3, 8, 3, 224, 224), dtype=np.uint8)
    spec = BACKBONES[name]
    weights = find_weights(spec, "random")
    plain = TorchEngine(load_backbone(spec, weights=weights, device="cuda"), precision=precision)
    network = load_backbone(spec, weights=weights, device="cuda")
    graphed = TorchEngine(network, precision=precision)
    graphed._compute = GraphedNetwork(graphed._backbone, measure=lambda compute, batch: 1.0 - (compute is not network))
    for batch in [*batches, batches[0, :3]]:
        ours, theirs = graphed.start(batch)()[0], plain.start(batch)()[0]
        assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-2
    assert graphed._compute._graph is not None


def test_a_network_in_half_precision_has_its_channels_last() -> None:
    engine = TorchEngine(load_backbone(BACKBONES["efficientnet_lite0"], device="cuda"), precision="half")
    kernels = [weight for weight in engine._backbone.parameters() if weight.ndim == 4 and weight.shape[1] > 1]
    assert kernels
    assert all(weight.dtype == torch.float16 for weight in kernels)
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


@pytest.mark.parametrize("size", [(320, 240), (530, 532), (1920, 1080)])
def test_the_gpus_decoder_gives_nearly_the_pixels_of_the_cpus(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("torchcodec", reason="torchcodec is not installed")
    check_nvdec()
    width, height = size
    for number in range(2):  # the second file finds what the first one left in torchcodec's cache
        frames = drifting_frames(30, width, height - 2 * number)
        path = write_frames(tmp_path / f"{number}.mp4", frames, options={"g": "10", "bf": "2"})
        reader, expected = (open_video(path, methods=(method,)) for method in ("nvdec", "pyav"))
        assert reader.info.decoder == "nvdec"
        index = [0, 7, 15, 29]
        ours, theirs = (np.concatenate(list(one.blocks(index))).astype(int) for one in (reader, expected))
        assert np.abs(ours - theirs).mean() < 2
        assert np.array_equal(reader.pts_seconds, expected.pts_seconds)


def test_an_extraction_by_the_gpus_decoder_says_so_in_the_key(tmp_path: Path) -> None:
    pytest.importorskip("torchcodec", reason="torchcodec is not installed")
    write_video(tmp_path / "videos" / "a.mp4", 20, width=320, height=240)
    config = ExtractConfig(backbone="efficientnet_lite0", decoder="nvdec")
    extract(find_videos([tmp_path / "videos"]), tmp_path / "s", config=config)
    store = FeatureStore.open(tmp_path / "s")
    assert store.key.decoding == {"decoder": "nvdec"}
    assert store.info("a.mp4").decoder == "nvdec"


def test_features_in_the_memory_of_the_gpu_are_the_padded_ones(tmp_path: Path) -> None:
    store, videos = rising_and_falling(tmp_path)
    dataset, device = SequenceDataset(store, videos, ["falling", "rising"]), torch.device("cuda")
    for ours, theirs in zip(dataset.resident_on(device).batches(7), dataset.batches(7), strict=True):
        assert ours.features.device.type == "cuda"
        assert torch.equal(ours.features.cpu(), theirs.features)
        assert torch.equal(ours.lengths, theirs.lengths)


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
