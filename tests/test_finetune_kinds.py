"""Fine-tuning of each kind of backbone: its features, one batch learned by heart, LoRA, and the memory of a step."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

import vidpipe
from tests.commands import run
from tests.media import moving_square, write_frames
from tests.tuning import STILL, make_clips, make_fit, no_checkpoint, tiny_stream
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.stream import Stream
from vidpipe.backbones.weights import find_weights
from vidpipe.config import ExtractConfig
from vidpipe.errors import TrainingError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.finetuning.augmentation import ClipChanges
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.frames import FrameCache
from vidpipe.finetuning.memory import StepMemory, check_memory, free_below, free_bytes
from vidpipe.video.files import find_videos

TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VIDEOMAE, VJEPA2 = "VideoMAE", "VJEPA2"
"""Tiny models of transformers: the mean of the tokens, normalised; an attentive pooler."""
SETTINGS: dict[str, dict[str, Any]] = {
    VIDEOMAE: {"image_size": 32, "num_frames": 4, "intermediate_size": 32, "use_mean_pooling": True},
    VJEPA2: {
        "crop_size": 32,
        "frames_per_clip": 8,
        "num_pooler_layers": 1,
        "pred_hidden_size": 12,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
    },
}


def slow(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture
def named(tmp_path: Path) -> Callable[[str], str]:
    """The name of a backbone; a class of transformers is saved first."""

    def its_name(name: str) -> str:
        if name not in SETTINGS:
            return name
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**TINY, **SETTINGS[name])
        model = getattr(transformers, f"{name}ForVideoClassification")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))  # as drawn, biases are zero
        model.save_pretrained(tmp_path / name)
        return f"transformers/{tmp_path / name}"

    return its_name


# Features


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for number in range(2):
        write_frames(folder / f"{number}.mp4", moving_square(number, to_the_right=number == 0))
    return folder


def decoded(stream: Stream, videos: Path, folder: Path) -> dict[str, Tensor]:
    """The frames of each video on the training path, as an extraction sees them."""
    cache = FrameCache(folder / "frames", stream.spec, stream.key.resolve_sampling(), frames_per_segment=3)
    files = find_videos([videos])
    cache.fill(files, max_gb=1, config=ExtractConfig(workers=1), on_video=lambda done, total: None)
    changes = ClipChanges(stream.spec.preprocessing, STILL, flips=False)
    clips = {file.id: cache.open(file) for file in files}
    return {name: changes.centre(its.pictures)[torch.from_numpy(its.row_pictures)] for name, its in clips.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "efficientnet_lite0", "torchvision/swin_t"),
        *slow("vit_tiny", "siglip_b16", "r2plus1d_18", "swin3d_t", VIDEOMAE, VJEPA2),
    ],
)
def test_frozen_features_through_the_training_path_are_those_of_the_extractor(
    name: str, videos: Path, named: Callable[[str], str], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"backbone": named(name), "num_frames": 2, "device": "cpu", "workers": 1}
    settings |= {} if name in SETTINGS else {"weights": "random", "input_size": 32}
    vidpipe.extract(videos, tmp_path / "features", **settings)
    stream = Stream.of(ExtractConfig(**settings))
    backbone = TunedBackbone(stream, STILL)
    stored = FeatureStore.open(tmp_path / "features")
    for video, frames in decoded(stream, videos, tmp_path).items():
        expected = torch.from_numpy(stored[video].features)
        assert expected.std() > 0
        for found in (backbone.extract(frames), backbone.features(frames).detach()):
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


# One batch


@pytest.mark.parametrize("name", slow("siglip_b16", "torchvision/swin_t", "swin3d_t", VIDEOMAE, VJEPA2))
def test_one_batch_is_learned_by_heart(name: str, named: Callable[[str], str], tmp_path: Path) -> None:
    stream = tiny_stream(named(name))
    unfreeze = "1" if name == "siglip_b16" else "all"  # of 93 million parameters, the last block and the pooling
    config = replace(STILL, unfreeze=unfreeze, epochs=40, patience=40, lr=1e-3, head_lr=2e-2, lr_decay=1.0)
    fit, _ = make_fit(stream, config)
    clips = make_clips(stream)
    progress = fit.run(clips, clips, no_checkpoint(tmp_path))
    assert progress.history[0].train_loss > 0.3
    assert progress.best_loss < 0.01


# LoRA


def frames_of(stream: Stream, num_rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_rows, *stream.spec.input_shape), dtype=torch.uint8, generator=generator)


def learn(backbone: TunedBackbone, frames: Tensor, num_steps: int = 3) -> list[nn.Parameter]:
    """Take a few steps; return the trained parameters, with the gradients of the last one."""
    parameters = [one for its in backbone.by_stage for one in its]
    optimiser = torch.optim.SGD(parameters, lr=0.3)
    for _ in range(num_steps):
        optimiser.zero_grad()
        features = backbone.features(frames)
        torch.autograd.backward((features * torch.linspace(-1, 1, features.shape[1])).sum())
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    return parameters


LORA = {
    "vit_tiny": 8,
    "torchvision/swin_t": 16,
    "torchvision/swin_v2_t": 24,
    "swin3d_t": 16,
    "siglip_b16": 8 + 10,
    VIDEOMAE: 12,
    VJEPA2: 34,
    "torchvision/vit_b_32": 8,
    "mvit_v2_s": 8,
    "timm/beit_base_patch16_224": 8,
}
"""By backbone, what the last stage gets: two matrices for each linear layer that its features depend on."""
OWN_SIZE = ("torchvision/vit_b_32", "mvit_v2_s")
"""Their positions are of the size of their input, which cannot be made smaller."""


@pytest.mark.parametrize(
    "name", [name if name == "torchvision/swin_t" else pytest.param(name, marks=pytest.mark.slow) for name in LORA]
)
@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")  # of BEiT
def test_all_that_lora_adds_learns_and_becomes_plain_weights(
    name: str, named: Callable[[str], str], tmp_path: Path
) -> None:
    if name in OWN_SIZE:
        stream = Stream.of(ExtractConfig(backbone=name, num_frames=1, weights="random"))
    else:
        stream = tiny_stream(named(name))
    frames = frames_of(stream, num_rows=1)
    frozen = TunedBackbone(stream, STILL).extract(frames)
    backbone = TunedBackbone(stream, replace(STILL, lora=2))
    assert torch.equal(backbone.extract(frames), frozen)
    parameters = learn(backbone, frames)
    assert len(parameters) == LORA[name]
    assert all(2 in one.shape and one.grad is not None and one.grad.abs().max() > 0 for one in parameters)
    adapted = backbone.extract(frames)
    assert (adapted - frozen).abs().max() > 1e-3 * frozen.abs().max()
    backbone.save(tmp_path / "w.safetensors")
    weights = find_weights(stream.spec, str(tmp_path / "w.safetensors"))
    loaded = load_backbone(stream.spec, weights=weights, device="cpu")
    with torch.no_grad():
        for merged in (backbone.extract(frames), loaded(frames)):
            assert (merged - adapted).abs().max() < 1e-5 * adapted.abs().max()


def test_lora_leaves_the_weights_as_they_were_until_they_are_saved() -> None:
    stream = tiny_stream("torchvision/swin_t")
    frames = frames_of(stream)
    backbone = TunedBackbone(stream, replace(STILL, lora=2))
    frozen = [one for one in backbone.network.parameters() if not one.requires_grad]
    before = [one.clone() for one in frozen]
    learn(backbone, frames)
    assert all(torch.equal(one, its) for one, its in zip(frozen, before, strict=True))


@pytest.mark.slow
def test_extract_reads_weights_that_lora_has_learned(videos: Path, tmp_path: Path) -> None:
    stream = Stream.of(ExtractConfig(backbone="torchvision/swin_t", input_size=32, num_frames=2, weights="random"))
    backbone = TunedBackbone(stream, replace(STILL, lora=2))
    learn(backbone, frames_of(stream))
    expected = {video: backbone.extract(frames) for video, frames in decoded(stream, videos, tmp_path).items()}
    backbone.save(tmp_path / "w.safetensors")
    options = ("--backbone", "torchvision/swin_t", "--input-size", 32, "--num-frames", 2, "--device", "cpu")
    weights = ("--weights", tmp_path / "w.safetensors")
    done = run("extract", videos, "-o", tmp_path / "features", *options, *weights, "--workers", 1, "--quiet")
    assert done.exit_code == 0, done.output
    stored = FeatureStore.open(tmp_path / "features")
    for video, adapted in expected.items():
        assert np.allclose(stored[video].features, adapted, atol=1e-5)


def test_lora_on_a_stage_without_linear_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="--lora: the stages layer4 of r3d_18 have no linear layers"):
        TunedBackbone(tiny_stream("r3d_18"), replace(STILL, lora=2))


# Memory


def peak_of_an_epoch(number: int, folder: Path, num_rows: int, checkpointing: bool) -> None:
    """Train one step in a process of its own; write the memory that was estimated, and that it took at most."""
    torch.set_num_threads(1)
    stream = tiny_stream("mobilenet_v3_small", side=224)
    config = replace(STILL, unfreeze="all", accumulate=1, epochs=1, checkpointing=checkpointing)
    fit, backbone = make_fit(stream, config)
    clips = make_clips(stream, 2, num_rows)
    memory = StepMemory.measure(backbone, [num_rows, num_rows])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status_bytes("VmRSS")
    fit.run(clips, clips, no_checkpoint(folder))
    taken = status_bytes("VmHWM") - before
    (folder / f"{checkpointing}").write_text(f"{memory.num_bytes(2, checkpointing=checkpointing)} {taken}")


def status_bytes(name: str) -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a process")
def test_the_estimated_memory_is_near_to_the_peak_of_a_process_and_not_above(tmp_path: Path) -> None:
    taken = {}
    for checkpointing in (False, True):
        spawn(peak_of_an_epoch, args=(tmp_path, 16, checkpointing), nprocs=1)  # type: ignore[no-untyped-call]
        estimated, taken[checkpointing] = map(int, (tmp_path / f"{checkpointing}").read_text().split())
        assert 0.9 * estimated < taken[checkpointing] < 2 * estimated
    assert taken[True] < 0.7 * taken[False]


@cache
def all_of_resnet18(batch_norm: str = "frozen") -> TunedBackbone:
    return TunedBackbone(tiny_stream("resnet18"), replace(STILL, unfreeze="all", batch_norm=batch_norm))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of Linux")
@pytest.mark.parametrize(
    ("share", "parts", "remedy"),
    [
        (0.3, 1, r"8 videos at once needs at least [\d.]+ GB, and [\d.]+ GB are free; --accumulate 3 needs"),
        (0.6, 1, "; --accumulate 8 needs"),
        (3, 8, "1 video at once needs .*; --checkpointing needs"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_with_what_fits(share: float, parts: int, remedy: str) -> None:
    backbone = all_of_resnet18()
    free = free_bytes(backbone.device)
    assert free is not None
    rows = [round(share * free / StepMemory.measure(backbone, [1]).row_bytes)] * 8
    config = replace(STILL, unfreeze="all")
    with pytest.raises(TrainingError, match=remedy):
        check_memory(backbone, rows, config=config, num_parts=parts, num_processes=1)
    check_memory(backbone, [16] * 8, config=config, num_parts=parts, num_processes=1)


def test_fewer_stages_need_less() -> None:
    backbone = all_of_resnet18()
    needed = [StepMemory.measure(backbone, [16], num_stages=number) for number in (1, 3, 5)]
    assert needed[0].fixed_bytes < needed[1].fixed_bytes < needed[2].fixed_bytes
    assert needed[0].row_bytes < needed[1].row_bytes < needed[2].row_bytes
    assert all(one.requires_grad for its in backbone.by_stage for one in its)


def test_batch_norm_that_learns_sees_whole_videos_with_checkpointing() -> None:
    assert all_of_resnet18().checkpointed_rows(100) == 8
    assert all_of_resnet18("train").checkpointed_rows(100) == 100


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of Linux")
def test_the_free_memory_is_that_of_the_system_or_less() -> None:
    psutil = pytest.importorskip("psutil")
    of_system = psutil.virtual_memory().available + psutil.swap_memory().free
    found = free_bytes(torch.device("cpu"))
    assert found is not None
    assert 0 < found < 1.1 * of_system


def test_a_control_group_has_its_limit_less_what_cannot_be_dropped(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    for folder, limit, used in ((outer, "1000", 700), (inner, "max", 600)):
        (folder / "limit").write_text(f"{limit}\n")
        (folder / "used").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 400\nactive_file 100\ninactive_file 50\n")
    found = list(free_below(tmp_path, "/outer/inner", limit="limit", usage="used", prefix=""))
    assert found == [1000 - 700 + 150]


def test_a_run_that_does_not_fit_is_one_line(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.finetuning.memory.free_bytes", lambda device: 10_000)
    options = ("--device", "cpu", "--workers", 1, "--quiet")
    done = run("finetune", made / "run", made / "videos", "-o", tmp_path / "out", *options)
    assert done.exit_code == 1
    assert "too little memory: a step with 1 video at once needs at least 0.0 GB" in done.output
    assert not (tmp_path / "out").exists()
