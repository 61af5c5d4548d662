"""Compares what a detector finds with the truth: average precision by pycocotools, IoU and Dice by torchmetrics."""

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import LabelsError, UsageError
from vidpipe.regions.training.coco import FrameName, load_coco
from vidpipe.regions.training.rle import NEEDED, decode_mask, pycocotools

__all__ = ["AveragePrecision", "DetectorScores", "Overlap", "score_contents", "score_files"]

_MIN_SCORE = 0.5
"""Objects of a lower score have no part in IoU and Dice."""
_METRICS = {"boxes": "bbox", "masks": "segm", "key_points": "keypoints"}
_NEEDED_KEYS = {"boxes": "bbox", "masks": "segmentation", "key_points": "keypoints"}


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision over all classes, 0 to 1, as COCO computes it."""

    map: float
    """Mean over IoU (for key points: OKS) of 0.5 to 0.95."""
    ap50: float
    """At an IoU of 0.5."""
    ap75: float
    per_class: Mapping[str, float]
    """`map` of each class; classes without objects in the truth are left out."""


@dataclass(frozen=True)
class Overlap:
    """How well the pixels of the classes agree, 0 to 1: counted over all frames, then averaged over the classes."""

    iou: float
    dice: float
    per_class: Mapping[str, tuple[float, float]]
    """IoU and Dice of each class."""


@dataclass(frozen=True)
class DetectorScores:
    """The metrics of a detector."""

    num_frames: int
    num_objects: int
    """In the truth, without crowds."""
    num_found: int
    """In these frames, at any score."""
    boxes: AveragePrecision
    masks: AveragePrecision | None
    key_points: AveragePrecision | None
    overlap: Overlap | None
    """Of masks; None where the truth or the detector has none."""

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON has them."""
        return asdict(self)


def score_files(truth: Path, found: Path) -> DetectorScores:
    """Compare two COCO JSON files.

    Frames are matched by `file_name` and `frame_index`, classes by name; a true frame that FOUND lacks is one in which
    nothing was found.

    Args:
        truth: the annotations.
        found: of `vidpipe regions detect`, or a list of results in COCO's format with the ids of the truth.

    Returns:
        The metrics.

    Raises:
        LabelsError: a file cannot be read, or the two have no frame or class in common.
        UsageError: a package is not installed.
    """
    content = load_coco(truth)
    try:
        return score_contents(content, _load_found(found, content))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise LabelsError(f"{found}: cannot be compared with {truth}: {what}") from error


def _load_found(path: Path, truth: Mapping[str, Any]) -> dict[str, Any]:
    import json

    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        content = None
    if isinstance(content, list):  # COCO's format of results
        return {"images": truth["images"], "categories": truth["categories"], "annotations": content}
    return load_coco(path, needed=("categories", "images"))


def score_contents(truth: Mapping[str, Any], found: Mapping[str, Any]) -> DetectorScores:
    """Compare two contents of COCO JSON; see `score_files`.

    Args:
        truth: the annotations.
        found: what a detector found.

    Returns:
        The metrics.

    Raises:
        ValueError: the two have no frame or class in common, or a score is missing.
        KeyError: an image or annotation is not complete.
        UsageError: a package is not installed.
    """
    truth = _with_areas(truth)
    results = list(_results(truth, found))
    objects = [one for one in truth["annotations"] if not one["iscrowd"]]
    kinds = {kind for kind, key in _NEEDED_KEYS.items() if _all_have(key, objects) and _all_have(key, results)}
    scores = {kind: _average_precision(truth, results, kind) for kind in sorted(kinds | {"boxes"})}
    return DetectorScores(
        num_frames=len(truth["images"]),
        num_objects=len(objects),
        num_found=len(results),
        boxes=scores["boxes"],
        masks=scores.get("masks"),
        key_points=scores.get("key_points"),
        overlap=_overlap(truth, results) if "masks" in kinds else None,
    )


def _all_have(key: str, annotations: list[dict[str, Any]]) -> bool:
    return all(one.get(key) for one in annotations)


