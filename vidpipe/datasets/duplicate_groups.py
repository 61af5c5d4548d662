"""Groups of videos that show the same footage, so that a split does not divide them."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from vidpipe.datasets.groups import DUPLICATES_OF
from vidpipe.errors import count_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import LabeledVideo
from vidpipe.similarity.duplicates import find_pairs, group_pairs
from vidpipe.similarity.sequences import read_index

__all__ = ["group_by_duplicates"]

logger = logging.getLogger(__name__)


def group_by_duplicates(store: FeatureStore, videos: Sequence[LabeledVideo]) -> list[LabeledVideo]:
    """Join the groups of videos that are duplicates of each other.

    Args:
        store: the features; videos that it does not hold keep their groups.
        videos: labelled videos, with the groups that the labels give, or none.

    Returns:
        The videos in the same order. Groups with duplicates in common are one group; a video without duplicates keeps
        its group, and has one of its own where it has none.

    Raises:
        StoreError: the store cannot be read.
    """
    held = [video.video_id for video in videos if video.video_id in store]
    index = read_index(store, held)
    number_of = {video_id: number for number, video_id in enumerate(index.ids)}
    pairs = [(pair.one, pair.other) for pair in find_pairs(index)]
    by_group: dict[str, list[int]] = {}
    for video in videos:
        if video.group and video.video_id in number_of:
            by_group.setdefault(video.group, []).append(number_of[video.video_id])
    joined = group_pairs([*pairs, *(pair for numbers in by_group.values() for pair in pairwise(numbers))])
    in_pairs = {number for pair in pairs for number in pair}
    names = {
        index.ids[number]: f"{DUPLICATES_OF}{index.ids[group[0]]}"
        for group in joined
        if in_pairs.intersection(group)
        for number in group
    }
    logger.info("%d of %s in groups of duplicates", len(in_pairs), count_of(len(videos), "video"))
    return [replace(video, group=names.get(video.video_id) or video.group or video.video_id) for video in videos]
