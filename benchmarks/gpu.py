"""What a GPU makes of extraction, decoding and training, each beside its baseline, in one table with the card's name.

    python -m benchmarks.gpu          under 9 minutes on an H200; needs no download: the weights are random

Extraction: frames a second of decoding and network together, against the same network on random frames that are on the
GPU already. Decoding: all cores against the card's decoding engines (`--decoder nvdec`). Training: an epoch of an LSTM
with features in the memory of the GPU, against batches that are padded and copied. On a machine without a GPU all of
it runs on the CPU, which only shows that it works.
"""

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.clips import write_clip
from vidpipe.backbones.batching import Utilisation
from vidpipe.backbones.engines.cuda_graphs import EAGER_BATCHES, Compute, GraphedNetwork
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig, Sampling, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import UsageError
from vidpipe.execution.loaded import DEFAULT_BATCH_SIZE, LoadedStream
from vidpipe.execution.local import iter_features
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import build_head
from vidpipe.records import (
    FeatureSequence,
    FrameBatch,
    LabeledVideo,
    Preprocessing,
    Rows,
    VideoFeatures,
    VideoFile,
    VideoInfo,
)
from vidpipe.training.fit import make_optimiser, train_epoch
from vidpipe.video.decoding import decode_videos, default_workers
from vidpipe.video.reader_nvdec import check_nvdec
from vidpipe.video.view import View

