"""Extraction of thousands of damaged videos: nothing may hang, crash, or be stored as a wrong row.

    python -m benchmarks.fuzz 2000

A mutant is a small real video with flipped bits, a hole, a missing end, another video's header, or changed sizes. The
feature of a frame is its own 4 × 4 thumbnail, so that a row shows which picture it was made from. Each stored row is
compared with the frame at that time in a decode from the start, which shares no code with vidpipe.
"""

import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import TimeoutError
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from benchmarks.clips import small_videos
from vidpipe.backbones.engines.torch import TorchEngine
from vidpipe.backbones.image import FrozenBackbone
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.execution.loaded import LoadedStream
from vidpipe.execution.local import extract_into
from vidpipe.features.key import FeatureKey
from vidpipe.features.maintenance import find_damage
from vidpipe.features.store import FeatureStore
from vidpipe.records import Preprocessing, VideoFile

SIZE, GRID = 32, 4
CONFIG = ExtractConfig(num_frames=8, timeout=30.0, workers=2, device="cpu", batch_size=64)
SAMPLINGS = {"uniform": CONFIG.resolve_sampling(), "fps": Sampling("fps", fps=3.0)}
"""Of each stream."""
ORACLE_SECONDS = 60.0
TOLERANCE = 6.0
"""Of 255: the oracle shrinks a picture in another way."""
ROUNDING_SECONDS = 2e-3


class Thumbnails(nn.Module):
    """(N, 3, H, W) -> (N, 3 · GRID · GRID, 1, 1)"""

    def forward(self, pixels: Tensor) -> Tensor:
        return adaptive_avg_pool2d(pixels, GRID).flatten(1)[:, :, None, None]


def thumbnail_backbone() -> FrozenBackbone:
    """Return a backbone whose feature is a thumbnail of the picture, 0 to 1."""
    preprocessing = Preprocessing(resize=SIZE, crop=SIZE, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    return FrozenBackbone(Thumbnails(), dim=3 * GRID * GRID, pool="avg", preprocessing=preprocessing)


def mutate(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return a mutant of a file; `other` is another file's content."""
    return dice.choice(MUTATIONS)(bytearray(content), other, dice)


def _flip_bits(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 4, 30))):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(content)


def _flip_bits_of_the_header(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 4))):
        content[dice.randrange(min(2048, len(content)))] ^= 1 << dice.randrange(8)
    return bytes(content)


