"""Time by stage of one video: opening, decoding, colours, resizing, image model; by cProfile, in one process.

python -m benchmarks.time_by_stage
"""

import cProfile
import pstats
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.clips import labelled_sets
from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.records import VideoFile
from vidpipe.video.files import find_videos
from vidpipe.video.reader import open_video
from vidpipe.video.resize import resize_and_crop
from vidpipe.video.sampling import plan_frames

NUM_VIDEOS = 40
CONFIG = ExtractConfig(backbone="efficientnet_lite0", engine="onnx", device="cpu")
STREAM = Stream.of(CONFIG)
STAGES = {
    "opening the file, FFmpeg's analysis of its streams": ("container.py", "open_container"),
    "reading the packets": ("packets.py", "add"),
    "decoding": ("pyav_reader.py", "_frame"),
    "colours: YUV to RGB": ("pyav_reader.py", "rgb"),
    "resizing and cropping": ("resize.py", "resize_and_crop"),
    "the image model": ("engines.py", "start"),
}


def read(video: VideoFile) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Read a video as a decoding process does: (T, 3, H, W)"""
    reader = open_video(video.path)
    plan = plan_frames(CONFIG.resolve_sampling(), reader.pts_seconds, reader.end_seconds, ())
    preprocessing = STREAM.spec.preprocessing
    return np.concatenate([resize_and_crop(block, preprocessing) for block in reader.blocks(plan.frame_index)])


def extract(videos: list[VideoFile], engine: Engine) -> None:
    """Extract one video after another."""
    for video in videos:
        frames = read(video)
        for start in range(0, len(frames), 8):
            engine.start(frames[start : start + 8])()


def run(num_videos: int = NUM_VIDEOS) -> str:
    """Measure, and return a section of RESULTS.md."""
    torch.set_num_threads(1)
    engine = STREAM.load_engine(device=CONFIG.device, engine=CONFIG.engine, num_videos=num_videos)
    with tempfile.TemporaryDirectory() as folder:
        found = find_videos([next(iter(labelled_sets(Path(folder)).values())).parent])
        videos = found[:: max(1, len(found) // num_videos)][:num_videos]
        extract(videos[:2], engine)
        with cProfile.Profile() as profile:
            extract(videos, engine)
    seconds = {
        (Path(file).name, function): cumulative
        for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    }
    whole = seconds["time_by_stage.py", "extract"]
    stages = {name: seconds.get(place, 0.0) for name, place in STAGES.items()}
    stages["everything else"] = whole - sum(stages.values())
    lines = (f"| {name} | {1000 * took / len(videos):.1f} | {took / whole:.0%} |" for name, took in stages.items())
    return (
        "## Time by stage (`benchmarks/time_by_stage.py`)\n\n"
        f"{len(videos)} videos one after another in one process, uniform 16, efficientnet_lite0 by ONNX Runtime on all "
        "cores, decoding on one; including cProfile's own cost.\n\n| | ms per video | share |\n|---|---|---|\n"
        + "\n".join(lines)
    )


if __name__ == "__main__":
    print(run(*map(int, sys.argv[1:])))
