"""What a backbone is shown: a picture, a frame of a video, or a window of frames."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vidpipe.backbones.spec import BackboneSpec
from vidpipe.errors import InputError, UsageError
from vidpipe.records import Rows
from vidpipe.video.reader import VideoReader, read_frames
from vidpipe.video.resize import resize_and_crop
from vidpipe.video.windows import plan_windows

__all__ = ["Seen", "read_seen"]

PICTURE_FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True)
class Seen:
    """What a backbone sees at its input."""

    pixels: NDArray[np.uint8]
    """(3, H, W) RGB; (W, 3, H, W) for a clip backbone."""
    pts_seconds: float | None
    """The time of the frame in its video, or of the centre of the window; None for a picture."""

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(3, H, W): the frame, or the middle frame of the window."""
        return self.pixels if self.pixels.ndim == 3 else self.pixels[len(self.pixels) // 2]


def read_seen(path: Path, spec: BackboneSpec, *, at_seconds: float | None = None) -> Seen:
    """Read a picture, or a frame or a window of a video, at a backbone's input size.

    Args:
        path: a JPEG, a PNG or a video.
        spec: the backbone.
        at_seconds: presentation time of the frame; None for the middle of the video.

    Returns:
        What the backbone sees.

    Raises:
        UsageError: the time lies outside the video, a picture has no time, or the backbone sees no pictures.
        InputError: the file cannot be read, or is a damaged picture.
        VideoError: the video cannot be read.
    """
    picture = _read_picture(path)
    if picture is None:
        return _read_video(path, spec, at_seconds)
    if spec.window is not None:
        raise UsageError(f"{path}: is a picture, and {spec.name} sees windows of frames; give a video")
    if at_seconds is not None:
        raise UsageError(f"{path}: is a picture, and --at chooses a frame of a video; leave it out")
    return Seen(resize_and_crop(picture[None], spec.preprocessing)[0], None)


def _read_picture(path: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) RGB, upright; None where the file is no picture."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); give a JPEG, a PNG or a video") from error


def _read_video(path: Path, spec: BackboneSpec, at_seconds: float | None) -> Seen:
    places: list[int] = []  # of the frames in the window, and the time, once the video is open

    def choose(reader: VideoReader) -> NDArray[np.int64]:
        index = _frame_at(path, reader, at_seconds)
        if spec.window is None:
            return np.array([index])
        centre = Rows(reader.pts_seconds[[index]], np.array([index]), np.zeros(1, np.int32))
        plan = plan_windows(centre, spec.window, reader.pts_seconds, reader.end_seconds)
        assert plan.row_frames is not None
        places[:] = plan.row_frames[0].tolist()
        return plan.frame_index

    reader, frames = read_frames(path, choose)
    pictures = resize_and_crop(frames, spec.preprocessing)
    pts_seconds = float(reader.pts_seconds[_frame_at(path, reader, at_seconds)])
    return Seen(pictures[places] if places else pictures[0], pts_seconds)


def _frame_at(path: Path, reader: VideoReader, at_seconds: float | None) -> int:
    """The frame that is on screen at a time, or the middle one."""
    times = reader.pts_seconds
    if at_seconds is None:
        return (len(times) - 1) // 2
    last = max(reader.end_seconds, float(times[-1]))
    if not times[0] <= at_seconds <= last:
        raise UsageError(f"{path}: --at {at_seconds:g} is outside the video, from {times[0]:.2f} to {last:.2f} s")
    return int(np.searchsorted(times, at_seconds, side="right")) - 1
