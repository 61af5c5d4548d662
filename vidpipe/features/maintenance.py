"""Maintenance of a feature store: find damage, drop it, merge stores, compact one.

No file is changed in place. A shard is removed after the one that replaces it is sealed, so a stop at any point loses
nothing: for a while two shards may hold a video, with the same rows. `repair` and `compact` lock the whole store, so
that no other process writes to it meanwhile.
"""

import math
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import numpy as np

from vidpipe.errors import KeyMismatchError, ShardError, StoreError, count_of
from vidpipe.features.index import find_index_faults, remove_index
from vidpipe.features.locks import remove_leftovers
from vidpipe.features.shard import REMEDY, Shard, find_fault, row_arrays, write_shard
from vidpipe.features.sources import file_of
from vidpipe.features.store import MAX_BYTES, MAX_VIDEOS, FeatureStore
from vidpipe.records import FeatureSequence

__all__ = ["Damage", "StoreSize", "compact", "drop", "find_damage", "merge", "new_folder", "repair", "sound_sequences"]

MAX_CONFLICTS = 3
"""How many conflicts a message names."""


@dataclass(frozen=True)
class Damage:
    """Something in a store that is not what was written, or that cannot be used."""

    shard: Path
    """Or a folder of the index."""
    video_id: str | None
    """None where all of it is bad."""
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.shard), self.video_id, self.reason) if part)


@dataclass(frozen=True)
class StoreSize:
    """How much lies in a store's shards."""

    num_shards: int
    num_sequences: int
    """Including those that a newer one has replaced."""
    size_bytes: int

    @classmethod
    def of(cls, store: FeatureStore) -> Self:
        """Return the size of a store."""
        return cls(
            num_shards=len(store.shards),
            num_sequences=sum(len(shard.videos) for shard in store.shards),
            size_bytes=sum(path.stat().st_size for path in store.shard_paths),
        )


def find_damage(store: FeatureStore) -> list[Damage]:
    """Read and check all sequences of a store, and its index; a damaged shard does not hide damage in the others.

    A shard must open and have the store's key. A sequence must be what was written (by its checksum), share no rows
    with others, and have finite features. Its rows must be in order of frames and time, with each centre inside its
    interval and each region inside the picture. The index must state what the shards hold.

    Args:
        store: what to check.

    Returns:
        What is damaged; empty where nothing is.

    Raises:
        StoreError: a shard cannot be read now, because of permissions or a network, which is no damage.
    """
    return [*_find_in_shards(store), *_find_in_index(store)]


def _find_in_shards(store: FeatureStore) -> list[Damage]:
    return [damage for path in store.shard_paths for damage in _damage_in(store, path)]


def _damage_in(store: FeatureStore, path: Path) -> list[Damage]:
    try:
        return [Damage(path, row.id, reason) for row, reason in store.open_shard(path).faults()]
    except ShardError as error:
        return [Damage(path, None, str(error).removeprefix(f"{path}: ").removesuffix(f"; {REMEDY}"))]


def _find_in_index(store: FeatureStore) -> list[Damage]:
    faults = find_index_faults(store.path, store.key.as_json(), store.shard_paths, store.open_shard)
    return [Damage(path, None, f"{reason}; it is made again when it is needed") for path, reason in faults]


def repair(store: FeatureStore) -> list[Damage]:
    """Drop what is damaged, so that the next extract makes it again.

    A shard with some damaged videos is written again without them. A shard that cannot be read is moved to
    `quarantine/` in the store's folder. What killed writers left is removed, and so are the index, which is made again,
    and entries of failures.jsonl that no longer count. An older sequence of a dropped video is dropped too: it was not
    the current one.

    Args:
        store: what to repair.

    Returns:
        What was dropped.

    Raises:
        StoreError: another process writes to the store, or the folder cannot be written.
    """
    with store.lock(), _writing(store.path):
        store.refresh()
        damage, in_index = _find_in_shards(store), _find_in_index(store)
        remove_leftovers(store.path)
        remove_index(store.path)
        store.clear_leftovers()
        for one in damage:
            if one.video_id is None:
                _quarantine(store, one.shard)
        store.refresh()
        store.failure_log.rewrite(store.failure_entries())  # before the drop: old failures must not count again
        _drop(store, {(one.shard, one.video_id) for one in damage if one.video_id is not None})
    return [*damage, *in_index]


