"""Reading a video file's frames with PyAV. There are two readers:

`PyavReader` relies on the packets. It seeks to key frames, skips frames that are not wanted, and identifies each frame
by its presentation time. It raises an error at the first damage.

`SurveyReader` relies on nothing. It decodes every frame once when it opens the file, to find out which frames there are
and when each is shown. So a damaged packet, or one that codes no frame, affects no other frame.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from vidpipe.errors import DecodeError, count_of
from vidpipe.records import VideoInfo
from vidpipe.video.container import FAST_DECODE, open_container, video_stream
from vidpipe.video.packets import Source
from vidpipe.video.sampling import key_frame_indices
from vidpipe.video.steps import OnStep, no_step

__all__ = ["STRICT", "Picture", "PyavReader", "SurveyReader", "decode_all", "decode_alone"]

SKIPPING_CODECS = frozenset({"h264"})
"""Codecs in which skipping B-frames was found to change no other frame. In damaged HEVC it did (benchmarks/fuzz.py)."""
MAX_KEPT_BYTES = 2**27
"""Where a whole video was decoded, to find scenes or to survey it, frames up to this size are kept for later."""
STRICT = {"err_detect": "explode"}
"""FFmpeg's options of a decoder that conceals no damage."""
FRAMES_PER_SEEK = 4
"""Seeking to a key frame and checking it takes about as long as decoding this many frames."""


