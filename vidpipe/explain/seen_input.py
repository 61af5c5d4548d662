"""The picture, or the frames of a video, that a backbone is shown."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vidpipe.backbones.spec import BackboneSpec
from vidpipe.errors import InputError, UsageError, VideoError
from vidpipe.records import FramePlan, Rows, Window
from vidpipe.video.reader import VideoReader, read_frames
from vidpipe.video.resize import resize_and_crop
from vidpipe.video.windows import plan_windows

__all__ = ["SeenInput", "read_input"]

PICTURE_FORMATS = ("JPEG", "PNG")


@dataclass(frozen=True)
class SeenInput:
    """What a backbone sees of a file."""

    name: str
    """The file's name."""
    frames: Tensor
    """(1, 3, H, W) uint8 RGB, or (1, W, 3, H, W) for a backbone that sees windows of frames."""
    pts_seconds: float | None
    """When the frame is shown, of a window the one in the middle; None of a picture."""

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB: the frame, or the one in the middle of the window."""
        shown = self.frames[0] if self.frames.ndim == 4 else self.frames[0, (self.frames.shape[1] - 1) // 2]
        picture: NDArray[np.uint8] = shown.permute(1, 2, 0).numpy()
        return picture


def read_input(path: Path, spec: BackboneSpec, *, at_seconds: float | None = None) -> SeenInput:
    """Read a picture, or a frame of a video, at the input size of a backbone.

    Args:
        path: a JPEG, a PNG or a video.
        spec: the backbone.
        at_seconds: the time of the frame; None for the middle of the video.

    Returns:
        What the backbone sees.

    Raises:
        InputError: the file cannot be read.
        UsageError: there is no such file, a time is given with a picture or lies outside of the video, or the backbone
            sees windows of frames and the file is a picture.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give a JPEG, a PNG or a video")
    picture = _read_picture(path)
    if picture is None:
        try:
            return _read_video(path, spec, at_seconds)
        except VideoError as error:
            raise InputError(f"{path}: cannot be read ({error}); give a JPEG, a PNG or a video") from error
    if at_seconds is not None:
        raise UsageError(f"--at {at_seconds:g}: {path} is a picture; leave --at out, or give a video")
    if spec.window is not None:
        raise UsageError(f"{path}: is a picture, and {spec.name} sees windows of frames; give a video")
    return SeenInput(path.name, torch.from_numpy(resize_and_crop(picture[None], spec.preprocessing)), None)


def _read_picture(path: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) RGB, turned as its EXIF says; None where the file is no picture."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: the picture cannot be read ({error}); save it again as a JPEG or a PNG") from error


def _read_video(path: Path, spec: BackboneSpec, at_seconds: float | None) -> SeenInput:
    reader, frames = read_frames(path, lambda reader: _plan(reader, path, spec.window, at_seconds).frame_index)
    plan = _plan(reader, path, spec.window, at_seconds)
    pictures = torch.from_numpy(resize_and_crop(frames, spec.preprocessing))
    seen = pictures if plan.row_frames is None else pictures[torch.from_numpy(plan.row_frames)]
    return SeenInput(path.name, seen, float(plan.rows.pts_seconds[0]))


def _plan(reader: VideoReader, path: Path, window: Window | None, at_seconds: float | None) -> FramePlan:
    """One row: the frame on screen at a time, or in the middle, or the window around it."""
    first, end = float(reader.pts_seconds[0]), reader.end_seconds
    if at_seconds is None:
        centre = (len(reader.pts_seconds) - 1) // 2
    elif first <= at_seconds <= end:
        centre = int(np.searchsorted(reader.pts_seconds, at_seconds, side="right")) - 1
    else:
        raise UsageError(f"--at {at_seconds:g}: {path} is from {first:.2f} to {end:.2f} s; choose a time between")
    index = np.array([centre], np.int64)
    rows = Rows(pts_seconds=reader.pts_seconds[index], frame_index=index, scene_index=np.zeros(1, np.int32))
    if window is None:
        return FramePlan(index, rows)
    return plan_windows(rows, window, reader.pts_seconds, reader.end_seconds)
