"""A copy of a video with something drawn over its frames: their times kept, its sound copied as it is.

One frame is in memory at a time.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import av
import av.filter
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidpipe.errors import DecodeError, UsageError, VidpipeError
from vidpipe.version import __version__
from vidpipe.video.container import open_container, video_stream
from vidpipe.video.overlays import LabelledBox, draw_box, make_overlays

__all__ = ["Drawing", "MakeDrawing", "copy_suffix", "header_seconds", "write_drawn_copy"]

_SOUND_OF_MP4 = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_OPTIONS = {"preset": "veryfast", "crf": "18", "bf": "0"}
"""Of libx264. Without B-frames, frames are written in the order in which they are shown."""
_KNOWN_MATRICES = (1, 5, 6)
"""BT.709 and the two names of BT.601, as FFmpeg numbers them."""


class Drawing(Protocol):
    """What is drawn over upright frames: a picture over the lowest rows, and boxes anywhere."""

    playhead_pixels: int
    """Rows at the lower edge in which a white line shows the time; an even number."""
    end_seconds: float
    """The time at the right edge."""

    def state_at(self, seconds: float) -> Hashable:
        """Return what is shown at a time; equal states look the same."""

    def draw(self, state: Any) -> Image.Image:
        """Return the picture of a state, RGBA, as wide as the frames; its height is an even number."""

    def boxes_at(self, seconds: float) -> Sequence[LabelledBox]:
        """Return the boxes that are shown at a time."""


MakeDrawing = Callable[[int, int], Drawing]
"""Makes the drawing for frames of a width and height, both even."""


def copy_suffix(video: Path) -> str:
    """Return the suffix of a copy that can hold the video's sound.

    Args:
        video: the file.

    Returns:
        `.mp4`, or `.mkv` where MP4 cannot hold it.

    Raises:
        VideoError: the file is no media file.
    """
    with open_container(video) as source:
        codecs = {stream.codec_context.codec.canonical_name for stream in _sounds(source)}
    return ".mp4" if codecs <= _SOUND_OF_MP4 else ".mkv"


def header_seconds(video: Path) -> float:
    """Return how long the file's header says it is.

    Args:
        video: the file.

    Returns:
        The duration; 0 where the header does not have one.

    Raises:
        VideoError: the file is no media file.
    """
    with open_container(video) as source:
        return (source.duration or 0) / av.time_base


def write_drawn_copy(video: Path, out: Path, make: MakeDrawing, *, strip_share: float = 0.0) -> None:
    """Write an H.264 copy with a drawing: under another name first, so that `out` is always complete.

    Args:
        video: the file.
        out: the copy, `.mp4` or `.mkv`. Its folder is made if it does not exist.
        make: makes the drawing.
        strip_share: the height of an empty strip that is added below the frames, as a share of their height.

    Raises:
        UsageError: the copy would replace the video, or the suffix names no format for it.
        VideoError: the video cannot be read.
        VidpipeError: the copy cannot be written.
    """
    if out.suffix.lower() not in (".mp4", ".mkv"):
        raise UsageError(f"{out}: a copy is an .mp4 or .mkv file; choose such a name")
    if out.exists() and video.exists() and out.samefile(video):
        raise UsageError(f"{out}: is the video itself; write the copy to another folder")
    aside = out.with_name(f".{out.stem}.partial{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        burner = _Burner(_first_frame(video), make, strip_share)
        with open_container(video) as source:
            _copy(source, burner, aside)
        os.replace(aside, out)
    except (OSError, av.error.FFmpegError) as error:
        raise VidpipeError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _copy(source: "av.container.InputContainer", burner: "_Burner", out: Path) -> None:
    """Copy the streams of an open file. Its sound is interleaved with the pictures as they are encoded."""
    stream = video_stream(source)
    stream.codec_context.thread_count = 0  # as many as there are cores
    clock = _Clock(stream)
    with av.open(str(out), "w", options=_container_options(stream, out)) as target:
        target.metadata["comment"] = f"annotated by vidpipe {__version__}"
        encoder = _Encoder(target, stream, burner)
        copies = {sound: target.add_stream_from_template(sound) for sound in _sounds(source)}
        for packet in _packets(source, [stream, *copies]):
            if packet.stream is stream:
                for frame in _decoded(stream, packet):
                    encoder.add(frame, *clock.place(frame))
            elif packet.dts is not None:
                packet.stream = copies[packet.stream]
                target.mux(packet)
        encoder.close()


def _container_options(stream: "av.VideoStream", out: Path) -> dict[str, str]:
    if out.suffix.lower() != ".mp4":
        return {}
    ticks = stream.time_base.denominator if stream.time_base else 1000
    return {"movie_timescale": str(max(ticks, 1000)), "movflags": "faststart"}  # a start that is not 0 stays exact


def _sounds(source: "av.container.InputContainer") -> list["av.AudioStream"]:
    """The streams of sound that can be copied."""
    return [stream for stream in source.streams.audio if stream.codec_context is not None]


def _packets(source: "av.container.InputContainer", streams: Sequence[Any]) -> Iterator["av.Packet[Any]"]:
    """Yield the packets, and nothing of what is behind damage that ends the file early."""
    packets = source.demux(*streams)
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.error.FFmpegError):
            return


def _decoded(stream: "av.VideoStream", packet: "av.Packet[Any]") -> "list[av.VideoFrame]":
    try:
        return stream.codec_context.decode(packet if packet.size else None)
    except av.error.FFmpegError:  # damaged, or the decoder is empty
        return []


def _first_frame(video: Path) -> "av.VideoFrame":
    with open_container(video) as source:
        stream = video_stream(source)
        for packet in _packets(source, [stream]):
            for frame in _decoded(stream, packet):
                return frame
    raise DecodeError("no frame of the video stream can be decoded")


class _Clock:
    """The presentation time of each frame: increasing, also where a container has none."""

    def __init__(self, stream: "av.VideoStream") -> None:
        rate, time_base = stream.average_rate, stream.time_base
        self._step = max(1, round(1 / (rate * time_base))) if rate and time_base else 1
        self._last: int | None = None

    def place(self, frame: "av.VideoFrame") -> tuple[int, int]:
        """Return the frame's time and duration, in ticks."""
        known = [tick for tick in (frame.pts, frame.dts) if tick is not None]
        after = None if self._last is None else self._last + self._step
        ticks = next((tick for tick in known if self._last is None or tick > self._last), after or 0)
        self._last = ticks
        return ticks, frame.duration or self._step


