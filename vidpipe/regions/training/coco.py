"""COCO JSON over frames of videos and over pictures: annotations to learn from, and what a detector finds.

An image of the file is a frame of a video (`file_name` is the video, `frame_index` the frame in order of presentation,
from 0), or a picture (`file_name` has a picture's suffix). The category `person`, or the only one, has the class
`PERSON`, whatever its id in the file; the others follow in the order of their ids.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import LabelsError, VidpipeError, first_few
from vidpipe.regions.detections import NUM_KEY_POINTS, PERSON, Detections
from vidpipe.regions.masks import MASK_THRESHOLD
from vidpipe.regions.training.rle import decode_mask, encode_mask

__all__ = [
    "KEY_POINTS",
    "AnnotatedFrame",
    "Annotations",
    "FrameName",
    "as_coco",
    "is_own_coco",
    "load_coco",
    "read_annotations",
    "write_coco",
]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_FOUND = "found by vidpipe"
KEY_POINTS = ["nose"] + [
    f"{side}_{part}"
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]
"""COCO's names, in its order."""


@dataclass(frozen=True, order=True)
class FrameName:
    """A frame of a video, or a picture."""

    file_name: str
    """Relative to the folder of the videos or pictures, with `/`."""
    frame_index: int = -1
    """In order of presentation, from 0; -1 for a picture."""

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> Self:
        """Read the name of an image of a COCO JSON.

        Args:
            image: with `file_name` and, where that is a video, `frame_index`.

        Returns:
            The name.

        Raises:
            ValueError: it is neither a picture nor a frame of a video.
            KeyError: it has no `file_name`.
        """
        name = str(image["file_name"])
        if name.lower().endswith(PICTURE_SUFFIXES):
            return cls(name)
        index = image.get("frame_index")
        if not isinstance(index, int) or index < 0:
            raise ValueError(f"{name} is no picture ({', '.join(PICTURE_SUFFIXES)}), and frame_index is {index!r}")
        return cls(name, index)

    def __str__(self) -> str:
        return self.file_name if self.frame_index < 0 else f"frame {self.frame_index} of {self.file_name}"


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame with its annotations, as they are in the file."""

    name: FrameName
    height: int
    width: int
    objects: tuple[Mapping[str, Any], ...] = field(repr=False)
    """Without those of crowds."""
    classes: Mapping[int, int] = field(repr=False)
    """From the file's category ids."""

    def truth(self, *, masks: bool = False, key_points: bool = False) -> Detections:
        """Return the objects as a perfect detector would find them.

        Args:
            masks: whether masks are wanted.
            key_points: whether key points are wanted; their third value is COCO's visibility, 0 to 2.

        Returns:
            The objects, with a score of 1.

        Raises:
            ValueError: an object has no mask, or no key points, and they are wanted; or they cannot be read.
        """
        count = len(self.objects)
        corners = np.array([one["bbox"] for one in self.objects], np.float32).reshape(count, 4)
        return Detections(
            self.height,
            self.width,
            boxes=np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1),
            scores=np.ones(count, np.float32),
            classes=np.array([self.classes[one["category_id"]] for one in self.objects], np.int64),
            key_points=self._key_points() if key_points else None,
            masks=self._masks() if masks else None,
        )

    def _masks(self) -> NDArray[np.float32]:
        found = [decode_mask(_wanted(one, "segmentation", "mask"), self.height, self.width) for one in self.objects]
        return np.array(found, np.float32).reshape(len(found), self.height, self.width)

    def _key_points(self) -> NDArray[np.float32]:
        found = [_wanted(one, "keypoints", "key points") for one in self.objects]
        return np.array(found, np.float32).reshape(len(found), NUM_KEY_POINTS, 3)


def _wanted(annotation: Mapping[str, Any], key: str, what: str) -> Any:
    if not annotation.get(key):
        raise ValueError(f"has no {what} ({key!r}), which this detector learns")
    return annotation[key]


@dataclass(frozen=True)
class Annotations:
    """A COCO JSON."""

    path: Path
    classes: Mapping[int, str]
    """The names of the classes; `PERSON` is people, or the only class."""
    frames: tuple[AnnotatedFrame, ...]

    def check(self, *, masks: bool, key_points: bool) -> None:
        """Check that all objects have what a detector learns.

        Raises:
            LabelsError: an object has not.
        """
        for frame in self.frames:
            try:
                frame.truth(masks=masks, key_points=key_points)
            except ValueError as error:
                raise LabelsError(f"{self.path}: {frame.name}: {error}") from error


