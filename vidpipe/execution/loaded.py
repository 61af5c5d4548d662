"""Streams whose backbones are ready to run."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.engine import Engine
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.features.key import FeatureKey
from vidpipe.features.siblings import Sibling, find_known
from vidpipe.records import VideoFile, VideoInfo, Window
from vidpipe.regions.finder import RegionFinder
from vidpipe.regions.known import PlanKnown
from vidpipe.regions.pose import PoseFinder
from vidpipe.video.crop import cell_regions
from vidpipe.video.view import View

__all__ = ["DEFAULT_BATCH_SIZE", "LoadedStream", "busiest_device", "find_detector_of"]

DEFAULT_BATCH_SIZE = {"cpu": 8, "cuda": 64}
"""Larger batches are no faster on a CPU and take more memory: their activations no longer fit its caches."""


@dataclass(frozen=True)
class LoadedStream:
    """A stream whose backbone is ready to run."""

    engine: Engine
    key: FeatureKey
    window: Window | None = None
    """The frames of a row; None where a row is one frame."""
    finder: RegionFinder | PoseFinder | None = None
    """Decides what of each frame the backbone sees, or finds key points in its place; None for whole frames."""
    siblings: tuple[Sibling, ...] = ()
    """Stores that may have the regions of a video."""

    @classmethod
    def load(
        cls, stream: Stream, config: ExtractConfig, *, num_videos: int, num_threads: int | None = None
    ) -> "LoadedStream":
        """Load a stream's backbone; `num_videos` and `num_threads` as for `Stream.load_engine`."""
        engine = stream.load_engine(
            device=config.device,
            engine=config.engine,
            num_videos=num_videos,
            cuda_graphs=config.cuda_graphs,
            num_threads=num_threads,
        )
        finder = find_detector_of(stream, config)
        if finder is not None:
            finder.detector.check()
        return cls(engine, stream.key, stream.spec.window, finder)

    def regions(self, info: VideoInfo) -> NDArray[np.float32]:
        """Return the regions that the backbone pools of each picture of a video, (1 + G², 4), the whole one first."""
        return cell_regions(info.height, info.width, self.engine.preprocessing, self.key.grid)

    @property
    def view(self) -> View:
        """What it needs of each video."""
        view = View(self.key.resolve_sampling(), self.engine.preprocessing, self.window)
        return view if self.finder is None else self.finder.applied_to(view)

    def view_of(self, video: VideoFile) -> View:
        """Return what it needs of one video: regions that a store beside has are not found again."""
        view, known = self.view, find_known(self.siblings, video)
        return view if known is None else replace(view, planner=PlanKnown(*known, view.planner))


def find_detector_of(stream: Stream, config: ExtractConfig) -> RegionFinder | PoseFinder | None:
    """Find the detector of a stream, with its weights, without loading it.

    Args:
        stream: the stream.
        config: the detector's weights, and the device.

    Returns:
        What finds regions or key points; None where the backbone sees whole frames.

    Raises:
        RunError: the weights are not those of the key.
        UsageError: there is no such weights file, or the detector needs one.
        WeightsError: the weights cannot be downloaded.
    """
    key, weights, device = stream.key, config.detector_weights, config.device
    if key.regions is not None:
        return RegionFinder.of_key(key.regions, weights=weights, device=device)
    if stream.spec.kind == "pose":
        return PoseFinder.of_key(key.parameters or {}, key.weights, weights=weights, device=device)
    return None


def busiest_device(streams: Iterable[LoadedStream]) -> str:
    """Return `cuda` where some backbone runs there, else `cpu`."""
    return "cuda" if any(stream.engine.device == "cuda" for stream in streams) else "cpu"
