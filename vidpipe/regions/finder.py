"""What `--regions` does with a video: find where people are, and say what a backbone sees of each frame.

Detection runs in the decoding processes, on whole frames at full size. Then a detector that hangs or crashes costs one
video, detection is as parallel as decoding, and every stream sees the same regions whatever its own pictures are.

people       plan ─── a few frames ──► detector ──► one box a video ──► a region of each row ──► decode and crop
tracks       plan ─── 8 frames a second ──► detector ──► linked ──► a region of each row and person ──► decode and crop
faces        the same, with the faces of people
mask         plan ─── decode ──► each frame ──► detector ──► pixels that are hidden ──► paint over, resize and crop
background   the same, with the other pixels; `--refine crf` first fits the masks to the edges of the frame
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.weights import WeightsFile
from vidpipe.config import ExtractConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.records import FramePlan
from vidpipe.regions.detections import Detections
from vidpipe.regions.faces import FACE_SETTINGS, HEAD_SETTINGS, face_regions_at, faces_of, link_faces
from vidpipe.regions.linking import Track, detection_grid, link_people, select_people
from vidpipe.regions.loadable import LoadableDetector
from vidpipe.regions.masks import MASK_THRESHOLD, people_probability
from vidpipe.regions.people import people_region
from vidpipe.regions.spec import DetectorSpec
from vidpipe.regions.table import DETECTORS, find_detector
from vidpipe.regions.tracks import TRACK_SETTINGS, plan_people, regions_at
from vidpipe.regions.weights import find_detector_of_features, find_detector_weights
from vidpipe.video.reader import VideoReader
from vidpipe.video.sampling import uniform_indices
from vidpipe.video.steps import STEPS_PER_CHUNK
from vidpipe.video.view import FindScenes, View, plan_video

__all__ = ["RegionFinder"]

_DEFAULT_DETECTORS = {
    "people": "fasterrcnn_mobilenet",
    "tracks": "fasterrcnn_mobilenet",
    "faces": "mtcnn",
    "mask": "deeplab_mobilenet",
    "background": "deeplab_mobilenet",
}
_NUM_FRAMES = 8
"""The frames of a video in which people are looked for, to find their box."""
_MARGIN = 0.1
"""Around the box of all people, as a share of its longer side."""


@dataclass(frozen=True)
class RegionFinder:
    """The settings of `--regions` with the detector, resolved."""

    kind: str
    """`people`, `tracks`, `faces`, `mask` or `background`."""
    detector: LoadableDetector
    refine: str = "none"
    """How masks are refined: `none` or `crf`."""

    @classmethod
    def of(cls, config: ExtractConfig, *, weights: WeightsFile | None = None) -> Self | None:
        """Resolve the settings of an extraction.

        Args:
            config: the settings.
            weights: of the detector; None finds those that the settings name, and downloads them if needed.

        Returns:
            The finder; None where the backbone sees whole frames.

        Raises:
            UsageError: there is no such detector or weights file, or the detector does not find what the regions need.
            WeightsError: the weights cannot be downloaded.
        """
        if config.regions == "whole":
            return None
        spec = find_detector(config.detector or _DEFAULT_DETECTORS[config.regions])
        _check_finds(spec, config.regions)
        weights = weights or find_detector_weights(spec, config.detector_weights)
        return cls(config.regions, LoadableDetector(spec, weights, config.device), config.refine)

    @classmethod
    def of_key(cls, regions: Mapping[str, Any], *, weights: str, device: str) -> Self:
        """Resolve the regions of features that are there.

        Args:
            regions: from the features' key.
            weights: `default`, or a file's path; not used where the key says `random`.
            device: `auto`, `cpu` or `cuda`.

        Returns:
            The finder.

        Raises:
            RunError: the features were made with another detector's weights, or with settings that this vidpipe does
                not have.
            UsageError: there is no such weights file, or the detector needs one.
            WeightsError: the weights cannot be downloaded.
        """
        spec, found = find_detector_of_features(
            regions.get("detector", ""), regions.get("weights", ""), weights=weights, detector="the features' detector"
        )
        crf = "crf" if "crf" in regions else "none"
        finder = cls(regions.get("kind", ""), LoadableDetector(spec, found, device), crf)
        if finder.as_dict() != regions:
            made_with, here = dict(regions), finder.as_dict()
            differs = [name for name in made_with | here if made_with.get(name) != here.get(name)]
            raise RunError(
                f"the features' regions were found with other settings of {spec.name} ({', '.join(differs)}); where it "
                "is the weights, give their file with --detector-weights"
            )
        return finder

    def as_dict(self) -> dict[str, Any]:
        """Return what changes a feature, for a store's key."""
        spec = self.detector.spec
        common = {
            "kind": self.kind,
            "detector": spec.name,
            "weights": self.detector.weights.id,
            "min_score": spec.min_score,
        }
        if self.kind == "people":
            return common | {"num_frames": _NUM_FRAMES, "margin": _MARGIN}
        if self.kind == "tracks":
            return common | TRACK_SETTINGS
        if self.kind == "faces":
            return common | FACE_SETTINGS | (HEAD_SETTINGS if spec.has_key_points else {})
        masks = common | {"threshold": MASK_THRESHOLD}
        return masks | {"crf": _crf_settings()} if self.refine == "crf" else masks

    def applied_to(self, view: View) -> View:
        """Return what a stream needs of each video, seen through the regions."""
        if self.kind == "people":
            return replace(view, planner=_PlanPeople(self.detector))
        if self.kind in ("tracks", "faces"):
            return replace(view, planner=_PlanTracks(self.detector, self.kind == "faces"))
        return replace(view, hidden=_Hidden(self.detector, self.kind == "background", self.refine))