def read_annotations(path: Path) -> Annotations:
    """Read a COCO JSON.

    Args:
        path: the file.

    Returns:
        The annotations; frames in the file's order.

    Raises:
        LabelsError: the file cannot be read, or is no COCO JSON with images, annotations and categories.
    """
    content = load_coco(path)
    try:
        names = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        numbers = _class_numbers(names)
        objects = _objects_by_image(content, names)
        frames = [_frame(image, objects.pop(image["id"], ()), numbers) for image in content["images"]]
        if objects:
            raise ValueError(f"annotations of image {first_few([str(one) for one in objects])}, which is not there")
    except KeyError as error:
        raise LabelsError(f"{path}: not a complete COCO JSON: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise LabelsError(f"{path}: not a valid COCO JSON: {error}") from error
    return Annotations(path, {numbers[id]: name for id, name in names.items()}, tuple(frames))


def load_coco(path: Path, *, needed: Sequence[str] = ("categories", "images", "annotations")) -> dict[str, Any]:
    """Read a COCO JSON as it is.

    Args:
        path: the file.
        needed: lists that must not be empty.

    Returns:
        Its content, with lists of categories, images and annotations.

    Raises:
        LabelsError: the file cannot be read, is no COCO JSON, or a list that is needed is missing or empty.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise LabelsError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise LabelsError(f"{path}: no COCO JSON: an object with images, annotations and categories is needed")
    for key in ("categories", "images", "annotations"):
        found = content.get(key)
        if not isinstance(found, list) or (key in needed and not found):
            raise LabelsError(f"{path}: no COCO JSON, or an empty one: it has no {key}")
        if not all(isinstance(one, dict) for one in found):
            raise LabelsError(f"{path}: no COCO JSON: {key} is a list of objects")
    return content


def _class_numbers(names: Mapping[int, str]) -> dict[int, int]:
    """The class of each category id."""
    first = [id for id, name in names.items() if name == "person" or len(names) == 1]
    others = sorted(names.keys() - first)
    return dict.fromkeys(first, PERSON) | {id: PERSON + 1 + index for index, id in enumerate(others)}


def _objects_by_image(content: Mapping[str, Any], names: Mapping[int, str]) -> dict[int, list[Mapping[str, Any]]]:
    found = defaultdict[int, list[Mapping[str, Any]]](list)
    for number, one in enumerate(content["annotations"]):
        if one["category_id"] not in names:
            known = ", ".join(f"{id} {name}" for id, name in names.items())
            raise ValueError(
                f"annotation {one.get('id', number)} is of category {one['category_id']!r}, which is not among the "
                f"categories: {known}"
            )
        if len(one["bbox"]) != 4:
            raise ValueError(f"annotation {one.get('id', number)}: bbox is left, top, width and height")
        found[one["image_id"]] += [] if one.get("iscrowd") else [one]
    return found


def _frame(
    image: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], numbers: Mapping[int, int]
) -> AnnotatedFrame:
    objects = tuple(one for one in objects if one["bbox"][2] > 0 and one["bbox"][3] > 0)
    return AnnotatedFrame(FrameName.of(image), int(image["height"]), int(image["width"]), objects, numbers)


def as_coco(
    frames: Iterable[tuple[FrameName, Detections]], classes: Mapping[int, str], *, scores: bool
) -> dict[str, Any]:
    """Return what is in frames as the content of a COCO JSON.

    Args:
        frames: each with its objects.
        classes: their names.
        scores: with the scores of a detector; False for annotations, whose key points have visibilities.

    Returns:
        Images, annotations and categories.
    """
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for image_id, (name, found) in enumerate(frames, start=1):
        video = {} if name.frame_index < 0 else {"video": name.file_name, "frame_index": name.frame_index}
        size = {"width": found.width, "height": found.height}
        images.append({"id": image_id, "file_name": name.file_name} | video | size)
        for index, one in enumerate(_annotations(found)):
            extra = {"score": round(float(found.scores[index]), 5)} if scores else {}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | one | extra)
    has_key_points = any("keypoints" in one for one in annotations)
    categories = [
        {"id": id, "name": name} | ({"keypoints": KEY_POINTS} if has_key_points and id == PERSON else {})
        for id, name in sorted(classes.items())
    ]
    info = {"info": {"description": _FOUND}} if scores else {}
    return {**info, "images": images, "annotations": annotations, "categories": categories}


def is_own_coco(first: bytes) -> bool:
    """Return whether a file's first bytes are those of detections that vidpipe wrote."""
    return first.startswith(json.dumps({"info": {"description": _FOUND}}).encode()[:-1])


def write_coco(path: Path, content: Mapping[str, Any]) -> None:
    """Write a COCO JSON; the file appears when it is complete.

    Args:
        path: the file; it is replaced.
        content: from `as_coco`.

    Raises:
        VidpipeError: the file cannot be written.
    """
    aside = path.with_name(f"{path.name}.partial")
    try:
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise VidpipeError(f"{path}: cannot be written ({error.strerror}); choose another file with -o") from error


def _annotations(found: Detections) -> Iterator[dict[str, Any]]:
    for index, (left, top, right, bottom) in enumerate(found.boxes.round(2).tolist()):
        width, height = right - left, bottom - top
        one: dict[str, Any] = {"category_id": int(found.classes[index]), "iscrowd": 0, "area": round(width * height, 2)}
        one["bbox"] = [left, top, round(width, 2), round(height, 2)]
        if found.masks is not None:
            mask = found.masks[index] >= MASK_THRESHOLD
            one |= {"segmentation": encode_mask(mask), "area": int(mask.sum())}
        if found.key_points is not None:
            points = found.key_points[index]
            one |= {"keypoints": points.round(2).ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        yield one
