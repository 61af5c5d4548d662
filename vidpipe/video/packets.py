"""What a file's packets say, undecoded: which stream is the video, how many frames it has, when each is shown."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError
from vidpipe.video.container import open_container, video_stream

__all__ = ["PacketTimes", "scan_packets"]


@dataclass(frozen=True)
class PacketTimes:
    """When the packets of a video stream are shown."""

    pts_seconds: NDArray[np.float64]
    """(F,) presentation times, sorted; one for each packet that is to be shown."""
    end_seconds: float
    """When the last frame's presentation ends."""
    codec: str
    open_gop: bool
    """Whether frames shown before a key frame come after it in the file. A decoder that seeks to such a key frame
    cannot give them, and one that counts frames from there (decord) then counts wrongly."""

    @property
    def distinct(self) -> bool:
        """Whether every packet has a time of its own."""
        return bool(np.all(np.diff(self.pts_seconds) > 0))


def scan_packets(path: Path) -> PacketTimes:
    """Read the packets of a file's video stream.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: its video stream holds no packets.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        ticks: list[int] = []
        durations: list[int] = []
        key_ticks, open_gop = None, False
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    ticks.append(packet.pts if packet.pts is not None else (packet.dts or 0))
                    durations.append(packet.duration or 0)
                    if packet.is_keyframe:
                        key_ticks = ticks[-1]
                    open_gop |= key_ticks is not None and ticks[-1] < key_ticks
        except av.error.FFmpegError:
            pass  # a truncated file: the packets before the damage still count
        if not ticks:
            raise DecodeError("the video stream holds no frames")
        seconds_per_tick = float(stream.time_base or 1)
        last = int(np.argmax(ticks))
        pts_seconds = np.sort(np.asarray(ticks, np.float64)) * seconds_per_tick
        frame_seconds = durations[last] * seconds_per_tick or _typical_gap(pts_seconds)
        return PacketTimes(
            pts_seconds=pts_seconds,
            end_seconds=float(pts_seconds[-1]) + frame_seconds,
            codec=stream.codec_context.codec.canonical_name,
            open_gop=open_gop,
        )


def _typical_gap(pts_seconds: NDArray[np.float64]) -> float:
    """Seconds between neighbouring frames: the median; 0 where there is only one frame."""
    return float(np.median(np.diff(pts_seconds))) if len(pts_seconds) > 1 else 0.0
