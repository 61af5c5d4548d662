"""A contact sheet: the frames of a video with their heat maps, and a bar of each frame's share under them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vidpipe.explain.explanation import ExplainedVideo, Explanation, StreamExplanation
from vidpipe.explain.heat import AGAINST, FOR, colour_heat, heat_scale, over_picture, resize_places
from vidpipe.explain.pictures import clean_text
from vidpipe.video.overlays import font_path

__all__ = ["contact_sheet", "describe_margin", "draw_row"]

_TILE, _BAR, _GAP, _COLUMNS = 160, 44, 4, 8
"""Pixels of a frame's side, of the bar under it and between frames; frames in a line."""
_MAX_FRAMES = 24
"""Of a stream: those with the largest shares, in order of time."""
_MARGIN, _LINE = 16, 22
_INK, _PALE = "#202020", "#707070"
_ARROWS = "→↘↓↙←↖↑↗"


def draw_row(explained: ExplainedVideo, stream: StreamExplanation, row: int, side: int) -> Image.Image:
    """Draw what a backbone saw in one row, with its heat map, in the video's proportions.

    Args:
        explained: the video.
        stream: one of its streams.
        row: the number of the row.
        side: pixels of the longer side of the drawing.

    Returns:
        The drawing; the picture itself where the feature has no places.
    """
    ratio = explained.aspect_ratio(stream.name)
    size = max(1, round(side * min(1, ratio))), max(1, round(side / max(1, ratio)))
    picture = Image.fromarray(explained.pictures[stream.name][row].transpose(1, 2, 0))
    small = picture.resize(size, Image.Resampling.BILINEAR)
    if stream.places is None:
        return small
    heat = resize_places(stream.places[row], size, smooth=not stream.is_flow)
    return Image.fromarray(over_picture(np.asarray(small), colour_heat(heat, heat_scale(stream))))


def contact_sheet(explained: ExplainedVideo) -> Image.Image:
    """Draw a video's explanation, stream by stream.

    Args:
        explained: the video.

    Returns:
        The sheet.
    """
    explanation = explained.explanation
    title = f"{explained.video.id}: {explanation.label} {explanation.probability:.2f}"
    blocks = [_stream_block(explained, stream) for stream in explanation.streams]
    width = max(block.width for block in blocks) + 2 * _MARGIN
    height = 2 * _MARGIN + 2 * _LINE + sum(block.height + _MARGIN for block in blocks)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), clean_text(title), font=_font(16), fill=_INK)
    draw.text((_MARGIN, _MARGIN + _LINE), clean_text(describe_margin(explanation)), font=_font(13), fill=_PALE)
    top = _MARGIN + 2 * _LINE
    for block in blocks:
        sheet.paste(block, (_MARGIN, top + _MARGIN // 2))
        top += block.height + _MARGIN
    return sheet


def describe_margin(explanation: Explanation) -> str:
    """Return the parts of the margin in words: `margin 13.4 = average video 1.5 + flow 4.4 + …`.

    Args:
        explanation: of a video.

    Returns:
        One line.
    """
    against = "the mean logit of all labels" if explanation.against is None else f"the logit of {explanation.against}"
    parts = [f"{stream.share:+.2f} {stream.name}" for stream in explanation.streams]
    rest = [] if explanation.is_exact else [f"{explanation.residual:+.2f} not divided"]
    return (
        f"logit of {explanation.label} less {against}: {explanation.margin:+.2f} = "
        f"{explanation.bias:+.2f} average video, {', '.join([*parts, *rest])}"
    )


def _stream_block(explained: ExplainedVideo, stream: StreamExplanation) -> Image.Image:
    """The frames of a stream in lines, each with its bar, and below them the directions of motion."""
    shown = _shown_rows(stream.shares)
    num_lines = -(-len(shown) // _COLUMNS)
    cell_height = _TILE + _BAR + _GAP
    width = min(len(shown), _COLUMNS) * (_TILE + _GAP)
    height = _LINE + num_lines * cell_height + (_LINE * 2 if stream.is_flow else 0)
    block = Image.new("RGB", (max(width, 4 * _TILE), height), "white")
    draw = ImageDraw.Draw(block)
    draw.text((0, 0), _caption(stream, len(shown)), font=_font(13), fill=_INK)
    full = max(float(np.abs(stream.shares).max()), 1e-12)
    for place, row in enumerate(shown):
        left = place % _COLUMNS * (_TILE + _GAP)
        top = _LINE + place // _COLUMNS * cell_height
        drawn = draw_row(explained, stream, row, _TILE)
        block.paste(drawn, (left + (_TILE - drawn.width) // 2, top + _TILE - drawn.height))
        _draw_bar(draw, (left, top + _TILE), float(stream.shares[row]), full, float(stream.rows.pts_seconds[row]))
    if stream.directions is not None:
        draw.text((0, height - _LINE * 2 + 6), _describe_directions(stream.directions), font=_font(13), fill=_INK)
    return block


def _shown_rows(shares: NDArray[np.float64]) -> list[int]:
    largest = np.argsort(-np.abs(shares), kind="stable")[:_MAX_FRAMES]
    return sorted(largest.tolist())


def _caption(stream: StreamExplanation, num_shown: int) -> str:
    shown = f", the {num_shown} of {len(stream.shares)} rows with the largest shares" * (num_shown < len(stream.shares))
    if stream.places is None:
        note = "; its features have no places"
    else:
        note = "" if stream.places_add_up else "; the maps show where, and do not add up to the shares"
    return f"{stream.name} {stream.share:+.2f}{shown}{note}"


def _draw_bar(draw: ImageDraw.ImageDraw, corner: tuple[int, int], share: float, full: float, seconds: float) -> None:
    """A bar from the middle up for a share that spoke for the label, down for one against it."""
    left, top = corner
    middle, half = top + _BAR // 2 + 2, (_BAR - 18) // 2
    draw.line((left, middle, left + _TILE, middle), fill="#c0c0c0")
    length = round(half * share / full)
    box = (left + 8, min(middle, middle - length), left + _TILE // 2 - 28, max(middle, middle - length))
    draw.rectangle(box, fill=FOR if share >= 0 else AGAINST)
    text = f"{share:+.2f}  {seconds:.2f} s"
    draw.text((left + _TILE - 2, top + 4), text, font=_font(12), fill=_PALE, anchor="ra")


def _describe_directions(directions: NDArray[np.float64]) -> str:
    """`by direction: → +0.31  ↓ −0.02  …  still +0.11`"""
    totals = directions.sum(axis=0)
    arrows = _ARROWS if len(totals) == len(_ARROWS) + 1 else [str(number) for number in range(len(totals) - 1)]
    named = zip([*arrows, "still"], totals.tolist(), strict=True)
    return "by direction of motion:  " + "   ".join(f"{name} {total:+.2f}" for name, total in named)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(), size)
