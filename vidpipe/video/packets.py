"""What a file's packets state, without decoding: how many frames its video has, when each is shown, its key frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError
from vidpipe.video.container import FAST_DECODE, open_container, video_stream
from vidpipe.video.steps import OnStep, no_step

__all__ = ["Packets", "Source", "open_source"]

MAX_EMPTY_VOP_BYTES = 19
"""An MPEG-4 packet of at most this size codes no picture (MAX_NVOP_SIZE in FFmpeg's mpeg4_unpack_bframes)."""
HEADERS_WITH_DURATION = frozenset({"matroska,webm", "flv"})
"""Formats whose header states no number of frames, but a duration that was measured when the file was written."""
MAX_SHORTFALL_SECONDS = 0.2
"""How much longer than the packets such a duration may be in a whole file, or 1 % of it if that is more."""


@dataclass(frozen=True)
class Packets:
    """The packets of a video stream."""

    container: str
    """FFmpeg's name for the file's format."""
    codec: str
    ticks: NDArray[np.int64]
    """(F,) presentation times, sorted; one for each packet that is shown."""
    key_ticks: NDArray[np.int64]
    """Presentation times of the key frames, sorted, including those that are not shown."""
    first_tick: int
    """Presentation time of the first packet in the file: where a decode from the start begins."""
    seconds_per_tick: float
    end_seconds: float
    """When the last frame's presentation ends."""
    num_pictures: int
    """Packets that code a picture."""
    num_announced: int
    """Frames that the file's header announces; 0 where it announces none."""
    num_corrupt: int
    """Packets that are incomplete in the file."""
    timed: bool
    """Whether each packet has a presentation time of its own."""
    reordered: bool
    """Whether the order of decoding is not that of presentation: there are B-frames."""
    open_gop: bool
    """Whether frames shown before a key frame come after it in the file. A decoder that seeks to such a key frame
    cannot give them, and a decoder that counts frames from there (decord) counts wrongly."""

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """(F,) presentation times, sorted."""
        return self.ticks.astype(np.float64) * self.seconds_per_tick

    def shown_key_frames(self) -> NDArray[np.int64]:
        """Return the numbers of the key frames that are shown, in presentation order, (K,)."""
        return np.flatnonzero(np.isin(self.ticks, self.key_ticks))

    @property
    def num_lost(self) -> int:
        """Packets that the header announces and the file does not hold completely."""
        return max(self.num_announced - len(self.ticks), 0) + self.num_corrupt


@dataclass(frozen=True)
class Source:
    """An open file, and what its packets state."""

    path: Path
    container: "av.container.InputContainer"
    stream: "av.video.stream.VideoStream"
    packets: Packets
    fast_decode: str = "off"
    """One of `vidpipe.video.container.FAST_DECODE`; the stream's decoder is set to it."""


def open_source(path: Path, *, fast_decode: str = "off", on_step: OnStep = no_step) -> Source:
    """Open a file and read the packets of its video stream.

    Args:
        path: the file.
        fast_decode: one of `vidpipe.video.container.FAST_DECODE`.
        on_step: called for each packet.

    Returns:
        The open file with its packets.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: its video stream holds no packets, or more than the file has room for.
    """
    container = open_container(path)
    stream = video_stream(container, options=FAST_DECODE[fast_decode])
    scan = _Scan(stream, max_bytes=4 * path.stat().st_size + 2**20)
    try:
        for packet in container.demux():
            on_step(1)
            scan.add(packet)
    except av.error.FFmpegError:
        pass  # a truncated file: the packets before the damage count
    if not scan.ticks:
        raise DecodeError("the video stream holds no frames")
    return Source(path, container, stream, scan.summary(container), fast_decode)


class _Scan:
    """What is known about a stream after some of the file's packets."""

    def __init__(self, stream: "av.video.stream.VideoStream", *, max_bytes: int) -> None:
        self.ticks: list[int] = []
        self._stream, self._bytes_left = stream, max_bytes
        self._durations: list[int] = []
        self._key_ticks: list[int] = []
        self._first_tick: int | None = None
        self._num_pictures = self._num_corrupt = self._num_discarded = 0
        self._timed = True
        self._open_gop = False
        self._end_ticks: dict[Any, int] = {}
        """When the last packet of each stream ends, in that stream's ticks."""

    def add(self, packet: "av.Packet[Any]") -> None:
        """Take the file's next packet.

        Args:
            packet: of any stream.

        Raises:
            DecodeError: the packets so far are much larger than the file.
        """
        if self._first_tick is None and packet.stream is self._stream:
            self._first_tick = packet.pts
        if packet.is_discard:
            self._add_discarded(packet)
            return
        if not packet.size:
            return
        self._bytes_left -= packet.size
        if self._bytes_left < 0:
            raise DecodeError("its index points to the same bytes many times: its packets are larger than the file")
        stream, tick = packet.stream, packet.pts if packet.pts is not None else packet.dts
        if tick is not None:
            self._end_ticks[stream] = max(self._end_ticks.get(stream, 0), tick + (packet.duration or 0))
        if stream is self._stream:
            self._add_frame(packet, tick or 0)

    def _add_frame(self, packet: "av.Packet[Any]", tick: int) -> None:
        self.ticks.append(tick)
        self._durations.append(packet.duration or 0)
        self._timed &= packet.pts is not None
        self._num_corrupt += packet.is_corrupt
        empty = packet.size <= MAX_EMPTY_VOP_BYTES and self._stream.codec_context.name == "mpeg4"
        self._num_pictures += not empty
        if packet.is_keyframe:
            self._key_ticks.append(tick)
        self._open_gop |= bool(self._key_ticks) and tick < self._key_ticks[-1]

    def _add_discarded(self, packet: "av.Packet[Any]") -> None:
        """Take a packet that an edit list hides, as in a file that was cut without encoding it again.

        Frames that are shown may depend on it.
        """
        if packet.stream is self._stream:
            self._num_discarded += 1
            if packet.is_keyframe and packet.pts is not None:
                self._key_ticks.append(packet.pts)

    def summary(self, container: "av.container.InputContainer") -> Packets:
        """Return what all packets of an open file state."""
        seconds_per_tick = float(self._stream.time_base or 1)
        ticks = np.sort(np.asarray(self.ticks, np.int64))
        pts_seconds = ticks.astype(np.float64) * seconds_per_tick
        last_duration = self._durations[int(np.argmax(self.ticks))] * seconds_per_tick
        end_seconds = float(pts_seconds[-1]) + (last_duration or _typical_gap(pts_seconds))
        return Packets(
            container=container.format.name,
            codec=self._stream.codec_context.codec.canonical_name,
            ticks=ticks,
            key_ticks=np.sort(np.asarray(self._key_ticks, np.int64)),
            first_tick=int(ticks[0]) if self._first_tick is None else self._first_tick,
            seconds_per_tick=seconds_per_tick,
            end_seconds=end_seconds,
            num_pictures=self._num_pictures,
            num_announced=self._frames_by_header() or self._frames_by_duration(container, end_seconds),
            num_corrupt=self._num_corrupt,
            timed=self._timed and bool(np.all(np.diff(ticks) > 0)),
            reordered=bool(np.any(np.diff(self.ticks) < 0)),
            open_gop=self._open_gop,
        )

    def _frames_by_header(self) -> int:
        """Return the number of frames that the header announces, without those that an edit list hides."""
        return max(self._stream.frames - self._num_discarded, 0)

    def _frames_by_duration(self, container: "av.container.InputContainer", end_seconds: float) -> int:
        """Return the number of frames that fit the header's duration, where no stream of the file reaches its end."""
        if container.format.name not in HEADERS_WITH_DURATION or not container.duration:
            return 0
        duration_seconds = container.duration / av.time_base
        last_seconds = max((float(tick * stream.time_base) for stream, tick in self._end_ticks.items()), default=0.0)
        if duration_seconds - last_seconds <= max(MAX_SHORTFALL_SECONDS, 0.01 * duration_seconds):
            return 0
        fps = len(self.ticks) / max(end_seconds - min(self.ticks) * float(self._stream.time_base or 1), 1e-9)
        return len(self.ticks) + round((duration_seconds - end_seconds) * fps)


def _typical_gap(pts_seconds: NDArray[np.float64]) -> float:
    """Return the median of the seconds between two frames; 0 where there is only one frame."""
    return float(np.median(np.diff(pts_seconds))) if len(pts_seconds) > 1 else 0.0