_NEEDS = {
    "people": ("people", "people", attrgetter("finds_people")),
    "tracks": ("a box for each person", "boxes", attrgetter("tells_people_apart")),
    "faces": ("faces, or key points of heads", "them", attrgetter("finds_faces")),
}
"""What a kind of regions needs, at length, in short, and as a property of the detector; the others need masks."""


def _check_finds(spec: DetectorSpec, kind: str) -> None:
    """Check that a detector finds what a kind of regions needs."""
    needs, short, is_found = _NEEDS.get(kind, ("masks", "masks", attrgetter("has_masks")))
    if is_found(spec):
        return
    finds = " and ".join(spec.finds)
    if not spec.finds_people:
        finds = "faces alone"
    elif kind == "tracks":
        finds = "one mask of all people"
    raise UsageError(
        f"--regions {kind} needs {needs}, and {spec.name} finds {finds}; detectors with {short}: "
        f"{', '.join(name for name, one in DETECTORS.items() if is_found(one))}"
    )


@dataclass(frozen=True)
class _PlanPeople:
    """Plans rows with the region around all people of the video; it is a `Planner`."""

    detector: LoadableDetector

    def __call__(self, reader: VideoReader, view: View, find_scenes: FindScenes) -> FramePlan:
        plan = plan_video(reader, view, find_scenes)
        rows = replace(plan.rows, region=np.tile(_region_of(reader, self.detector), (len(plan.rows), 1)))
        row_frames = np.arange(len(rows)) if plan.row_frames is None else plan.row_frames
        return FramePlan(plan.frame_index, rows, row_frames)


_REGIONS: WeakKeyDictionary[VideoReader, dict[LoadableDetector, NDArray[np.float32]]] = WeakKeyDictionary()
"""Of the video that is open, so that several streams detect once."""


def _region_of(reader: VideoReader, detector: LoadableDetector) -> NDArray[np.float32]:
    """(4,) the region around all people of a video."""
    known = _REGIONS.setdefault(reader, {})
    if detector not in known:
        found: list[Detections] = []
        for block in reader.blocks(uniform_indices(len(reader.pts_seconds), _NUM_FRAMES)):
            found += detector(block)
        known[detector] = people_region(found, min_score=detector.spec.min_score, margin=_MARGIN)
    return known[detector]


@dataclass(frozen=True)
class _PlanTracks:
    """Plans a row for each person and row of the video; it is a `Planner`."""

    detector: LoadableDetector
    of_faces: bool = False
    """Whether the rows are of people's faces, where these are seen."""

    def __call__(self, reader: VideoReader, view: View, find_scenes: FindScenes) -> FramePlan:
        plan = plan_video(reader, view, find_scenes)
        tracks, grid_seconds = _tracks_of(reader, self)
        picture = (reader.info.width, reader.info.height)
        find_regions = face_regions_at if self.of_faces else regions_at
        return plan_people(plan, tracks, grid_seconds, picture, find_regions=find_regions)

    def find(self, frame: NDArray[np.uint8]) -> Detections:
        """(H, W, 3) -> boxes of people or faces, without what needs memory and links nothing"""
        (found,) = self.detector(frame[None])
        return faces_of(found, self.detector.spec) if self.of_faces else replace(found, masks=None, key_points=None)

    def link(self, found: list[Detections], pts_seconds: NDArray[np.float64]) -> tuple[Track, ...]:
        """The people with these boxes."""
        min_score = self.detector.spec.min_score
        if self.of_faces:
            return link_faces(found, pts_seconds, min_score=min_score)
        return select_people(link_people(found, pts_seconds, min_score=min_score), pts_seconds)


_Tracks = tuple[tuple[Track, ...], NDArray[np.float64]]
"""The people of a video, and the times of the grid in which they were looked for."""
_TRACKS: WeakKeyDictionary[VideoReader, dict[_PlanTracks, _Tracks]] = WeakKeyDictionary()
"""Of the video that is open, so that several streams detect once."""


def _tracks_of(reader: VideoReader, planner: _PlanTracks) -> _Tracks:
    """The people of a video. Detecting them in a frame counts as a chunk of decoding, which `--timeout` limits."""
    known = _TRACKS.setdefault(reader, {})
    if planner not in known:
        grid = detection_grid(reader.pts_seconds)
        found: list[Detections] = []
        for block in reader.blocks(grid):
            for frame in block:
                found.append(planner.find(frame))
                reader.on_step(STEPS_PER_CHUNK)
        grid_seconds = reader.pts_seconds[grid]
        known[planner] = planner.link(found, grid_seconds), grid_seconds
    return known[planner]


@dataclass(frozen=True)
class _Hidden:
    """Says which pixels are painted over; it is a `Look`."""

    detect: LoadableDetector
    hides_people: bool
    refine: str

    def read(self, found: Detections, frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
        probability = people_probability(found, self.detect.spec.min_score)  # (H, W)
        if self.refine == "crf" and len(found):
            probability = _refined(probability, frame, self.detect.device)
        people: NDArray[np.bool_] = probability >= MASK_THRESHOLD
        return people if self.hides_people else ~people


def _crf_settings() -> dict[str, float]:
    from vidpipe.regions.crf import Crf

    return Crf().as_dict()


def _refined(probability: NDArray[np.float32], frame: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """(H, W), (H, W, 3) -> (H, W)"""
    from vidpipe.backbones.image import choose_device
    from vidpipe.regions.crf import Crf, refine_mask

    return refine_mask(probability, frame, crf=Crf(), device=choose_device(device))
