"""Networks that learn from random weights, and ResNets that learn where to sample."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn
from torchvision.models import get_model

from tests.commands import run
from tests.media import write_frames
from tests.tuning import NUM_CLASSES, STILL, KilledError, killed_after, make_clips, make_fit, no_checkpoint
from vidpipe.backbones.deformable import DeformableConv2d
from vidpipe.backbones.image import load_backbone, without_classifier
from vidpipe.backbones.stream import Stream
from vidpipe.backbones.weights import find_weights
from vidpipe.config import ExtractConfig, FinetuneConfig
from vidpipe.errors import UsageError
from vidpipe.finetuning.auxiliary import auxiliary_of
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.fit import CheckpointFile, Clips, FitProgress
from vidpipe.finetuning.frames import CachedClip
from vidpipe.finetuning.ranks import Ranks
from vidpipe.runs.run import Run

SCRATCH = replace(STILL, unfreeze="all", batch_norm="train", lr=1e-3, lr_decay=1.0, head_lr=1e-2)
"""All of it learns, and nothing is changed at random."""


def random_stream(name: str, size: int = 32) -> Stream:
    return Stream.of(
        ExtractConfig(backbone=name, weights="random", input_size=size, crop="whole", num_frames=2, device="cpu")
    )


# Every family learns

FAMILIES = {
    "lenet5": 32,
    "alexnet": 64,
    "resnet18": 32,
    "googlenet": 32,
    "vgg16_bn": 32,
    "densenet121": 32,
    "se_resnet50": 32,
    "xception": 32,
    "efficientnet_b0": 32,
    "efficientnet_lite0": 32,
}
"""By name, pixels of the input."""
FAST = ("lenet5", "alexnet")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def test_a_network_with_random_weights_remembers_a_batch(name: str, tmp_path: Path) -> None:
    stream = random_stream(name, FAMILIES[name])
    fit, backbone = make_fit(stream, replace(SCRATCH, epochs=40, patience=40))
    clips = make_clips(stream)
    backbone.adapt_norms([torch.cat([clips.open(number).pictures for number in range(len(clips))])])
    progress = fit.run(clips, clips, no_checkpoint(tmp_path))
    first, last = progress.history[0], progress.history[-1]
    assert last.train_top1 == 1
    assert last.train_loss < 0.1 * first.train_loss
    assert fit.validate(clips)[1] == 1  # with the statistics of batch normalisation that it has learned


def test_batch_normalisation_is_adapted_to_frames_before_the_heads_are_fitted() -> None:
    backbone = TunedBackbone(random_stream("resnet18"), SCRATCH)
    frames = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    before = backbone.extract(frames)
    assert backbone.adapt_norms([frames])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_model("resnet18", weights=None)
    model.fc = nn.Identity()
    for norm in (one for one in model.modules() if isinstance(one, nn.BatchNorm2d)):
        norm.momentum = 1.0  # the statistics become those of the only batch
    pixels = backbone.network.normalise(frames)
    with torch.no_grad():
        model.train()(pixels)
        expected = model.eval()(pixels)
    scale = expected.abs().max()
    torch.testing.assert_close(backbone.extract(frames) / scale, expected / scale, rtol=0, atol=1e-4)
    assert (before - expected).abs().max() > 0.1


def test_a_network_without_batch_normalisation_has_nothing_to_adapt() -> None:
    assert not TunedBackbone(random_stream("lenet5"), SCRATCH).adapt_norms([])


# GoogLeNet's auxiliary classifiers


@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [2, 3, 1]])
def test_the_loss_of_googlenet_is_that_of_torchvisions_three_outputs(lengths: list[int]) -> None:
    fit, backbone = make_fit(random_stream("googlenet", 64), SCRATCH)
    auxiliary = fit._auxiliary
    assert auxiliary is not None
    model = get_model("googlenet", num_classes=NUM_CLASSES, transform_input=True, init_weights=False, aux_logits=True)
    model.load_state_dict(without_classifier(model, backbone._model.state_dict()), strict=False)
    for mine, theirs in zip(auxiliary.classifiers, (model.aux1, model.aux2), strict=True):
        theirs.load_state_dict(mine.state_dict())
    for dropout in (one for part in (auxiliary, model) for one in part.modules() if isinstance(one, nn.Dropout)):
        dropout.p = 0.0
    frames = torch.randint(0, 256, (sum(lengths), 3, 64, 64), dtype=torch.uint8)
    truth = torch.arange(len(lengths)) % NUM_CLASSES
    backbone.set_training(True)
    features = backbone.features(frames)
    main = cross_entropy(_mean_of(model.fc(features), lengths), truth, reduction="sum")
    loss = main + auxiliary.loss(torch.tensor(lengths), truth, label_smoothing=0.1)

    outputs = model.train()(backbone.network.normalise(frames))
    own = cross_entropy(_mean_of(outputs.logits, lengths), truth, reduction="sum")
    first, second = (
        cross_entropy(_mean_of(logits, lengths), truth, label_smoothing=0.1, reduction="sum")
        for logits in (outputs.aux_logits1, outputs.aux_logits2)
    )
    assert loss.item() == pytest.approx((own + 0.3 * (first + second)).item(), rel=1e-4)
    assert min(first.item(), second.item()) > 0.1


def _mean_of(logits: Tensor, lengths: list[int]) -> Tensor:
    return torch.stack([one.mean(dim=0) for one in torch.split(logits, lengths)])


def test_a_step_of_googlenet_adds_the_auxiliary_losses_and_all_of_it_learns() -> None:
    stream = random_stream("googlenet", 64)
    losses, clips = [], make_clips(stream)
    for has_auxiliary in (True, False):
        fit, _ = make_fit(stream, SCRATCH)
        auxiliary, progress = fit._auxiliary, FitProgress()
        assert auxiliary is not None
        for dropout in (one for one in auxiliary.modules() if isinstance(one, nn.Dropout)):
            dropout.p = 0.0
        if not has_auxiliary:
            fit._auxiliary = None
        fit._step(clips, range(len(clips)), progress)
        losses.append(progress.loss)
        if has_auxiliary:
            assert all(one.grad is not None and bool(one.grad.any()) for one in auxiliary.parameters())
    assert losses[0] > 1.2 * losses[1]


def test_the_weights_of_a_googlenet_that_has_learned_have_no_auxiliary_classifiers(tmp_path: Path) -> None:
    stream = random_stream("googlenet", 64)
    fit, backbone = make_fit(stream, replace(SCRATCH, epochs=1))
    clips = make_clips(stream)
    fit.run(clips, clips, no_checkpoint(tmp_path))
    backbone.save(tmp_path / "tuned.safetensors")
    with safe_open(tmp_path / "tuned.safetensors", "pt") as opened:
        names = list(opened.keys())
    assert "inception5b.branch1.conv.weight" in names
    assert not [name for name in names if "aux" in name]
    weights = find_weights(stream.spec, str(tmp_path / "tuned.safetensors"))
    frames = clips.open(0).pictures
    loaded = load_backbone(stream.spec, weights=weights, device="cpu")
    torch.testing.assert_close(loaded(frames), backbone.extract(frames), rtol=1e-4, atol=1e-4)


def test_other_networks_have_no_auxiliary_classifiers() -> None:
    assert auxiliary_of(nn.Linear(1, 1), "resnet18", num_classes=2, seed=0) is None


# The command


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of stripes, across or down, and a labels file."""
    folder, random = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    lines = ["video,label,split,group"]
    for number in range(16):
        label, split = ("across", "down")[number % 2], ("train", "train", "val", "test")[number // 2 % 4]
        stripes = np.repeat(random.integers(0, 256, (12, 1, 3), dtype=np.uint8), 4, axis=0).repeat(48, axis=1)
        frames = [stripes if label == "across" else stripes.swapaxes(0, 1)] * 3
        write_frames(folder / "videos" / f"{number}.mp4", frames)
        lines.append(f"{number}.mp4,{label},{split},g{number}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def random_run(drawn: Path) -> Path:
    return train_on(drawn, "resnet18")


def train_on(drawn: Path, backbone: str) -> Path:
    options = ("--backbone", backbone, "--weights", "random", "--input-size", 32, "--num-frames", 2, "--workers", 1)
    features = drawn / f"{backbone}_features"
    extracted = run("extract", drawn / "videos", "-o", features, *options, "--device", "cpu", "--engine", "torch")
    assert extracted.exit_code == 0, extracted.output
    trained = run(
        "train", features, "-o", drawn / backbone, "--labels", drawn / "labels.csv", "--head", "mean", "--device", "cpu"
    )
    assert trained.exit_code == 0, trained.output
    return drawn / backbone


FROM_SCRATCH = (
    *("--unfreeze", "all", "--batch-norm", "train", "--lr", "1e-3", "--lr-decay", 1, "--epochs", 8, "--ema", 0),
    *("--frames-per-segment", 1, "--batch-size", 4, "--colour", 0, "--device", "cpu", "--workers", 1),
)


def finetune(drawn: Path, old: Path, new: Path, *options: object) -> Run:
    result = run("finetune", old, drawn / "videos", "-o", new, *options)
    assert result.exit_code == 0, result.output
    assert "--unfreeze all --batch-norm train" not in result.stderr
    return Run.open(new)


@pytest.mark.slow
def test_a_run_with_random_weights_is_warned_of_frozen_stages(drawn: Path, random_run: Path, tmp_path: Path) -> None:
    quick = ("--epochs", 1, "--frames-per-segment", 1, "--device", "cpu", "--workers", 1)
    result = run("finetune", random_run, drawn / "videos", "-o", tmp_path / "new", *quick)
    assert result.exit_code == 0, result.output
    assert "resnet18 has random weights, and nothing of it has learned yet: train all of it with --unfreeze all" in (
        result.stderr
    )


# Deformable convolution


@pytest.mark.slow
def test_deformable_layers_begin_as_plain_ones_and_learn_with_their_stage(tmp_path: Path) -> None:
    """The first stages keep the statistics of random weights, so the features are large: the steps are small."""
    stream = random_stream("resnet18", 64)
    config = replace(SCRATCH, unfreeze="layer3", deformable="layer3,layer4", head_lr=1e-3)
    plain = TunedBackbone(stream, replace(config, deformable=None))
    fit, backbone = make_fit(stream, replace(config, epochs=6, patience=6))
    layers = [one for one in backbone.network.modules() if isinstance(one, DeformableConv2d)]
    clips = make_clips(stream)
    frames = clips.open(0).pictures
    torch.testing.assert_close(backbone.extract(frames), plain.extract(frames), rtol=1e-5, atol=1e-5)
    assert len(layers) == 8
    progress = fit.run(clips, clips, no_checkpoint(tmp_path))
    assert progress.history[-1].train_loss < 0.5 * progress.history[0].train_loss
    for layer in layers:
        assert all(float(one.detach().abs().max()) > 1e-4 for one in layer.offsets.parameters())
    backbone.save(tmp_path / "tuned.safetensors")
    loaded = load_backbone(
        stream.spec, weights=find_weights(stream.spec, str(tmp_path / "tuned.safetensors")), device="cpu"
    )
    torch.testing.assert_close(loaded(frames), backbone.extract(frames), rtol=1e-5, atol=1e-5)
    again = Stream.of(
        ExtractConfig(backbone="resnet18", weights=str(tmp_path / "tuned.safetensors"), input_size=64, num_frames=2)
    )
    deeper = TunedBackbone(again, replace(config, unfreeze="layer4", deformable="layer4"))
    torch.testing.assert_close(deeper.extract(frames), loaded(frames), rtol=1e-5, atol=1e-5)


def test_a_deformable_stage_that_is_not_trained_is_refused() -> None:
    message = (
        r"--deformable layer3,layer4: layer3\.0\.conv1 is in a stage that is not trained.*--unfreeze layer3 trains"
    )
    with pytest.raises(UsageError, match=message):
        TunedBackbone(random_stream("resnet18"), FinetuneConfig(deformable="layer3,layer4", device="cpu"))


@pytest.mark.slow
def test_a_run_with_deformable_layers_predicts_and_is_explained(drawn: Path, random_run: Path, tmp_path: Path) -> None:
    options = (*FROM_SCRATCH, "--deformable", "layer4")
    found = finetune(drawn, random_run, tmp_path / "new", *options)
    assert found.metrics["fine_tuning"]["settings"]["deformable"] == "layer4"
    assert found.metrics["fine_tuning"]["kept"] == "fine-tuned"
    predicted = run("predict", tmp_path / "new", drawn / "videos" / "0.mp4", "--device", "cpu", "--workers", 1)
    assert predicted.exit_code == 0, predicted.output
    weights = ("--weights", tmp_path / "new" / "backbone.safetensors", "--input-size", 32, "--device", "cpu")
    shown = run(
        *("explain", "backbone", "resnet18", drawn / "videos" / "0.mp4", "-o", tmp_path / "seen"),
        *("--no-filters", "--stage", "layer3", "--channels", 1, *weights),
    )
    assert shown.exit_code == 0, shown.output
    assert len(list((tmp_path / "seen" / "offsets").iterdir())) == 4


# Statistics of batch normalisation


def test_the_averaged_weights_have_the_statistics_that_torch_computes_for_averaged_models(tmp_path: Path) -> None:
    stream = random_stream("resnet18")
    fit, backbone = make_fit(stream, replace(SCRATCH, epochs=1, lr=1e-2, ema=0.9, batch_size=2))
    clips = make_clips(stream)
    fit.run(clips, clips, no_checkpoint(tmp_path))
    averaged = get_model("resnet18", weights=None)
    averaged.load_state_dict(without_classifier(averaged, backbone._model.state_dict()), strict=False)
    pixels = [backbone.network.normalise(frames) for frames in clips.statistics_batches(fit._changes, fit._config)]
    assert sum(map(len, pixels)) == 8
    update_bn(pixels, averaged)
    found, expected = dict(backbone._model.named_buffers()), dict(averaged.named_buffers())
    for name in (name for name in expected if "running" in name):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_statistics_are_of_some_hundred_frames_of_videos_drawn_once() -> None:
    stream = random_stream("resnet18")
    fit, _ = make_fit(stream, replace(SCRATCH, batch_size=8))
    one = make_clips(stream, 1).open(0)
    opened: list[int] = []

    def open_one(number: int) -> CachedClip:
        opened.append(number)
        return one

    clips = Clips([str(n) for n in range(999)], torch.zeros(999), open_one)
    num_frames = [len(frames) for frames in clips.statistics_batches(fit._changes, fit._config)]
    assert min(num_frames) >= 2 * 8
    assert 512 <= sum(num_frames) == 2 * len(opened) < 512 + 2 * 2 * 8
    assert len(set(opened)) == len(opened)
    assert (
        np.corrcoef(opened, range(len(opened)))[0, 1] < 0.5
    )  # labels files list a figure's videos, or a class's, together
    first, opened[:] = opened[:], []
    assert len(list(clips.statistics_batches(fit._changes, fit._config))) == len(num_frames)
    assert opened == first


@pytest.mark.slow
def test_a_training_from_random_weights_that_is_killed_gives_the_same_model_to_the_byte(tmp_path: Path) -> None:
    stream, path = random_stream("resnet18"), tmp_path / "c.safetensors"
    clips = make_clips(stream)
    config = replace(SCRATCH, epochs=2, batch_size=2, ema=0.9, colour=0.2)

    def attempt(name: str, num_opened: int) -> bytes:
        fit, backbone = make_fit(stream, config)
        fit.run(killed_after(clips, num_opened), clips, CheckpointFile(path, {}, seconds=0.0, resume=True))
        backbone.save(tmp_path / name)
        return (tmp_path / name).read_bytes()

    whole = attempt("whole.safetensors", 1000)
    path.unlink()
    for limit in (3, 4, 6):  # in a step, in the statistics after the epoch, in the next epoch
        with pytest.raises(KilledError):
            attempt("killed.safetensors", limit)
    assert attempt("resumed.safetensors", 1000) == whole


def train_in_a_process(number: int, count: int, folder: Path) -> None:
    """Train for an epoch in a process among several, and write the statistics of its backbone."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=number, world_size=count)
    stream = random_stream("resnet18")
    fit, backbone = make_fit(stream, replace(SCRATCH, epochs=1, batch_size=4))
    fit._ranks = Ranks(number, count)
    clips = make_clips(stream)
    fit.run(clips, clips, no_checkpoint(folder))
    torch.save(dict(backbone._model.named_buffers()), folder / f"{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="starts processes with spawn")
def test_all_processes_have_the_same_statistics(tmp_path: Path) -> None:
    spawn(train_in_a_process, args=(2, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    assert len(first) == 60
    for name in first:
        torch.testing.assert_close(first[name], second[name])
