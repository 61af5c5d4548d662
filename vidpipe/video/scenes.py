"""Finding scenes with PySceneDetect's AdaptiveDetector, on frames from vidpipe's own reader.

So a scene's bounds are the frame indices that sampling uses, for every file that can be read. The settings are those
with the best mean F1 in PySceneDetect's benchmark (benchmark/README.md in its repository).
"""

from fractions import Fraction
from itertools import pairwise

import numpy as np
from scenedetect import AdaptiveDetector
from scenedetect.common import FrameTimecode, Timecode
from scenedetect.scene_manager import compute_downscale_factor

from vidpipe.video.reader import VideoReader
from vidpipe.video.resize import resize

__all__ = ["find_scenes"]

MICROSECOND = Fraction(1, 1_000_000)


def find_scenes(reader: VideoReader) -> list[tuple[int, int]]:
    """Find the scenes of a video.

    Args:
        reader: the video.

    Returns:
        [start, stop) frame indices of each scene; one scene where there is no cut.

    Raises:
        DecodeError: a frame cannot be decoded.
    """
    detector = AdaptiveDetector(adaptive_threshold=3.5, window_width=3, min_scene_len="0.6s")
    ticks = np.round((reader.pts_seconds - reader.pts_seconds[0]) * 1_000_000).astype(np.int64)
    fps = Fraction(reader.info.fps or 25.0).limit_denominator(1001)
    scale = compute_downscale_factor(reader.info.width)
    size = (max(1, round(reader.info.height / scale)), max(1, round(reader.info.width / scale)))
    cuts: list[int] = []
    number = 0
    for block in reader.blocks(range(reader.info.num_frames), keep=True):
        for rgb in resize(block, size, "bilinear"):
            bgr = np.ascontiguousarray(rgb.transpose(1, 2, 0)[:, :, ::-1])  # (3, H, W) RGB -> (H, W, 3) BGR
            timecode = FrameTimecode(Timecode(int(ticks[number]), MICROSECOND), fps)
            cuts.extend(int(np.searchsorted(ticks, cut.pts)) for cut in detector.process_frame(timecode, bgr))
            number += 1
    bounds = [0, *cuts, reader.info.num_frames]
    return list(pairwise(bounds))
