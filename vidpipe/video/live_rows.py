"""The rows of a video that still grows: index arithmetic over the presentation times so far. No file is opened here.

A row is certain once it is the same however the video goes on. Then it is the row that `vidpipe.video.view.plan_video`
plans for the whole video.

frames    0  1  2  3  4  5 ··      more to come
row         [──c──)                certain: the frame after it is known, so its last frame's end is known too
row               [──c──)          not certain: if the video ended here, the window would be moved inward
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vidpipe.records import FramePlan
from vidpipe.video.sampling import ROUNDING_SECONDS, frames_per_clip, plan_frames
from vidpipe.video.view import View
from vidpipe.video.windows import plan_dense_windows, plan_windows

__all__ = ["LiveRow", "RowPlanner"]

_MIN_SECONDS_OF_RATE = 2.0
"""The mean frame rate is taken from the first clip, and from at least as much of the video."""


@dataclass(frozen=True)
class LiveRow:
    """A row, and its frames."""

    pts_seconds: float
    """When the frame at its centre is shown."""
    centre: int
    """That frame's number."""
    frames: tuple[int, ...]
    """The numbers of its frames, in order."""


class _Times:
    """The presentation times of the frames that are still needed, by their numbers."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._first = 0

    @property
    def count(self) -> int:
        """The frames so far, also those that were dropped."""
        return self._first + len(self._seconds)

    @property
    def known(self) -> list[float]:
        """Those that were not dropped."""
        return self._seconds

    def __getitem__(self, number: int) -> float:
        return self._seconds[number - self._first]

    def add(self, seconds: float) -> None:
        """Add the next frame."""
        self._seconds.append(seconds)

    def drop_before(self, number: int) -> None:
        """Forget the frames before a number, once they are many."""
        num_dropped = number - self._first
        if num_dropped > len(self._seconds) // 2:
            del self._seconds[:num_dropped]
            self._first = number

    def on_screen(self, seconds: float) -> int:
        """The number of the last frame that is shown by then."""
        return self._first + bisect_right(self._seconds, seconds + ROUNDING_SECONDS) - 1


class RowPlanner:
    """Plans the rows of one stream, frame by frame.

    Args:
        view: what the stream needs; not by scene.
    """

    def __init__(self, view: View) -> None:
        self._sampling, self._window = view.sampling, view.window
        self._times = _Times()
        self.start_seconds = 0.0
        """When the first frame is shown."""
        self.frames_per_clip: int | None = None
        """Of a sampling by clips, once the mean frame rate is known."""
        self._next = 0
        """The next sample: a frame, or a window of a stride."""
        self._last: LiveRow | None = None

    @property
    def _by_clips(self) -> bool:
        """Whether frames are sampled uniformly, clip by clip; other streams do not depend on the frame rate."""
        return self._sampling.method != "fps" and not self._stride_seconds

    @property
    def _stride_seconds(self) -> float:
        return (self._window and self._window.stride_seconds) or 0.0

    @property
    def _is_pair(self) -> bool:
        """Whether a row is two consecutive frames, of which the first is its centre."""
        return self._window is not None and self._window.fps is None and self._window.num_frames == 2

    @property
    def first_needed(self) -> int:
        """Frames with lower numbers are in no row to come."""
        return 0 if self._last is None else self._last.frames[0]

    def add(self, pts_seconds: float) -> Iterator[LiveRow]:
        """Take the next frame.

        Args:
            pts_seconds: when the frame is shown; later than all before it.

        Yields:
            The rows that are now certain.
        """
        if not self._times.count:
            self.start_seconds = pts_seconds
        self._times.add(pts_seconds)
        if self._by_clips and self.frames_per_clip is None:
            self._find_frame_rate()
        while (frames := self._frames_of(self._next)) and self._is_certain(frames):
            yield from self._take(frames)
        self._times.drop_before(self.first_needed)

    def may_need(self, number: int) -> bool:
        """Return whether a row to come may have a frame.

        Args:
            number: of the frame, which is not the last one.

        Returns:
            Whether to keep it.
        """
        if self._by_clips and self.frames_per_clip is None:
            return True
        if self._window is not None and not (self._by_clips and self._is_pair):
            return True  # a window begins before its centre is known
        moved_inward = 0 if self._window is None else 1
        sample = self._next
        while (frames := self._frames_of(sample)) and frames[0] - moved_inward <= number:
            if number <= frames[-1]:
                return True
            sample += 1
        return False

    def finish(self, end_seconds: float) -> Iterator[LiveRow]:
        """End the video.

        Args:
            end_seconds: when the last frame's presentation ends.

        Yields:
            The rows that are left.
        """
        if not self._times.count:
            return
        if self._last is None:
            yield from self._whole(end_seconds)
            return
        latest = self._latest(end_seconds)
        while (frames := self._frames_of(self._next, end_seconds, latest)) is not None:
            yield from self._take(frames)

    def _find_frame_rate(self) -> None:
        """Take the mean frame rate, once the video is longer than a clip."""
        clip_seconds = self._sampling.clip_seconds
        assert clip_seconds is not None
        num_frames = self._times.count
        seconds = self._times[num_frames - 1] - self.start_seconds
        if seconds > max(clip_seconds, _MIN_SECONDS_OF_RATE) + ROUNDING_SECONDS:
            per_clip = frames_per_clip((num_frames - 1) / seconds, clip_seconds)
            self.frames_per_clip = per_clip if num_frames > per_clip else None

    def _take(self, frames: tuple[int, ...]) -> Iterator[LiveRow]:
        """Go on to the next sample, and yield the row unless it is centred on the same frame as the one before."""
        self._next += 1
        centre = frames[self._num_before]
        if self._last is None or centre > self._last.centre:
            self._last = LiveRow(self._times[centre], centre, frames)
            yield self._last

    def _is_certain(self, frames: tuple[int, ...]) -> bool:
        """Whether a window would be the same if the video ended with the last frame known, or later."""
        last = self._times.count - 1
        if frames[-1] >= last:
            return False
        fps = self._window.fps if self._window else None
        return fps is None or self._times[frames[-1] + 1] <= self._times[last] - 1 / fps

    def _frames_of(
        self, sample: int, end_seconds: float | None = None, latest: float = np.inf
    ) -> tuple[int, ...] | None:
        """The frames of a row, of which the last ones are wrong where they are not known yet; None after the last."""
        if self._stride_seconds:
            first = self.start_seconds + sample * self._stride_seconds
            return self._frames_from_stride(sample, first, end_seconds, latest)
        centre = self._centre_of(sample, end_seconds)
        if centre is None or self._window is None:
            return None if centre is None else (centre,)
        if self._window.fps is None:
            return self._frames_from(min(max(centre - self._num_before, 0), latest))
        first = self._times[centre] - self._num_before / self._window.fps
        return self._frames_from(min(max(first, self.start_seconds), latest))

    def _frames_from_stride(
        self, sample: int, first: float, end_seconds: float | None, latest: float
    ) -> tuple[int, ...] | None:
        """The window that starts at a multiple of the stride; the one after the last of these starts at `latest`."""
        assert self._window is not None
        if end_seconds is None and first > self._times[self._times.count - 1]:
            return None
        if self._window.fps is None:
            first = float(self._times.on_screen(first))
        if first < latest - ROUNDING_SECONDS:
            return self._frames_from(first)
        frames = self._frames_from(latest)
        is_new = self._last is None or frames[self._num_before] > self._last.centre
        return frames if is_new else None

    def _frames_from(self, first: float) -> tuple[int, ...]:
        assert self._window is not None
        places = range(self._window.num_frames)
        if self._window.fps is None:
            return tuple(int(first) + place for place in places)
        return tuple(self._times.on_screen(first + place / self._window.fps) for place in places)

    def _centre_of(self, sample: int, end_seconds: float | None) -> int | None:
        """The frame that the sampling takes; None where it is not known, or where there are no more."""
        if self._by_clips:
            number = self._number_in_clips(sample)
            return number if number is not None and number < self._times.count else None
        assert self._sampling.fps is not None
        tick_seconds = sample / self._sampling.fps
        if end_seconds is not None:
            is_past = tick_seconds >= end_seconds - self.start_seconds - ROUNDING_SECONDS
            return None if is_past else self._times.on_screen(self.start_seconds + tick_seconds)
        on_screen = self._times.on_screen(self.start_seconds + tick_seconds)
        return on_screen if on_screen < self._times.count - 1 else None

    def _number_in_clips(self, sample: int) -> int | None:
        """As in `vidpipe.video.sampling.clip_indices`."""
        per_clip, num_frames = self.frames_per_clip, self._sampling.num_frames
        assert num_frames is not None
        if per_clip is None or num_frames >= per_clip:
            return None if per_clip is None else sample
        return (2 * sample + 1) * per_clip // (2 * num_frames)

    @property
    def _num_before(self) -> int:
        """Frames of a window before its centre."""
        return (self._window.num_frames - 1) // 2 if self._window else 0

    def _latest(self, end_seconds: float) -> float:
        """Where the last window starts: in seconds, or in frames for windows of consecutive frames."""
        if self._window is None:
            return np.inf
        if self._window.fps is None:
            return self._times.count - self._window.num_frames
        return max(end_seconds, self._times[self._times.count - 1]) - self._window.num_frames / self._window.fps

    def _whole(self, end_seconds: float) -> Iterator[LiveRow]:
        """The rows of a video that ended before any was certain."""
        plan = self._plan_whole(end_seconds)
        row_frames = plan.row_frames if plan.row_frames is not None else np.arange(len(plan.rows))
        frames = plan.frame_index[row_frames].reshape(len(plan.rows), -1)
        for pts_seconds, centre, numbers in zip(plan.rows.pts_seconds, plan.rows.frame_index, frames, strict=True):
            yield LiveRow(float(pts_seconds), int(centre), tuple(numbers.tolist()))

    def _plan_whole(self, end_seconds: float) -> FramePlan:
        pts_seconds = np.array(self._times.known)
        if self._window is not None and self._stride_seconds:
            return plan_dense_windows(self._window, pts_seconds, end_seconds)
        frames = plan_frames(self._sampling, pts_seconds, end_seconds)
        return frames if self._window is None else plan_windows(frames.rows, self._window, pts_seconds, end_seconds)
