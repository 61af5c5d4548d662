"""Stores beside a store that have the regions of the same videos."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidpipe.errors import ShardError, StoreError
from vidpipe.features.key import KINDS_OF_BOXES
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import store_folders
from vidpipe.records import Rows, VideoFile

__all__ = ["Sibling", "find_known", "find_siblings"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sibling:
    """A store in the same folder, whose regions were found alike for frames that were sampled alike."""

    store: FeatureStore
    has_same_rows: bool
    """Whether its rows are of the same frames or windows."""


def find_siblings(store: FeatureStore) -> tuple[Sibling, ...]:
    """Find the stores that have regions for a store's videos.

    Args:
        store: whose videos are to be extracted.

    Returns:
        The stores in the same folder with the same regions and sampling, those with the same rows first; none where
        the store has no regions that rows hold.
    """
    key = store.key
    if key.regions is None or key.regions.get("kind") not in KINDS_OF_BOXES:
        return ()
    found = []
    for folder in _folders_beside(store):
        try:
            other = FeatureStore.open(folder)
        except StoreError:  # a damaged store beside this one is reported where it is used
            continue
        if (other.key.regions, other.key.sampling, other.key.decoding) == (key.regions, key.sampling, key.decoding):
            found.append(Sibling(other, has_same_rows=other.key.window == key.window))
    return tuple(sorted(found, key=lambda one: not one.has_same_rows))


def _folders_beside(store: FeatureStore) -> Sequence[Path]:
    try:
        return [folder for folder in store_folders(store.path.parent) if folder != store.path]
    except OSError:
        return []


def find_known(siblings: Sequence[Sibling], video: VideoFile) -> tuple[Rows, bool] | None:
    """Return the rows of a video in a store beside.

    Args:
        siblings: from `find_siblings`.
        video: the file.

    Returns:
        The rows and whether they are of the same frames or windows; None where no store has this very file.
    """
    for sibling in siblings:
        if sibling.store.holds(video):
            try:
                return sibling.store[video.id].rows, sibling.has_same_rows
            except ShardError as error:
                logger.debug("%s: its regions are found again: %s", video.id, error)
    return None
