"""Reads the annotated frames of videos, and annotated pictures."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vidpipe.errors import LabelsError, VideoError
from vidpipe.regions.training.coco import AnnotatedFrame, Annotations, FrameName
from vidpipe.video.reader import VideoReader, iterate_frames

__all__ = ["read_annotated_frames"]


def read_annotated_frames(annotations: Annotations, folder: Path) -> Iterator[tuple[AnnotatedFrame, NDArray[np.uint8]]]:
    """Read frames with their annotations, each video once.

    Args:
        annotations: of frames and pictures.
        folder: of the videos and pictures.

    Yields:
        Each annotated frame with its pixels, (H, W, 3) RGB, sorted by file and place.

    Raises:
        LabelsError: a file is not there, a video does not have a frame, or a frame has another size.
        VideoError: a file cannot be read.
    """
    frames = sorted(annotations.frames, key=attrgetter("name"))
    for file_name, of_file in groupby(frames, key=lambda frame: frame.name.file_name):
        wanted, path = list(of_file), folder / file_name
        if not path.is_file():
            raise LabelsError(f"{annotations.path}: names {file_name}, and there is no {path}")
        pixels = _read(path, [frame.name for frame in wanted], annotations.path)
        for frame, image in zip(wanted, pixels, strict=True):
            _check_size(annotations.path, frame, image)
            yield frame, image


def _read(path: Path, names: Sequence[FrameName], source: Path) -> Iterator[NDArray[np.uint8]]:
    if names[0].frame_index < 0:
        return iter([_read_picture(path)] * len(names))

    def choose(reader: VideoReader) -> list[int]:
        num_frames = len(reader.pts_seconds)
        if names[-1].frame_index >= num_frames:
            raise LabelsError(
                f"{source}: {names[-1]} is annotated, and the video has {num_frames} frames (0 to {num_frames - 1}); "
                "are these the annotations of another video?"
            )
        return [name.frame_index for name in names]

    if len(set(names)) < len(names):
        raise LabelsError(f"{source}: {names[0].file_name}: two images are the same frame")
    return iterate_frames(path, choose)


def _read_picture(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises them for damaged files
        raise VideoError(f"{path}: cannot be read as a picture ({error})") from error


def _check_size(source: Path, frame: AnnotatedFrame, image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    if (height, width) != (frame.height, frame.width):
        raise LabelsError(
            f"{source}: {frame.name} is annotated as {frame.width} × {frame.height} pixels, and has {width} × "
            f"{height}; annotate the frames at the size of the video"
        )
