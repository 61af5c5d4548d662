"""The region of each person of a video: squares of a steady size around a track, and the rows that they make."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vidpipe.records import FramePlan
from vidpipe.regions.linking import LINK_SETTINGS, PER_SECOND, Track
from vidpipe.regions.people import WHOLE_PICTURE, squares_in_picture

__all__ = ["TRACK_SETTINGS", "plan_people", "plan_regions", "regions_at"]

MARGIN = 0.1
"""Around a box, on each side, as a share of its longer side."""
CENTRE_SECONDS, SIDE_SECONDS = 0.2, 0.75
"""Over which the centre and the side of a region are smoothed."""
TRACK_SETTINGS = LINK_SETTINGS | {"margin": MARGIN, "smoothing_seconds": [CENTRE_SECONDS, SIDE_SECONDS]}
"""What changes a region, for a store's key."""


def regions_at(
    track: Track, grid_seconds: NDArray[np.float64], seconds: NDArray[np.float64], picture: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the regions of a person at some times: squares with a margin, of smoothed place and size.

    Args:
        track: the person.
        grid_seconds: (G,) the presentation times of the grid.
        seconds: (T,) the times, in order.
        picture: width and height of a frame in pixels.

    Returns:
        (n,) at which of the times the person is there, and (n, 4) x, y, width and height of the regions then, as
        fractions of the picture.
    """
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d

    corners, stops = track.boxes[:, :2], track.boxes[:, 2:]
    sides = (stops - corners).max(axis=1)
    reach = round(SIDE_SECONDS * PER_SECOND)
    sides = gaussian_filter1d(maximum_filter1d(sides, 2 * reach + 1, mode="nearest"), reach, mode="nearest")
    centres = gaussian_filter1d((corners + stops) / 2, CENTRE_SECONDS * PER_SECOND, axis=0, mode="nearest")
    its_seconds, half_step = grid_seconds[track.first : track.stop], 0.5 / PER_SECOND
    # the video's ends count as seen where the grid's ends are
    start = its_seconds[0] - half_step if track.first else -np.inf
    stop = its_seconds[-1] + half_step if track.stop < len(grid_seconds) else np.inf
    there = np.flatnonzero((seconds >= start) & (seconds <= stop))
    x, y, side = (np.interp(seconds[there], its_seconds, values) for values in (*centres.T, sides))
    return there, squares_in_picture(np.stack([x, y], axis=1), side * (1 + 2 * MARGIN), picture)


RegionsAt = Callable[
    [Track, NDArray[np.float64], NDArray[np.float64], tuple[int, int]], tuple[NDArray[np.int64], NDArray[np.float32]]
]
"""Returns the regions of a person at some times, as `regions_at` does."""


def plan_people(
    plan: FramePlan,
    tracks: Sequence[Track],
    grid_seconds: NDArray[np.float64],
    picture: tuple[int, int],
    *,
    find_regions: RegionsAt = regions_at,
) -> FramePlan:
    """Replace each row of a plan by a row for each person who is there at its centre.

        rows              0     1     2
        people            1     1, 2  -
        new rows          0/1   1/1, 1/2       row/person; frames that no row uses are not decoded

    Args:
        plan: of whole frames, or of windows of them.
        tracks: person k + 1 is the k-th.
        grid_seconds: (G,) the presentation times of the grid.
        picture: width and height of a frame in pixels.
        find_regions: gives the regions of a person.

    Returns:
        The plan. Where there is nobody, it has the rows of the old one, with the whole picture as their region.
    """
    found = [find_regions(track, grid_seconds, plan.rows.pts_seconds, picture) for track in tracks]
    if not sum(len(there) for there, _ in found):
        return plan_regions(plan, np.arange(len(plan.rows)), np.tile(WHOLE_PICTURE, (len(plan.rows), 1)), None)
    index = np.concatenate([there for there, _ in found])
    track = np.concatenate([np.full(len(there), number, np.int32) for number, (there, _) in enumerate(found, start=1)])
    order = np.lexsort((track, index))
    region = np.concatenate([its for _, its in found])
    return plan_regions(plan, index[order], region[order], track[order])


def plan_regions(
    plan: FramePlan, index: NDArray[np.int64], region: NDArray[np.float32], track: NDArray[np.int32] | None
) -> FramePlan:
    """Make rows of regions out of the rows of a plan.

    Args:
        plan: of whole frames, or of windows of them.
        index: (T,) the row of the plan that each new row is of, never decreasing.
        region: (T, 4) of each new row.
        track: (T,) the person of each new row, or None.

    Returns:
        The plan; frames that no row uses are left out.
    """
    row_frames = np.arange(len(plan.rows)) if plan.row_frames is None else plan.row_frames
    rows = plan.rows.select(index, region=region, **({} if track is None else {"track": track}))
    used, places = np.unique(row_frames[index], return_inverse=True)
    return FramePlan(plan.frame_index[used], rows, places.reshape(len(rows), *row_frames.shape[1:]))
