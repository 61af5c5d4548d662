"""What `--regions` does with a video: find where people are, and say what a backbone sees of each frame.

Detection runs in the decoding processes, on whole frames at full size. Then a detector that hangs or crashes costs one
video, detection is as parallel as decoding, and every stream sees the same regions whatever its own pictures are.

people       plan ─── a few frames ──► detector ──► one box a video ──► a region of each row ──► decode and crop
tracks       plan ─── 8 frames a second ──► detector ──► linked ──► a region of each row and person ──► decode and crop
mask         plan ─── decode ──► each frame ──► detector ──► pixels that are hidden ──► paint over, resize and crop
background   the same, with the other pixels; `--refine crf` first fits the masks to the edges of the frame
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.weights import WeightsFile
from vidpipe.config import ExtractConfig
from vidpipe.errors import RunError, UsageError
from vidpipe.records import FramePlan
from vidpipe.regions.detections import Detections
from vidpipe.regions.linking import Track, detection_grid, link_people, select_people
from vidpipe.regions.loadable import LoadableDetector
from vidpipe.regions.masks import MASK_THRESHOLD, people_probability
from vidpipe.regions.people import people_region
from vidpipe.regions.table import DETECTORS, find_detector
from vidpipe.regions.tracks import TRACK_SETTINGS, plan_people
from vidpipe.regions.weights import find_detector_weights
from vidpipe.video.reader import VideoReader
from vidpipe.video.sampling import uniform_indices
from vidpipe.video.steps import STEPS_PER_CHUNK
from vidpipe.video.view import FindScenes, View, plan_video

__all__ = ["RegionFinder"]

_DEFAULT_DETECTORS = {
    "people": "fasterrcnn_mobilenet",
    "tracks": "fasterrcnn_mobilenet",
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
    """`people`, `tracks`, `mask` or `background`."""
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
        if config.regions == "tracks" and not spec.tells_people_apart:
            apart = ", ".join(name for name, one in DETECTORS.items() if one.tells_people_apart)
            raise UsageError(
                f"--regions tracks needs a box for each person, and {spec.name} finds one mask of all people; "
                f"detectors with boxes: {apart}"
            )
        if config.regions in ("mask", "background") and not spec.has_masks:
            with_masks = ", ".join(name for name, one in DETECTORS.items() if one.has_masks)
            raise UsageError(
                f"--regions {config.regions} needs masks, and {spec.name} finds {' and '.join(spec.finds)}; detectors "
                f"with masks: {with_masks}"
            )
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
        try:
            spec = find_detector(regions.get("detector", ""))
        except UsageError as error:
            raise RunError(f"the features' detector is not available: {error}") from error
        found = find_detector_weights(spec, "random" if regions.get("weights") == "random" else weights)
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
        masks = common | {"threshold": MASK_THRESHOLD}
        return masks | {"crf": _crf_settings()} if self.refine == "crf" else masks

    def applied_to(self, view: View) -> View:
        """Return what a stream needs of each video, seen through the regions."""
        if self.kind == "people":
            return replace(view, planner=_PlanPeople(self.detector))
        if self.kind == "tracks":
            return replace(view, planner=_PlanTracks(self.detector))
        return replace(view, hidden=_Hidden(self.detector, self.kind == "background", self.refine))


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

    def __call__(self, reader: VideoReader, view: View, find_scenes: FindScenes) -> FramePlan:
        plan = plan_video(reader, view, find_scenes)
        tracks, grid_seconds = _tracks_of(reader, self.detector)
        return plan_people(plan, tracks, grid_seconds, (reader.info.width, reader.info.height))


_Tracks = tuple[tuple[Track, ...], NDArray[np.float64]]
"""The people of a video, and the times of the grid in which they were looked for."""
_TRACKS: WeakKeyDictionary[VideoReader, dict[LoadableDetector, _Tracks]] = WeakKeyDictionary()
"""Of the video that is open, so that several streams detect once."""


def _tracks_of(reader: VideoReader, detector: LoadableDetector) -> _Tracks:
    """The people of a video. Detecting them in a frame counts as a chunk of decoding, which `--timeout` limits."""
    known = _TRACKS.setdefault(reader, {})
    if detector not in known:
        grid = detection_grid(reader.pts_seconds)
        found: list[Detections] = []
        for block in reader.blocks(grid):
            for frame in block:
                (one,) = detector(frame[None])
                found.append(replace(one, masks=None, key_points=None))  # which need memory, and link nothing
                reader.on_step(STEPS_PER_CHUNK)
        grid_seconds = reader.pts_seconds[grid]
        tracks = link_people(found, grid_seconds, min_score=detector.spec.min_score)
        known[detector] = select_people(tracks, grid_seconds), grid_seconds
    return known[detector]


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