def _cut_the_end(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    return bytes(content[: dice.randrange(len(content))])


def _make_a_hole(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    start, length = dice.randrange(len(content)), dice.choice((16, 500, 5000))
    filled = bytes(length) if dice.random() < 0.5 else dice.randbytes(length)
    content[start : start + length] = filled[: len(content) - start]
    return bytes(content)


def _leave_out(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content))
    del content[start : start + dice.choice((1, 100, 5000))]
    return bytes(content)


def _repeat_a_part(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    start, length = dice.randrange(len(content)), dice.choice((10, 1000, 20000))
    content[start:start] = content[start : start + length]
    return bytes(content)


def _take_anothers_header(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    end = dice.choice((64, 512, 4096))
    return other[:end] + bytes(content[end:])


def _change_a_size(content: bytearray, other: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 3))):
        near_an_end = dice.choice((0, max(0, len(content) - 4096))) + dice.randrange(min(4096, len(content)))
        place = max(0, min(near_an_end, len(content) - 4))
        number = dice.choice((0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, dice.getrandbits(32)))
        struct.pack_into(dice.choice((">I", "<I")), content, place, number)
    return bytes(content)


MUTATIONS = (
    _flip_bits,
    _flip_bits_of_the_header,
    _cut_the_end,
    _make_a_hole,
    _leave_out,
    _repeat_a_part,
    _take_anothers_header,
    _change_a_size,
)


def write_mutants(folder: Path, count: int, seed: int) -> list[VideoFile]:
    """Write mutants of the small videos."""
    dice = random.Random(seed)
    originals = [(path.suffix, path.read_bytes()) for path in small_videos(folder / "originals")]
    videos = []
    for number in range(count):
        suffix, content = dice.choice(originals)
        path = folder / f"{number:05}{suffix}"
        path.write_bytes(mutate(content, dice.choice(originals)[1], dice))
        videos.append(VideoFile(path.name, path))
    return videos


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """Extract mutants in two streams, and count the outcomes."""
    videos = write_mutants(folder, count, seed)
    engine = TorchEngine(thumbnail_backbone())
    streams = {name: LoadedStream(engine, _key(engine, sampling)) for name, sampling in SAMPLINGS.items()}
    stores = {name: FeatureStore.create(folder / "stores" / name, stream.key) for name, stream in streams.items()}
    outcomes: Counter[str] = Counter()
    for progress in extract_into(stores, videos, streams, config=CONFIG):
        if progress.failure is not None:
            outcomes[progress.failure.error] += 1
    for store in stores.values():
        store.refresh()
        outcomes.update(_count(store, videos, folder))
    return outcomes


def _key(engine: TorchEngine, sampling: Sampling) -> FeatureKey:
    return FeatureKey.of(
        sampling,
        backbone="thumbnails",
        weights_id="none",
        pooling="avg",
        preprocessing=engine.preprocessing,
        dtype="float32",
    )


def _count(store: FeatureStore, videos: list[VideoFile], folder: Path) -> Counter[str]:
    """The outcomes in one store."""
    outcomes: Counter[str] = Counter()
    outcomes["damaged shards"] += len(find_damage(store))
    outcomes["not accounted for"] += len(videos) - len(store) - len(store.failures)
    for video_id, wrong, undefined in _judge(store, {video.id: video for video in videos}):
        outcomes["stored, marked damaged" if store.info(video_id).damaged else "stored"] += 1
        outcomes["rows"] += len(store[video_id])
        outcomes["wrong rows"] += len(wrong)
        outcomes["rows of pictures that FFmpeg decodes differently each time"] += undefined
        for problem in wrong:
            print(f"{folder / video_id}: {problem}", file=sys.stderr)
    return outcomes


def _judge(store: FeatureStore, videos: dict[str, VideoFile]) -> Iterator[tuple[str, list[str], int]]:
    """Each stored video, its wrong rows, and the number of rows that could not be compared."""
    with ProcessPool(max_workers=2, context=get_context("spawn")) as pool:
        oracles = {
            video_id: pool.schedule(decode_from_the_start, args=(videos[video_id].path,), timeout=ORACLE_SECONDS)
            for video_id in store
        }
        for video_id, oracle in oracles.items():
            try:
                seconds, thumbnails = oracle.result()
                wrong = dict(_wrong_rows(store, video_id, seconds, thumbnails))
                undefined = _undefined(pool, videos[video_id].path, thumbnails) & wrong.keys() if wrong else set()
            except (TimeoutError, ProcessExpired) as error:
                yield video_id, [f"the oracle did not finish ({error})"], 0
            else:
                yield (
                    video_id,
                    [problem for number, problem in wrong.items() if number not in undefined],
                    len(undefined),
                )


def _wrong_rows(
    store: FeatureStore, video_id: str, seconds: NDArray[np.float64], thumbnails: NDArray[np.float64]
) -> Iterator[tuple[int, str]]:
    """Frame numbers, and what is wrong with their rows."""
    sequence = store[video_id]
    rows = 255 * sequence.features.reshape(-1, 3, GRID, GRID).transpose(0, 2, 3, 1)
    seen: set[int] = set()
    for pts_seconds, number, row in zip(sequence.pts_seconds, sequence.rows.frame_index.tolist(), rows, strict=True):
        at_that_time = np.flatnonzero(np.abs(seconds - pts_seconds) < ROUNDING_SECONDS)
        candidates = {*at_that_time.tolist(), *((number,) if number < len(thumbnails) else ())}
        differences = [float(np.abs(thumbnails[candidate] - row).mean()) for candidate in sorted(candidates)]
        if min(differences, default=np.inf) > TOLERANCE:
            yield number, f"row at {pts_seconds:.3f} s (frame {number}) is no frame of the video: off by {differences}"
        if number in seen:
            yield number, f"frame {number} is stored twice"
        seen.add(number)


def _undefined(pool: ProcessPool, path: Path, thumbnails: NDArray[np.float64]) -> set[int]:
    """Frames that FFmpeg decodes differently if it may not reuse memory: because of the damage, its decoder reads
    uninitialised memory, and two decodes may differ."""
    _, held = pool.schedule(decode_from_the_start, args=(path,), kwargs={"hold": True}, timeout=ORACLE_SECONDS).result()
    return set(np.flatnonzero(np.abs(held - thumbnails).mean(axis=(1, 2, 3)) > TOLERANCE / 10).tolist())


def decode_from_the_start(path: Path, *, hold: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (F,) in seconds and thumbnails (F, GRID, GRID, 3), 0 to 255, of all frames that decode.

    Args:
        path: the video.
        hold: keep all frames until the end, so that the decoder cannot reuse memory.
    """
    times: list[float] = []
    pictures: list[NDArray[np.float64]] = []
    held: list[av.VideoFrame] = []
    size: tuple[int, int] | None = None
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        for frame in _frames(container, stream):
            held += [frame] if hold else []
            size = size or (frame.width, frame.height)
            turned = round(frame.rotation / 90) % 4
            rgb = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
            times.append(frame.time if frame.time is not None else np.nan)
            pictures.append(_thumbnail(np.rot90(rgb, turned)))
    return np.array(times), np.array(pictures)


def _frames(
    container: "av.container.InputContainer", stream: "av.video.stream.VideoStream"
) -> Iterator["av.VideoFrame"]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            packet = None
        try:
            yield from stream.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            pass
        if packet is None:
            return


def _thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) -> (GRID, GRID, 3) of the centre square"""
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    square = torch.from_numpy(np.ascontiguousarray(rgb[top : top + side, left : left + side])).permute(2, 0, 1)
    return adaptive_avg_pool2d(square.double(), GRID).permute(1, 2, 0).numpy()


def run(count: int = 1000, seed: int = 0) -> str:
    """Measure, and return a section of RESULTS.md."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = fuzz(count, seed, Path(folder))
    lines = "\n".join(f"| {name} | {number} |" for name, number in sorted(outcomes.items()))
    seconds = time.monotonic() - started
    return (
        "## Extraction of damaged videos (`benchmarks/fuzz.py`)\n\n"
        f"{count} mutants, seed {seed}, {seconds:.0f} s; the process that ran them did not crash.\n\n"
        f"| outcome | number |\n|---|---|\n{lines}"
    )


if __name__ == "__main__":
    print(run(*map(int, sys.argv[1:])))
