"""The stream `pose`: key points of people, found in the decoding processes on whole frames at full size."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.stream import Described
from vidpipe.backbones.weights import WeightsFile
from vidpipe.config import ExtractConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.records import POSE_NUMBERS, POSE_PEOPLE, POSE_POINTS
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.loadable import LoadableDetector
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.table import DETECTORS, find_detector
from vidpipe.regions.weights import find_detector_of_features, find_detector_weights
from vidpipe.video.view import View

__all__ = ["PoseFinder", "pose_row"]

_BACKBONE = "pose"
_DEFAULT_DETECTOR = "keypointrcnn"


@dataclass(frozen=True)
class PoseFinder:
    """The detector of key points, resolved."""

    detector: LoadableDetector

    @classmethod
    def of(cls, config: ExtractConfig, *, weights: WeightsFile | None = None) -> Self | None:
        """Resolve the settings of an extraction.

        Args:
            config: the settings.
            weights: of the detector; None finds those that the settings name, and downloads them if needed.

        Returns:
            The finder; None where key points are no stream.

        Raises:
            UsageError: there is no such detector or weights file, or the detector finds no key points.
            WeightsError: the weights cannot be downloaded.
        """
        if _BACKBONE not in config.backbones:
            return None
        spec = find_detector(config.detector or _DEFAULT_DETECTOR)
        if not spec.has_key_points:
            with_points = ", ".join(name for name, one in DETECTORS.items() if one.has_key_points)
            raise UsageError(
                f"--backbone {_BACKBONE} needs key points, and {spec.name} finds {' and '.join(spec.finds)}; detectors "
                f"with key points: {with_points}"
            )
        weights = weights or find_detector_weights(spec, config.detector_weights)
        return cls(LoadableDetector(spec, weights, config.device, _longer_side(spec, config.pose_size)))

    @classmethod
    def of_key(cls, parameters: Mapping[str, Any], weights_id: str, *, weights: str, device: str) -> Self:
        """Resolve the detector of features that are there.

        Args:
            parameters: from the features' key.
            weights_id: from the features' key.
            weights: `default`, or a file's path; not used where the key says `random`.
            device: `auto`, `cpu` or `cuda`.

        Returns:
            The finder.

        Raises:
            RunError: this vidpipe does not have the detector, or the features were made with other weights or settings.
            UsageError: there is no such weights file, or the detector needs one.
            WeightsError: the weights cannot be downloaded.
        """
        spec, found = find_detector_of_features(
            parameters.get("detector", ""), weights_id, weights=weights, detector="the detector of the key points"
        )
        finder = cls(LoadableDetector(spec, found, device, parameters.get("longer_side")))
        if found.id != weights_id or finder.described.parameters != parameters:
            raise RunError(
                f"the key points were found with other weights of {spec.name} (sha256 {weights_id[:12]}…; "
                f"{found.source} is {found.id[:12]}…) or other settings; give the weights with --detector-weights"
            )
        return finder

    @property
    def described(self) -> Described:
        """What the key of the features names."""
        parameters = {"detector": self.detector.spec.name, "num_people": POSE_PEOPLE}
        if self.detector.longer_side is not None:
            parameters["longer_side"] = self.detector.longer_side
        return Described(self.detector.weights, parameters)

    def applied_to(self, view: View) -> View:
        """Return what a stream needs of each video, with key points as its features."""
        return replace(view, described=_KeyPoints(self.detector))


def _longer_side(spec: DetectorSpec, pose_size: int) -> int | None:
    """Pixels, of a network that takes frames of any size; None where the network decides."""
    return pose_size if spec.library == "onnx" else None


@dataclass(frozen=True)
class _KeyPoints:
    """Gives the key points of a frame as a feature; it is a `Look`."""

    detect: LoadableDetector

    def read(self, found: Detections, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        return pose_row(found, has_logits=self.detect.spec.has_logits)


def pose_row(found: Detections, *, has_logits: bool = False) -> NDArray[np.float32]:
    """Return the key points of the surest people of a frame, as the stream `pose` stores them.

    Args:
        found: what a detector with key points finds.
        has_logits: whether the scores of its key points are logits, as Keypoint R-CNN's are.

    Returns:
        (336,) see `vidpipe.records.POSE_NUMBERS`.
    """
    assert found.key_points is not None
    people = np.flatnonzero(found.classes == PERSON)
    people = people[np.argsort(-found.scores[people], kind="stable")][:POSE_PEOPLE]
    side = np.float32(max(found.height, found.width))
    points = found.key_points[people].astype(np.float32)  # (n, 17, 3)
    points[..., :2] /= side
    if has_logits:
        points[..., 2] = 1 / (1 + np.exp(-points[..., 2]))
    rows = np.zeros((POSE_PEOPLE, POSE_NUMBERS), np.float32)
    rows[: len(people)] = np.concatenate(
        [
            points.reshape(len(people), 3 * POSE_POINTS),
            found.boxes[people] / side,
            found.scores[people, None],
        ],
        axis=1,
    )
    return rows.ravel()
