"""What a file's packets say, undecoded: which stream is the video, how many frames it has, when each is shown."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError, NotAVideoError

__all__ = ["PacketTimes", "open_container", "scan_packets", "video_stream"]

av.logging.set_level(av.logging.PANIC)

REFERRING_FORMATS = frozenset(
    (
        *("hls", "dash", "webm_dash_manifest", "imf", "concat", "concatf"),
        *("sdp", "rtsp", "rtp", "sap", "lavfi", "vapoursynth", "avisynth", "tty"),
    )
)
"""Demuxers that read other files or addresses than the one named."""


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


@cache
def _allowed_formats() -> str:
    names = (name for format_name in av.formats_available for name in format_name.split(","))
    return ",".join(sorted(set(names) - REFERRING_FORMATS))


def open_container(path: Path) -> "av.container.InputContainer":
    """Open a media file with FFmpeg, by its content.

    Raises:
        NotAVideoError: it is empty, no media file, or a playlist or reference to other files, which are refused.
    """
    if not path.is_file():
        raise NotAVideoError("no such file" if not path.exists() else "not a regular file")
    if path.stat().st_size == 0:
        raise NotAVideoError("the file is empty")
    options = {"format_whitelist": _allowed_formats(), "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise NotAVideoError(f"not a media file that FFmpeg can open by itself ({error.strerror})") from error


def video_stream(container: "av.container.InputContainer") -> "av.video.stream.VideoStream":
    """The stream that FFmpeg calls best; decodes on one thread.

    Raises:
        NotAVideoError: there is none, or only cover art.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
        raise NotAVideoError("no video stream in the file")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise NotAVideoError("no video stream in the file: its only picture is cover art")
    stream.codec_context.thread_count = 1
    return stream


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
