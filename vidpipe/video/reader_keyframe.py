"""Reading the key frames of an MP4 by its index alone.

The index states where each packet is and which ones are key frames. So nothing of the file is read but its header and
the packets of the frames that are wanted, where `vidpipe.video.packets` reads the file from end to end. The index has
decoding times: where there are B-frames, only the packets know when a frame is shown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError
from vidpipe.records import VideoInfo
from vidpipe.video.container import FAST_DECODE, open_container, video_stream
from vidpipe.video.reader_pyav import STRICT, Picture, decode_alone
from vidpipe.video.sampling import key_frame_indices
from vidpipe.video.steps import OnStep, no_step

__all__ = ["KeyFrameReader"]

INDEXED_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})
"""Formats whose index has every packet of the file."""
_KEY, _HIDDEN = 1, 2  # FFmpeg's AVINDEX_KEYFRAME and AVINDEX_DISCARD_FRAME
MAX_KEPT_BYTES = 2**25
"""Packets of key frames up to this size are kept between planning and decoding."""


class KeyFrameReader:
    """Reads the key frames of a video, and no other frame; a `VideoReader`.

    Args:
        path: the file.
        fast_decode: one of `vidpipe.video.container.FAST_DECODE`.
        on_step: called with the number of packets read.

    Raises:
        NotAVideoError: the file holds no video.
        DecodeError: it has no index of all its packets, or a key frame is damaged.
    """

    method = "keyframe"

    def __init__(self, path: Path, *, fast_decode: str = "off", on_step: OnStep = no_step) -> None:
        self._path, self.on_step = path, on_step
        self._container = open_container(path)
        self._stream = video_stream(self._container, options={**FAST_DECODE[fast_decode], **STRICT})
        self._index = _Index.of(self._container, self._stream, path.stat().st_size)
        self._found: dict[int, _KeyFrame] = {}
        """By position in the index; those of more than `MAX_KEPT_BYTES` together are read again."""
        self._kept_bytes = 0
        self._picture: Picture | None = None
        self._seconds_per_tick = float(self._stream.time_base or 1)
        self.pts_seconds = self._index.ticks.astype(np.float64) * self._seconds_per_tick
        self.end_seconds = self._index.end_tick * self._seconds_per_tick

    @cached_property
    def info(self) -> VideoInfo:
        """See `VideoReader.info`; the size is that of a decoded frame."""
        picture = self._picture or self._picture_like(self._decoded(self._read(int(self._index.keys[0]))))
        return VideoInfo.of_file(
            self._path,
            self.pts_seconds,
            self.end_seconds,
            width=picture.width,
            height=picture.height,
            codec=self._stream.codec_context.codec.canonical_name,
            decoder="pyav",
        )

    def find_key_frames(self, num_frames: int) -> NDArray[np.int64]:
        """See `VideoReader.find_key_frames`; their packets are read, as they alone state the times."""
        keys = key_frame_indices(self._index.keys, num_frames)
        found = [self._read(int(place)) for place in keys]
        index = np.array([one.number for one in found], np.int64)
        self.pts_seconds[index] = np.array([one.packet.pts for one in found], np.float64) * self._seconds_per_tick
        if np.any(np.diff(index) <= 0) or np.any(np.diff(self.pts_seconds) <= 0):
            raise DecodeError("the times of its index are not in order")
        return index

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`; here a block is one frame, (1, H, W, 3)."""
        for number in map(int, frame_index):
            place = self._index.keys[max(0, int(np.searchsorted(self._index.keys, number, side="right")) - 1)]
            found = self._read(int(place))
            if found.number != number:
                raise DecodeError(f"frame {number} is not a key frame")
            frame = self._decoded(found)
            yield (self._picture or self._picture_like(frame)).rgb(frame)[None]

    def _picture_like(self, frame: "av.VideoFrame") -> Picture:
        """Have all frames converted to the size and rotation of this one."""
        self._picture = Picture(frame)
        return self._picture

    def _decoded(self, found: "_KeyFrame") -> "av.VideoFrame":
        frame = decode_alone(self._stream.codec_context, found.packet)
        if frame.pts != found.packet.pts:
            raise DecodeError("a key frame's time is not that of its packet")
        return frame

    def _read(self, place: int) -> "_KeyFrame":
        """Read a key frame's packet, and those after it that are shown earlier."""
        if place in self._found:
            return self._found[place]
        try:
            self._container.seek(int(self._index.dts[place]), stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            packet = next(one for one in packets if one.pos == self._index.positions[place])
            num_leading = 0
            for following in packets:
                if not following.size or following.pts is None or following.pts > (packet.pts or 0):
                    break
                num_leading += 1
        except (StopIteration, av.error.FFmpegError) as error:
            raise DecodeError("a key frame is not where the index says") from error
        self.on_step(2 + num_leading)
        if packet.is_corrupt or packet.pts is None:
            raise DecodeError("a key frame is incomplete, or has no time")
        found = _KeyFrame(packet, place + num_leading)
        self._kept_bytes += packet.size
        if self._kept_bytes <= MAX_KEPT_BYTES:
            self._found[place] = found
        return found


@dataclass(frozen=True)
class _KeyFrame:
    packet: "av.Packet[Any]"
    number: int
    """In presentation order: frames that are shown before it may come after it in the file."""


@dataclass(frozen=True)
class _Index:
    """What the header states about all packets of the stream, in the order of the file."""

    dts: NDArray[np.int64]
    """(F,) decoding times."""
    positions: NDArray[np.int64]
    """(F,) of the packets' first bytes."""
    keys: NDArray[np.int64]
    """(K,) places of the key frames in the index."""
    ticks: NDArray[np.int64]
    """(F,) presentation times, sorted: exact where the frame rate is constant."""
    end_tick: int

    @classmethod
    def of(
        cls, container: "av.container.InputContainer", stream: "av.video.stream.VideoStream", size_bytes: int
    ) -> Self:
        """Return the index of an open file.

        Raises:
            DecodeError: it does not have all packets, hides some, or the file ends before one of them.
        """
        if container.format.name not in INDEXED_FORMATS:
            raise DecodeError(f"{container.format.name} has no index of all packets")
        entries = stream.index_entries[:]
        dts, flags, positions = (
            np.fromiter(map(attrgetter(name), entries), np.int64, len(entries))
            for name in ("timestamp", "flags", "pos")
        )
        keys = np.flatnonzero(flags & _KEY)
        if not entries or len(entries) != stream.frames or (flags & _HIDDEN).any() or not len(keys):
            raise DecodeError("its index does not have all packets, or hides some")
        last = int(positions.argmax())
        if positions[last] + entries[last].size > size_bytes:
            raise DecodeError("the file ends before its last packet")
        if stream.start_time is None or stream.duration is None or np.any(np.diff(dts) <= 0):
            raise DecodeError("its index does not state when frames are shown")
        ticks = dts - dts[0] + stream.start_time
        return cls(dts, positions, keys, ticks, stream.start_time + stream.duration)
