"""HTML pages of search results: rows of frames, doubts marked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidpipe.errors import VideoError, VidpipeError
from vidpipe.features.sources import file_of
from vidpipe.features.store import FeatureStore
from vidpipe.html_pages import render_page, write_whole
from vidpipe.search.duplicates import Duplicate, DuplicateGroup, GroupMember
from vidpipe.search.similar import SimilarResult, SimilarVideo
from vidpipe.video.thumbnails import NUM_THUMBNAILS, Thumbnail, read_frames_at

__all__ = ["write_duplicates_page", "write_similar_page"]

MAX_GROUPS, MAX_MEMBERS = 50, 12
"""Groups of a page, and videos of a group, whose frames are shown."""


@dataclass(frozen=True)
class _Row:
    """A video on a page."""

    video: str
    frames: tuple[Thumbnail, ...]
    facts: tuple[str, ...]
    is_doubtful: bool = False
    problem: str | None = None
    """Why there are no frames."""


def write_similar_page(store: FeatureStore, results: Sequence[SimilarResult], path: Path) -> None:
    """Write a page with a row of frames for each query and each video that is like it.

    Args:
        store: where the videos were found.
        results: of the queries.
        path: the page.

    Raises:
        VidpipeError: the page cannot be written.
    """
    sections = [
        (result, _query_row(store, result), [_similar_row(store, one) for one in result.videos]) for result in results
    ]
    _write("similar.html", path, title="Similar videos", store=str(store.path), sections=sections)


def write_duplicates_page(
    store: FeatureStore, groups: Sequence[DuplicateGroup], path: Path, *, threshold: float
) -> None:
    """Write a page with the groups of duplicates: a row of frames for each video, those with doubts first.

    Args:
        store: where the videos were found.
        groups: what was found.
        path: the page.
        threshold: the score from which on a pair was reported.

    Raises:
        VidpipeError: the page cannot be written.
    """
    ordered = sorted(groups, key=lambda group: not _rows_are_doubtful(group))
    sections = [
        (group, [_member_row(store, group, member) for member in group.members[:MAX_MEMBERS]])
        for group in ordered[:MAX_GROUPS]
    ]
    _write(
        "duplicates.html",
        path,
        title="Duplicates",
        store=str(store.path),
        sections=sections,
        num_left_out=len(groups) - len(sections),
        max_members=MAX_MEMBERS,
        threshold=threshold,
    )


def _write(template: str, path: Path, **values: object) -> None:
    page = render_page("vidpipe.search", template, assets="search", **values)
    write_whole(page, path, kind="the page", error=VidpipeError)


def _query_row(store: FeatureStore, result: SimilarResult) -> _Row:
    path = result.path or _path_of(store, result.query)
    if result.error is not None:
        return _Row(result.query, (), (), problem=result.error)
    duration = max((one.stop_seconds for one in result.videos), default=0.0)
    if result.path is None:
        duration = store.info(result.query).duration_seconds
    return _with_frames(_Row(result.query, (), ("the query",)), path, 0.0, duration)


def _similar_row(store: FeatureStore, found: SimilarVideo) -> _Row:
    facts = (
        *([] if found.person is None else [f"person {found.person}"]),
        f"score {found.score:.3f}",
        f"{found.video_start_seconds:.2f} to {found.video_stop_seconds:.2f} s",
        f"like {found.start_seconds:.2f} to {found.stop_seconds:.2f} s of the query",
        *(["the same footage"] if found.is_duplicate else []),
    )
    row = _Row(found.video, (), facts, found.is_doubtful)
    return _with_frames(row, _path_of(store, found.video), found.video_start_seconds, found.video_stop_seconds)


def _rows_are_doubtful(group: DuplicateGroup) -> bool:
    shown = [_shown_pair(group, member) for member in group.members]
    return any(pair.is_doubtful for pair in shown if pair is not None)


def _shown_pair(group: DuplicateGroup, member: GroupMember) -> Duplicate | None:
    """The pair of a video with the first of its group, else its best one; None for the first."""
    first = group.members[0].video
    if member.video == first:
        return None
    its_pairs = [pair for pair in group.pairs if member.video in (pair.video, pair.other)]
    return next((pair for pair in its_pairs if first in (pair.video, pair.other)), its_pairs[0])


def _member_row(store: FeatureStore, group: DuplicateGroup, member: GroupMember) -> _Row:
    pair = _shown_pair(group, member)
    size = f"{member.duration_seconds:.2f} s, {member.width} × {member.height}"
    verdict = "keep" if member.keep else f"shown by {member.covered_by}"
    if pair is None:
        row = _Row(member.video, (), (verdict, size))
        return _with_frames(row, _path_of(store, member.video), 0.0, member.duration_seconds)
    is_one = member.video == pair.video
    other = pair.other if is_one else pair.video
    stretch = (pair.start_seconds, pair.stop_seconds) if is_one else (pair.other_start_seconds, pair.other_stop_seconds)
    facts = (verdict, size, f"score {pair.score:.2f} with {other}", f"{stretch[0]:.2f} to {stretch[1]:.2f} s alike")
    row = _Row(member.video, (), facts, pair.is_doubtful)
    return _with_frames(row, _path_of(store, member.video), *stretch)


def _with_frames(row: _Row, path: Path, start_seconds: float, stop_seconds: float) -> _Row:
    length = stop_seconds - start_seconds
    times = [start_seconds + (number + 0.5) / NUM_THUMBNAILS * length for number in range(NUM_THUMBNAILS)]
    try:
        return replace(row, frames=read_frames_at(path, times))
    except VideoError as error:
        return replace(row, problem=f"{path}: {error}")
    except OSError as error:
        return replace(row, problem=f"{path}: {error.strerror}")


def _path_of(store: FeatureStore, video_id: str) -> Path:
    """Where a video's file was when it was stored; its id, where the store does not say."""
    source = store.place(video_id)[1].source
    return file_of(source) if source.root else Path(video_id)
