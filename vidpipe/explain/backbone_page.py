"""The folder of what a backbone sees.

DIR/
  backbone.html              all stages, one after the other; opens from disk
  activations/layer1.png     the strongest channels of a stage
  filters/layer1.png         what the first of them look for
  attention/blocks.png       the class token's attention in each block; heads.png, rollout.png
  offsets/layer4.0.conv2.png where a deformable convolution samples the picture
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vidpipe.errors import UsageError, VidpipeError
from vidpipe.explain.backbone import ExplainedBackbone, SeenStage
from vidpipe.explain.heat import colour_heat, over_picture, resize_places
from vidpipe.explain.offsets import draw_points
from vidpipe.explain.pictures import clean_text, write_png
from vidpipe.html_pages import render_page, write_whole
from vidpipe.video.overlays import font_path

__all__ = ["PAGE", "check_folder", "write_backbone"]

PAGE = "backbone.html"
_FOLDERS = ("activations", "filters", "attention", "offsets")
_TILE, _GAP, _CAPTION, _COLUMNS = 128, 6, 18, 8
"""Pixels of a tile's side, between tiles and of a caption; tiles in a line."""
_ABOVE, _BELOW = (255, 150, 40), (60, 140, 255)
"""Of activations above and below zero; zero is black."""
Pixels = NDArray[np.uint8]
Tile = tuple[str, Pixels]
"""A caption and (H, W, 3) RGB."""


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder can take the pictures and the page.

    Args:
        folder: it may exist.
        overwrite: whether what vidpipe wrote there may be replaced.

    Raises:
        UsageError: it is a file, or holds such a page already, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / PAGE).is_file():
        raise UsageError(f"{folder}: holds other files; choose a new folder")
    if not overwrite:
        raise UsageError(f"{folder / PAGE}: exists; choose another folder, or give --overwrite to replace it")


def write_backbone(explained: ExplainedBackbone, folder: Path) -> Path:
    """Write the pictures and the page; the page last, so that it is there only where all is.

    Args:
        explained: what the backbone sees.
        folder: it is made if needed. The pictures and the page of an earlier explanation are deleted.

    Returns:
        The page.

    Raises:
        VidpipeError: a file cannot be written.
    """
    page = folder / PAGE
    try:
        page.unlink(missing_ok=True)
        for name in _FOLDERS:
            for old in (folder / name).glob("*.png"):
                old.unlink()
        for name, tiles in _sheets(explained).items():
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(_sheet(tiles), path)
        for points in explained.offsets:
            path = folder / "offsets" / f"{points.layer}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(Image.fromarray(draw_points(explained.seen.picture, points)), path)
    except OSError as error:
        raise VidpipeError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    rendered = render_page("vidpipe.explain", "backbone.html", assets="backbone", **_values(explained))
    write_whole(rendered, page, kind="the page", error=VidpipeError)
    return page


def _sheets(explained: ExplainedBackbone) -> dict[str, list[Tile]]:
    """The tiles of each PNG, by its path without `.png`."""
    sheets = {}
    for one in explained.stages:
        file = one.stage.name.replace("/", "_")
        sheets[f"activations/{file}"] = _activation_tiles(one)
        if one.filters is not None:
            sheets[f"filters/{file}"] = _filter_tiles(one)
    return {**sheets, **{f"attention/{name}": tiles for name, _, tiles in _attention_sections(explained)}}


def _activation_tiles(one: SeenStage) -> list[Tile]:
    captions = [f"channel {channel}: {mean:.3g}" for channel, mean in zip(one.channels, _means(one), strict=True)]
    return [(caption, _colour(map_)) for caption, map_ in zip(captions, one.maps, strict=True)]


def _means(one: SeenStage) -> list[float]:
    means: list[float] = one.maps.mean(axis=(1, 2)).tolist()
    return means


def _filter_tiles(one: SeenStage) -> list[Tile]:
    assert one.filters is not None
    means = one.filters.activations.tolist()
    named = zip(one.filters.channels, means, one.filters.pictures, strict=True)
    return [(f"channel {channel}: {mean:.3g}", picture) for channel, mean, picture in named]


