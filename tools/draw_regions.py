"""Draws docs/regions.png: what the detectors find in a video, and what `--regions` makes of it.

python -m tools.draw_regions VIDEO MODELS docs/regions.png     MODELS: a folder with the three ONNX files
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vidpipe.regions.detections import Detections
from vidpipe.regions.linking import Track, detection_grid, link_people, select_people
from vidpipe.regions.load import load_detector
from vidpipe.regions.masks import MASK_THRESHOLD, people_probability
from vidpipe.regions.people import people_region
from vidpipe.regions.table import find_detector
from vidpipe.regions.tracks import regions_at
from vidpipe.regions.weights import find_detector_weights
from vidpipe.timeline.colours import class_colours
from vidpipe.video.overlays import font_path
from vidpipe.video.reader import open_video

COLUMNS, WIDTH, GAP, TEXT_HEIGHT, FONT_SIZE = 3, 300, 8, 24, 15
FILES = {"centernet": "centernet_coco.onnx", "movenet": "movenet_multipose.onnx", "person_mask": "person_mask.onnx"}
LIMBS = (
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12)),
    *((11, 13), (13, 15), (12, 14), (14, 16)),
)
"""Pairs of COCO's key points."""
COLOURS = tuple(class_colours([str(number) for number in range(8)]).values())
MIN_POINT_SCORE, PAINT = 0.2, (124, 116, 104)


def detect(name: str, models: Path, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
    """Return what a detector finds in frames (N, H, W, 3)."""
    spec = find_detector(name)
    detector = load_detector(spec, find_detector_weights(spec, str(models / FILES[name])), device="cpu")
    return tuple(found for frame in frames for found in detector.detect(frame[None].transpose(0, 3, 1, 2)))


def panels(frames: NDArray[np.uint8], seconds: NDArray[np.float64], models: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield captions and pictures: boxes, key points, the box of all people, tracks at two times, and a mask."""
    middle = len(frames) // 2
    found = {name: detect(name, models, frames) for name in ("centernet", "movenet")}
    height, width = frames.shape[1:3]
    yield "boxes (centernet)", drawn(frames[middle], boxes_of(found["centernet"][middle], 0.35))
    yield "key points (movenet)", skeletons(frames[middle], found["movenet"][middle])
    x, y, wide, high = people_region(found["movenet"], min_score=0.2, margin=0.1) * [width, height, width, height]
    yield "--regions people", drawn(frames[middle], [(x, y, x + wide, y + high)])
    tracks = select_people(link_people(found["movenet"], seconds, min_score=0.2), seconds)
    for place in (len(frames) // 5, 4 * len(frames) // 5):
        yield f"--regions tracks, at {seconds[place]:.1f} s", numbered(frames[place], tracks, seconds, place)
    (mask,) = detect("person_mask", models, frames[middle][None])
    kept = people_probability(mask, 0.5) >= MASK_THRESHOLD
    yield "--regions mask (person_mask)", Image.fromarray(np.where(kept[..., None], frames[middle], PAINT).astype("u1"))


def boxes_of(found: Detections, min_score: float) -> list[tuple[float, float, float, float]]:
    """Return the boxes of people."""
    return [tuple(box) for box in found.boxes[found.people(min_score)].tolist()]


def drawn(frame: NDArray[np.uint8], boxes: list[tuple[float, float, float, float]]) -> Image.Image:
    """Return a frame with boxes."""
    picture = Image.fromarray(frame)
    for number, box in enumerate(boxes):
        ImageDraw.Draw(picture).rectangle(box, outline=COLOURS[number % 8], width=_line(frame))
    return picture


def skeletons(frame: NDArray[np.uint8], found: Detections) -> Image.Image:
    """Return a frame with the key points of people, joined."""
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    assert found.key_points is not None
    for number, points in enumerate(found.key_points[found.people(0.2)]):
        for one, other in LIMBS:
            if points[one, 2] >= MIN_POINT_SCORE and points[other, 2] >= MIN_POINT_SCORE:
                draw.line([*points[one, :2], *points[other, :2]], fill=COLOURS[number % 8], width=_line(frame))
    return picture


def numbered(
    frame: NDArray[np.uint8], tracks: tuple[Track, ...], seconds: NDArray[np.float64], place: int
) -> Image.Image:
    """Return a frame with the region and the number of each person."""
    picture = Image.fromarray(frame)
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(font_path(), frame.shape[1] // 16)
    scale = np.array([frame.shape[1], frame.shape[0]] * 2)
    for number, track in enumerate(tracks):
        _, regions = regions_at(track, seconds, seconds[place : place + 1], (frame.shape[1], frame.shape[0]))
        for x, y, wide, high in (regions * scale).tolist():
            draw.rectangle((x, y, x + wide - 1, y + high - 1), outline=COLOURS[number % 8], width=_line(frame))
            draw.text((x + 6, y + 3), str(number + 1), fill=COLOURS[number % 8], font=font)
    return picture


def _line(frame: NDArray[np.uint8]) -> int:
    width: int = frame.shape[1]
    return max(2, width // 120)


def sheet(captioned: list[tuple[str, Image.Image]]) -> Image.Image:
    """Return the pictures in rows, each under its caption."""
    high = round(WIDTH * captioned[0][1].height / captioned[0][1].width)
    num_rows = -(-len(captioned) // COLUMNS)
    size = COLUMNS * (WIDTH + GAP) - GAP, num_rows * (high + TEXT_HEIGHT + GAP) - GAP
    result, font = Image.new("RGB", size, "white"), ImageFont.truetype(font_path(), FONT_SIZE)
    for number, (caption, picture) in enumerate(captioned):
        row, column = divmod(number, COLUMNS)
        left, top = column * (WIDTH + GAP), row * (high + TEXT_HEIGHT + GAP)
        ImageDraw.Draw(result).text((left, top + 2), caption, fill="black", font=font)
        result.paste(picture.resize((WIDTH, high), Image.Resampling.LANCZOS), (left, top + TEXT_HEIGHT))
    return result


def main(video: Path, models: Path, output: Path) -> None:
    """Draw a video's sheet."""
    reader = open_video(video)
    grid = detection_grid(reader.pts_seconds)
    frames = np.concatenate(list(reader.blocks(grid)))
    picture = sheet(list(panels(frames, reader.pts_seconds[grid], models)))
    picture.quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(output, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
