"""The description of a detector: what is known before it is built."""

from dataclasses import dataclass

__all__ = ["DetectorSpec"]


@dataclass(frozen=True)
class DetectorSpec:
    """A row of the table of detectors."""

    name: str
    kind: str
    """What it finds beside boxes: `boxes` (nothing), `masks` or `key points`."""
    library: str
    """`torchvision`, `vidpipe`, `segmentation-models-pytorch` or `onnx`: what builds or runs it."""
    builder: str
    """The model's name in torchvision; empty for other libraries."""
    weights: str
    """The URL of the default weights; empty where they are a file that the user gives."""
    weights_licence: str
    classes: str
    """The objects that it finds: `COCO` (80 classes), `person` or `face`."""
    score: float | None = None
    """Mean average precision of boxes, or mean IoU of masks, in percent, as published."""
    score_metric: str = ""
    score_source: str = ""
    num_parameters: int | None = None
    """None where they depend on the user's file."""
    min_score: float = 0.5
    """What counts as found. Detectors are sure to different degrees, so each has its own."""

    @property
    def finds(self) -> tuple[str, ...]:
        """What it finds of each object: boxes and, with some detectors, masks or key points."""
        return ("boxes",) if self.kind == "boxes" else ("boxes", self.kind)

    @property
    def finds_people(self) -> bool:
        """Whether it finds people, and not their faces alone."""
        return self.classes != "face"

    @property
    def finds_faces(self) -> bool:
        """Whether it finds faces, or key points of heads."""
        return self.classes == "face" or self.has_key_points

    @property
    def tells_people_apart(self) -> bool:
        """Whether it finds people one by one, and not one mask of all of them."""
        return self.finds_people and (self.kind != "masks" or self.classes == "COCO")

    @property
    def has_key_points(self) -> bool:
        """Whether it finds key points."""
        return self.kind == "key points"

    @property
    def has_logits(self) -> bool:
        """Whether the scores of its key points are logits, as Keypoint R-CNN's are."""
        return self.library == "torchvision"

    @property
    def has_masks(self) -> bool:
        """Whether it finds masks."""
        return self.kind == "masks"
