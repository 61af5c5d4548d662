"""Fine-tuning: the frames, the changes of clips, the training loop, and the run that it writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

import vidpipe
from tests.commands import run
from tests.media import write_video
from tests.tuning import STILL, KilledError, killed_after, make_clips, make_fit, make_fusion, no_checkpoint, tiny_stream
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.stages import choose_stages, find_backbone_stages
from vidpipe.backbones.stream import Stream
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import WeightsFile, find_weights
from vidpipe.config import ExtractConfig, FinetuneConfig, Sampling
from vidpipe.errors import TrainingError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.finetuning.augmentation import ClipChanges, may_flip
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.fit import CheckpointFile, Clips, Fit, learning_rates
from vidpipe.finetuning.frames import FrameCache, centre_offset, roomy, segment_starts
from vidpipe.finetuning.ranks import Ranks
from vidpipe.records import Preprocessing
from vidpipe.runs.fine_tuning import compare_top1
from vidpipe.runs.run import Run
from vidpipe.video.files import find_videos
from vidpipe.video.resize import resize_and_crop
from vidpipe.video.sampling import uniform_indices

# Frames


@pytest.mark.parametrize("resize", [256, 224, 235, (128, 171), (40, 40)])
@pytest.mark.parametrize(("height", "width"), [(240, 321), (301, 200), (97, 97)])
def test_the_centre_of_a_cached_picture_is_what_an_extraction_sees(resize: Any, height: int, width: int) -> None:
    crop = 224 if isinstance(resize, int) else (112, 112) if resize[0] > 100 else resize
    preprocessing = Preprocessing(resize, crop, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    (top, left), (its_height, its_width) = centre_offset(preprocessing), preprocessing.size
    cached = resize_and_crop(frames, roomy(preprocessing))
    assert np.array_equal(
        cached[:, :, top : top + its_height, left : left + its_width], resize_and_crop(frames, preprocessing)
    )


@pytest.mark.parametrize("num_frames", [1, 5, 9, 10, 11, 17, 100])
@pytest.mark.parametrize("num_segments", [1, 4, 16])
def test_each_segment_holds_the_frame_that_an_extraction_takes_and_all_of_its_own_time(
    num_frames: int, num_segments: int
) -> None:
    cached = uniform_indices(num_frames, 3 * num_segments)
    middle = uniform_indices(num_frames, num_segments)
    starts = segment_starts(cached, num_frames, len(middle))
    for number, frame in enumerate(middle):
        inside = cached[starts[number] : starts[number + 1]]
        times = (inside + 0.5) / num_frames * len(middle)  # by the middle of each frame, in segments
        assert frame in inside
        assert ((number <= times) & (times < number + 1)).all()
    assert (starts[0], starts[-1]) == (0, len(cached))


def lenet_stream(num_frames: int = 4) -> Stream:
    return Stream.of(ExtractConfig(backbone="lenet5", num_frames=num_frames))


def fill(cache: FrameCache, videos: Path) -> list[int]:
    seen: list[int] = []
    cache.fill(
        find_videos([videos]),
        max_gb=1,
        config=ExtractConfig(workers=1),
        on_video=lambda done, total: seen.append(done),
    )
    return seen


def test_frozen_features_through_the_training_path_are_those_of_the_extractor(made: Path, tmp_path: Path) -> None:
    stream = lenet_stream()
    cache = FrameCache(tmp_path, stream.spec, Sampling("uniform", 4), frames_per_segment=3)
    fill(cache, made / "videos")
    backbone = TunedBackbone(stream, STILL)
    changes = ClipChanges(stream.spec.preprocessing, STILL, flips=False)
    stored = FeatureStore.open(made / "features")
    for video in find_videos([made / "videos"]):
        clip = cache.open(video)
        features = backbone.extract(changes.centre(clip.pictures)[torch.from_numpy(clip.row_pictures)])
        assert np.abs(features.numpy() - stored[video.id].features).max() < 1e-5
        assert np.array_equal(clip.rows.pts_seconds, stored[video.id].pts_seconds)
        assert clip.pictures.shape[0] == 12  # three frames of each of four segments


def test_a_cached_video_is_decoded_again_only_if_its_file_changed(tmp_path: Path) -> None:
    stream = lenet_stream()
    for name in "ab":
        write_video(tmp_path / "videos" / f"{name}.mp4", 12)

    def cache(frames: int = 3) -> FrameCache:
        return FrameCache(tmp_path / "cache", stream.spec, Sampling("uniform", 4), frames_per_segment=frames)

    assert fill(cache(), tmp_path / "videos") == [1, 2]
    leftover = next(cache().path.glob("*.safetensors"))
    leftover.with_suffix(".partial").write_bytes(leftover.read_bytes()[:100])  # as a kill leaves it
    assert fill(cache(), tmp_path / "videos") == []
    write_video(tmp_path / "videos" / "b.mp4", 20)
    assert fill(cache(), tmp_path / "videos") == [1]
    assert cache().open(find_videos([tmp_path / "videos"])[1]).info.num_frames == 20
    assert fill(cache(1), tmp_path / "videos") == [1, 2]  # other frames lie beside


def test_a_folder_that_cannot_keep_frames_is_named(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = FrameCache(tmp_path / "file", lenet_stream().spec, Sampling("uniform", 4), frames_per_segment=3)
    with pytest.raises(UsageError, match=r"file: frames cannot be kept here \(.*--cache names another folder"):
        fill(cache, made / "videos")


def test_frames_that_need_more_space_than_allowed_are_refused_with_what_fits(made: Path, tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, lenet_stream().spec, Sampling("uniform", 4), frames_per_segment=3)
    with pytest.raises(UsageError, match=r"16 videos need about 0.0 GB, and --cache-gb allows 1e-06; --frames-per-seg"):
        cache.fill(
            find_videos([made / "videos"]), max_gb=1e-6, config=ExtractConfig(), on_video=lambda done, total: None
        )


# Changes


def test_all_frames_of_a_clip_are_changed_alike() -> None:
    preprocessing = Preprocessing(64, 48, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    changes = ClipChanges(preprocessing, FinetuneConfig(colour=0.5), flips=True)
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 60, 60), dtype=np.uint8))
    clip = picture.expand(5, 3, 60, 60)
    first, second = changes.draw(clip, 1), changes.draw(clip, 2)
    assert first.shape == (5, 3, 48, 48)
    assert first.dtype == torch.uint8
    assert all(torch.equal(frame, first[0]) for frame in first)
    assert not torch.equal(first, second)
    assert torch.equal(changes.draw(clip, 1), first)


@pytest.mark.parametrize(
    ("flip", "labels", "answer"),
    [
        ("auto", ["hug", "kick"], True),
        ("auto", ["turn_left", "kick"], False),
        ("auto", ["swipe Right", "kick"], False),
        ("auto", ["brightness", "cleft"], True),
        ("off", ["hug"], False),
        ("on", ["hug"], True),
    ],
)
def test_clips_are_mirrored_where_no_label_names_a_side(flip: str, labels: list[str], answer: bool) -> None:
    assert may_flip(flip, labels) == answer


def test_mirroring_clips_whose_label_names_a_side_is_refused() -> None:
    with pytest.raises(UsageError, match="--flip on: a mirrored clip of turn_left shows another action"):
        may_flip("on", ["turn_left", "kick"])


# Stages

STAGES = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "efficientnet_lite0": ["conv_stem", *(f"blocks.{number}" for number in range(7))],
    "vit_tiny": ["patch_embed", *(f"blocks.{number}" for number in range(12))],
    "r2plus1d_18": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": [
        "features.conv0",
        *(f"features.{name}{number}" for number in (1, 2, 3) for name in ("denseblock", "transition")),
        "features.denseblock4",
    ],
    "lenet5": ["c1", "c3", "c5", "f6"],
}


def stages_of(name: str) -> tuple[nn.Module, Any]:
    from vidpipe.backbones.image import load_with_model

    network, model = load_with_model(find_backbone(name), weights=WeightsFile("random", None, "random"))
    return network, find_backbone_stages(network, model)


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "efficientnet_lite0", "vit_tiny", "densenet121"])
def test_the_stages_are_the_librarys_blocks_and_hold_each_parameter_once(name: str) -> None:
    network, stages = stages_of(name)
    assert [stage.name for stage in stages] == STAGES[name]
    held = [id(parameter) for stage in stages for parameter in stage.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())


def test_stages_are_chosen_by_number_by_name_or_all() -> None:
    _, stages = stages_of("resnet18")

    def chosen(unfreeze: str) -> list[str]:
        return [stage.name for stage in choose_stages(stages, unfreeze, owner="resnet18")]

    assert chosen("2") == ["layer3", "layer4"]
    assert chosen("layer2") == ["layer2", "layer3", "layer4"]
    assert chosen("all") == STAGES["resnet18"]
    with pytest.raises(UsageError, match="unknown stage 'layer5'; did you mean 'layer4'"):
        chosen("layer5")
    with pytest.raises(UsageError, match=r"--unfreeze 9: resnet18 has 5 stages \(conv1, .*a number from 1 to 5"):
        chosen("9")


# The training loop


KINDS = ["lenet5", "resnet18", "vit_tiny", "r3d_18"]
"""A layer, a map, tokens, a map over time."""


@pytest.mark.parametrize(
    "name", [name if name == "lenet5" else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_one_batch_is_learned_by_heart(name: str, tmp_path: Path) -> None:
    stream = tiny_stream(name)
    config = replace(STILL, unfreeze="all", epochs=40, patience=40, lr=2e-3, head_lr=2e-2, lr_decay=1.0)
    fit, _ = make_fit(stream, config)
    clips = make_clips(stream)
    progress = fit.run(clips, clips, no_checkpoint(tmp_path))
    assert progress.history[0].train_loss > 0.3
    assert progress.best_loss < 0.01
    loss, top1 = fit.validate(clips)
    assert (round(loss, 6), top1) == (round(progress.best_loss, 6), 1.0)


def gradients(fit: Fit, backbone: TunedBackbone, clips: Clips) -> list[Tensor]:
    """The gradients of one step."""
    from vidpipe.finetuning.fit import FitProgress

    fit._step(clips, range(len(clips)), FitProgress())
    parameters = [*(one for its in backbone.by_stage for one in its), *fit.fusion.parameters()]
    return [one.grad.clone() for one in parameters if one.grad is not None]


@pytest.mark.parametrize("changed", [{"accumulate": 1}, {"accumulate": 3}, {"checkpointing": True}])
def test_a_step_in_parts_or_with_checkpoints_has_the_same_gradients(changed: dict[str, Any]) -> None:
    stream = tiny_stream("lenet5")
    config = replace(STILL, unfreeze="all", accumulate=4)
    clips = make_clips(stream, 5)
    expected = gradients(*make_fit(stream, config, "statistics"), clips)
    found = gradients(*make_fit(stream, replace(config, **changed), "statistics"), clips)
    assert len(found) == len(expected) > 4
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_clip_that_does_not_change_over_time_has_finite_gradients() -> None:
    stream = tiny_stream("lenet5")
    clips = make_clips(stream, 2)
    still = replace(clips.open(0), row_pictures=np.zeros(2, np.int64))
    fit, backbone = make_fit(stream, STILL, "statistics")
    found = gradients(fit, backbone, replace(clips, open=lambda number: still))
    assert all(bool(one.isfinite().all()) for one in found)


def test_only_the_chosen_stages_change_and_batch_norm_keeps_its_statistics(tmp_path: Path) -> None:
    stream = tiny_stream("mobilenet_v3_small")
    fit, backbone = make_fit(stream, replace(STILL, unfreeze="features.11", epochs=1, lr=0.01))
    before = {name: one.clone() for name, one in backbone.network.state_dict().items()}
    clips = make_clips(stream, 2)
    fit.run(clips, clips, no_checkpoint(tmp_path))
    changed = {name for name, one in backbone.network.state_dict().items() if not torch.equal(one, before[name])}
    trained = {name for name, _ in backbone.network.named_parameters() if ".11." in name or ".12." in name}
    assert changed <= trained
    assert len(changed) > len(trained) / 2  # a gate that is shut has no gradient


def test_batch_norm_learns_its_statistics_where_asked(tmp_path: Path) -> None:
    stream = tiny_stream("mobilenet_v3_small")
    fit, backbone = make_fit(stream, replace(STILL, unfreeze="features.11", epochs=1, batch_norm="train", accumulate=1))
    before = {name: one.clone() for name, one in backbone.network.named_buffers()}
    clips = make_clips(stream, 2)
    fit.run(clips, clips, no_checkpoint(tmp_path))
    changed = {name for name, one in backbone.network.named_buffers() if not torch.equal(one, before[name])}
    assert changed
    assert all(".11." in name or ".12." in name for name in changed)


def test_earlier_stages_learn_more_slowly() -> None:
    assert learning_rates(FinetuneConfig(lr=0.1, lr_decay=0.5), 3) == pytest.approx([0.1, 0.05, 0.025])


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v3_small"])
def test_a_training_that_is_killed_and_resumed_gives_the_same_model_to_the_byte(name: str, tmp_path: Path) -> None:
    stream = tiny_stream(name)
    config = FinetuneConfig(epochs=2, batch_size=2, flip="on", colour=0.2, crop_scale=0.5, device="cpu")
    clips = make_clips(stream, 5)
    whole, backbone = make_fit(stream, config, "lstm")
    expected = whole.run(clips, clips, no_checkpoint(tmp_path))
    (tmp_path / "checkpoint.safetensors").unlink()
    backbone.save(tmp_path / "whole.safetensors")

    def attempt(limit: int) -> tuple[Fit, TunedBackbone]:
        fit, its = make_fit(stream, config, "lstm")
        checkpoint = CheckpointFile(tmp_path / "checkpoint.safetensors", {"x": 1}, seconds=0.0, resume=True)
        progress = fit.run(killed_after(clips, limit), clips, checkpoint)
        assert [replace(one) for one in progress.history] == expected.history
        return fit, its

    for limit in (3, 1, 4):
        with pytest.raises(KilledError):
            attempt(limit)
    fit, resumed = attempt(100)
    resumed.save(tmp_path / "resumed.safetensors")
    assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    for one, other in zip(fit.fusion.parameters(), whole.fusion.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_is_not_finite_ends_the_training_with_the_videos(tmp_path: Path) -> None:
    stream = tiny_stream("lenet5")
    fit, _ = make_fit(stream, STILL)
    clips = make_clips(stream, 2)
    with torch.no_grad():
        next(fit.fusion.parameters()).fill_(torch.inf)
    with pytest.raises(TrainingError, match=r"the loss is not finite in a step with .*lower --lr or --head-lr"):
        fit.run(clips, clips, no_checkpoint(tmp_path))


def step_with_little_memory(number: int, folder: Path) -> None:
    """Try a step for which 400 MB are too little, and write the message of the error."""
    import resource

    torch.set_num_threads(1)
    stream = tiny_stream("mobilenet_v3_small", side=224)
    fit, backbone = make_fit(stream, replace(STILL, unfreeze="all", accumulate=1))
    clips = make_clips(stream, 4, num_rows=32)
    used = 1024 * int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, resource.RLIM_INFINITY))
    try:
        gradients(fit, backbone, clips)
    except TrainingError as error:
        (folder / "message").write_text(str(error))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
def test_too_little_memory_is_reported_with_what_needs_less(tmp_path: Path) -> None:
    spawn(step_with_little_memory, args=(tmp_path,), nprocs=1)  # type: ignore[no-untyped-call]
    message = (tmp_path / "message").read_text()
    assert message == "too little memory for 4 × 32 frames at once; --accumulate 4 takes one video at a time"


# Weights


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v3_small", pytest.param("r3d_18", marks=pytest.mark.slow)])
def test_saved_weights_give_the_same_features_when_they_are_read_as_any_other(name: str, tmp_path: Path) -> None:
    stream = tiny_stream(name)
    fit, backbone = make_fit(stream, replace(STILL, unfreeze="all", epochs=1, lr=1e-3))
    clips = make_clips(stream, 2)
    fit.run(clips, clips, no_checkpoint(tmp_path))
    backbone.save(tmp_path / "w.safetensors")
    loaded = load_backbone(
        stream.spec, weights=find_weights(stream.spec, str(tmp_path / "w.safetensors")), device="cpu"
    )
    clip = clips.open(0)
    frames = clip.pictures[torch.from_numpy(clip.row_pictures)]
    with torch.no_grad():
        assert torch.allclose(loaded(frames), backbone.extract(frames), atol=1e-5)


# LoRA


def test_lora_begins_as_the_frozen_network_learns_and_becomes_plain_weights(tmp_path: Path) -> None:
    stream = tiny_stream("vit_tiny")
    clips = make_clips(stream, 2)
    frames = clips.open(0).pictures
    _, frozen = make_fit(stream, STILL)
    fit, backbone = make_fit(stream, replace(STILL, unfreeze="2", lora=2, epochs=3, lr=0.01))
    assert torch.equal(backbone.extract(frames), frozen.extract(frames))
    sizes = {tuple(one.shape) for its in backbone.by_stage for one in its}
    assert all(2 in size for size in sizes)
    fit.run(clips, clips, no_checkpoint(tmp_path))
    learned = backbone.extract(frames)
    assert not torch.allclose(learned, frozen.extract(frames), atol=1e-4)
    backbone.save(tmp_path / "w.safetensors")
    weights = find_weights(stream.spec, str(tmp_path / "w.safetensors"))
    with torch.no_grad():
        assert torch.allclose(load_backbone(stream.spec, weights=weights, device="cpu")(frames), learned, atol=1e-4)


def test_lora_on_a_convolutional_network_is_refused() -> None:
    with pytest.raises(UsageError, match="--lora: the stages layer4 of resnet18 have no linear layers"):
        TunedBackbone(tiny_stream("resnet18"), replace(STILL, lora=4))


# Several processes


def step_of_a_process(number: int, count: int, folder: Path) -> None:
    """Compute one step of a process among several, and write its gradients."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=number, world_size=count)
    stream = tiny_stream("lenet5")
    config = replace(STILL, unfreeze="all")
    backbone = TunedBackbone(stream, config)
    changes = ClipChanges(stream.spec.preprocessing, config, flips=False)
    fit = Fit(backbone, make_fusion(stream, "statistics"), "s", changes, config, ranks=Ranks(number, count))
    found = gradients(fit, backbone, make_clips(stream, 5))
    torch.save(found, folder / f"{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="starts processes with spawn")
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    spawn(step_of_a_process, args=(2, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    stream = tiny_stream("lenet5")
    fit, backbone = make_fit(stream, replace(STILL, unfreeze="all"), "statistics")
    expected = gradients(fit, backbone, make_clips(stream, 5))
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="starts processes with torchrun")
def test_torchrun_writes_the_run_of_one_process(made: Path, trained: Path, tmp_path: Path) -> None:
    arguments = ["finetune", str(trained / "run"), str(made / "videos"), *QUICK, "--epochs", "3", "--threads", "1"]
    assert run(*arguments, "-o", tmp_path / "one").exit_code == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vidpipe"]
    done = subprocess.run(
        [*torchrun, *arguments, "-o", str(tmp_path / "two")], check=True, capture_output=True, text=True
    )
    assert done.stdout.count("is kept") == 1
    one, two = Run.open(tmp_path / "one"), Run.open(tmp_path / "two")
    assert [epoch.val_loss for epoch in two.history] == pytest.approx([e.val_loss for e in one.history], abs=1e-4)
    assert two.fine_tuning is not None
    assert one.fine_tuning is not None
    assert two.fine_tuning.compared == one.fine_tuning.compared


# The comparison


def test_the_interval_of_the_difference_is_that_of_a_bootstrap_over_groups() -> None:
    random = np.random.default_rng(0)
    frozen, tuned = random.random((2, 60)) < np.array([[0.5], [0.7]])
    groups = [f"g{number // 6}" for number in range(60)]
    pair = compare_top1(frozen, tuned, groups)
    assert pair.difference == pytest.approx(tuned.mean() - frozen.mean())
    by_group = (tuned.astype(float) - frozen).reshape(10, 6).mean(axis=1)
    draws = random.integers(10, size=(20000, 10))
    low, high = np.quantile(by_group[draws].mean(axis=1), (0.025, 0.975))
    assert pair.interval == pytest.approx((low, high), abs=0.03)
    assert compare_top1(frozen, tuned, ["one"] * 60).interval is None


# The run


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the videos of `made`, with groups and a test set; `labels.csv` beside it."""
    folder = tmp_path_factory.mktemp("finetune")
    videos = find_videos([made / "videos"])
    rows = ["video,label,split,group"]
    for number, video in enumerate(videos):
        split = "test" if number % 8 >= 6 else "val" if number % 8 >= 4 else "train"
        rows.append(f"{video.id},{video.id.split('/')[0]},{split},g{number}")
    (folder / "labels.csv").write_text("\n".join(rows))
    options = ("--labels", folder / "labels.csv", "--head", "statistics", "--no-refit", "--device", "cpu")
    done = run("train", made / "features", "-o", folder / "run", *options)
    assert done.exit_code == 0, done.output
    return folder


QUICK = ("--unfreeze", "all", "--device", "cpu", "--workers", "1", "--quiet")


@pytest.fixture(scope="module")
def tuned(made: Path, trained: Path) -> Path:
    done = run(
        *("finetune", trained / "run", made / "videos", "-o", trained / "tuned", *QUICK),
        *("--epochs", "12", "--lr", "0.003", "--head-lr", "0.01", "--label-smoothing", "0"),
    )
    assert done.exit_code == 0, done.output
    return trained / "tuned"


def test_the_frozen_side_is_what_train_gives_on_the_same_split(trained: Path, tuned: Path) -> None:
    before, found = Run.open(trained / "run"), Run.open(tuned).fine_tuning
    assert found is not None
    assert found.test is not None
    assert found.val.frozen == before.evaluations["val"]["statistics"].top1
    assert found.test.frozen == before.evaluations["test"]["statistics"].top1
    assert found.stages == tuple(STAGES["lenet5"])
    assert found.settings["lr"] == 0.003


def test_the_kept_backbone_is_the_better_on_validation_and_the_page_says_so(tuned: Path) -> None:
    opened = Run.open(tuned)
    found = opened.fine_tuning
    assert found is not None
    assert found.kept == "fine-tuned"
    assert found.val.fine_tuned >= found.val.frozen
    assert opened.evaluations["val"]["statistics"].top1 == found.val.fine_tuned
    assert run("report", tuned).exit_code == 0
    assert run("info", tuned).exit_code == 0
    page = (tuned / "report.html").read_text()
    assert "Frozen and fine-tuned" in page
    assert "The fine-tuned backbone is kept" in page


def test_predict_finds_the_weights_in_the_run_and_agrees_with_its_metrics(made: Path, tuned: Path) -> None:
    opened = Run.open(tuned)
    expected = {row.video: row for row in opened.predictions if row.head == "statistics"}
    done = run("predict", tuned, made / "videos", "--format", "json", "--device", "cpu", "--workers", 1, "--quiet")
    assert done.exit_code == 0, done.output
    for line in map(json.loads, done.stdout.splitlines()):
        if line["video"] in expected:
            row = expected[line["video"]]
            assert line["label"] == row.predicted
            assert line["probability"] == pytest.approx(row.probability, abs=1e-4)


def test_a_fine_tuned_run_can_be_fine_tuned_again(made: Path, tuned: Path, tmp_path: Path) -> None:
    before = Run.open(tuned).fine_tuning
    result = vidpipe.finetune(tuned, made / "videos", tmp_path / "again", epochs=1, device="cpu", workers=1)
    assert before is not None
    assert result.run.streams[0].key.backbone == "lenet5"
    store = FeatureStore.open(made / "features")
    frozen = result.scores["frozen"]["val"].dataset  # of the weights in the run, not of those that vidpipe ships
    assert not np.allclose(frozen.sequence(0).numpy(), store[frozen.video_ids[0]].features, atol=1e-3)


def test_a_store_made_with_the_fine_tuned_weights_has_a_key_of_its_own(
    made: Path, trained: Path, tuned: Path, tmp_path: Path
) -> None:
    weights = tuned / "backbone.safetensors"
    options = ("--backbone", "lenet5", "--num-frames", 4, "--device", "cpu", "--workers", 1)
    extracted = run("extract", made / "videos", "-o", tmp_path / "s", *options, "--weights", weights)
    assert extracted.exit_code == 0, extracted.output
    key = FeatureStore.open(tmp_path / "s").key
    assert key == Run.open(tuned).streams[0].key
    assert key.weights == sha256(weights.read_bytes()).hexdigest()
    assert key != FeatureStore.open(made / "features").key
    labels = ("--labels", trained / "labels.csv")
    assert run("evaluate", tuned, tmp_path / "s", *labels).exit_code == 0
    assert "other weights" in run("predict", trained / "run", made / "new", "--weights", weights).output
    refused = run("evaluate", trained / "run", tmp_path / "s", *labels)
    assert refused.exit_code == 1
    assert "weights" in refused.output


def test_explain_and_timelines_take_the_run(made: Path, tuned: Path, tmp_path: Path) -> None:
    video = made / "new" / "a.mp4"
    explained = run("explain", "run", tuned, video, "-o", tmp_path / "why", "--device", "cpu", "--workers", 1)
    assert explained.exit_code == 0, explained.output
    timeline = run("predict", tuned, video, "--timeline", "--device", "cpu", "--workers", 1)
    assert timeline.exit_code == 0, timeline.output


def test_where_fine_tuning_does_harm_the_run_keeps_the_frozen_backbone(
    made: Path, trained: Path, tmp_path: Path
) -> None:
    result = vidpipe.finetune(
        trained / "run",
        made / "videos",
        tmp_path / "worse",
        unfreeze="all",
        epochs=2,
        lr=1.0,
        head_lr=1.0,
        ema=0.0,
        device="cpu",
        workers=1,
    )
    assert result.fine_tuning.kept == "frozen"
    assert result.run.streams[0].key == Run.open(trained / "run").streams[0].key
    assert not (tmp_path / "worse" / "backbone.safetensors").exists()
    assert not (tmp_path / "worse.frames").exists()
    assert any("did not help" in warning for warning in result.run.warnings)
    done = run("predict", tmp_path / "worse", made / "new" / "a.mp4", "--device", "cpu", "--workers", 1)
    assert done.exit_code == 0, done.output


# Wrong usage


def refused(made: Path, run_path: Path, folder: Path, *options: object, videos: Path | None = None) -> str:
    """The message of a fine-tuning that is refused."""
    done = run("finetune", run_path, videos or made / "videos", "-o", folder / "out", *QUICK, "--epochs", 1, *options)
    assert done.exit_code in (1, 2), done.output
    assert not (folder / "out").exists()
    assert not (folder / "out.frames").exists()
    return done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--unfreeze", "c6"), "unknown stage 'c6'; did you mean 'f6'"),
        (("--unfreeze", "7"), "--unfreeze 7: lenet5 has 4 stages"),
        (("--stream", "flow"), "unknown stream 'flow'"),
        (("--frames-per-segment", "2"), "an odd number is needed"),
        (("--flip", "on"), "--flip on: a mirrored clip of left, right"),
        (("--precision", "mixed"), "--precision mixed needs a GPU"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line_before_anything_is_decoded(
    made: Path, trained: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in refused(made, trained / "run", tmp_path, *options)


def test_videos_that_are_gone_or_changed_are_named(made: Path, trained: Path, tmp_path: Path) -> None:
    assert "16 videos of" in refused(made, trained / "run", tmp_path, videos=made / "new")
    shutil.copytree(made / "videos", tmp_path / "videos")
    (changed,) = (tmp_path / "videos" / "left").glob("left3.mp4")
    changed.write_bytes(changed.read_bytes() + b"0")
    message = refused(made, trained / "run", tmp_path, videos=tmp_path / "videos")
    assert "left3.mp4: not the file that" in message


def test_a_run_of_several_streams_needs_one_by_name_and_one_without_weights_is_refused(
    made: Path, trained: Path, tmp_path: Path
) -> None:
    options = ("--backbone", "lenet5,flow", "--num-frames", 4, "--device", "cpu", "--workers", 1, "--quiet")
    assert run("extract", made / "videos", "-o", tmp_path / "two", *options).exit_code == 0
    labels = ("--labels", trained / "labels.csv", "--head", "statistics", "--device", "cpu", "--no-refit")
    assert run("train", tmp_path / "two", "-o", tmp_path / "both", *labels).exit_code == 0
    both = tmp_path / "both"
    assert "name it with --stream lenet5" in refused(made, both, tmp_path)
    assert "flow has no weights to train" in refused(made, both, tmp_path, "--stream", "flow")
    done = run("finetune", both, made / "videos", "-o", tmp_path / "one", "--stream", "lenet5", *QUICK, "--epochs", 1)
    assert done.exit_code == 0, done.output
    assert list(Run.open(tmp_path / "one").keys) == ["lenet5"]


def test_labels_without_groups_are_warned_of_and_a_missing_validation_set_is_drawn(made: Path, tmp_path: Path) -> None:
    done = run("train", made / "features", "-o", tmp_path / "run", "--head", "statistics,mean", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert not any(row.split == "val" for row in Run.open(tmp_path / "run").splits)
    result = vidpipe.finetune(tmp_path / "run", made / "videos", tmp_path / "out", epochs=1, device="cpu", workers=1)
    assert any("no groups; fine-tuning overfits sources" in warning for warning in result.run.warnings)
    before = {row.video for row in Run.open(tmp_path / "run").splits if row.split == "test"}
    assert {video.video_id for video in result.split.test} == before
    assert result.split.val
    assert {member.member.head for member in result.run.members} == {"statistics", "mean"}


def test_a_head_that_passes_no_gradient_is_refused(made: Path, trained: Path, tmp_path: Path) -> None:
    labels = ("--labels", trained / "labels.csv", "--device", "cpu", "--no-refit")
    assert run("train", made / "features", "-o", tmp_path / "n", "--head", "neighbours", *labels).exit_code == 0
    assert "keeps videos, and passes no gradient" in refused(made, tmp_path / "n", tmp_path)


# Kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills a process group")
def test_a_process_that_is_killed_at_random_moments_and_resumed_writes_the_same_run(
    made: Path, trained: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "vidpipe", "finetune", str(trained / "run"), str(made / "videos")]
    command += [*QUICK, "--epochs", "30", "--patience", "30", "--checkpoint-seconds", "0", "--threads", "1"]
    started = time.monotonic()
    subprocess.run([*command, "-o", str(tmp_path / "whole")], check=True)
    seconds, random = time.monotonic() - started, np.random.default_rng(0)
    resume: list[str] = []
    for _ in range(4):
        process = subprocess.Popen([*command, "-o", str(tmp_path / "killed"), *resume], start_new_session=True)
        time.sleep(random.uniform(0.2, 0.9) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        resume = ["--resume"]
        if (tmp_path / "killed" / "run.json").exists():
            break
    if not (tmp_path / "killed" / "run.json").exists():
        subprocess.run([*command, "-o", str(tmp_path / "killed"), "--resume"], check=True)
    for name in ("model.safetensors", "backbone.safetensors", "predictions.csv"):
        files = [tmp_path / folder / name for folder in ("whole", "killed")]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes()
