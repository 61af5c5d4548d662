"""Runs a detector over frames of videos, for COCO JSON."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import VideoError
from vidpipe.records import VideoFailure, VideoFile
from vidpipe.regions.detections import FACE, PERSON, Detections
from vidpipe.regions.detector import Detector
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.trained import read_header
from vidpipe.regions.training.coco import Annotations, FrameName
from vidpipe.regions.training.frames import read_annotated_frames
from vidpipe.video.reader import iterate_frames

__all__ = ["Found", "class_names", "find_in_annotated", "find_in_videos"]

Found = tuple[FrameName, Detections]
_BATCH_SIZE = 8


def class_names(spec: DetectorSpec, weights: WeightsFile) -> dict[int, str]:
    """Return the names of the classes that a detector finds.

    Args:
        spec: the detector.
        weights: its weights.

    Returns:
        The names by class: those of a trained detector's file, else COCO's, else people or faces alone.

    Raises:
        WeightsError: the file cannot be read.
    """
    header = None if weights.path is None else read_header(weights.path)
    if header is not None:
        return dict(header.classes)
    if spec.classes == "person":
        return {PERSON: "person"}
    if spec.classes == "face":
        return {FACE: "face"}
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

    names = FasterRCNN_ResNet50_FPN_V2_Weights.DEFAULT.meta["categories"]
    return {number: name for number, name in enumerate(names) if name not in ("__background__", "N/A")}


def find_in_annotated(
    annotations: Annotations, folder: Path, detector: Detector, *, min_score: float
) -> Iterator[Found]:
    """Find objects in the frames that a COCO JSON names.

    Args:
        annotations: whose frames are looked at; its objects are not used.
        folder: of the videos and pictures.
        detector: ready to run.
        min_score: objects of a lower score are left out.

    Yields:
        Each frame with what is found.

    Raises:
        LabelsError: the annotations do not fit the videos.
        VideoError: a video or picture cannot be read.
    """
    for frame, image in read_annotated_frames(annotations, folder):
        yield frame.name, _confident(detector.detect(image.transpose(2, 0, 1)[None])[0], min_score)


def find_in_videos(
    videos: Sequence[VideoFile],
    detector: Detector,
    *,
    every: int,
    min_score: float,
    on_video: Callable[[int], None] = lambda num_done: None,
) -> Iterator[Found | VideoFailure]:
    """Find objects in frames of videos.

    Args:
        videos: the files.
        detector: ready to run.
        every: looks at the frames whose number is a multiple of this.
        min_score: objects of a lower score are left out.
        on_video: called after each video with the number of videos done.

    Yields:
        Each frame with what is found, and a failure for a video that cannot be read to its end.
    """
    for number, video in enumerate(videos, start=1):
        try:
            yield from _find_in_video(video, detector, every, min_score)
        except VideoError as error:
            yield VideoFailure(video.id, type(error).__name__, str(error))
        on_video(number)


def _find_in_video(video: VideoFile, detector: Detector, every: int, min_score: float) -> Iterator[Found]:
    frames = iterate_frames(video.path, lambda reader: np.arange(0, len(reader.pts_seconds), every))
    index = 0
    for batch in _batches(frames):
        for found in detector.detect(batch):
            yield FrameName(video.id, index), _confident(found, min_score)
            index += every


def _batches(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) one by one -> (n, 3, H, W)"""
    left = iter(frames)
    while batch := list(islice(left, _BATCH_SIZE)):
        yield np.stack(batch).transpose(0, 3, 1, 2)


def _confident(found: Detections, min_score: float) -> Detections:
    kept = found.scores >= min_score
    return replace(
        found,
        boxes=found.boxes[kept],
        scores=found.scores[kept],
        classes=found.classes[kept],
        key_points=None if found.key_points is None else found.key_points[kept],
        masks=None if found.masks is None else found.masks[kept],
    )