def _drop(store: FeatureStore, damaged: AbstractSet[tuple[Path, str]]) -> None:
    """Rewrite the shards that hold damaged sequences, or an older one of a video whose newest is damaged."""
    lost = {video_id for path, video_id in damaged if store.place(video_id)[0].path == path}
    touched = [
        shard
        for shard in store.shards
        if any(row.id in lost or (shard.path, row.id) in damaged for row in shard.videos)
    ]
    _rewrite(store, touched, leave_out=lost)


def drop(store: FeatureStore, video_ids: Collection[str], *, failures: Collection[str] = ()) -> None:
    """Drop some videos. The caller holds the whole store's lock.

    Args:
        store: what to drop from.
        video_ids: stored videos. Their older sequences are dropped too.
        failures: videos whose entries in failures.jsonl are dropped.

    Raises:
        ShardError: a sequence that lies in the same shard is damaged; `repair` comes first.
        StoreError: the folder cannot be written.
    """
    with _writing(store.path):
        if video_ids or failures:  # before the drop: old failures must not count again
            kept = [entry for entry in store.failure_entries() if entry["video"] not in {*failures}]
            store.failure_log.rewrite(kept)
        dropped = frozenset(video_ids)
        touched = [shard for shard in store.shards if any(row.id in dropped for row in shard.videos)]
        _rewrite(store, touched, leave_out=dropped)


def _quarantine(store: FeatureStore, path: Path) -> None:
    folder = store.path / "quarantine"
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    os.replace(path, target if not target.exists() else target.with_stem(f"{path.stem}-{uuid4().hex[:8]}"))


def compact(store: FeatureStore) -> tuple[StoreSize, StoreSize]:
    """Remove sequences that newer ones replaced, and join small shards.

    Args:
        store: what to compact.

    Returns:
        The store's size before and after.

    Raises:
        ShardError: something is damaged; `repair` comes first.
        StoreError: another process writes to the store, or the folder cannot be written.
    """
    with store.lock(), _writing(store.path):
        store.refresh()
        before = StoreSize.of(store)
        worn = [shard for shard in store.shards if _is_small(shard) or _is_outdated(store, shard)]
        if len(worn) > 1 or any(_is_outdated(store, shard) for shard in worn):
            _rewrite(store, worn)
        return before, StoreSize.of(store)


def _is_small(shard: Shard) -> bool:
    return 2 * len(shard.videos) < MAX_VIDEOS and 2 * shard.path.stat().st_size < MAX_BYTES


def _is_outdated(store: FeatureStore, shard: Shard) -> bool:
    """Whether a shard holds sequences that newer ones replaced."""
    return len(_current_ids(store, shard)) < len(shard.videos)


def _current_ids(store: FeatureStore, shard: Shard) -> list[str]:
    """The videos whose newest sequence lies in this shard."""
    return [row.id for row in shard.videos if store.is_newest(shard, row)]


def _rewrite(store: FeatureStore, shards: Sequence[Shard], *, leave_out: AbstractSet[str] = frozenset()) -> None:
    """Write the current sequences of some shards into as few new ones as possible, and remove the old shards.

    A new shard is ordered directly after the newest shard that it has sequences from. It holds current sequences only,
    so it hides no newer sequence and brings back no older one, whatever the clocks of the machines that wrote the
    store.
    """
    for batch, newest, finished in _batches(store, shards, leave_out):
        if batch:
            write_shard(newest.parent, batch, key=store.key, replaces=newest)
        for path in finished:
            path.unlink()
    store.refresh()


def _batches(
    store: FeatureStore, shards: Sequence[Shard], leave_out: AbstractSet[str]
) -> Iterator[tuple[list[FeatureSequence], Path, list[Path]]]:
    """Yield for each new shard its sequences, the newest shard that they come from, and the shards to remove then."""
    batch: list[FeatureSequence] = []
    batch_bytes = 0
    finished: list[Path] = []
    for shard in shards:  # oldest first
        kept = [video_id for video_id in _current_ids(store, shard) if video_id not in leave_out]
        for sequence in sound_sequences(store, kept):
            batch.append(sequence)
            batch_bytes += sequence.features.nbytes
            if len(batch) >= MAX_VIDEOS or batch_bytes >= MAX_BYTES:
                yield batch, shard.path, finished
                batch, batch_bytes, finished = [], 0, []
        finished.append(shard.path)
    if finished:
        yield batch, finished[-1], finished


