"""The streams that a training uses: which stores, under which names, and whether they hold the same videos."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from vidpipe.config import HEAD_NAMES
from vidpipe.errors import KeyMismatchError, LabelsError, StoreError, UsageError, count_of, first_few, unknown_name
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import find_stores, open_store
from vidpipe.records import LabeledVideo

__all__ = [
    "Stores",
    "choose_streams",
    "keep_common",
    "kind_of",
    "match_stores",
    "name_stores",
    "open_streams",
    "stream_name",
]

logger = logging.getLogger(__name__)

Stores: TypeAlias = FeatureStore | Mapping[str, FeatureStore]
"""The stores by stream, or one store, whose stream has the name of its backbone."""
RESERVED_NAMES = ("fusion", *HEAD_NAMES)
KINDS = ("image", "clip", "motion", "pose")
"""In the order of the streams."""


def kind_of(key: FeatureKey) -> str:
    """Return the kind of a stream's backbone.

    Args:
        key: of the stream's features.

    Returns:
        `image` (single frames), `clip` (windows), `motion` (optical flow) or `pose` (key points of people).
    """
    if key.parameters is not None:
        return "pose" if "detector" in key.parameters else "motion"
    return "image" if key.window is None else "clip"


def stream_name(key: FeatureKey) -> str:
    """Return the name of a stream whose store has none: that of its backbone, without `/`."""
    return key.backbone.replace("/", "_")


def name_stores(stores: Stores) -> dict[str, FeatureStore]:
    """Return the stores by stream."""
    return {stream_name(stores.key): stores} if isinstance(stores, FeatureStore) else dict(stores)


def open_streams(paths: Sequence[Path], *, usage: str) -> dict[str, FeatureStore]:
    """Open the streams at one or more paths.

    Args:
        paths: each a store, whose stream has the name of its backbone, or a folder of stores with the streams' names.
        usage: the command to type, with `STORE` for the store.

    Returns:
        The stores by stream: image models first, then by name.

    Raises:
        UsageError: a path does not exist, a stream is there twice, or it has a name that the metrics use.
        StoreError: a store cannot be opened.
    """
    streams: dict[str, FeatureStore] = {}
    for path in paths:
        found = find_stores(path)
        if found.errors:
            (error, *_) = found.errors.values()
            kept = " ".join(str(store.path) for store in found.stores)
            raise StoreError(f"{error}. To leave this stream out: `{usage.replace('STORE', kept)}`")
        for store in found.stores:
            name = store.path.name if found.is_folder else stream_name(store.key)
            if name in RESERVED_NAMES or name.startswith("without "):
                raise UsageError(
                    f"{store.path}: a stream cannot be called {name}, which names something else among the metrics; "
                    f"rename the folder, for example to {stream_name(store.key)}"
                )
            if name in streams:
                raise UsageError(
                    f"{store.path}: the stream {name} is given twice, here and in {streams[name].path}; give each "
                    "stream once"
                )
            streams[name] = store
    return dict(sorted(streams.items(), key=lambda stream: (KINDS.index(kind_of(stream[1].key)), stream[0])))


def choose_streams(
    stores: Mapping[str, FeatureStore], names: Sequence[str], *, option: str = "--streams"
) -> dict[str, FeatureStore]:
    """Return some of the streams.

    Args:
        stores: by stream.
        names: the streams to use, in this order; none for all.
        option: that names them, for messages.

    Returns:
        The stores by stream.

    Raises:
        UsageError: a name is unknown, or given twice.
    """
    for name in names:
        if name not in stores:
            raise UsageError(f"{option} {name}: {unknown_name('stream', name, stores)}")
        if list(names).count(name) > 1:
            raise UsageError(f"{option}: {name} is given twice; each stream is used once")
    return {name: stores[name] for name in names or stores}


def keep_common(
    stores: Mapping[str, FeatureStore], videos: Sequence[LabeledVideo], *, skip_missing: bool
) -> list[LabeledVideo]:
    """Return the videos that every stream has.

    Args:
        stores: by stream.
        videos: labelled videos, each in at least one of the streams.
        skip_missing: leave out a video that a stream lacks, with a warning; without it, this is an error.

    Returns:
        The videos, in the order given.

    Raises:
        LabelsError: a stream lacks a video, or two streams have another file under the same id.
    """
    missing = {
        name: [video.video_id for video in videos if video.video_id not in store] for name, store in stores.items()
    }
    lacking = {name: ids for name, ids in missing.items() if ids}
    if lacking:
        what = "; ".join(
            f"{name} lacks {count_of(len(ids), 'video')}: {first_few(ids)}" for name, ids in lacking.items()
        )
        if not skip_missing:
            raise LabelsError(
                f"the streams hold different videos: {what}. Complete the stream with `vidpipe extract`, or give "
                "--skip-missing, which leaves these videos out"
            )
        logger.warning("left out videos that not every stream has: %s", what)
    left_out = {video_id for ids in lacking.values() for video_id in ids}
    kept = [video for video in videos if video.video_id not in left_out]
    _check_sizes(stores, kept)
    return kept


def _check_sizes(stores: Mapping[str, FeatureStore], videos: Iterable[LabeledVideo]) -> None:
    """Check that a video is the same file in every stream."""
    (first, store), *others = stores.items()
    for name, other in others:
        for video in videos:
            sizes = [one.info(video.video_id).size_bytes for one in (store, other)]
            if sizes[0] != sizes[1]:
                raise LabelsError(
                    f"{video.video_id} is another file in {name} ({sizes[1]} bytes) than in {first} ({sizes[0]} "
                    "bytes); extract both streams from the same videos"
                )


def match_stores(keys: Mapping[str, FeatureKey], paths: Sequence[Path], *, usage: str) -> dict[str, FeatureStore]:
    """Open the stores that hold the features of a run's streams, whatever the names of their folders.

    Args:
        keys: by stream, the key of its features.
        paths: stores, and folders of stores.
        usage: the command to type, with `STORE` for the store.

    Returns:
        The stores by stream. A path that is a store, for a run of one stream, is opened whatever its key.

    Raises:
        UsageError: a path does not exist, or several stores fit.
        KeyMismatchError: a stream has no store.
        StoreError: a path is no store and holds none that can be opened.
    """
    if len(keys) == 1 and len(paths) == 1:
        ((name, key),) = keys.items()
        return {name: open_store(paths[0], usage=usage, key=key)}
    found = [store for path in paths for store in find_stores(path).stores]
    return {name: _matching(name, key, found, paths) for name, key in keys.items()}


def _matching(name: str, key: FeatureKey, stores: Sequence[FeatureStore], paths: Sequence[Path]) -> FeatureStore:
    fitting = [store for store in stores if store.key == key]
    if len(fitting) == 1:
        return fitting[0]
    where = ", ".join(map(str, paths))
    if fitting:
        raise UsageError(
            f"{where}: several stores hold the features of the stream {name}: "
            f"{first_few([str(store.path) for store in fitting])}; give only one of them"
        )
    contrasts = ["{} holds {} where {} are needed".format(store.path, *store.key.contrast(key)) for store in stores]
    raise KeyMismatchError(f"{where}: none of its stores fits the stream {name}: {'; '.join(contrasts)}")
