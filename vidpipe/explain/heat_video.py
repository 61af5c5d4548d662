"""A copy of a video with the heat maps of all streams over it, and the curve of the rows' shares below."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vidpipe.explain.explanation import ExplainedVideo, Explanation, Region, StreamExplanation
from vidpipe.explain.heat import AGAINST, FOR, colour_heat, resize_places
from vidpipe.explain.pictures import clean_text
from vidpipe.records import VideoInfo
from vidpipe.video.drawn_copy import header_seconds, write_drawn_copy
from vidpipe.video.overlays import LabelledBox, font_path

__all__ = ["write_heat_video"]

_STRIP_SHARE = 0.25
"""Height of the strip with the curve, as a share of the picture's."""
_FULL_HEAT_PERCENTILE = 99.5
_COLOURS = ("#ffd23f", "#3bceac", "#ee6c9d", "#9db4ff", "#c3f584", "#ffffff")
"""Of the streams' curves."""


def write_heat_video(explained: ExplainedVideo, out: Path) -> None:
    """Write an H.264 copy of a video with its explanation; frames keep their times, and sound is copied.

    The heat of a stream is its share by area, so that those of all streams add up. It is that of the nearest row.

    Args:
        explained: the video.
        out: the copy, `.mp4` or `.mkv`.

    Raises:
        UsageError: the copy would replace the video.
        VideoError: the video cannot be read.
        VidpipeError: the copy cannot be written.
    """
    video, info = explained.video.path, explained.info
    last = max(float(stream.rows.pts_seconds[-1]) for stream in explained.explanation.streams)
    end_seconds = max(header_seconds(video), info.duration_seconds, last) or 1.0
    make = partial(
        _Heat, info=info, explanation=explained.explanation, regions=explained.regions, end_seconds=end_seconds
    )
    write_drawn_copy(video, out, make, strip_share=_STRIP_SHARE)


class _Heat:
    """Draws heat over whole frames, and the curve over the strip below them; a `Drawing`."""

    def __init__(
        self,
        width: int,
        height: int,
        *,
        info: VideoInfo,
        explanation: Explanation,
        regions: Mapping[str, Region],
        end_seconds: float,
    ) -> None:
        self.end_seconds = end_seconds
        self.playhead_pixels = (height - info.height) // 2 * 2
        self._size = (width, height)
        self._picture = (info.width, info.height)
        self._streams, self._regions = explanation.streams, regions
        every = [np.abs(_density(one)).ravel() for one in self._streams if one.places is not None]
        self._scale = float(np.percentile(np.concatenate(every), _FULL_HEAT_PERCENTILE)) if every else 0.0
        self._strip = _draw_curves(explanation, (width, height - info.height), end_seconds)

    def state_at(self, seconds: float) -> tuple[int, ...]:
        """Return the row of each stream that is nearest to a time."""
        return tuple(int(np.abs(stream.rows.pts_seconds - seconds).argmin()) for stream in self._streams)

    def boxes_at(self, seconds: float) -> tuple[LabelledBox, ...]:
        """Return no boxes."""
        return ()

    def draw(self, rows: tuple[int, ...]) -> Image.Image:
        """Return the heat maps of some rows and the curves, RGBA."""
        total = np.zeros(self._picture[::-1], np.float32)
        for stream, row in zip(self._streams, rows, strict=True):
            if stream.places is not None:
                left, top, right, bottom = _corners(self._regions[stream.name], self._picture)
                density = resize_places(_density(stream)[row], (right - left, bottom - top), smooth=not stream.is_flow)
                total[top:bottom, left:right] += density
        drawing = Image.new("RGBA", self._size)
        drawing.paste(Image.fromarray(colour_heat(total, self._scale)), (0, 0))
        drawing.paste(self._strip, (0, self._size[1] - self._strip.height))
        return drawing


def _density(stream: StreamExplanation) -> NDArray[np.float64]:
    """(T, h, w) shares for a part of the picture of the size of a backbone's whole view."""
    assert stream.places is not None
    density: NDArray[np.float64] = stream.places * stream.places[0].size
    return density


def _corners(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels of a picture of width and height `size`."""
    x, y, width, height = region
    left, top = round(x * size[0]), round(y * size[1])
    return left, top, max(left + 1, round((x + width) * size[0])), max(top + 1, round((y + height) * size[1]))


def _draw_curves(explanation: Explanation, size: tuple[int, int], end_seconds: float) -> Image.Image:
    """The shares of the rows over time: above the middle line for the label, below it against it."""
    width, height = size
    strip = Image.new("RGBA", size, (16, 16, 16, 255))
    draw, font = ImageDraw.Draw(strip), ImageFont.truetype(font_path(), max(8, round(0.17 * height)))
    text_height, full = round(0.24 * height), max(float(np.abs(one.shares).max()) for one in explanation.streams)
    middle, half = text_height + (height - text_height) // 2, (height - text_height) / 2 - 2
    draw.line((0, middle, width, middle), fill="#606060")
    draw.text((4, 2), clean_text(f"{explanation.label} {explanation.probability:.2f}"), font=font, fill="#ffffff")
    right = width - 4
    for stream, colour in reversed(list(zip(explanation.streams, _cycle(len(explanation.streams)), strict=True))):
        text = f"{stream.name} {stream.share:+.2f}"
        right -= round(draw.textlength(text, font=font)) + 8
        draw.text((right, 2), text, font=font, fill=colour)
        points = [
            (seconds / end_seconds * width, middle - half * share / full if full else middle)
            for seconds, share in zip(stream.rows.pts_seconds.tolist(), stream.shares.tolist(), strict=True)
        ]
        draw.line(points if len(points) > 1 else [points[0], (points[0][0] + 1, points[0][1])], fill=colour, width=2)
    draw.rectangle((0, middle - half, 2, middle), fill=FOR)
    draw.rectangle((0, middle, 2, middle + half), fill=AGAINST)
    return strip


def _cycle(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]
