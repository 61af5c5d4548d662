"""The videos that the benchmarks read: the real ones beside the checkout, or else the demo's; and small ones of many
formats."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidpipe.demo.videos import write_demo_videos

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
MOST_SMALL_BYTES = 250_000
NO_VIDEOS = (".tsv", ".wav", ".mp3")

FORMATS = {
    "h264.mp4": ("libx264", {"g": "12"}),
    "b_frames.mp4": ("libx264", {"g": "24", "bf": "3"}),
    "h264.mkv": ("libx264", {"g": "12"}),
    "h264.ts": ("libx264", {"g": "12", "bf": "2"}),
    "hevc.mkv": ("libx265", {"x265-params": "keyint=12:log-level=none"}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}),
    "packed.avi": ("mpeg4", {"bf": "2"}),
    "mjpeg.avi": ("mjpeg", {}),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", {"g": "12"}),
    "wmv2.wmv": ("wmv2", {"g": "12"}),
    "flv1.flv": ("flv1", {"g": "12"}),
    "gif.gif": ("gif", {}),
}
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "gif": "rgb8"}


def labelled_sets(folder: Path) -> dict[str, Path]:
    """Labels files by name of the set; the videos lie beside each."""
    if SHARED_DATA.is_dir():
        return {name: SHARED_DATA / "clips" / name / "labels.csv" for name in ("fight", "interaction")}
    return {"demo": write_demo_videos(folder / "demo")}


def small_videos(folder: Path) -> list[Path]:
    """Short videos in many formats, written here; and the small ones among the real ones, where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_clip(folder / name, codec, options) for name, (codec, options) in FORMATS.items()]
    real = sorted((SHARED_DATA / "edge").rglob("*.*")) if SHARED_DATA.is_dir() else []
    return [
        *written,
        *(path for path in real if path.suffix not in NO_VIDEOS and 0 < path.stat().st_size <= MOST_SMALL_BYTES),
    ]


def write_clip(
    path: Path,
    codec: str,
    options: dict[str, str],
    *,
    num_frames: int = 60,
    width: int = 128,
    height: int = 96,
    fps: int = 25,
) -> Path:
    """A picture that drifts to the right and turns lighter, so that no two frames are alike."""
    random = np.random.default_rng(0)
    blocks: NDArray[np.uint8] = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    scene = blocks.repeat(-(-height // 12), axis=0).repeat(-(-width // 16), axis=1)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMATS.get(codec, "yuv420p")
        for number in range(num_frames):
            pixels = np.roll(scene, 3 * number, axis=1) // 2 + np.uint8(2 * number % 128)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def repeat_clip(path: Path, repeated: Path, times: int) -> Path:
    """A clip's packets over and over, without encoding them again."""
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
