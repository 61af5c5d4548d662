"""Writes videos for the tests: each frame shows its own number, as a grid of large black and white blocks."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

GRID = 4
"""Blocks a side: 16 bits."""
MILLISECOND = Fraction(1, 1000)


def numbered_frame(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3) a frame that shows `number` in binary."""
    bits = (number >> np.arange(GRID * GRID)) & 1
    rows = np.arange(height) * GRID // height
    columns = np.arange(width) * GRID // width
    gray = (bits.reshape(GRID, GRID) * 255).astype(np.uint8)[rows][:, columns]
    return np.repeat(gray[:, :, None], 3, axis=2)


def read_number(frame: NDArray[Any]) -> int:
    """The number that a frame (H, W, 3) shows, however it was compressed or scaled."""
    height, width = frame.shape[:2]
    centres = [(2 * block + 1) / (2 * GRID) for block in range(GRID)]
    samples = [int(frame[int(y * height), int(x * width)].mean() > 127) for y in centres for x in centres]
    return sum(bit << place for place, bit in enumerate(samples))


def write_video(
    path: Path,
    num_frames: int = 30,
    *,
    fps: int = 25,
    pts_ms: Sequence[int] | None = None,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    first_number: int = 0,
) -> Path:
    """A video of numbered frames at a fixed rate, or at the presentation times given in milliseconds."""
    frames = [numbered_frame(first_number + number, width, height) for number in range(num_frames)]
    return write_frames(path, frames, fps=fps, pts_ms=pts_ms, codec=codec, options=options, pixel_format=pixel_format)


def write_frames(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: int = 25,
    pts_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """A video of the frames given, each (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_base = MILLISECOND if pts_ms is not None else Fraction(1, fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        for number, pixels in enumerate(frames):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = pts_ms[number] if pts_ms is not None else number
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def drifting_frames(num_frames: int, width: int = 128, height: int = 96) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) coloured blocks that drift to the right and turn lighter, so that no two frames are alike."""
    random = np.random.default_rng(0)
    blocks: NDArray[np.uint8] = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    scene = blocks.repeat(-(-height // 12), axis=0).repeat(-(-width // 16), axis=1)[:height, :width]
    for number in range(num_frames):
        yield np.roll(scene, 3 * number, axis=1) // 2 + np.uint8(2 * number % 128)


def repeat_video(path: Path, repeated: Path, times: int) -> Path:
    """The video's packets over and over, without encoding them again."""
    with av.open(str(path)) as source, av.open(str(repeated), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        step = max(packet.pts or 0 for packet in packets) + (packets[0].duration or 1)
        for _ in range(times):
            for packet in packets:
                packet.stream = stream
                container.mux(packet)
                packet.pts, packet.dts = (packet.pts or 0) + step, (packet.dts or 0) + step
    return repeated


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """A file with a sound stream and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = np.zeros((1, int(8000 * seconds)), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_sound(video: Path, out: Path, codec: str) -> Path:
    """The video's packets and a tone."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream(codec, rate=16000, layout="mono")
        assert isinstance(sound, av.AudioStream)
        tone = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        resampler = av.AudioResampler(format=sound.format, layout="mono", rate=16000, frame_size=1024)
        target.mux([packet for one in resampler.resample(frame) for packet in sound.encode(one)])
        target.mux(sound.encode(None))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return out


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and content of the packets of a kind of stream, in order of time."""
    with av.open(str(path)) as container:
        stream = container.streams.best(kind)  # type: ignore[arg-type]
        assert stream is not None
        found = [packet for packet in container.demux(stream) if packet.size]
        return sorted((Fraction(packet.pts or 0) * (packet.time_base or 1), bytes(packet)) for packet in found)


def times(path: Path) -> list[Fraction]:
    """The presentation times of the video's packets."""
    return [when for when, _ in packets(path, "video")]


def rotate_mp4(path: Path, degrees: int) -> Path:
    """Have an MP4's header ask for its pictures to be shown turned clockwise, as a telephone does."""
    one = 0x10000
    matrix = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4  # version 0: the matrix begins 40 bytes after the box's name
    a, b, c, d = matrix
    struct.pack_into(">9i", content, header + 40, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(content)
    return path


def tag_in_latin_1(path: Path, tagged: Path, *, options: dict[str, str] | None = None, extras: bool = False) -> Path:
    """The video's packets with text beside them, of the file and of its stream, that is Latin-1 and no UTF-8.

    Args:
        path: the video.
        tagged: where to write; its suffix says which format.
        options: of the muxer.
        extras: a chapter and an attached file, each with such a name, too.
    """
    with av.open(str(path)) as source, av.open(str(tagged), "w", options=options or {}) as container:
        for name in ("title", "artist", "comment", "keyQZ"):
            container.metadata[name] = "cafQZ"
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.metadata.update({"title": "cafQZ", "handler_name": "cafQZ"})
        if extras:
            container.add_attachment("cafQZ.ttf", "application/x-truetype-font", b"font")
            chapter = {"id": 1, "start": 0, "end": 100, "time_base": MILLISECOND, "metadata": {"title": "cafQZ"}}
            container.set_chapters([chapter])  # type: ignore[list-item]
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    tagged.write_bytes(tagged.read_bytes().replace(b"QZ", b"\xe9\xff"))
    return tagged


def moving_square(seed: int, *, to_the_right: bool) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    background, square = random.integers(0, 100, 3), random.integers(150, 256, 3)
    frames = []
    for step in range(12):
        frame = np.full((64, 96, 3), background, np.uint8)
        left = step * 6 if to_the_right else 66 - step * 6
        frame[20:44, left : left + 24] = square
        frames.append(frame)
    return frames


def film(shots: list[int], seed: int = 0) -> list[NDArray[np.uint8]]:
    """Shots with the given numbers of frames: each shows another picture, which drifts slowly."""
    random = np.random.default_rng(seed)
    frames = []
    for length in shots:
        picture = random.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        frames += [np.roll(picture, step, axis=1) for step in range(length)]
    return frames
