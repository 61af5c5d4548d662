"""A few frames of a video, small and as data URIs, so that a page needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FrameBatch, Preprocessing, VideoFailure, VideoFile
from vidpipe.video.decoding import decode_videos

__all__ = ["STILL_PIXELS", "Still", "read_stills"]

NUM_STILLS = 6
STILL_PIXELS = 144
JPEG_QUALITY = 72
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Still:
    """A frame of a video."""

    pts_seconds: float
    uri: str
    """`data:image/jpeg;base64,…`"""


def read_stills(
    videos: Sequence[VideoFile], preprocessing: Mapping[str, Any]
) -> tuple[dict[str, tuple[Still, ...]], dict[str, str]]:
    """Frames of each video, cropped as the image model sees them; and of those that cannot be read, why."""
    stills: dict[str, tuple[Still, ...]] = {}
    problems: dict[str, str] = {}
    side = round(STILL_PIXELS * preprocessing["resize"] / preprocessing["crop"])
    small = Preprocessing(side, STILL_PIXELS, "bilinear", mean=(0, 0, 0), std=(1, 1, 1))
    sampling = Sampling("uniform", num_frames=NUM_STILLS)
    decoding = decode_videos(videos, sampling=sampling, preprocessing=small, workers=1, timeout_seconds=TIMEOUT_SECONDS)
    for result in decoding if videos else ():
        if isinstance(result, FrameBatch):
            seconds = result.plan.rows.pts_seconds
            stills[result.video.id] = tuple(
                Still(float(when), _jpeg(frame.transpose(1, 2, 0)))
                for when, frame in zip(seconds, result.pictures, strict=True)
            )
        elif isinstance(result, VideoFailure):
            stills.pop(result.video_id, None)
            problems[result.video_id] = result.message
    return stills, problems


def _jpeg(frame: NDArray[np.uint8]) -> str:
    """(H, W, 3) as a data URI."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
