"""Regions that another store of the same videos has: nothing is detected for them."""

from dataclasses import dataclass

import numpy as np

from vidpipe.records import FramePlan, Rows
from vidpipe.regions.tracks import plan_regions
from vidpipe.video.reader import VideoReader
from vidpipe.video.view import FindScenes, Planner, View, plan_video

__all__ = ["PlanKnown"]


@dataclass(frozen=True, eq=False)
class PlanKnown:
    """Plans the rows of a video with the regions that its rows have in another store; it is a `Planner`."""

    known: Rows
    """The rows in the other store."""
    has_same_rows: bool
    """Whether the other store plans its rows alike. Then nobody was found in the frames that it lacks."""
    otherwise: Planner
    """Finds the regions where the other rows are of other frames."""

    def __call__(self, reader: VideoReader, view: View, find_scenes: FindScenes) -> FramePlan:
        plan, known = plan_video(reader, view, find_scenes), self.known
        frames, known_frames = plan.rows.frame_index, known.frame_index
        needed, there = (known_frames, frames) if self.has_same_rows else (frames, known_frames)
        if known.region is None or not np.isin(needed, there).all():
            return self.otherwise(reader, view, find_scenes)
        first, stop = (np.searchsorted(known_frames, frames, side) for side in ("left", "right"))
        index = np.repeat(np.arange(len(frames)), stop - first)
        places = np.concatenate([np.arange(*span) for span in zip(first, stop, strict=True)])
        return plan_regions(plan, index, known.region[places], None if known.track is None else known.track[places])
