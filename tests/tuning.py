"""Fine-tuning without files: small backbones with random weights, clips of noise, and settings without chance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidpipe.backbones.stream import Stream
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import WeightsFile
from vidpipe.config import ExtractConfig, FinetuneConfig, TrainConfig
from vidpipe.finetuning.augmentation import ClipChanges
from vidpipe.finetuning.auxiliary import auxiliary_of
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.fit import CheckpointFile, Clips, Fit
from vidpipe.finetuning.frames import CachedClip
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import build_head
from vidpipe.heads.members import Member
from vidpipe.records import Rows, VideoInfo, Window

STILL = FinetuneConfig(
    crop_scale=1.0,
    colour=0.0,
    flip="off",
    frames_per_segment=1,
    label_smoothing=0.0,
    weight_decay=0.0,
    warm_up=0.0,
    ema=0.0,
    device="cpu",
)
"""Nothing is changed at random."""
NUM_CLASSES = 2
NO_INFO = VideoInfo(9, 1.0, 9.0, 32, 32, "h264", "pyav", damaged=False, lost_packets=0, size_bytes=1, mtime_ns=1)


def tiny_stream(name: str, side: int = 32) -> Stream:
    """A backbone with random weights and small pictures."""
    spec = find_backbone(name)
    spec = replace(spec, preprocessing=replace(spec.preprocessing, resize=side, crop=side))
    if spec.window is not None:
        spec = replace(spec, window=Window(4, None, 4))
    config = ExtractConfig(backbone=name, num_frames=2, weights="random")
    return Stream.of(config, spec=spec, weights=WeightsFile("random", None, "random"))


def make_clips(stream: Stream, num_videos: int = 4, num_rows: int = 2) -> Clips:
    """Clips of noise, and labels that nothing in them explains: they must be remembered."""
    random = np.random.default_rng(0)
    side, window = stream.spec.input_size, stream.spec.window
    num_pictures = num_rows if window is None else num_rows + window.num_frames - 1
    row_pictures = np.arange(num_rows)
    if window is not None:
        row_pictures = row_pictures[:, None] + np.arange(window.num_frames)
    index = np.arange(num_rows)
    rows = Rows(index / 9, index, np.zeros(num_rows, np.int32))
    pictures = torch.from_numpy(random.integers(0, 256, (num_videos, num_pictures, 3, side, side), dtype=np.uint8))
    clips = [CachedClip(one, rows, row_pictures, None, NO_INFO) for one in pictures]
    return Clips([str(n) for n in range(num_videos)], torch.arange(num_videos) % NUM_CLASSES, clips.__getitem__)


def make_fusion(stream: Stream, head: str = "mean", **settings: Any) -> Fusion:
    torch.manual_seed(0)
    config = TrainConfig(head=head, hidden_size=8, **settings)
    return Fusion([MemberHeads(Member(("s",), head), [build_head(head, stream.spec.dim, NUM_CLASSES, config)])])


def make_fit(stream: Stream, config: FinetuneConfig, head: str = "mean", **settings: Any) -> tuple[Fit, TunedBackbone]:
    """A fit of an untrained head, with GoogLeNet's auxiliary classifiers."""
    backbone = TunedBackbone(stream, config)
    auxiliary = auxiliary_of(backbone.network, stream.spec.builder, num_classes=NUM_CLASSES, seed=0)
    changes = ClipChanges(stream.spec.preprocessing, config, flips=config.flip == "on")
    fusion = make_fusion(stream, head, **settings)
    return Fit(backbone, fusion, "s", changes, config, auxiliary=auxiliary), backbone


def no_checkpoint(folder: Path) -> CheckpointFile:
    return CheckpointFile(folder / "checkpoint.safetensors", {}, seconds=1e9, resume=False)


class KilledError(Exception):
    """Ends a training at a random moment."""


def killed_after(clips: Clips, num_opened: int) -> Clips:
    """The same clips; one of them cannot be opened any more after a number of times."""
    left = [num_opened]

    def opened(number: int) -> CachedClip:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return clips.open(number)

    return replace(clips, open=opened)