def _attention_sections(explained: ExplainedBackbone) -> list[tuple[str, str, list[Tile]]]:
    """The file, the title and the tiles of each kind of attention map."""
    attention, picture = explained.attention, explained.seen.picture
    if attention is None:
        return []

    def tiles(captions: Sequence[str], maps: NDArray[np.float32]) -> list[Tile]:
        return [(caption, _over(picture, map_)) for caption, map_ in zip(captions, maps, strict=True)]

    heads = [f"head {number}" for number in range(len(attention.heads))]
    return [
        ("blocks", "Each block, the mean over its heads", tiles(attention.names, attention.blocks.numpy())),
        ("heads", "Each head of the last block", tiles(heads, attention.heads.numpy())),
        ("rollout", "Rollout: all blocks together", tiles(["rollout"], attention.rollout.numpy()[None])),
    ]


def _over(picture: Pixels, weights: NDArray[np.float32]) -> Pixels:
    """Attention over a picture in grey; its colour is full at the largest weight."""
    size = (picture.shape[1], picture.shape[0])
    heat = resize_places(weights.astype(np.float64), size, smooth=False)
    return over_picture(picture, colour_heat(heat, float(weights.max())))


def _colour(map_: NDArray[np.float32]) -> Pixels:
    """(h, w) -> (h, w, 3): black is zero, and the colour is full at the largest absolute activation"""
    share = map_ / max(float(np.abs(map_).max()), 1e-12)
    colours = np.where(share[..., None] >= 0, _ABOVE, _BELOW) * np.sqrt(np.abs(share))[..., None]
    pixels: Pixels = np.rint(colours).astype(np.uint8)
    return pixels


def _tile(pixels: Pixels) -> Image.Image:
    """Enlarged so that places are seen as squares."""
    enlarges = max(pixels.shape[:2]) < _TILE
    resampling = Image.Resampling.NEAREST if enlarges else Image.Resampling.BILINEAR
    return Image.fromarray(pixels).resize((_TILE, _TILE), resampling)


def _sheet(tiles: Sequence[Tile]) -> Image.Image:
    num_columns = min(_COLUMNS, len(tiles))
    num_lines = -(-len(tiles) // _COLUMNS)
    step, line = _TILE + _GAP, _TILE + _CAPTION + _GAP
    sheet = Image.new("RGB", (num_columns * step + _GAP, num_lines * line + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(font_path(), 11)
    for number, (caption, pixels) in enumerate(tiles):
        left, top = _GAP + number % _COLUMNS * step, _GAP + number // _COLUMNS * line
        sheet.paste(_tile(pixels), (left, top))
        draw.text((left, top + _TILE + 2), clean_text(_shortened(caption)), font=font, fill="#202020")
    return sheet


def _shortened(caption: str) -> str:
    return caption if len(caption) <= 20 else f"…{caption[-19:]}"


def _values(explained: ExplainedBackbone) -> dict[str, object]:
    """What the template shows."""
    return {
        "explained": explained,
        "input_uri": _uri(explained.seen.picture),
        "stages": [(one.stage, _cards(one)) for one in explained.stages],
        "has_filters": any(one.filters is not None for one in explained.stages),
        "attention": [
            (title, [(caption, _uri(pixels)) for caption, pixels in tiles])
            for _, title, tiles in _attention_sections(explained)
        ],
        "offsets": [(points, _uri(draw_points(explained.seen.picture, points))) for points in explained.offsets],
    }


def _cards(one: SeenStage) -> list[dict[str, object]]:
    """For each channel, its map, and its filter where there is one."""
    filters = [] if one.filters is None else [_uri(picture) for picture in one.filters.pictures]
    found = [] if one.filters is None else one.filters.activations.tolist()
    missing = len(one.channels) - len(filters)
    named = zip(one.channels, _means(one), one.maps, [*filters, *[""] * missing], [*found, *[0] * missing], strict=True)
    return [
        {"channel": channel, "mean": mean, "map": _uri(_colour(map_)), "filter": filter_, "found": reached}
        for channel, mean, map_, filter_, reached in named
    ]


def _uri(pixels: Pixels) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
