"""Compares a store's videos with the files that exist now: other collections, moved files, files that are gone.

    extract col1 -o fa, then extract col2 -o fa, each with its own clip1.mp4   refused: see `refuse_other_collections`
    mv col1/walk/a.mp4 col1/run/a.mp4                                          its features are stored under the new id,
                                                                               then the old id is dropped
    rm col1/walk/a.mp4                                                         reported, until `store prune` drops it

After a stop between storing the new id and dropping the old one, the next extract drops the old one.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidpipe.errors import StoreError, count_of, first_few
from vidpipe.features.failures import source_of_entry
from vidpipe.features.maintenance import drop
from vidpipe.features.shard import Shard, VideoRow, find_fault
from vidpipe.features.sources import file_of, fingerprint_of, is_gone, prefix_of, sources_of, stamp_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import UNKNOWN_SOURCE, FeatureSequence, VideoFile, VideoSource

__all__ = [
    "FileChanges",
    "Reusable",
    "Reused",
    "find_gone",
    "find_gone_in_place",
    "find_reusable",
    "follow_files",
    "prune",
    "refuse_other_collections",
    "reuse_features",
]

NS_PER_SECOND = 10**9


def refuse_other_collections(store: FeatureStore, videos: Sequence[VideoFile], held: AbstractSet[str]) -> None:
    """Refuse videos that have the ids of other videos, stored from another folder.

    A changed file in its old folder is a new version of the video and is not refused. Videos whose store does not note
    their folder, as older stores, are not refused either.

    Args:
        store: where the videos are to go.
        videos: the files of an extraction.
        held: ids of the videos that are stored from this very file.

    Raises:
        StoreError: the store has such videos; the message names the first.
    """
    stored = [video for video in videos if video.id not in held and video.id in store]
    sources = sources_of(stored)
    others = [
        (video, old)
        for video in stored
        for old in [store.row(video.id).source]
        if old.root and sources[video.id].root not in ("", old.root) and not _is_same_path(old, sources[video.id])
    ]
    if others:
        pairs = [f"{video.id} ({file_of(old)}, now {video.path})" for video, old in others]
        name = Path(others[0][0].root or "").name or "NAME"
        raise StoreError(
            f"{store.path}: {count_of(len(others), 'video')} would replace another folder's video of the same id: "
            f"{first_few(pairs)}. Nothing was changed. `--prefix {name}` gives this folder's videos ids of their own "
            f"({name}/{others[0][0].id}), or choose another store; if they are new versions of the same videos, "
            "--force replaces the old ones"
        )


def _is_same_path(one: VideoSource, other: VideoSource) -> bool:
    return bool(one.root and other.root) and os.path.realpath(file_of(one)) == os.path.realpath(file_of(other))


@dataclass(frozen=True)
class Reusable:
    """A file that the store does not hold, and the stored row of a file with the same content."""

    video: VideoFile
    source: VideoSource
    """Of the file."""
    mtime_ns: int
    shard: Shard
    row: VideoRow

    def sequence(self) -> FeatureSequence | None:
        """Return the row's sequence under the file's id; None where it is damaged."""
        sequence = self.shard.sequence(self.row)
        if find_fault(sequence, self.row) is not None:
            return None
        info = replace(sequence.info, mtime_ns=self.mtime_ns)
        return replace(sequence, video_id=self.video.id, info=info, source=self.source)

    def is_same_path(self) -> bool:
        """Return whether the row was made from this very file, found from another folder."""
        return _is_same_path(self.row.source, self.source)


@dataclass(frozen=True)
class Reused:
    """A video that was stored without decoding: a file of the same content was stored under another id."""

    video_id: str
    old_id: str
    is_same_path: bool
    """Whether it is the very same file, found from another folder."""


@dataclass(frozen=True)
class FileChanges:
    """How the files of a store's videos have changed since they were stored."""

    reused: tuple[Reused, ...]
    """Videos that were stored without decoding them."""
    not_reused: tuple[VideoFile, ...]
    """Reusable videos that were not stored: the stored features are damaged."""
    moved: tuple[str, ...]
    """Old ids of moved files, which were dropped."""
    gone: tuple[str, ...]
    """Stored videos of the given folders whose files no longer exist."""


def follow_files(
    store: FeatureStore, videos: Sequence[VideoFile], reusable: Sequence[Reusable], *, drop_old_ids: bool
) -> FileChanges:
    """Store moved files under their new ids, drop their old ids, and find the files that are gone.

    Args:
        store: the store to bring up to date.
        videos: the files that the folders hold now.
        reusable: from `find_reusable`.
        drop_old_ids: whether to drop them; only for the holder of the whole store's lock.

    Returns:
        What has changed.

    Raises:
        StoreError: the store cannot be read or written.
    """
    reused = reuse_features(store, reusable)
    gone = find_gone(store, videos)
    moved = _find_moved(store, videos, gone) if drop_old_ids else []
    if moved:
        drop(store, moved)
    reused_ids = {one.video_id for one in reused}
    return FileChanges(
        reused=tuple(reused),
        not_reused=tuple(one.video for one in reusable if one.video.id not in reused_ids),
        moved=tuple(moved),
        gone=tuple(video_id for video_id in gone if video_id not in set(moved)),
    )


