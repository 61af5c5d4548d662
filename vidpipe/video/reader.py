"""A video file as frames by number. decord decodes; where it cannot, or contradicts the packets, PyAV does.

Both readers give the same frames and the same times; `open_video` chooses.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError
from vidpipe.records import VideoInfo
from vidpipe.video.packets import PacketTimes, scan_packets
from vidpipe.video.pyav_reader import PyavReader

__all__ = ["DecordReader", "VideoReader", "import_decord", "open_video"]

logger = logging.getLogger(__name__)

BLOCK_BYTES = 32 * 2**20
"""Frames are decoded in blocks of about this size, so that memory does not grow with the number asked for."""
TIME_TOLERANCE_SECONDS = 1e-3
"""decord gives its times as float32: a tenth of this after an hour."""


class VideoReader(Protocol):
    """An open video."""

    info: VideoInfo
    pts_seconds: NDArray[np.float64]
    """(F,) presentation times of all frames, increasing."""
    end_seconds: float
    """When the last frame's presentation ends."""

    def blocks(self, frame_index: Sequence[int] | NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The frames asked for, in order, some at a time: (T, H, W, 3) RGB.

        Args:
            frame_index: strictly increasing, in presentation order.

        Raises:
            DecodeError: a frame cannot be decoded.
        """


def open_video(path: Path, *, decoder: str | None = None) -> VideoReader:
    """Open a video file.

    Args:
        path: the file.
        decoder: `decord` or `pyav`; None tries them in this order.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: it holds one that cannot be decoded.
    """
    packets = scan_packets(path)
    if decoder != "pyav":
        try:
            return DecordReader(path, packets)
        except DecodeError as error:
            if decoder == "decord":
                raise
            logger.debug("%s: PyAV instead of decord: %s", path, error)
    return PyavReader(path)


class DecordReader:
    """Reads a video with decord.

    Raises:
        DecodeError: decord cannot open the file, or its frames are not those that the packets announce.
    """

    def __init__(self, path: Path, packets: PacketTimes) -> None:
        self._decord = import_decord()
        self._errors = (self._decord.DECORDError, self._decord.DECORDLimitReachedError, RuntimeError, AssertionError)
        try:
            self._reader = self._decord.VideoReader(str(path.absolute()), num_threads=1, fault_tol=1e-6)
            _, height, width, _ = self._reader.get_batch([0]).asnumpy().shape
            starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0].astype(np.float64)
        except self._errors as error:
            raise DecodeError(_first_line(error)) from error
        self._check(starts, packets)
        self.pts_seconds = packets.pts_seconds
        self.end_seconds = packets.end_seconds
        self._block = max(1, BLOCK_BYTES // (height * width * 3))
        self.info = VideoInfo.of_file(
            path, self.pts_seconds, self.end_seconds, width=width, height=height, codec=packets.codec, decoder="decord"
        )

    @staticmethod
    def _check(starts: NDArray[np.float64], packets: PacketTimes) -> None:
        if packets.open_gop:
            raise DecodeError("key frames that are no clean entry points: decord would miscount after seeking to one")
        if not packets.distinct or len(starts) != len(packets.pts_seconds):
            raise DecodeError(f"decord counts {len(starts)} frames, the packets {len(packets.pts_seconds)}")
        difference = (starts - starts[0]) - (packets.pts_seconds - packets.pts_seconds[0])
        if not np.all(np.abs(difference) < TIME_TOLERANCE_SECONDS):
            raise DecodeError("decord's frame times are not those of the packets")

    def blocks(self, frame_index: Sequence[int] | NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`."""
        for start in range(0, len(frame_index), self._block):
            try:
                frames = self._reader.get_batch(list(map(int, frame_index[start : start + self._block]))).asnumpy()
            except self._errors as error:
                raise DecodeError(_first_line(error)) from error
            yield frames


def import_decord() -> ModuleType:
    """decord, kept from loading every CUDA library that pip has installed: 600 MB that its CPU build never uses."""
    hidden = sys.modules.get("nvidia")
    sys.modules["nvidia"] = None  # type: ignore[assignment]
    try:
        import decord
    finally:
        del sys.modules["nvidia"]
        if hidden is not None:
            sys.modules["nvidia"] = hidden
    decord.logging.set_level(decord.logging.QUIET)
    return decord  # type: ignore[no-any-return]


def _first_line(error: BaseException) -> str:
    """A native error's own words, without its stack trace."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
