"""Faces in real clips: how many MTCNN finds, how large they are, and how many of them MoveNet's heads cover.

    python -m benchmarks.faces WEIGHTS      a folder with MTCNN's three files, or facenet-pytorch's wheel

Four frames of each clip of ../shared/data; MoveNet's weights are there, too.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import SHARED_DATA
from vidpipe.regions.detections import Detections
from vidpipe.regions.detector import Detector
from vidpipe.regions.faces import faces_of
from vidpipe.regions.load import load_detector
from vidpipe.regions.table import find_detector
from vidpipe.regions.weights import find_detector_weights
from vidpipe.video.files import find_videos
from vidpipe.video.reader import read_frames
from vidpipe.video.sampling import uniform_indices

NUM_FRAMES = 4
MIN_IOU = 0.3
MTCNN, MOVENET = find_detector("mtcnn"), find_detector("movenet")


@dataclass
class Counts:
    """What is found in the frames of one set."""

    faces_in_frames: list[int]
    heights: list[float]
    num_clips: int = 0
    num_heads: int = 0
    num_covered: int = 0


def overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes (4,)."""
    common = np.prod((np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0))
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(common / (sum(areas) - common))


def count(clips: Sequence[Path], mtcnn: Detector, movenet: Detector) -> Counts:
    """Look for faces in four frames of each clip."""
    counts = Counts([], [])
    for clip in clips:
        _, frames = read_frames(clip, lambda reader: uniform_indices(len(reader.pts_seconds), NUM_FRAMES))
        pixels = frames.transpose(0, 3, 1, 2)
        boxes = [one.boxes[one.scores >= MTCNN.min_score] for one in mtcnn.detect(pixels)]
        counts.num_clips += any(map(len, boxes))
        for faces, people in zip(boxes, movenet.detect(pixels), strict=True):
            add(counts, faces, faces_of(people, MOVENET))
    return counts


def add(counts: Counts, faces: NDArray[np.float32], heads: Detections) -> None:
    """Add the faces of a frame (K, 4), and MoveNet's heads."""
    likely = heads.boxes[heads.scores >= MOVENET.min_score]
    counts.faces_in_frames.append(len(faces))
    counts.heights += (faces[:, 3] - faces[:, 1]).tolist()
    counts.num_heads += len(likely)
    counts.num_covered += sum(any(overlap(face, head) > MIN_IOU for head in likely) for face in faces)


def run(weights: str) -> str:
    """Return the section of the results."""
    mtcnn = load_detector(MTCNN, find_detector_weights(MTCNN, weights), device="cpu")
    path = SHARED_DATA / "models/movenet_multipose.onnx"
    movenet = load_detector(MOVENET, find_detector_weights(MOVENET, str(path)), num_threads=1)
    rows = []
    for name in ("fight", "interaction"):
        clips = [video.path for video in find_videos([SHARED_DATA / "clips" / name])]
        one = count(clips, mtcnn, movenet)
        low, middle, high = np.percentile(one.heights, [10, 50, 90])
        num_frames, num_faces = len(one.faces_in_frames), sum(one.faces_in_frames)
        rows.append(
            f"| {name} | {len(clips)}, {one.num_clips} | {num_frames}, {sum(map(bool, one.faces_in_frames))} "
            f"| {num_faces} | {middle:.0f} ({low:.0f} to {high:.0f}) | {one.num_heads}, {one.num_covered} |"
        )
    return "\n".join(
        (
            "## Faces (`benchmarks/faces.py`)",
            "",
            f"{NUM_FRAMES} frames of each clip; faces of MTCNN with a probability from {MTCNN.min_score} on, heads of "
            f"MoveNet at least 20 pixels wide. `python -m benchmarks.faces WHEEL`, facenet-pytorch 2.6.0.",
            "",
            "| set | clips, with a face | frames, with a face | faces | height, 10 to 90 % | heads, faces with one "
            "(IoU > 0.3) |",
            "|---|---|---|---|---|---|",
            *rows,
        )
    )


if __name__ == "__main__":
    print(run(sys.argv[1]))
