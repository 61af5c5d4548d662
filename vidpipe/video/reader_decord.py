"""Reading a video file's frames with decord (package `decord2`), for `--decoder decord`.

decord seeks to wrong frames in formats without an index, conceals damage in key frames, and decodes ahead without a
limit. So it reads only small, sound, indexed files, and PyAV checks the key frames that it seeks to.
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
"""Frames are decoded in blocks of about this size, so that memory does not grow with their number."""
INDEXED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "gif"})
"""Formats in which decord was found to seek correctly, pixel for pixel (tests/test_ffmpeg.py)."""
MAX_DECODED_BYTES = 2**28
"""decord decodes ahead without a limit: 20,000 small frames took 4 GB, 60 of 8K took 6 GB."""
TIME_TOLERANCE_SECONDS = 1e-3
"""decord's times are float32, with an error of a tenth of this after an hour."""


class DecordReader:
    """Reads a video with decord; a `VideoReader`.

    Args:
        source: the open file.
        on_step: called with the number of frames read.

    Raises:
        DecodeError: decord cannot open the file, or its frames are not those of the packets.
    """

    method = "decord"

    def __init__(self, source: Source, *, on_step: OnStep = no_step) -> None:
        path, packets = source.path, source.packets
        self.on_step = on_step
        _check_packets(packets)
        self._pyav = PyavReader(source, on_step=on_step)
        if not self._pyav.is_upright:
            raise DecodeError("pictures rotated by an angle that decord does not honour")
        if 3 * self._pyav.info.width * self._pyav.info.height * len(packets.ticks) > MAX_DECODED_BYTES:
            raise DecodeError("too many pictures: decord may hold all of them in memory")
        self._decord = import_decord()
        native = (self._decord.DECORDError, self._decord.DECORDLimitReachedError)
        self._errors = (
            *native,
            RuntimeError,
            AssertionError,
            UnicodeEncodeError,
        )  # the last: a name that is no UTF-8
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

    def find_key_frames(self, num_frames: int) -> NDArray[np.int64]:
        """See `VideoReader.find_key_frames`."""
        return self._pyav.find_key_frames(num_frames)

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`."""
        self._pyav.check_key_frames(frame_index)
        for start in range(0, len(frame_index), self._block):
            try:
                frames = self._reader.get_batch(list(map(int, frame_index[start : start + self._block]))).asnumpy()
            except self._errors as error:
                raise DecodeError(_first_line(error)) from error
            self.on_step(STEPS_PER_CHUNK)
            if _repeats(frames):
                raise DecodeError("decord gave one frame twice")
            yield frames


def _check_packets(packets: Packets) -> None:
    """Refuse what decord is known to read incorrectly without an error."""
    if packets.container not in INDEXED_FORMATS:
        raise DecodeError(f"decord has no index to seek in {packets.container}")
    if packets.open_gop:
        raise DecodeError("open groups of pictures: decord counts frames wrongly after it seeks to their key frames")
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
    """Whether two neighbours of some frames, (n, H, W, 3), are the same.

    The scene is still, or decord could not read a frame and gave its neighbour instead.
    """
    thinned = frames[:, ::8, ::8]
    alike = np.flatnonzero((thinned[1:] == thinned[:-1]).all(axis=(1, 2, 3)))
    return any(np.array_equal(frames[number], frames[number + 1]) for number in alike)


def import_decord() -> ModuleType:
    """Return decord, imported without the 600 MB of CUDA libraries from pip that its CPU build never uses."""
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
    """Return a native error's message without its stack trace."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
