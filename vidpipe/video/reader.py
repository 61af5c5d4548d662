"""Reading a video file's frames by their number.

All readers give the same frames and the same times; `open_video` uses the first that can open the file. A reader that
finds damage raises DecodeError, and the next one is tried. The last one, `survey`, reads every frame that decodes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import DEFAULT_DECODER
from vidpipe.errors import DecodeError
from vidpipe.records import VideoInfo
from vidpipe.video.packets import open_source
from vidpipe.video.reader_decord import DecordReader
from vidpipe.video.reader_keyframe import KeyFrameReader
from vidpipe.video.reader_nvdec import NvdecReader
from vidpipe.video.reader_pyav import PyavReader, SurveyReader
from vidpipe.video.steps import OnStep, no_step

__all__ = ["METHODS", "VideoReader", "iterate_frames", "methods_from", "open_video", "read_frames"]

logger = logging.getLogger(__name__)


class VideoReader(Protocol):
    """An open video."""

    method: str
    """Which of `METHODS` it is."""
    pts_seconds: NDArray[np.float64]
    """(F,) presentation times of all frames, increasing."""
    end_seconds: float
    """When the last frame's presentation ends."""
    on_step: OnStep
    """Called with the number of packets or frames read, or with as many for other work on frames."""

    @property
    def info(self) -> VideoInfo:
        """What the file holds."""

    def find_key_frames(self, num_frames: int) -> NDArray[np.int64]:
        """Find the key frames that the sampling `keyframe` takes.

        Args:
            num_frames: the most to return; see `vidpipe.video.sampling.key_frame_indices`.

        Returns:
            (T,) their numbers in presentation order, increasing. Their `pts_seconds` are exact.

        Raises:
            DecodeError: the file does not have the key frames that its index states.
        """

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """Decode frames, in order.

        Args:
            frame_index: strictly increasing, in presentation order.
            keep: keep these frames in memory for a later call; PyAV's readers do so up to `MAX_KEPT_BYTES`.

        Yields:
            Some of the frames at a time, (n, H, W, 3) RGB.

        Raises:
            DecodeError: a frame cannot be decoded.
        """


_READERS: Mapping[str, Callable[..., VideoReader]] = {
    "decord": DecordReader,
    "pyav": PyavReader,
    "survey": SurveyReader,
    "nvdec": NvdecReader,
}
METHODS = ("decord", "pyav", "survey")
"""The readers of all frames with the same pixels; each reads more damaged files than the one before it."""


def methods_from(first: str, *, key_frames: bool = False) -> tuple[str, ...]:
    """Return the names of readers to try, one after the other.

    Args:
        first: the reader to begin with.
        key_frames: whether only key frames are read. Then the reader of an index is tried before PyAV's.

    Returns:
        The names.
    """
    if first in (KeyFrameReader.method, NvdecReader.method):
        return (first, *methods_from("pyav"))
    if key_frames and first == "pyav":
        return methods_from(KeyFrameReader.method)
    return METHODS[METHODS.index(first) :]


DEFAULT_METHODS = methods_from(DEFAULT_DECODER)


def open_video(
    path: Path,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    fast_decode: str = "off",
    on_step: OnStep = no_step,
) -> VideoReader:
    """Open a video file.

    Args:
        path: the file.
        methods: the names of the readers to try, in this order.
        fast_decode: one of `vidpipe.video.container.FAST_DECODE`.
        on_step: called often, with the number of packets or frames read.

    Returns:
        A reader that could open the file.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: it holds one that cannot be decoded.
    """
    if methods[0] == KeyFrameReader.method:
        try:
            return KeyFrameReader(path, fast_decode=fast_decode, on_step=on_step)
        except DecodeError as error:
            if len(methods) == 1:
                raise
            logger.debug("%s: not by its index: %s", path, error)
            methods = methods[1:]
    source = open_source(path, fast_decode=fast_decode, on_step=on_step)
    *others, last = methods
    for method in others:
        try:
            return _READERS[method](source, on_step=on_step)
        except DecodeError as error:
            logger.debug("%s: not by %s: %s", path, method, error)
    return _READERS[last](source, on_step=on_step)


def read_frames(
    path: Path, choose: Callable[[VideoReader], Sequence[int] | NDArray[np.int64]]
) -> tuple[VideoReader, NDArray[np.uint8]]:
    """Read some frames of a video.

    Args:
        path: the file.
        choose: returns the frames to read from an open video: strictly increasing, in presentation order.

    Returns:
        The reader that could decode them, and the frames, (n, H, W, 3) RGB.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: no reader can decode the frames.
    """
    methods = DEFAULT_METHODS
    while True:
        reader = open_video(path, methods=methods)
        try:
            return reader, _stacked(reader, choose(reader))
        except DecodeError:
            methods = methods_from(reader.method)[1:]
            if not methods:
                raise


def iterate_frames(
    path: Path, choose: Callable[[VideoReader], Sequence[int] | NDArray[np.int64]]
) -> Iterator[NDArray[np.uint8]]:
    """Read some frames of a video, without keeping all of them in memory.

    Args:
        path: the file.
        choose: returns the frames to read from an open video: strictly increasing, in presentation order.

    Yields:
        The frames, (H, W, 3) RGB, one after the other.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: no reader can decode the frames.
    """
    methods, num_done = DEFAULT_METHODS, 0
    while True:
        reader = open_video(path, methods=methods)
        try:
            for block in reader.blocks(choose(reader)[num_done:]):
                num_done += len(block)
                yield from block
            return
        except DecodeError:
            methods = methods_from(reader.method)[1:]
            if not methods:
                raise


def _stacked(reader: VideoReader, frame_index: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
    frames = np.empty((len(frame_index), reader.info.height, reader.info.width, 3), np.uint8)
    num_done = 0
    for block in reader.blocks(frame_index):
        frames[num_done : num_done + len(block)] = block
        num_done += len(block)
    return frames