def _with_areas(truth: Mapping[str, Any]) -> dict[str, Any]:
    """The truth with what pycocotools takes for granted."""
    annotations = [
        {"id": number, "iscrowd": 0, "num_keypoints": 0, "area": one["bbox"][2] * one["bbox"][3]} | one
        for number, one in enumerate(truth["annotations"], start=1)
    ]
    return {**truth, "annotations": annotations}


def _results(truth: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was found in the frames of the truth, with the truth's ids."""
    images = _matched(truth["images"], found["images"], FrameName.of, "frame")
    categories = _matched(truth["categories"], found["categories"], lambda one: one["name"], "class")
    kept = (one for one in found["annotations"] if one["image_id"] in images and one["category_id"] in categories)
    for number, one in enumerate(kept, start=1):
        if "score" not in one:
            raise ValueError("an annotation has no score; is it a file of annotations?")
        ids = {"id": number, "image_id": images[one["image_id"]], "category_id": categories[one["category_id"]]}
        yield one | ids | {"iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3]}


def _matched(truth: list[dict[str, Any]], found: list[dict[str, Any]], name: Any, noun: str) -> dict[int, int]:
    """From the ids of what was found to those of the truth; by name, and where no two have one name."""
    if found is truth:
        return {one["id"]: one["id"] for one in truth}
    ids = {name(one): one["id"] for one in truth}
    matched = {one["id"]: ids[name(one)] for one in found if name(one) in ids}
    if not matched:
        raise ValueError(f"no {noun} is in both files: {name(truth[0])}; {name(found[0])}")
    return matched


def _average_precision(truth: Mapping[str, Any], results: list[dict[str, Any]], kind: str) -> AveragePrecision:
    coco, found = _indexed(truth), _indexed({**truth, "annotations": [dict(one) for one in results]})
    with redirect_stdout(io.StringIO()):
        evaluation = pycocotools("cocoeval").COCOeval(coco, found, _METRICS[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all sizes, most detections
    names = {one["id"]: one["name"] for one in truth["categories"]}
    per_class = {
        names[id]: float(precision[:, :, index].mean())
        for index, id in enumerate(evaluation.params.catIds)
        if (precision[:, :, index] > -1).any()
    }
    mean, ap50, ap75 = (float(value) for value in evaluation.stats[:3])
    return AveragePrecision(mean, ap50, ap75, per_class)


def _indexed(content: Mapping[str, Any]) -> Any:
    coco = pycocotools("coco").COCO()
    coco.dataset = {**content, "annotations": [dict(one) for one in content["annotations"]]}
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _overlap(truth: Mapping[str, Any], results: list[dict[str, Any]]) -> Overlap:
    try:
        import torch
        from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex
    except ImportError:
        raise UsageError(f"IoU and Dice: {NEEDED}") from None
    confident = [one for one in results if one["score"] >= _MIN_SCORE]
    per_class = {}
    for category in truth["categories"]:
        iou, dice, is_there = BinaryJaccardIndex(), BinaryF1Score(), False
        expected = _by_image(truth["annotations"], category["id"])
        found = _by_image(confident, category["id"])
        for image in truth["images"]:
            pixels = [torch.from_numpy(_union(one.get(image["id"], []), image)) for one in (found, expected)]
            is_there |= bool(pixels[1].any())
            iou.update(*pixels)
            dice.update(*pixels)
        if is_there:
            per_class[category["name"]] = (float(iou.compute()), float(dice.compute()))
    mean_iou, mean_dice = np.mean(list(per_class.values()), axis=0).tolist() if per_class else (0.0, 0.0)
    return Overlap(mean_iou, mean_dice, per_class)


def _by_image(annotations: list[dict[str, Any]], category_id: int) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for one in annotations:
        if one["category_id"] == category_id:
            found.setdefault(one["image_id"], []).append(one)
    return found


def _union(annotations: list[dict[str, Any]], image: Mapping[str, Any]) -> NDArray[np.int64]:
    """(H, W) 1 where some object is"""
    covered = np.zeros((image["height"], image["width"]), bool)
    for one in annotations:
        covered |= decode_mask(one["segmentation"], image["height"], image["width"])
    return covered.astype(np.int64)