class _Encoder:
    """Encodes frames with the times of the original."""

    def __init__(self, target: "av.container.OutputContainer", original: "av.VideoStream", burner: "_Burner") -> None:
        stream = target.add_stream("libx264", rate=original.average_rate or 25, options=dict(_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = burner.width, burner.height, "yuv420p"
        context = stream.codec_context
        self._time_base = original.time_base or Fraction(1, 1000)
        context.time_base = stream.time_base = self._time_base
        if original.sample_aspect_ratio:
            context.sample_aspect_ratio = burner.pixel_aspect(original.sample_aspect_ratio)
        for name, value in burner.colour_tags.items():
            setattr(context, name, value)
        self._target, self._stream, self._burner = target, stream, burner
        self._durations: dict[int, int] = {}
        """Of the frames that the encoder holds."""

    def add(self, frame: "av.VideoFrame", ticks: int, duration: int) -> None:
        """Burn in and encode a frame."""
        burnt = self._burner.burn(frame, seconds=float(ticks * self._time_base))
        burnt.pts, burnt.time_base = ticks, self._time_base
        self._durations[ticks] = duration
        self._mux(self._stream.encode(burnt))

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._stream.encode(None))

    def _mux(self, packets: "Iterable[av.Packet[Any]]") -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            self._target.mux(packet)


class _Burner:
    """Draws over upright frames."""

    def __init__(self, first: "av.VideoFrame", make: MakeDrawing, strip_share: float) -> None:
        self._upright = _Upright(first, strip_share)
        frame = self._upright.convert(first)
        self.width, self.height = frame.width, frame.height
        self._matrix = frame.colorspace if frame.colorspace in _KNOWN_MATRICES else 6
        self.colour_tags = {
            "color_range": 1,
            "colorspace": self._matrix,
            "color_primaries": frame.color_primaries,
            "color_trc": frame.color_trc,
        }
        self._drawing = make(self.width, self.height)
        self._overlays = lru_cache(maxsize=2)(lambda state: make_overlays(self._drawing.draw(state), self._matrix))

    def pixel_aspect(self, original: Fraction) -> Fraction:
        """Return the shape of a pixel after rotation."""
        return 1 / original if self._upright.is_turned else original

    def burn(self, frame: "av.VideoFrame", *, seconds: float) -> "av.VideoFrame":
        """Return an upright frame with the drawing at a time."""
        flat = self._upright.convert(frame).to_ndarray().reshape(-1)
        size = self.width * self.height
        luma, *chroma = np.split(flat, [size, size * 5 // 4])
        planes = [luma.reshape(self.height, self.width)]
        planes += [plane.reshape(self.height // 2, self.width // 2) for plane in chroma]
        for plane, overlay in zip(planes, self._overlays(self._drawing.state_at(seconds)), strict=True):
            overlay.over(plane)
        self._draw_playhead(planes, seconds)
        for box in self._drawing.boxes_at(seconds):
            draw_box(planes, box, self._matrix)
        burnt = av.VideoFrame.from_ndarray(flat.reshape(-1, self.width), format="yuv420p")
        burnt.color_range, burnt.colorspace = 1, self._matrix
        return burnt

    def _draw_playhead(self, planes: Sequence[NDArray[Any]], seconds: float) -> None:
        """Draw a white line, two pixels wide."""
        column = int(np.clip(seconds / self._drawing.end_seconds, 0, 1) * (self.width // 2 - 1))
        top = self.height - self._drawing.playhead_pixels
        for plane, scale, white in zip(planes, (1, 2, 2), (235, 128, 128), strict=True):
            plane[top // scale :, 2 * column // scale : (2 * column + 2) // scale] = white


class _Upright:
    """Converts frames to yuv420p of limited range, upright, all of one size, with an even width and height."""

    def __init__(self, first: "av.VideoFrame", strip_share: float) -> None:
        quarter_turns = round(first.rotation / 90) % 4
        self.is_turned = quarter_turns % 2 == 1
        turn = ([], [("transpose", "cclock")], [("hflip", ""), ("vflip", "")], [("transpose", "clock")])[quarter_turns]
        self._steps = [
            ("scale", f"{first.width}:{first.height}:flags=bicubic:out_range=tv"),
            *turn,
            ("pad", f"ceil(iw/2)*2:ceil(ih*{1 + strip_share}/2)*2"),
            ("format", "pix_fmts=yuv420p"),
            ("buffersink", ""),
        ]
        self._input: tuple[int, int, str] | None = None

    def convert(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """Return the frame, converted."""
        if self._input != (frame.width, frame.height, frame.format.name):
            self._configure(frame)
        self._graph.push(frame)
        return self._graph.pull()  # type: ignore[return-value]

    def _configure(self, frame: "av.VideoFrame") -> None:
        self._input = (frame.width, frame.height, frame.format.name)
        self._graph = av.filter.Graph()
        place = {"width": frame.width, "height": frame.height, "format": frame.format, "time_base": frame.time_base}
        last = self._graph.add_buffer(**place)  # type: ignore[arg-type]
        for name, arguments in self._steps:
            step = self._graph.add(name, arguments or None)
            last.link_to(step)
            last = step
        self._graph.configure()