class PyavReader:
    """Reads a video with PyAV by its packets' times; a `VideoReader`.

    The frames are those of a decode from the start: apart from the first, it seeks only to sound key frames, and it
    skips only frames that no other frame refers to.

    Args:
        source: the open file.
        on_step: called with the number of frames read.

    Raises:
        DecodeError: the packets do not state which frames there are, are damaged, or the first one does not decode.
    """

    method = "pyav"

    def __init__(self, source: Source, *, on_step: OnStep = no_step) -> None:
        packets = source.packets
        if not packets.timed or packets.num_lost or not len(packets.key_ticks):
            raise DecodeError("its packets do not state reliably which frames there are")
        self._packets, self.on_step = packets, on_step
        self._container, self._stream = source.container, source.stream
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._position: int | None = None
        """The presentation time, in ticks, of the last frame; None where decoding has to start at a key frame."""
        self._wanted: frozenset[int] = frozenset(map(int, packets.ticks))
        self._keys = frozenset(map(int, packets.key_ticks))
        self._can_skip = packets.reordered and source.stream.codec_context.name in SKIPPING_CODECS
        self._skipped: set[int] = set()
        """Presentation times of the packets that were skipped since the last seek."""
        self._sound_keys: set[int] = set()
        self._kept = _KeptFrames()
        self._picture = Picture(self._frame(int(packets.ticks[0])))
        self.is_upright = self._picture.is_upright
        self.pts_seconds, self.end_seconds = packets.pts_seconds, packets.end_seconds
        self.info = VideoInfo.of_file(
            source.path,
            self.pts_seconds,
            self.end_seconds,
            width=self._picture.width,
            height=self._picture.height,
            codec=packets.codec,
            decoder="pyav",
        )

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`; here a block is one frame, (1, H, W, 3)."""
        ticks = self._ticks(frame_index)
        self._wanted = frozenset(ticks)
        read = self._key_frame if self._wanted <= self._keys else self._frame
        for tick in ticks:
            frame = self._kept.get(tick) or read(tick)
            if keep:
                self._kept.add(tick, frame)
            yield self._picture.rgb(frame)[None]

    def find_key_frames(self, num_frames: int) -> NDArray[np.int64]:
        """See `VideoReader.find_key_frames`."""
        return key_frame_indices(self._packets.shown_key_frames(), num_frames)

    def check_key_frames(self, frame_index: Sequence[int] | NDArray[np.int64]) -> None:
        """Check the key frames that decoding some frames starts at.

        Args:
            frame_index: the frames.

        Raises:
            DecodeError: a key frame is damaged, or does not decode to a whole picture alone.
        """
        for key in sorted({self._key_before(tick) for tick in self._ticks(frame_index)} - self._sound_keys):
            self._check_key_frame(self._key_packet(key), key)

    def _ticks(self, frame_index: Sequence[int] | NDArray[np.int64]) -> list[int]:
        return [int(tick) for tick in self._packets.ticks[np.asarray(frame_index, np.int64)]]

    def _key_packet(self, key: int) -> "av.Packet[Any]":
        """Seek to a key frame, and return its packet."""
        self._seek(key)
        try:
            return next(packet for packet in self._container.demux(self._stream) if packet.pts == key)
        except (StopIteration, av.error.FFmpegError) as error:
            raise DecodeError("a key frame cannot be found again") from error

    def _key_frame(self, key: int) -> "av.VideoFrame":
        """Return a key frame, decoded alone."""
        packet = self._key_packet(key)
        self._check_key_frame(packet, key)
        self.on_step(1)
        self._stream.codec_context.skip_frame = "DEFAULT"
        frame = decode_alone(self._stream.codec_context, packet)
        if frame.pts != key:
            raise DecodeError("a key frame's time is not that of its packet")
        return frame

    def _frame(self, tick: int) -> "av.VideoFrame":
        """Return the frame with this presentation time."""
        key = self._key_before(tick)
        position, self._position = self._position, None
        if position is None or not self._is_nearer_than_seek(position, key, tick):
            self._seek(key)
            self._frames, self._skipped = self._decoded_from(key), set()
        try:
            for frame in self._frames:
                self.on_step(1)
                if frame.is_corrupt:
                    break
                if frame.pts == tick:
                    self._position = tick
                    return frame
                if frame.pts is None or frame.pts > tick:
                    break
        except av.error.FFmpegError as error:
            raise DecodeError(f"decoding failed ({error.strerror})") from error
        raise DecodeError(f"the frame at {tick * self._packets.seconds_per_tick:.3f} s cannot be decoded")

    def _is_nearer_than_seek(self, position: int, key: int, tick: int) -> bool:
        """Whether decoding on from the last frame reaches a frame sooner than seeking to its key frame does."""
        if tick <= position or tick in self._skipped:
            return False
        here, there = np.searchsorted(self._packets.ticks, (position, key))
        return bool(there - here <= FRAMES_PER_SEEK)

    def _key_before(self, tick: int) -> int:
        """Return where decoding of a frame starts: the last key frame that is not shown after it."""
        place = int(np.searchsorted(self._packets.key_ticks, tick, side="right")) - 1
        return int(self._packets.key_ticks[max(0, place)])

    def _seek(self, key: int) -> None:
        self._position = None
        try:
            self._container.seek(key, stream=self._stream, backward=True)
        except av.error.FFmpegError as error:
            raise DecodeError(f"seeking failed ({error.strerror})") from error

    def _decoded_from(self, key: int) -> Iterator["av.VideoFrame"]:
        """Yield frames from a key frame on, without the B-frames that are not wanted and that no other frame refers to.

        A packet that is shown after all earlier ones is always decoded: damage in it would affect others unnoticed.
        """
        decoder = self._stream.codec_context
        entered, latest = False, key
        for packet in self._container.demux(self._stream):
            if packet.pts == key and not entered:
                entered = True
                if key != self._packets.first_tick:
                    self._check_key_frame(packet, key)
            if not entered:
                continue
            tick = latest if packet.pts is None else packet.pts
            if self._can_skip:
                is_skipped = tick < latest and tick not in self._wanted
                decoder.skip_frame = "NONREF" if is_skipped else "DEFAULT"
                if is_skipped:
                    self._skipped.add(tick)
            latest = max(latest, tick)
            yield from decoder.decode(packet)

    def _check_key_frame(self, packet: "av.Packet[Any]", key: int) -> None:
        """Check that a key frame is sound and decodes to a whole picture alone, unlike in streams with intra refresh.

        A decoder that comes from the start completes such a picture from earlier ones; one that seeks to it cannot.

        Raises:
            DecodeError: it is damaged, or does not decode to a whole picture alone.
        """
        if key in self._sound_keys:
            return
        decode_alone(self._strict_decoder, packet)
        self._sound_keys.add(key)

    @cached_property
    def _strict_decoder(self) -> "av.VideoCodecContext":
        context = self._stream.codec_context
        decoder = av.CodecContext.create(context.name, "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.extradata = context.extradata
        decoder.width, decoder.height = context.width, context.height
        decoder.thread_count = 1
        decoder.options = STRICT
        return decoder


class SurveyReader:
    """Reads a video with PyAV from its start, however damaged it is; a `VideoReader`.

    Args:
        source: the open file.
        on_step: called with the number of packets read.

    Raises:
        DecodeError: fewer than half of its frames can be decoded.
    """

    method = "survey"

    def __init__(self, source: Source, *, on_step: OnStep = no_step) -> None:
        packets = source.packets
        self._path, self._fast_decode, self.on_step = source.path, source.fast_decode, on_step
        self._num_errors = 0
        survey = _Survey()
        for frame in self._decoded():
            survey.add(frame)
        num_frames = len(survey.pts)
        if survey.picture is None:
            raise DecodeError(f"none of the video stream's {count_of(len(packets.ticks), 'packet')} can be decoded")
        lost_packets = max(packets.num_pictures - num_frames, packets.num_announced - num_frames, 0)
        if lost_packets > num_frames:
            raise DecodeError(f"damaged: only {num_frames} of its {num_frames + lost_packets} frames can be decoded")
        rate = source.stream.average_rate
        frame_seconds = 1 / float(rate) if rate else 0.0
        self._picture = survey.picture
        self.pts_seconds = _times(survey.pts, survey.dts, packets.seconds_per_tick, frame_seconds)
        self.end_seconds = max(packets.end_seconds, float(self.pts_seconds[-1]) + frame_seconds)
        self.info = VideoInfo.of_file(
            source.path,
            self.pts_seconds,
            self.end_seconds,
            width=self._picture.width,
            height=self._picture.height,
            codec=packets.codec,
            decoder="pyav",
            damaged=bool(lost_packets or packets.num_corrupt or self._num_errors or survey.num_corrupt),
            lost_packets=lost_packets,
        )
        self._kept = survey.kept
        self._key_index = np.array(survey.keys, np.int64)
        self._frames = enumerate(self._decoded())
        self._next_number = 0

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`; here a block is one frame, (1, H, W, 3)."""
        for number in map(int, frame_index):
            yield self._picture.rgb(self._kept.get(number) or self._decode_again(number))[None]

    def find_key_frames(self, num_frames: int) -> NDArray[np.int64]:
        """See `VideoReader.find_key_frames`; these are the frames that the decoder says are key frames."""
        return key_frame_indices(self._key_index, num_frames)

    def _decode_again(self, wanted: int) -> "av.VideoFrame":
        if wanted < self._next_number:
            self._frames = enumerate(self._decoded())
        for number, frame in self._frames:
            self._next_number = number + 1
            if number == wanted:
                return frame
        raise DecodeError(f"frame {wanted} cannot be decoded")

    def _decoded(self) -> Iterator["av.VideoFrame"]:
        """Yield every frame that decodes, in presentation order."""
        with open_container(self._path) as container:
            stream = video_stream(container, options=FAST_DECODE[self._fast_decode])
            yield from decode_all(container, stream, on_step=self.on_step, on_error=self._count_error)

    def _count_error(self) -> None:
        self._num_errors += 1


def decode_all(
    container: "av.container.InputContainer",
    stream: "av.video.stream.VideoStream",
    *,
    on_step: OnStep = no_step,
    on_error: Callable[[], None] = lambda: None,
) -> "Iterator[av.VideoFrame]":
    """Decode every frame that decodes, from where an open file stands to its end.

    Args:
        container: the open file.
        stream: its video stream.
        on_step: called for each packet.
        on_error: called for each packet that does not decode.

    Yields:
        The frames, in presentation order.
    """
    packets = container.demux(stream)
    packet: av.Packet[Any] | None
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            packet = None  # the rest of the file is missing: flush the decoder
        on_step(1)
        try:
            yield from stream.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            on_error()
        if packet is None:
            return


def decode_alone(decoder: "av.VideoCodecContext", packet: "av.Packet[Any]") -> "av.VideoFrame":
    """Decode a key frame and nothing else.

    Args:
        decoder: ready for a new stream, and so again afterwards.
        packet: the key frame's.

    Returns:
        The frame.

    Raises:
        DecodeError: the packet is damaged, or does not decode to a whole picture.
    """
    try:
        frames = [*decoder.decode(packet), *decoder.decode(None)]
    except av.error.FFmpegError as error:
        raise DecodeError(f"a key frame is damaged ({error.strerror})") from error
    finally:
        decoder.flush_buffers()
    if not frames or frames[0].is_corrupt or frames[0].pict_type != PictureType.I:
        raise DecodeError("a key frame does not decode to a whole picture alone")
    frames[0].time_base = packet.time_base  # PyAV gives it only to frames that come before the decoder is flushed
    return frames[0]


class _Survey:
    """What decoding the whole file finds out."""

    def __init__(self) -> None:
        self.picture: Picture | None = None
        self.num_corrupt = 0
        self.pts: list[int | None] = []
        self.dts: list[int | None] = []
        self.keys: list[int] = []
        self.kept = _KeptFrames()

    def add(self, frame: "av.VideoFrame") -> None:
        """Take the next frame."""
        self.picture = self.picture or Picture(frame)
        self.num_corrupt += frame.is_corrupt
        self.kept.add(len(self.pts), frame)
        if frame.key_frame:
            self.keys.append(len(self.pts))
        self.pts.append(frame.pts)
        self.dts.append(frame.dts)


class _KeptFrames:
    """Frames that are kept for a later call; none where they are larger than `MAX_KEPT_BYTES`."""

    def __init__(self) -> None:
        self._frames: dict[int, av.VideoFrame] = {}
        self._size_bytes = 0

    def add(self, name: int, frame: "av.VideoFrame") -> None:
        """Keep a frame under a number or tick."""
        if name in self._frames or self._size_bytes > MAX_KEPT_BYTES:
            return
        self._frames[name] = frame
        self._size_bytes += sum(plane.buffer_size for plane in frame.planes)
        if self._size_bytes > MAX_KEPT_BYTES:
            self._frames.clear()

    def get(self, name: int) -> "av.VideoFrame | None":
        """Return the frame of that number or tick, where it is kept."""
        return self._frames.get(name)


class Picture:
    """Converts frames to RGB, upright and all of one size, as FFmpeg does.

    libavfilter's scaler handles interlacing and more than 8 bits.
    """

    def __init__(self, first: "av.VideoFrame") -> None:
        self._size = f"{first.width}:{first.height}"
        self._quarter_turns = round(first.rotation / 90) % 4
        self.is_upright = first.rotation % 90 == 0
        upright = (first.width, first.height)
        self.width, self.height = upright if self._quarter_turns % 2 == 0 else upright[::-1]
        self._input: tuple[int, int, str] | None = None

    def rgb(self, frame: "av.VideoFrame") -> NDArray[np.uint8]:
        """Return a frame as (H, W, 3) uint8."""
        if self._input != (frame.width, frame.height, frame.format.name):
            self._configure(frame)
        self._graph.push(frame)
        rgb: NDArray[np.uint8] = self._graph.pull().to_ndarray()  # type: ignore[assignment]
        return np.ascontiguousarray(np.rot90(rgb, self._quarter_turns))

    def _configure(self, frame: "av.VideoFrame") -> None:
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
    """Return the presentation times of decoded frames, (F,).

    In old containers (AVI), and from old encoders, frames have no time or are out of order. Then the packets' decoding
    times are used, as in libavcodec, and where these are not in order either, the frame rate.
    """
    for ticks in (pts, dts):
        known = [tick for tick in ticks if tick is not None]
        if len(known) == len(ticks) and all(earlier < later for earlier, later in pairwise(known)):
            return np.array([tick * seconds_per_tick for tick in known], np.float64)
    return np.arange(len(pts), dtype=np.float64) * (frame_seconds or seconds_per_tick)
