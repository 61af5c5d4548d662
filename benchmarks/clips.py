"""Videos for the benchmarks: real ones beside the checkout, or the demo's; and small ones in many formats."""

from pathlib import Path

from tests.media import drifting_frames, write_frames
from vidpipe.demo.videos import write_demo_videos

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
MAX_SMALL_BYTES = 250_000
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
    """Return labels files by name of the data set; the videos are in the same folders."""
    if SHARED_DATA.is_dir():
        return {name: SHARED_DATA / "clips" / name / "labels.csv" for name in ("fight", "interaction")}
    return {"demo": write_demo_videos(folder / "demo")}


def small_videos(folder: Path) -> list[Path]:
    """Write short videos in many formats; return them and the small real ones, if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_clip(folder / name, codec, options) for name, (codec, options) in FORMATS.items()]
    real = sorted((SHARED_DATA / "edge").rglob("*.*")) if SHARED_DATA.is_dir() else []
    return [
        *written,
        *(path for path in real if path.suffix not in NO_VIDEOS and 0 < path.stat().st_size <= MAX_SMALL_BYTES),
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
    """Write a video in which all frames differ."""
    pixel_format = PIXEL_FORMATS.get(codec, "yuv420p")
    frames = drifting_frames(num_frames, width, height)
    return write_frames(path, frames, fps=fps, codec=codec, options=options, pixel_format=pixel_format)