def reuse_features(store: FeatureStore, reusable: Sequence[Reusable]) -> list[Reused]:
    """Store files under their own ids with the features of files that have the same content.

    Args:
        store: the store that holds the features.
        reusable: from `find_reusable`.

    Returns:
        The videos that were stored; those whose stored features are damaged are not among them.

    Raises:
        StoreError: the store cannot be read or written.
    """
    reused = []
    with store.writer() as writer:
        for one in reusable:
            if (sequence := one.sequence()) is not None:
                writer.add(sequence)
                reused.append(Reused(one.video.id, one.row.id, one.is_same_path()))
    return reused


def find_reusable(store: FeatureStore, videos: Sequence[VideoFile]) -> list[Reusable]:
    """Find the files whose content is stored under another id, such as moved files.

    Args:
        store: the store to look in.
        videos: files that the store does not hold.

    Returns:
        These files, each with the stored row.

    Raises:
        StoreError: the store cannot be read.
    """
    stamps = {video.id: stamp_of(video) for video in videos}
    index = _Index(store, {stamp[0] for stamp in stamps.values() if stamp})
    num_like = Counter(_stamp_key(video_id, *stamp) for video_id, stamp in stamps.items() if stamp)
    sources = sources_of(videos)
    reusable = []
    for video in videos:
        size_bytes, mtime_ns = stamps[video.id] or (-1, 0)
        if size_bytes in index.sizes:
            source = replace(sources[video.id], fingerprint=fingerprint_of(video.path))
            row = index.same_content(video.id, size_bytes, mtime_ns, source)
            key = _stamp_key(video.id, size_bytes, mtime_ns)
            if row is None and num_like[key] == 1 and video.id not in store:
                row = index.same_stamp(key, source)
            if row is not None:
                reusable.append(Reusable(video, source, mtime_ns, store.place(row.id)[0], row))
    return reusable


class _Index:
    """A store's rows of files of some sizes, by content and by size and time of their files."""

    def __init__(self, store: FeatureStore, sizes: AbstractSet[int]) -> None:
        self.sizes: set[int] = set()
        self._by_content: dict[tuple[int, str], list[VideoRow]] = defaultdict(list)
        self._by_stamp: dict[tuple[int, int, str], list[VideoRow]] = defaultdict(list)
        for row in sorted((row for row in store.rows() if row.info.size_bytes in sizes), key=lambda row: row.id):
            self.sizes.add(row.info.size_bytes)
            if row.source.fingerprint:
                self._by_content[row.info.size_bytes, row.source.fingerprint].append(row)
            else:
                self._by_stamp[_row_stamp(row)].append(row)

    def same_content(self, video_id: str, size_bytes: int, mtime_ns: int, source: VideoSource) -> VideoRow | None:
        """A row that was made from this content under another id; None where there is none.

        An equal fingerprint alone is not enough, because it does not cover all of the file: the time must be equal
        too, or the row's own file must be gone, as after a move.
        """
        for row in self._by_content.get((size_bytes, source.fingerprint), ()):
            if row.id != video_id and (row.info.mtime_ns == mtime_ns or is_gone(row.source)):
                return row
        return None

    def same_stamp(self, key: tuple[int, int, str], source: VideoSource) -> VideoRow | None:
        """The only row without a fingerprint that has a file's size and time, if its own file is gone."""
        found = self._by_stamp.get(key, [])
        return found[0] if len(found) == 1 and is_gone(VideoSource(source.root, found[0].id)) else None


def _stamp_key(video_id: str, size_bytes: int, mtime_ns: int) -> tuple[int, int, str]:
    """What identifies a file without a fingerprint: its size and time.

    Times in whole seconds, as in archives, are shared by many files; there the name counts too.
    """
    return size_bytes, mtime_ns, "" if mtime_ns % NS_PER_SECOND else video_id.rpartition("/")[2]


def _row_stamp(row: VideoRow) -> tuple[int, int, str]:
    return _stamp_key(row.id, row.info.size_bytes, row.info.mtime_ns)


def find_gone(store: FeatureStore, videos: Sequence[VideoFile]) -> list[str]:
    """Find the stored videos of some folders whose files no longer exist.

    Args:
        store: the store to search.
        videos: what these folders hold now. Stored videos of other folders or prefixes are not searched, nor videos
            whose store does not note their folder, as older stores.

    Returns:
        Their ids, sorted. A file that cannot be read is not gone.
    """
    sources = sources_of(videos)
    given = {(source.root, prefix_of(video_id, source)) for video_id, source in sources.items() if source.root}
    new_roots = _new_roots(store, videos, sources)
    gone = []
    for row in store.rows():
        if row.id in sources or not row.source.root:
            continue
        prefix = prefix_of(row.id, row.source)
        roots = {root for root in (row.source.root, *new_roots[row.source.root]) if (root, prefix) in given}
        places = [row.source, *(VideoSource(root, row.source.path) for root in roots)]
        if roots and all(map(is_gone, places)):
            gone.append(row.id)
    return sorted(gone)