SMALL = Preprocessing(resize=232, crop=224, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
Size = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    backbones: Sequence[str] = ("resnet50", "inception_v3", "dinov2_small", "r2plus1d_18")
    seconds: float = 15.0
    """Of each measurement, start-up left out."""
    sizes: Sequence[Size] = ((320, 240), (1280, 720), (1920, 1080))
    """Of the videos for decoding; an extraction reads the first."""
    num_frames: int = 128
    """Of each video."""
    num_sequences: int = 5000
    """Of the training set, 16 × 1024 each."""


def run(plan: Plan | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    plan = plan or Plan()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else "no GPU: all of this ran on the CPU"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        videos = {size: write_clip_of(folder, size, plan.num_frames) for size in plan.sizes}
        lines = [
            *_table("network", "full", "full, graph", "half", "half, graph", "extraction, half", "share", "bottleneck"),
            *(_backbone_line(name, device, videos[plan.sizes[0]], plan.seconds) for name in plan.backbones),
            "",
            *_table("videos", f"{os.cpu_count()} cores", "NVDEC"),
            *(_decoding_line(size, path, plan.seconds) for size, path in videos.items()),
            "",
            *_table("an epoch of an LSTM", "padded and copied", "resident"),
            _training_line(folder, device, plan.num_sequences),
        ]
    return (
        f"## GPU: {card} (`benchmarks/gpu.py`)\n\nFrames a second. `full` to `half, graph`: the network alone, on "
        "random frames on the device. Extraction: 16 frames of H.264 videos of "
        f"{plan.sizes[0][0]} × {plan.sizes[0][1]}, decoded beside it; `share` is of the better of the two in half "
        "precision.\n\n" + "\n".join(lines)
    )


def _table(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def write_clip_of(folder: Path, size: Size, num_frames: int) -> Path:
    """Write an H.264 video of drifting blocks."""
    width, height = size
    path = folder / f"{height}.mp4"
    return write_clip(path, "libx264", {"g": "50", "bf": "2"}, num_frames=num_frames, width=width, height=height)


def _backbone_line(name: str, device: str, video: Path, seconds: float) -> str:
    precisions = ("full", "half") if device == "cuda" else ("full",)
    alone = {
        (precision, graphs): network_rate(name, device, precision, graphs, seconds / 4)
        for precision in precisions
        for graphs in ((False, True) if device == "cuda" else (False,))
    }
    rate, bottleneck = extraction_rate(name, device, precisions[-1], video, seconds)
    best = max(value for (precision, _), value in alone.items() if precision == precisions[-1])
    cells = [
        f"{alone[key]:,.0f}" if (key := (precision, graphs)) in alone else "–"
        for precision in ("full", "half")
        for graphs in (False, True)
    ]
    line = f"| {name} | {' | '.join(cells)} | {rate:,.0f} | {rate / best:.0%} | {bottleneck} |"
    print(line, file=sys.stderr, flush=True)
    return line


def _config(name: str, device: str, precision: str) -> ExtractConfig:
    return ExtractConfig(
        backbone=name, weights="random", device=device, precision=precision, engine="torch", cuda_graphs=True
    )


def network_rate(name: str, device: str, precision: str, graphs: bool, seconds: float) -> float:
    """Return the frames a second of a network on random frames that are on its device."""
    stream = Stream.of(_config(name, device, precision))
    backbone = load_backbone(stream.spec, weights=stream.weights, pool=stream.key.pooling, device=device)
    if device == "cuda":
        backbone = backbone.to(memory_format=backbone.memory_format)
    network: Compute = backbone.half() if precision == "half" else backbone
    window = () if stream.spec.window is None else (stream.spec.window.num_frames,)
    size = max(1, DEFAULT_BATCH_SIZE[device] // (window[0] if window else 1))
    shape = (size, *window, 3, *stream.spec.preprocessing.size)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        batch = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        compute = GraphedNetwork(network) if graphs else network
        for _ in range(EAGER_BATCHES + 2):
            compute(batch)
        num_batches, elapsed = _repeat(lambda: compute(batch), device, seconds)
    return num_batches * size * (window[0] if window else 1) / elapsed


def _repeat(step: Callable[[], object], device: str, seconds: float) -> tuple[int, float]:
    """Repeat a step for some seconds; return how often, and the seconds it took. Each 10 steps wait for the device."""
    _wait_for(device)
    started = time.perf_counter()
    for number in itertools.count(1):
        step()
        if number % 10 == 0 or device == "cpu":
            _wait_for(device)
            if (elapsed := time.perf_counter() - started) >= seconds:
                return number, elapsed
    raise AssertionError


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def extraction_rate(name: str, device: str, precision: str, video: Path, seconds: float) -> tuple[float, str]:
    """Return the frames a second of an extraction, and what limited it."""
    config = _config(name, device, precision)
    stream = LoadedStream.load(Stream.of(config), config, num_videos=10**6)
    utilisation, started, num_frames = Utilisation(), 0.0, 0
    results = iter_features(list(_names(video)), {"": stream}, config=config, utilisation=utilisation)
    elapsed = 0.0
    with closing(results):
        for result in results:
            if not isinstance(result, VideoFeatures):
                continue
            if not started:  # the first video waits for the processes to start
                started = time.perf_counter()
                continue
            num_frames += len(result.streams[""]) * (stream.window.num_frames if stream.window else 1)
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                break
    decoding = utilisation.model_idle_share > utilisation.decoders_idle_share
    busy = f"model {1 - utilisation.model_idle_share:.0%}, decoders {1 - utilisation.decoders_idle_share:.0%}"
    return num_frames / elapsed, f"{'decoding' if decoding else 'model'} ({busy})"


def _names(video: Path, count: int = 100_000) -> Iterator[VideoFile]:
    """The file under many ids: more videos than can be read in the time."""
    return (VideoFile(f"{number}.mp4", video) for number in range(count))


def _decoding_line(size: Size, video: Path, seconds: float) -> str:
    cells = [f"{decoding_rate(video, 'pyav', default_workers('cuda'), seconds):,.1f} videos/s"]
    try:
        check_nvdec()
        cells.append(f"{decoding_rate(video, 'nvdec', default_workers('cuda', 'nvdec'), seconds):,.1f} videos/s")
    except UsageError as error:
        cells.append(f"not measured: {error}")
    line = f"| {size[0]} × {size[1]}, 16 frames each | {' | '.join(cells)} |"
    print(line, file=sys.stderr, flush=True)
    return line


def decoding_rate(video: Path, decoder: str, workers: int, seconds: float) -> float:
    """Return the videos a second of decoding alone, each opened anew."""
    view = View(Sampling("uniform", num_frames=16), SMALL)
    batches = decode_videos(_names(video), {"": view}, decoder=decoder, workers=workers, timeout_seconds=120.0)
    started, num_videos, elapsed = 0.0, 0, 0.0
    with closing(batches):
        for batch in batches:
            if not isinstance(batch, FrameBatch):
                continue
            if batch.info.decoder != decoder:
                raise UsageError(f"--decoder {decoder} does not read the video; {batch.info.decoder} did")
            if not started:
                started = time.perf_counter()
                continue
            num_videos += 1
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                break
    return num_videos / elapsed


def _training_line(folder: Path, device: str, num_sequences: int) -> str:
    dataset = random_dataset(folder, num_sequences)
    near = torch.device(device)
    cells = [f"{epoch_seconds(one, near):.3f} s" for one in (dataset, dataset.resident_on(near))]
    return f"| {num_sequences:,} sequences of 16 × {dataset.dim} | {' | '.join(cells)} |"


def random_dataset(folder: Path, num_sequences: int, length: int = 16, dim: int = 1024) -> SequenceDataset:
    """Return labelled sequences of random features."""
    key = Stream.of(ExtractConfig(backbone="lenet5")).key
    store = FeatureStore.create(folder / "random", key)
    random = np.random.default_rng(0)
    info = VideoInfo(length, 1.0, float(length), 64, 64, "h264", "pyav", False, 0, 1, 1)
    rows = Rows(
        pts_seconds=np.arange(length) / length,
        frame_index=np.arange(length),
        scene_index=np.zeros(length, np.int32),
    )
    with store.writer(max_videos=num_sequences) as writer:
        for number in range(num_sequences):
            features = random.normal(size=(length, dim)).astype(np.float32)
            writer.add(FeatureSequence(f"{number}.mp4", features, rows, info))
    videos = [LabeledVideo(f"{number}.mp4", "ab"[number % 2]) for number in range(num_sequences)]
    return SequenceDataset(FeatureStore.open(store.path), videos, ["a", "b"])


def epoch_seconds(dataset: SequenceDataset, device: torch.device) -> float:
    """Return the seconds of an epoch, the lower of two after one more."""
    config = TrainConfig(head="lstm", components=0, batch_size=64, device=device.type)
    head = build_head("lstm", dataset.dim, 2, config).to(device)
    optimiser, order, seconds = make_optimiser(head, config), torch.arange(len(dataset)), []
    for _ in range(3):
        _wait_for(device.type)
        started = time.perf_counter()
        train_epoch(head, dataset, optimiser, config, order)
        _wait_for(device.type)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


if __name__ == "__main__":
    print(run())
