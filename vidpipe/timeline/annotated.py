"""A copy of a video with its timeline burnt in: the current label, its probability, and a bar of all segments.

Where segments are of people, the bar has a lane for each, and each person has a box with their number and label.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vidpipe.errors import UsageError
from vidpipe.records import PersonPath, Segment, Timeline
from vidpipe.timeline.colours import class_colours, labels_of
from vidpipe.timeline.video_files import copy_path
from vidpipe.video.drawn_copy import copy_suffix, header_seconds, write_drawn_copy
from vidpipe.video.overlays import LabelledBox, font_path

__all__ = ["write_annotated", "write_copy"]

_BAND_SHARE = 0.12
"""Of the picture's height."""
_MIN_BAND_PIXELS, _MAX_BAND_PIXELS = 32, 96
_BACKDROP = (0, 0, 0, 150)
_MAX_LABELS = 3
"""Of segments that overlap."""
_UNLABELLED = "#808080"
"""The colour of a person without a label."""


def write_copy(video: Path, timeline: Timeline, folder: Path, *, overwrite: bool = False) -> Path:
    """Write an annotated copy into a folder, under the video's id: `walk/a.mp4`, or `walk/b.avi.mp4` for `walk/b.avi`.

    Args:
        video: the file.
        timeline: its segments, and its id.
        folder: made if it does not exist.
        overwrite: whether an existing file is replaced.

    Returns:
        The copy: `.mp4`, or `.mkv` where MP4 cannot hold the video's sound.

    Raises:
        UsageError: the copy exists, or would replace the video.
        VideoError: the video cannot be read.
        VidpipeError: the copy cannot be written.
    """
    out = copy_path(folder, timeline.video_id, copy_suffix(video))
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another folder, or give --overwrite to replace it")
    write_annotated(video, timeline, out)
    return out


def write_annotated(video: Path, timeline: Timeline, out: Path) -> None:
    """Write an H.264 copy with the timeline burnt in.

    Args:
        video: the file.
        timeline: its segments.
        out: the copy, `.mp4` or `.mkv`. Its folder is made if it does not exist.

    Raises:
        UsageError: the copy would replace the video, or the suffix names no format for it.
        VideoError: the video cannot be read.
        VidpipeError: the copy cannot be written.
    """
    write_drawn_copy(video, out, partial(_Band, timeline=timeline, end_seconds=_end_seconds(video, timeline)))


def _end_seconds(video: Path, timeline: Timeline) -> float:
    """When the bar ends: with the video, or with the last segment."""
    stops = [one.stop_seconds for one in timeline.segments]
    return max([timeline.duration_seconds or header_seconds(video), *stops]) or 1.0


def _band_height(height: int) -> int:
    """Pixels, an even number, at most half of the picture."""
    wanted = np.clip(_BAND_SHARE * height, _MIN_BAND_PIXELS, _MAX_BAND_PIXELS)
    return max(2, int(min(wanted, height / 2)) // 2 * 2)


class _Band:
    """Draws the current labels above a bar of the whole timeline, over the lowest part of frames; a `Drawing`."""

    def __init__(self, width: int, frame_height: int, *, timeline: Timeline, end_seconds: float) -> None:
        height = _band_height(frame_height)
        self.end_seconds, self._segments, self._people = end_seconds, timeline.segments, timeline.people
        self._colours = class_colours(labels_of([timeline]))
        self._size = (width, height)
        self.playhead_pixels = max(2, height // 3 // 2 * 2)  # those of the bar
        text_pixels = height - self.playhead_pixels
        self._font = ImageFont.truetype(font_path(), max(6, round(0.68 * text_pixels)))
        self._text_place = (0.3 * text_pixels, text_pixels / 2)
        self._empty = Image.new("RGBA", self._size, _BACKDROP)
        draw = ImageDraw.Draw(self._empty)
        draw.rectangle((0, text_pixels, width, height), fill="#303030")
        lanes = sorted({one.person or 0 for one in timeline.segments})
        lane_pixels = self.playhead_pixels / max(1, len(lanes))
        for one in timeline.segments:
            left, right = (seconds / end_seconds * width for seconds in (one.start_seconds, one.stop_seconds))
            top = text_pixels + lanes.index(one.person or 0) * lane_pixels
            corners = (left, top, max(left, right - 1), max(top, top + lane_pixels - (len(lanes) > 1)))
            draw.rectangle(corners, fill=self._colours[one.label])

    def state_at(self, seconds: float) -> tuple[Segment, ...]:
        """Return the segments that hold a time."""
        return tuple(one for one in self._segments if one.start_seconds <= seconds < one.stop_seconds)

    def boxes_at(self, seconds: float) -> tuple[LabelledBox, ...]:
        """Return the box of each person who is there, with their number and current label."""
        return tuple(box for path in self._people if (box := self._box(path, seconds)) is not None)

    def _box(self, path: PersonPath, seconds: float) -> LabelledBox | None:
        region = path.at(seconds)
        if region is None:
            return None
        current = [one for one in self.state_at(seconds) if one.person == path.track]
        colour = self._colours[current[0].label] if current else _UNLABELLED
        captions = [_caption(one) for one in current] or [str(path.track)]
        return LabelledBox(region, colour, ", ".join(captions))

    def draw(self, segments: Sequence[Segment]) -> Image.Image:
        """Return the band (h, w), RGBA, with the labels of segments."""
        band = self._empty.copy()
        draw = ImageDraw.Draw(band)
        left, middle = self._text_place
        for one in segments[:_MAX_LABELS]:
            side = 0.5 * middle
            draw.rectangle((left, middle - side, left + 2 * side, middle + side), fill=self._colours[one.label])
            left += 3 * side
            text = _caption(one)
            draw.text((left, middle), text, font=self._font, fill="#ffffff", anchor="lm")
            left += draw.textlength(text, font=self._font) + 3 * side
        return band


def _caption(segment: Segment) -> str:
    label = "".join(one if one.isprintable() else " " for one in segment.label)
    label = label if segment.probability is None else f"{label} {segment.probability:.2f}"
    return label if segment.person is None else f"{segment.person} {label}"