def sound_sequences(store: FeatureStore, video_ids: Iterable[str]) -> Iterator[FeatureSequence]:
    """Yield sequences to be copied. Each is checked first, for the copy gets a new checksum.

    Args:
        store: where they are stored.
        video_ids: which ones.

    Yields:
        The sequences, shard by shard.

    Raises:
        ShardError: one of them is damaged.
    """
    for sequence in store.sequences(video_ids):
        shard, row = store.place(sequence.video_id)
        reason = find_fault(sequence, row)
        if reason is not None:
            raise ShardError(
                f"{shard.path}: {row.id}: {reason}; `vidpipe store repair {store.path}` drops it, "
                "and the next extract makes it again"
            )
        yield sequence


def merge(sources: Sequence[FeatureStore], destination: Path) -> int:
    """Copy stores of one key into a new store.

    Args:
        sources: at least one. A video that several hold must have the same features in each; it is copied once.
        destination: a folder that is empty or does not exist. It appears once it is complete.

    Returns:
        How many videos it holds.

    Raises:
        KeyMismatchError: the stores were made with different settings.
        ShardError: something is damaged; `repair` comes first.
        StoreError: two stores hold different features under one id, or the destination cannot be written.
    """
    first = sources[0]
    for source in sources:
        if source.key != first.key:
            theirs, ours = source.key.contrast(first.key)
            raise KeyMismatchError(
                f"{source.path} holds {theirs}; {first.path} holds {ours}; such features cannot be mixed: "
                "extract the videos again with the same settings"
            )
    holders = _holders(sources)
    with new_folder(destination) as folder:
        merged = FeatureStore.create(folder, first.key)
        with merged.writer(max_seconds=math.inf) as writer:
            for number, source in enumerate(sources):
                for sequence in sound_sequences(source, (name for name in source if holders[name] == number)):
                    writer.add(sequence)
        entries = sorted((entry for source in sources for entry in source.failure_entries()), key=lambda e: e["time"])
        latest = {entry["video"]: entry for entry in entries if entry["video"] not in merged}
        merged.failure_log.rewrite(latest.values())
    return len(holders)


def _holders(sources: Sequence[FeatureStore]) -> dict[str, int]:
    """Return the number of the first store that holds each video."""
    holders: dict[str, int] = {}
    conflicts: list[str] = []
    for number, source in enumerate(sources):
        for video_id in source:
            holder = sources[holders.setdefault(video_id, number)]
            if not _hold_alike(holder, source, video_id):
                conflicts.append(f"{video_id} ({_origin(holder, video_id)}; {_origin(source, video_id)})")
    if conflicts:
        shown = ", ".join(conflicts[:MAX_CONFLICTS]) + ", …" * (len(conflicts) > MAX_CONFLICTS)
        raise StoreError(
            f"{count_of(len(conflicts), 'video')} of the same id with different features: {shown}. If these are "
            "different videos, extract one folder again with --prefix NAME, which gives its videos ids of their own; "
            "if they are the same, extract them again into both stores"
        )
    return holders


def _origin(store: FeatureStore, video_id: str) -> str:
    """Describe where a video is stored, and the file that it was made from, where that is known."""
    source = store.row(video_id).source
    return f"{store.path} from {file_of(source)}" if source.root else str(store.path)


def _hold_alike(one: FeatureStore, other: FeatureStore, video_id: str) -> bool:
    """Whether two stores hold the same rows of a video; its file may have another modification time on each machine."""
    if one.row(video_id).checksum == other.row(video_id).checksum:
        return True
    ours, theirs = (row_arrays(next(sound_sequences(store, [video_id]))) for store in (one, other))
    return ours.keys() == theirs.keys() and all(np.array_equal(array, theirs[name]) for name, array in ours.items())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an error of the system into a StoreError that names the folder."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error})") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder under another name; it gets its own name once it is complete, and is removed if that fails.

    Args:
        folder: a folder that is empty or does not exist.

    Yields:
        The folder to write to.

    Raises:
        StoreError: the folder holds something, or cannot be written.
    """
    target = folder.resolve()
    aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        with _writing(folder):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise StoreError(f"{folder}: exists and is not an empty folder; choose a new or an empty one")
            aside.mkdir(parents=True)
            yield aside
            os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