def _new_roots(
    store: FeatureStore, videos: Iterable[VideoFile], sources: dict[str, VideoSource]
) -> defaultdict[str, set[str]]:
    """For each folder that the store notes, the folders to which all of it was moved."""
    new_roots: defaultdict[str, set[str]] = defaultdict(set)
    elsewhere = {
        row.id: row.source
        for row in store.rows()
        if row.id in sources and row.source.root and sources[row.id].root not in ("", row.source.root)
    }
    for video in videos if elsewhere else ():
        old, new_root = elsewhere.get(video.id, UNKNOWN_SOURCE), sources[video.id].root
        is_news = old.root and new_root not in new_roots[old.root]
        if is_news and is_gone(old) and store.holds(video):
            new_roots[old.root].add(new_root)
    return new_roots


def _find_moved(store: FeatureStore, videos: Sequence[VideoFile], gone: Iterable[str]) -> list[str]:
    """Find the old ids of moved files: ids of gone files whose features are also stored under an id found now.

    Args:
        store: the store to search.
        videos: what the folders hold now.
        gone: from `find_gone`. Videos whose store does not note their folder, as older stores, are searched as well.

    Returns:
        Ids that may be dropped without losing features.
    """
    found_ids = {video.id for video in videos}
    of_gone = [store.row(video_id) for video_id in gone]
    rootless = [row for row in store.rows() if not row.source.root and row.id not in found_ids]
    if not of_gone and not rootless:
        return []
    wanted = {row.info.size_bytes for row in (*of_gone, *rootless)}
    there = [row for row in store.rows() if row.info.size_bytes in wanted and row.id in found_ids]
    by_content = {(row.info.size_bytes, row.source.fingerprint): row for row in there if row.source.fingerprint}
    by_stamp = {_row_stamp(row): row for row in there if row.source.root}
    pairs = [(row, by_content.get((row.info.size_bytes, row.source.fingerprint))) for row in of_gone]
    for row in sorted(rootless, key=lambda row: row.id):
        other = by_stamp.get(_row_stamp(row))
        if other is not None and is_gone(VideoSource(other.source.root, row.id)):
            pairs.append((row, other))
    return [row.id for row, other in pairs if other is not None and _have_same_features(store, row.id, other.id)]


def _have_same_features(store: FeatureStore, video_id: str, other_id: str) -> bool:
    return np.array_equal(store[video_id].features, store[other_id].features)


def find_gone_in_place(store: FeatureStore) -> list[str]:
    """Find the stored videos whose files are gone from a folder that still holds others of them.

    A folder that does not exist, or holds none of its videos, may be on another machine or not mounted: its videos are
    not gone.

    Args:
        store: the store to search.

    Returns:
        Their ids, sorted.
    """
    by_root: dict[str, list[str]] = defaultdict(list)
    for video_id in store.ids:
        by_root[store.row(video_id).source.root].append(video_id)
    gone: list[str] = []
    for root, video_ids in by_root.items():
        if root and os.path.isdir(root):
            without = [video_id for video_id in video_ids if is_gone(store.row(video_id).source)]
            gone += without if len(without) < len(video_ids) else []
    return sorted(gone)


def prune(store: FeatureStore, videos: Sequence[VideoFile], *, dry_run: bool) -> tuple[list[str], list[str]]:
    """Drop the stored videos of some folders whose files no longer exist, and the failures of such files.

    Args:
        store: the store to prune.
        videos: what these folders hold now; see `find_gone`.
        dry_run: only return what would be dropped.

    Returns:
        The ids of the stored videos and of the failures that were dropped, or would be.

    Raises:
        ShardError: the store is damaged; run `repair` first.
        StoreError: another process writes to the store, or the folder cannot be written.
    """
    if dry_run:
        return _find_prunable(store, videos)
    with store.lock():
        store.refresh()
        gone, failures = _find_prunable(store, videos)
        drop(store, gone, failures=failures)
    return gone, failures


def _find_prunable(store: FeatureStore, videos: Sequence[VideoFile]) -> tuple[list[str], list[str]]:
    sources = sources_of(videos)
    given = {(source.root, prefix_of(video_id, source)) for video_id, source in sources.items()}
    failures = []
    for entry in store.failure_entries():
        source = source_of_entry(entry)
        if (source.root, prefix_of(entry["video"], source)) in given and is_gone(source):
            failures.append(entry["video"])
    gone = find_gone(store, videos)
    return sorted({*gone, *_find_moved(store, videos, gone)}), failures
