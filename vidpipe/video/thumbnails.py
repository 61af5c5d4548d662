"""A few small frames of a video as data URIs, so that a page needs no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Sampling
from vidpipe.records import FrameBatch, Preprocessing, VideoFailure, VideoFile
from vidpipe.video.decoding import decode_videos
from vidpipe.video.reader import VideoReader, read_frames
from vidpipe.video.sampling import ROUNDING_SECONDS
from vidpipe.video.view import View

__all__ = [
    "NUM_THUMBNAILS",
    "THUMBNAIL_PIXELS",
    "TIMEOUT_SECONDS",
    "Thumbnail",
    "jpeg_uri",
    "read_frames_at",
    "read_thumbnails",
]

NUM_THUMBNAILS = 6
THUMBNAIL_PIXELS = 144
JPEG_QUALITY = 72
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Thumbnail:
    """A small frame of a video."""

    pts_seconds: float
    uri: str
    """`data:image/jpeg;base64,…`"""
    share: float | None = None
    """Of the margin, where the frame has a heat map."""


def read_thumbnails(
    videos: Sequence[VideoFile], preprocessing: Mapping[str, Any]
) -> tuple[dict[str, tuple[Thumbnail, ...]], dict[str, str]]:
    """Read a few frames of each video, cropped as the image model sees them.

    Args:
        videos: the files.
        preprocessing: of a feature key; its `resize` and `crop` give what the model sees.

    Returns:
        The frames of each video that can be decoded, and the problem of each one that cannot, both by video id.
    """
    thumbnails: dict[str, tuple[Thumbnail, ...]] = {}
    problems: dict[str, str] = {}
    small = _smaller(preprocessing["resize"], preprocessing["crop"])
    sampling = Sampling("uniform", num_frames=NUM_THUMBNAILS)
    decoding = decode_videos(videos, {"": View(sampling, small)}, workers=1, timeout_seconds=TIMEOUT_SECONDS)
    for result in decoding if videos else ():
        if isinstance(result, FrameBatch):
            seconds = result.plan.rows.pts_seconds
            thumbnails[result.video.id] = tuple(
                Thumbnail(float(when), jpeg_uri(frame.transpose(1, 2, 0)))  # (3, H, W) -> (H, W, 3)
                for when, frame in zip(seconds, result.pictures, strict=True)
            )
        elif isinstance(result, VideoFailure):
            thumbnails.pop(result.video_id, None)
            problems[result.video_id] = result.message
    return thumbnails, problems


def _smaller(resize: int | list[int], crop: int | list[int]) -> Preprocessing:
    """What shows the same part of a picture in a square of `THUMBNAIL_PIXELS`."""
    height, width = (crop, crop) if isinstance(crop, int) else crop
    scales = THUMBNAIL_PIXELS / height, THUMBNAIL_PIXELS / width
    size: int | tuple[int, int]
    if isinstance(resize, int):
        size = round(resize * max(scales))
    else:
        size = round(resize[0] * scales[0]), round(resize[1] * scales[1])
    return Preprocessing(size, THUMBNAIL_PIXELS, "bilinear", mean=(0, 0, 0), std=(1, 1, 1))


def jpeg_uri(frame: NDArray[np.uint8]) -> str:
    """Return a picture (H, W, 3) uint8 RGB as a data URI, `data:image/jpeg;base64,…`."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def read_frames_at(path: Path, seconds: Sequence[float]) -> tuple[Thumbnail, ...]:
    """Read the frames on screen at some times, whole and small.

    Args:
        path: the video's file.
        seconds: presentation times; one before the first frame or after the last gives that frame.

    Returns:
        A frame for each time.

    Raises:
        VideoError: the file cannot be read.
    """
    places: list[int] = []

    def choose(reader: VideoReader) -> list[int]:
        on_screen = np.searchsorted(reader.pts_seconds, np.asarray(seconds) + ROUNDING_SECONDS, side="right") - 1
        places[:] = np.clip(on_screen, 0, len(reader.pts_seconds) - 1).tolist()
        return sorted(set(places))

    reader, frames = read_frames(path, choose)
    chosen = sorted(set(places))
    height, width = frames.shape[1:3]
    scale = THUMBNAIL_PIXELS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = {
        place: Thumbnail(float(reader.pts_seconds[place]), _small_uri(frame, size))
        for place, frame in zip(chosen, frames, strict=True)
    }
    return tuple(small[place] for place in places)


def _small_uri(frame: NDArray[np.uint8], size: tuple[int, int]) -> str:
    from PIL import Image

    return jpeg_uri(np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)))
