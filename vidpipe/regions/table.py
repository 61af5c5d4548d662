"""The table of detectors, a row each. Reading it imports no torch.

A test compares the rows of torchvision's models with torchvision: the weights' URL, the figure and the parameters.
"""

from collections.abc import Mapping

from vidpipe.errors import UsageError, unknown_name
from vidpipe.regions.spec import DetectorSpec

__all__ = ["DETECTORS", "find_detector"]


def _boxes(
    name: str, builder: str, file: str, score: float, parameters: int, *, kind: str = "boxes", classes: str = "COCO"
) -> DetectorSpec:
    """A model that finds objects one by one. Keypoint R-CNN's figure is of people alone."""
    return _torchvision(name, builder, file, score, parameters, kind, classes, "box mAP, COCO val2017")


def _semantic(name: str, builder: str, file: str, score: float, parameters: int) -> DetectorSpec:
    """A model that gives each pixel one of VOC's classes: all people are one mask."""
    metric = "mean IoU, COCO val2017 with VOC's classes"
    return _torchvision(name, builder, file, score, parameters, "masks", "person", metric)


def _torchvision(
    name: str, builder: str, file: str, score: float, parameters: int, kind: str, classes: str, metric: str
) -> DetectorSpec:
    separator = "_" if file.startswith("coco") else "-"
    return DetectorSpec(
        name=name,
        kind=kind,
        library="torchvision",
        builder=builder,
        weights=f"https://download.pytorch.org/models/{builder}{separator}{file}.pth",
        weights_licence="BSD-3-Clause (torchvision); trained on COCO",
        classes=classes,
        score=score,
        score_metric=metric,
        score_source="torchvision",
        num_parameters=parameters,
    )


def _fcn(name: str, score: float, parameters: int) -> DetectorSpec:
    """A network of Long et al. 2015, for weights of the user's."""
    return DetectorSpec(
        name=name,
        kind="masks",
        library="vidpipe",
        builder="",
        weights="",
        weights_licence="the file's own",
        classes="the file's own",
        score=score,
        score_metric="mean IoU, part of VOC 2011 val",
        score_source="Long et al. 2015, table 2",
        num_parameters=parameters,
    )


_UNET = DetectorSpec("unet", "masks", "segmentation-models-pytorch", "", "", "the file's own", "the file's own")


def _file(name: str, kind: str, classes: str, min_score: float) -> DetectorSpec:
    """A network that the user has as an ONNX file."""
    return DetectorSpec(name, kind, "onnx", "", "", "the file's own", classes, min_score=min_score)


_YOLOV3 = DetectorSpec(
    name="yolov3",
    kind="boxes",
    library="vidpipe",
    builder="",
    weights="",
    weights_licence="public domain (Darknet); trained on COCO",
    classes="COCO",
    score=31.0,
    score_metric="box mAP at 416 × 416, COCO test-dev",
    score_source="Redmon & Farhadi 2018",
    num_parameters=61_949_149,
)
"""Built by vidpipe; Darknet's file, or one that vidpipe trained, is given by the user."""

_MTCNN = DetectorSpec(
    "mtcnn", "boxes", "vidpipe", "", "", "the files' own", "face", num_parameters=495_850, min_score=0.9
)
"""Built by vidpipe; facenet-pytorch's files are given by the user."""

DETECTORS: Mapping[str, DetectorSpec] = {
    spec.name: spec
    for spec in (
        #      name                    torchvision's name                   file                  figure  parameters
        _boxes("fasterrcnn",           "fasterrcnn_resnet50_fpn_v2",        "coco-dd69338a",  46.7, 43_712_278),
        _boxes("fasterrcnn_mobilenet", "fasterrcnn_mobilenet_v3_large_fpn", "fb6a3cc7",       32.8, 19_386_354),
        _boxes("maskrcnn",             "maskrcnn_resnet50_fpn_v2",          "coco-73cbd019",  47.4, 46_359_409,
               kind="masks"),
        _boxes("keypointrcnn",         "keypointrcnn_resnet50_fpn",         "coco-fc266e95",  54.6, 59_137_258,
               kind="key points", classes="person"),
        _boxes("ssdlite",              "ssdlite320_mobilenet_v3_large",     "coco-a79551df",  21.3, 3_440_060),
        _boxes("retinanet",            "retinanet_resnet50_fpn_v2",         "coco-5905b1c5",  41.5, 38_198_935),
        _semantic("deeplab",           "deeplabv3_resnet50",                "coco-cd0a2569",  66.4, 42_004_074),
        _semantic("deeplab_mobilenet", "deeplabv3_mobilenet_v3_large",      "fc3c493d",       60.3, 11_029_328),
        _semantic("fcn_resnet50",      "fcn_resnet50",                      "coco-1167a1af",  60.5, 35_322_218),
        _YOLOV3,
        _fcn("fcn32s", 59.4, 134_432_597),
        _fcn("fcn16s", 62.4, 134_379_194),
        _fcn("fcn8s",  62.7, 134_368_799),
        _UNET,
        _MTCNN,
        _file("movenet", "key points", "person", 0.2),
        _file("centernet", "boxes", "COCO", 0.35),
        _file("person_mask", "masks", "person", 0.5),
    )
}  # fmt: skip


def find_detector(name: str) -> DetectorSpec:
    """Find a detector by its name.

    Args:
        name: a key of `DETECTORS`.

    Returns:
        The description.

    Raises:
        UsageError: there is no such detector.
    """
    if name not in DETECTORS:
        raise UsageError(unknown_name("detector", name, list(DETECTORS)))
    return DETECTORS[name]
