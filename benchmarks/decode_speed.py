"""Decoding 16 uniform frames of a video, compared with decord and torchcodec; and 16 frames of a long video.

    python -m benchmarks.decode_speed

Each reader has one thread and opens the file each time; they take turns. The ratio is of the lowest processor times.
The pixels must be identical. torchcodec is optional (`pip install torchcodec`; it needs FFmpeg's libraries).
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import SHARED_DATA, write_clip
from tests.media import repeat_video
from vidpipe.video.reader import open_video, read_frames
from vidpipe.video.reader_decord import import_decord
from vidpipe.video.sampling import uniform_indices

NUM_FRAMES, NUM_RUNS, NUM_REAL = 16, 7, 12
Frames = NDArray[np.uint8]


def by_vidpipe(path: Path) -> Frames:
    """(T, H, W, 3)"""
    return read_frames(path, lambda reader: uniform_indices(reader.info.num_frames, NUM_FRAMES))[1]


def by_decord(path: Path) -> Frames:
    """(T, H, W, 3)"""
    reader = import_decord().VideoReader(str(path), num_threads=1)
    frames: Frames = reader.get_batch(uniform_indices(len(reader), NUM_FRAMES).tolist()).asnumpy()
    return frames


def by_torchcodec(path: Path) -> Frames:
    """(T, H, W, 3)"""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
    frames: Frames = decoder.get_frames_at(uniform_indices(len(decoder), NUM_FRAMES).tolist()).data.numpy()
    return frames


def peers() -> dict[str, Callable[[Path], Frames]]:
    """Return the other readers that are installed."""
    found: dict[str, Callable[[Path], Frames]] = {"decord": by_decord}
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError):
        return found
    return {**found, "torchcodec": by_torchcodec}


def videos(folder: Path) -> dict[str, Path]:
    """Return files by description."""
    write = partial(write_clip, num_frames=250, width=640, height=360)
    found = {
        "H.264, 3 B-frames": write(folder / "b.mp4", "libx264", {"g": "50", "bf": "3"}),
        "H.264, no B-frames": write(folder / "p.mp4", "libx264", {"g": "50", "bf": "0"}),
        "MPEG-4, AVI": write(folder / "m.avi", "mpeg4", {"g": "12"}),
    }
    if SHARED_DATA.is_dir():
        real = sorted((SHARED_DATA / "clips" / "fight").rglob("*.mp4"))
        found |= {f"fight {path.stem}": path for path in real[:: max(1, len(real) // NUM_REAL)][:NUM_REAL]}
    return found


def _seconds(read: Callable[[Path], Frames], path: Path) -> float:
    """Processor time: each reader has one thread at work at a time."""
    started = time.process_time()
    read(path)
    return time.process_time() - started


def compare(path: Path) -> dict[str, tuple[float, bool]]:
    """Return for each other reader how many times as fast vidpipe is, and whether the pixels are identical."""
    readers = {"vidpipe": by_vidpipe, **peers()}
    same = {name: np.array_equal(read(path), by_vidpipe(path)) for name, read in readers.items()}
    runs = [{name: _seconds(read, path) for name, read in readers.items()} for _ in range(NUM_RUNS)]
    seconds = {name: min(run[name] for run in runs) for name in readers}
    return {name: (seconds[name] / seconds["vidpipe"], same[name]) for name in readers if name != "vidpipe"}


def sparse(folder: Path) -> str:
    """Compare 16 frames of an hour with 16 frames of a minute, and with all frames of the hour."""
    minute = write_clip(folder / "minute.mp4", "libx264", {"g": "50"}, num_frames=1500, width=320, height=240)
    hour = repeat_video(minute, folder / "hour.mp4", 60)
    short, long = (min(_seconds(by_vidpipe, path) for _ in range(3)) for path in (minute, hour))
    started = time.process_time()
    reader = open_video(minute)
    num_frames = sum(len(block) for block in reader.blocks(range(reader.info.num_frames)))
    whole_hour = 60 * (time.process_time() - started)
    return (
        f"16 frames of an hour (320 × 240, 90,000 frames): {long / short:.1f} × the time of 16 frames of a minute, "
        f"1/{whole_hour / long:.0f} of decoding all (estimated from {num_frames} frames)."
    )


def run() -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        compared = {name: compare(path) for name, path in videos(Path(scratch)).items()}
        long = sparse(Path(scratch))
    names = list(peers())
    lines = [f"| video | {' | '.join(f'vidpipe / {name}' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for video, ratios in compared.items():
        cells = (f"{ratio:.2f} ×{'' if same else ' (other pixels)'}" for ratio, same in ratios.values())
        lines.append(f"| {video} | {' | '.join(cells)} |")
    return (
        "## Decoding (`benchmarks/decode_speed.py`)\n\n"
        f"16 uniform frames, opening included; processor time compared with each reader, one thread, the lowest "
        f"of {NUM_RUNS}.\n\n" + "\n".join(lines) + f"\n\n{long}"
    )


if __name__ == "__main__":
    print(run())
