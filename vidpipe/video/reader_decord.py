"""A video file's frames by decord (package `decord2`), for `--decoder decord`.

It seeks wrongly in formats without an index, mends damaged key frames without a word, and decodes ahead without a
limit. So it is given small, sound, indexed files alone, and PyAV vouches for the key frames that it enters at.
"""

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError, count_of
from vidpipe.records import VideoInfo
from vidpipe.video.packets import Packets, Source
from vidpipe.video.reader_pyav import PyavReader
from vidpipe.video.steps import STEPS_PER_CHUNK, OnStep, no_step

__all__ = ["DecordReader", "import_decord"]

BLOCK_BYTES = 32 * 2**20
"""Frames are decoded in blocks of about this size, so that memory does not grow with the number asked for."""
INDEXED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "gif"})
"""Where decord was found to seek rightly, pixel for pixel (tests/test_ffmpeg.py)."""
MAX_DECODED_BYTES = 2**28
"""decord decodes ahead without a limit: 20,000 small frames took 4 GB, 60 of 8K took 6 GB."""
TIME_TOLERANCE_SECONDS = 1e-3
"""decord gives its times as float32: a tenth of this after an hour."""


class DecordReader:
    """Reads a video with decord; a `VideoReader`.

    Raises:
        DecodeError: decord cannot open the file, or its frames are not those that the packets announce.
    """

    method = "decord"

    def __init__(self, source: Source, *, on_step: OnStep = no_step) -> None:
        path, packets = source.path, source.packets
        self._on_step = on_step
        _check_packets(packets)
        self._pyav = PyavReader(source, on_step=on_step)
        if not self._pyav.is_upright:
            raise DecodeError("pictures turned by an angle that decord reads in its own way")
        if 3 * self._pyav.info.width * self._pyav.info.height * len(packets.ticks) > MAX_DECODED_BYTES:
            raise DecodeError("decord might hold all of these pictures at once")
        self._decord = import_decord()
        native = (self._decord.DECORDError, self._decord.DECORDLimitReachedError)
        self._errors = (*native, RuntimeError, AssertionError, UnicodeEncodeError)  # the last: a name that is no UTF-8
        try:
            self._reader = self._decord.VideoReader(str(path.absolute()), num_threads=1, fault_tol=1e-6)
            _, height, width, _ = self._reader.get_batch([0]).asnumpy().shape
            starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0].astype(np.float64)
        except self._errors as error:
            raise DecodeError(_first_line(error)) from error
        _check_times(starts, packets)
        self.pts_seconds = packets.pts_seconds
        self.end_seconds = packets.end_seconds
        self._block = max(1, BLOCK_BYTES // (height * width * 3))
        self.info = VideoInfo.of_file(
            path, self.pts_seconds, self.end_seconds, width=width, height=height, codec=packets.codec, decoder="decord"
        )

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`."""
        self._pyav.check_entries(frame_index)
        for start in range(0, len(frame_index), self._block):
            try:
                frames = self._reader.get_batch(list(map(int, frame_index[start : start + self._block]))).asnumpy()
            except self._errors as error:
                raise DecodeError(_first_line(error)) from error
            self._on_step(STEPS_PER_CHUNK)
            if _repeats(frames):
                raise DecodeError("decord gave one frame twice")
            yield frames


def _check_packets(packets: Packets) -> None:
    """Decline what decord is known to read wrongly without a word."""
    if packets.container not in INDEXED_FORMATS:
        raise DecodeError(f"decord seeks in {packets.container} by guessing")
    if packets.open_gop:
        raise DecodeError("key frames that are no clean entry points: decord would miscount after seeking to one")
    if packets.num_lost or not np.all(np.diff(packets.ticks) > 0):
        raise DecodeError("packets are missing, or share a time")


def _check_times(starts: NDArray[np.float64], packets: Packets) -> None:
    pts_seconds = packets.pts_seconds
    if len(starts) != len(pts_seconds):
        raise DecodeError(f"decord counts {count_of(len(starts), 'frame')}, the packets {len(pts_seconds)}")
    difference = (starts - starts[0]) - (pts_seconds - pts_seconds[0])
    if not np.all(np.abs(difference) < TIME_TOLERANCE_SECONDS):
        raise DecodeError("decord's frame times are not those of the packets")


def _repeats(frames: NDArray[np.uint8]) -> bool:
    """Whether two neighbours of some frames (T, H, W, 3) are the same: a still scene, or a frame that decord could not
    read and gave its neighbour for."""
    thinned = frames[:, ::8, ::8]
    alike = np.flatnonzero((thinned[1:] == thinned[:-1]).all(axis=(1, 2, 3)))
    return any(np.array_equal(frames[number], frames[number + 1]) for number in alike)


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
