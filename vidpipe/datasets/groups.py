"""Read groups from the videos' ids, for data sets whose file names name the source of a clip."""

import re
from collections.abc import Sequence
from dataclasses import replace

from vidpipe.errors import LabelsError, UsageError, count_of
from vidpipe.records import LabeledVideo

__all__ = ["BY_DUPLICATES", "DUPLICATES_OF", "group_by_pattern"]

BY_DUPLICATES = "duplicates"
"""The value of --group-by for groups of videos with the same footage."""
DUPLICATES_OF = "duplicates of "
"""What the names of such groups start with."""


def group_by_pattern(
    videos: Sequence[LabeledVideo], pattern: str, *, no_column: str = "there is no such column"
) -> list[LabeledVideo]:
    r"""Group videos by a regular expression over their ids.

    Args:
        videos: their groups are replaced.
        pattern: its first parenthesis is the group's name, or else its whole match: `^[^/]+/(camera\d+)_` gives
            `camera7` for `fight/camera7_03.mp4`.
        no_column: why the pattern is not a column's name, for messages: `labels.csv has no such column`.

    Returns:
        The videos in the same order, each with its group.

    Raises:
        UsageError: the pattern is not a regular expression.
        LabelsError: the pattern matches nothing in some video's id, or gives the same group for all.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group-by {pattern!r}: {no_column}, and it is not a regular expression ({error})"
        ) from error
    found = {video.video_id: compiled.search(video.video_id) for video in videos}
    if without := [video_id for video_id, match in found.items() if match is None]:
        raise LabelsError(
            f"--group-by {pattern!r}: {no_column}, and as a regular expression it matches nothing in {len(without)} of "
            f"{count_of(len(videos), 'id')}, such as {without[0]!r}; "
            "give a column's name, or an expression that every id matches"
        )
    names = {video_id: match[1 if compiled.groups else 0] for video_id, match in found.items() if match}
    if len(videos) > 1 and len(set(names.values())) == 1:
        raise LabelsError(
            f"--group-by {pattern!r}: {no_column}, and as a regular expression it finds the same group "
            f"{names[videos[0].video_id]!r} in all {len(videos)} ids; give a column's name, "
            "or an expression that distinguishes the sources"
        )
    return [replace(video, group=names[video.video_id] or None) for video in videos]
