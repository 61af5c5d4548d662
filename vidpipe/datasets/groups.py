"""Groups read off the videos' ids, for data sets whose file names say where a clip comes from."""

import re
from collections.abc import Sequence
from dataclasses import replace

from vidpipe.errors import LabelsError, UsageError
from vidpipe.records import LabeledVideo

__all__ = ["group_by_pattern"]


def group_by_pattern(videos: Sequence[LabeledVideo], pattern: str) -> list[LabeledVideo]:
    r"""Group videos by what a regular expression finds in their ids.

    Args:
        videos: their groups are replaced.
        pattern: its first bracket is the group's name, or else all that it matches: `^[^/]+/(camera\d+)_` gives
            `camera7` of `fight/camera7_03.mp4`.

    Raises:
        UsageError: it is no regular expression.
        LabelsError: it matches nothing in some video's id.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group-by {pattern!r}: neither a column of the labels nor a regular expression ({error})"
        ) from error
    found = {video.video_id: compiled.search(video.video_id) for video in videos}
    if without := [video_id for video_id, match in found.items() if match is None]:
        raise LabelsError(
            f"--group-by {pattern!r}: no column of the labels, and matches nothing in {len(without)} of {len(videos)} "
            f"ids, such as {without[0]!r}; give a column's name, or an expression that every id matches"
        )
    names = {video_id: match[1 if compiled.groups else 0] for video_id, match in found.items() if match}
    return [replace(video, group=names[video.video_id] or None) for video in videos]
