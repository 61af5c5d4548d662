"""What a detector learns from: annotated frames as square pictures of its size."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import InputError
from vidpipe.regions.detections import Detections
from vidpipe.regions.networks.letterbox import Letterbox
from vidpipe.regions.training.coco import AnnotatedFrame, Annotations
from vidpipe.regions.training.frames import read_annotated_frames

__all__ = ["Examples", "Learned", "split_by_file"]


@dataclass(frozen=True)
class Learned:
    """What a detector learns of each object, beside its box and class."""

    masks: bool = False
    key_points: bool = False


@dataclass(frozen=True)
class Examples:
    """N annotated frames; their pictures are in a temporary file, so that they need not fit into memory."""

    frames: tuple[AnnotatedFrame, ...]
    pictures: NDArray[np.uint8]
    """(N, 3, size, size)"""
    learned: Learned

    @classmethod
    def read(
        cls,
        annotations: Annotations,
        folder: Path,
        *,
        size: int,
        learned: Learned,
        on_frame: Callable[[int], None] = lambda num_done: None,
    ) -> Self:
        """Decode all annotated frames once.

        Args:
            annotations: of frames and pictures.
            folder: of the videos and pictures.
            size: the side of the pictures in pixels.
            learned: what each object must have.
            on_frame: called after each frame with the number of frames read.

        Returns:
            The examples.

        Raises:
            LabelsError: the annotations do not fit the videos, or an object lacks what is learned.
            VideoError: a file cannot be read.
        """
        annotations.check(masks=learned.masks, key_points=learned.key_points)
        with tempfile.TemporaryFile() as file:
            pictures = np.memmap(file, np.uint8, "w+", shape=(len(annotations.frames), 3, size, size))
            frames = []
            for index, (frame, image) in enumerate(read_annotated_frames(annotations, folder)):
                letterbox = Letterbox.of(frame.height, frame.width, size)
                pictures[index] = letterbox.pictures(image.transpose(2, 0, 1)[None])[0]
                frames.append(frame)
                on_frame(index + 1)
        return cls(tuple(frames), pictures, learned)  # the map keeps its file

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> int:
        """The side of the pictures in pixels."""
        return int(self.pictures.shape[2])

    def truth(self, index: int) -> Detections:
        """Return the objects of an example in its square picture."""
        frame = self.frames[index]
        truth = frame.truth(masks=self.learned.masks, key_points=self.learned.key_points)
        return _in_square(truth, Letterbox.of(frame.height, frame.width, self.size))

    def box_sizes(self) -> NDArray[np.float32]:
        """Return the width and height of all boxes in the square pictures, (K, 2)."""
        boxes = [replace(self, learned=Learned()).truth(index).boxes for index in range(len(self))]
        joined = np.concatenate(boxes)  # (K, 4)
        return joined[:, 2:] - joined[:, :2]


def _in_square(truth: Detections, letterbox: Letterbox) -> Detections:
    key_points, masks = truth.key_points, truth.masks
    if key_points is not None:
        points = letterbox.to_square(np.tile(key_points[..., :2].reshape(-1, 2), 2))[:, :2]
        key_points = np.concatenate([points.reshape(len(truth), -1, 2), key_points[..., 2:]], axis=2)
    return Detections(
        letterbox.size,
        letterbox.size,
        letterbox.to_square(truth.boxes),
        truth.scores,
        truth.classes,
        key_points=key_points,
        masks=None if masks is None else _masks_in_square(masks, letterbox),
    )


def _masks_in_square(masks: NDArray[np.float32], letterbox: Letterbox) -> NDArray[np.float32]:
    """(K, H, W) -> (K, size, size), each pixel from the nearest"""
    rows = ((np.arange(letterbox.inner_height) + 0.5) * letterbox.height / letterbox.inner_height).astype(int)
    columns = ((np.arange(letterbox.inner_width) + 0.5) * letterbox.width / letterbox.inner_width).astype(int)
    found = np.zeros((len(masks), letterbox.size, letterbox.size), np.float32)
    inner = (slice(letterbox.top, letterbox.top + len(rows)), slice(letterbox.left, letterbox.left + len(columns)))
    found[:, *inner] = masks[:, rows[:, None], columns[None]]
    return found


def split_by_file(annotations: Annotations, fraction: float, *, seed: int) -> tuple[Annotations, Annotations]:
    """Set videos aside for validation: all frames of a video are on one side.

    Args:
        annotations: of several videos or pictures.
        fraction: of the files, 0 to 1; at least one file is set aside, and at least one is not.
        seed: of the choice.

    Returns:
        The annotations for training, and for validation.

    Raises:
        InputError: there is one file only.
    """
    files = sorted({frame.name.file_name for frame in annotations.frames})
    if len(files) < 2:
        raise InputError(
            f"{annotations.path}: all frames are of {files[0]}; validation needs another video: --val-annotations FILE"
        )
    count = min(len(files) - 1, max(1, round(fraction * len(files))))
    chosen = set(np.random.default_rng(seed).choice(files, count, replace=False).tolist())
    return _of_files(annotations, set(files) - chosen), _of_files(annotations, chosen)


def _of_files(annotations: Annotations, files: Iterable[str]) -> Annotations:
    kept = set(files)
    return replace(annotations, frames=tuple(one for one in annotations.frames if one.name.file_name in kept))
