"""The fallback decoder: PyAV, for the files that decord cannot read or reads wrongly.

What counts here is what decodes: every frame is decoded once on opening, to learn which there are and when each is
shown, so a damaged packet or one that codes no frame costs nothing but itself.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError
from vidpipe.records import VideoInfo
from vidpipe.video.container import open_container, video_stream
from vidpipe.video.packets import scan_packets

__all__ = ["PyavReader"]


class PyavReader:
    """Reads a video with PyAV; a `VideoReader`.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: none of its frames can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        packets = scan_packets(path)
        frames = [(frame.pts, frame.dts, frame.width, frame.height, frame.rotation) for frame in self._decoded()]
        if not frames:
            raise DecodeError(f"none of the {len(packets.pts_seconds)} packets of the video stream can be decoded")
        pts, dts, widths, heights, rotations = zip(*frames, strict=True)
        with open_container(path) as container:
            stream = video_stream(container)
            seconds_per_tick = float(stream.time_base or 1)
            frame_seconds = 1 / float(stream.average_rate) if stream.average_rate else 0.0
        self._size = (widths[0], heights[0])
        self._quarter_turns = int(rotations[0]) // 90 % 4
        self.pts_seconds = _times(pts, dts, seconds_per_tick, frame_seconds)
        self.end_seconds = max(packets.end_seconds, float(self.pts_seconds[-1]) + frame_seconds)
        width, height = self._size if self._quarter_turns % 2 == 0 else self._size[::-1]
        self.info = VideoInfo.of_file(
            path, self.pts_seconds, self.end_seconds, width=width, height=height, codec=packets.codec, decoder="pyav"
        )

    def blocks(self, frame_index: Sequence[int] | NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`; here a block is one frame, (1, H, W, 3)."""
        to_rgb = _RgbConverter(*self._size)
        wanted = iter(map(int, frame_index))
        next_wanted = next(wanted, None)
        for number, frame in enumerate(self._decoded()):
            if next_wanted is None:
                return
            if number == next_wanted:
                yield np.ascontiguousarray(np.rot90(to_rgb(frame), self._quarter_turns))[None]
                next_wanted = next(wanted, None)
        if next_wanted is not None:
            raise DecodeError(f"frame {next_wanted} cannot be decoded")

    def _decoded(self) -> Iterator["av.video.frame.VideoFrame"]:
        """Every frame that decodes, in presentation order."""
        with open_container(self._path) as container:
            stream = video_stream(container)
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except av.error.FFmpegError:
                    packet = None  # the rest of the file is missing: give out what the decoder still holds
                try:
                    yield from stream.codec_context.decode(packet)
                except av.error.EOFError:
                    return
                except av.error.FFmpegError:
                    pass
                if packet is None:
                    return


class _RgbConverter:
    """Frames to RGB as FFmpeg converts them: libavfilter's scaler knows of interlacing and of more than 8 bits."""

    def __init__(self, width: int, height: int) -> None:
        self._size = f"{width}:{height}"
        self._input: tuple[int, int, str] | None = None

    def __call__(self, frame: "av.video.frame.VideoFrame") -> NDArray[np.uint8]:
        """(H, W, 3) uint8"""
        if self._input != (frame.width, frame.height, frame.format.name):
            self._configure(frame)
        self._graph.push(frame)
        rgb: NDArray[np.uint8] = self._graph.pull().to_ndarray()  # type: ignore[assignment]
        return rgb

    def _configure(self, frame: "av.video.frame.VideoFrame") -> None:
        self._input = (frame.width, frame.height, frame.format.name)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        scale = self._graph.add("scale", f"{self._size}:flags=bicubic")
        rgb = self._graph.add("format", "pix_fmts=rgb24")
        sink = self._graph.add("buffersink")
        source.link_to(scale)
        scale.link_to(rgb)
        rgb.link_to(sink)
        self._graph.configure()


def _times(
    pts: Sequence[int | None], dts: Sequence[int | None], seconds_per_tick: float, frame_seconds: float
) -> NDArray[np.float64]:
    """(F,) presentation times of decoded frames.

    Old containers (AVI) and encoders give a frame no time of its own, or one out of order. Then its packet's decoding
    time serves, as in libavcodec, and where that fails too, the frame rate.
    """
    for ticks in (pts, dts):
        known = [tick for tick in ticks if tick is not None]
        if len(known) == len(ticks) and all(earlier < later for earlier, later in pairwise(known)):
            return np.array([tick * seconds_per_tick for tick in known], np.float64)
    return np.arange(len(pts), dtype=np.float64) * (frame_seconds or seconds_per_tick)
