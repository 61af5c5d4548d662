"""Altered copies of clips, as they are found in archives: re-encoded, trimmed, mirrored, with borders and more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["COPIES", "write_copies"]

Picture = NDArray[np.uint8]
TRIM = 0.3


@dataclass(frozen=True)
class Copy:
    """How a copy is made."""

    picture: Callable[[Picture], Picture] = lambda picture: picture
    trim: float = 0.0
    """Share of the frames that is left out at either end."""
    speed: float = 1.0
    fps: float | None = None
    """None: the clip's own rate."""
    crf: int = 23


def _halved(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((width // 4 * 2, height // 4 * 2), Image.Resampling.BILINEAR))


def _bordered(picture: Picture) -> Picture:
    """A black frame around the picture, 8 % of it at each side."""
    height, width = picture.shape[0] // 24 * 2, picture.shape[1] // 24 * 2
    return np.asarray(np.pad(picture, ((height, height), (width, width), (0, 0))), np.uint8)


def _with_logo(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    draw, side = ImageDraw.Draw(image), height // 6
    draw.ellipse((width - side - 10, 10, width - 10, 10 + side), fill=(220, 30, 40), outline=(255, 255, 255), width=3)
    draw.text((width - side, side // 2), "TV 7", fill=(255, 255, 255), font_size=max(10, side // 3))
    return np.asarray(image)


def _with_subtitles(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    draw, size = ImageDraw.Draw(image), max(10, height // 16)
    for line, text in enumerate(("– Have you seen what happened there?", "– I was looking the other way.")):
        place = (width // 2, height - (2.6 - 1.3 * line) * size)
        draw.text(place, text, anchor="mm", font_size=size, fill="white", stroke_fill="black", stroke_width=2)
    return np.asarray(image)


def _brighter(picture: Picture) -> Picture:
    return np.asarray(np.clip(picture.astype(np.float32) * 1.25 + 20, 0, 255), np.uint8)


COPIES: Mapping[str, Copy] = {
    "crf 35": Copy(crf=35),
    "half size": Copy(_halved),
    "trimmed": Copy(trim=TRIM),
    "mirrored": Copy(lambda picture: picture[:, ::-1]),
    "bordered": Copy(_bordered),
    "logo": Copy(_with_logo),
    "subtitles": Copy(_with_subtitles),
    "10 % faster": Copy(speed=1.1),
    "brighter": Copy(_brighter),
    "15 fps": Copy(fps=15.0),
}


def write_copies(clips: Sequence[Path], folder: Path) -> dict[Path, tuple[str, Path]]:
    """Write each kind of copy of each clip, unless it is there.

    Args:
        clips: the files; their stems differ.
        folder: where the copies go, one folder for each kind.

    Returns:
        The kind and the original of each copy.
    """
    made = {}
    for clip in clips:
        for kind, copy in COPIES.items():
            path = folder / kind.replace(" ", "_").replace("%", "percent") / f"{clip.stem}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _write_copy(clip, path, copy)
            made[path] = kind, clip
    return made


def _write_copy(clip: Path, path: Path, copy: Copy) -> None:
    aside = path.with_suffix(".partial.mp4")
    pictures, rate = _read(clip)
    cut = int(len(pictures) * copy.trim)
    shown = pictures[cut : len(pictures) - cut]
    if copy.fps is not None:
        ticks = np.arange(0, len(shown) / rate, 1 / copy.fps)
        shown = [shown[min(int(tick * rate + 1e-6), len(shown) - 1)] for tick in ticks]
        rate = copy.fps
    with av.open(aside, "w") as container:
        speed = Fraction(rate * copy.speed).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=speed, options={"crf": str(copy.crf), "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        height, width = (size // 2 * 2 for size in copy.picture(shown[0]).shape[:2])
        stream.height, stream.width = height, width
        for picture in map(copy.picture, shown):
            even = np.ascontiguousarray(picture[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    aside.replace(path)


def _read(path: Path) -> tuple[list[Picture], float]:
    """A clip's pictures and their rate."""
    with av.open(path) as container:
        shown = list(_decoded(container))
    times = [when for when, _ in shown]
    return [picture for _, picture in shown], (len(shown) - 1) / (times[-1] - times[0])


def _decoded(container: "av.container.InputContainer") -> Iterator[tuple[float, Picture]]:
    for frame in container.decode(video=0):
        yield float(frame.time or 0), np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
