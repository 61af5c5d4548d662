"""What an extraction does with each video: skip it, reuse features that are stored under another id, or decode it."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from vidpipe.features.inventory import Reusable, find_reusable, refuse_other_collections
from vidpipe.features.locks import Part
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile

__all__ = ["ExtractionPlan", "plan_extraction", "skip_reasons"]


@dataclass(frozen=True)
class ExtractionPlan:
    """The videos of a part of the work, by what an extraction does with them."""

    part: Part
    stored_ids: frozenset[str] = frozenset()
    """The store has the features of this very file."""
    reusable: tuple[Reusable, ...] = ()
    """The store has the features of a file with the same content, under another id."""
    failed_before: tuple[VideoFailure, ...] = ()
    """Videos that failed in an earlier run and are not retried."""
    to_extract: tuple[VideoFile, ...] = ()


def plan_extraction(
    store: FeatureStore | None, videos: Sequence[VideoFile], *, part: Part, force: bool, retry_failed: bool
) -> ExtractionPlan:
    """Compare files with a store, without changing it.

    Args:
        store: where the features are to go; None where it does not exist yet.
        videos: the files of the extraction.
        part: plan the videos of this part only.
        force: extract all of them, whatever the store holds.
        retry_failed: extract those that failed before, too.

    Returns:
        The plan.

    Raises:
        StoreError: the store cannot be read, or holds other videos under the same ids.
    """
    mine = tuple(video for video in videos if part.holds(video.id))
    if store is None or force:
        return ExtractionPlan(part, to_extract=mine)
    stored = {video.id for video in videos if store.holds(video)}
    refuse_other_collections(store, videos, stored)
    new = [video for video in mine if video.id not in stored]
    reusable = find_reusable(store, new) if new else []
    known = stored | {one.video.id for one in reusable}
    missing = [video for video in mine if video.id not in known]
    failures = {} if retry_failed else {video.id: store.known_failure(video) for video in missing}
    return ExtractionPlan(
        part,
        stored_ids=frozenset(video.id for video in mine if video.id in stored),
        reusable=tuple(reusable),
        failed_before=tuple(failure for failure in failures.values() if failure is not None),
        to_extract=tuple(video for video in missing if failures.get(video.id) is None),
    )


def skip_reasons(plan: ExtractionPlan, videos: Sequence[VideoFile]) -> dict[str, str]:
    """Return, for the id of each video, why the plan skips it; an empty text where it is extracted."""
    reasons = dict.fromkeys(plan.stored_ids, "stored already")
    reasons |= {one.video.id: f"stored already, as {one.row.id}" for one in plan.reusable}
    reasons |= {one.video_id: "failed before; --retry-failed tries it again" for one in plan.failed_before}
    return {
        video.id: _unreadable(video) or reasons.get(video.id, "")
        if plan.part.holds(video.id)
        else f"not in part {plan.part}"
        for video in videos
    }


def _unreadable(video: VideoFile) -> str:
    """Why a file cannot be read, as far as its directory entry shows."""
    if video.remote is not None:
        return ""
    try:
        return "" if stat.S_ISREG(video.path.stat().st_mode) else "not a regular file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
