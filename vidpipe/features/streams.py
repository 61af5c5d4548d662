"""A folder of stores: one store a stream, which is what one backbone makes of the videos.

features/
  lenet5/      a store
  resnet50/    a store

A command that takes a store takes such a folder too. It goes through all the stores (`find_stores`), or uses the one
that fits or the only one (`open_store`). `place_stores` says where an extraction puts each stream.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidpipe.errors import KeyMismatchError, StoreError, UsageError, first_few
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore

__all__ = ["FoundStores", "find_stores", "open_store", "place_stores", "store_folders"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundStores:
    """The stores at a path: the path itself, or those in the folder."""

    path: Path
    stores: tuple[FeatureStore, ...]
    """By name."""
    errors: Mapping[Path, StoreError] = field(default_factory=dict)
    """The stores in the folder that cannot be opened, and why."""
    other_names: tuple[str, ...] = ()
    """What else is in the folder, hidden files left out."""

    @property
    def is_folder(self) -> bool:
        """Whether the path is a folder of stores, not a store."""
        return [store.path for store in self.stores] != [self.path]


def store_folders(path: Path) -> list[Path]:
    """List the stores in a folder of stores, by name; those too that lack their store.json.

    Args:
        path: any path.

    Returns:
        Their folders; none where the path is a store itself, or no folder of stores.

    Raises:
        OSError: the folder cannot be read.
    """
    if (path / "store.json").exists() or not path.is_dir():
        return []
    visible = [folder for folder in sorted(path.iterdir()) if not folder.name.startswith(".")]
    return [folder for folder in visible if (folder / "store.json").exists() or (folder / "shards").is_dir()]


def find_stores(path: Path) -> FoundStores:
    """Open the store at a path, or every store in a folder of stores.

    What else is in such a folder is named in a warning.

    Args:
        path: a store, or a folder with stores directly in it.

    Returns:
        The stores, at least one.

    Raises:
        UsageError: there is no such folder.
        StoreError: the folder is no store and holds none that can be opened.
    """
    try:
        folders = store_folders(path)
        names = sorted(one.name for one in path.iterdir()) if folders else []
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
    if not folders:
        return FoundStores(path, (FeatureStore.open(path),))
    stores, errors = [], {}
    for folder in folders:
        try:
            stores.append(FeatureStore.open(folder))
        except StoreError as error:
            errors[folder] = error
    if not stores:
        raise StoreError(f"{path}: none of its stores can be opened: {_reasons(errors)}")
    known = {folder.name for folder in folders}
    others = tuple(name for name in names if name not in known and not name.startswith("."))
    if others:
        logger.warning("%s: left out what is not a feature store: %s", path, first_few(others))
    return FoundStores(path, tuple(stores), errors, others)


def open_store(path: Path, *, usage: str, key: FeatureKey | None = None) -> FeatureStore:
    """Open the one store that a command needs.

    In a folder of stores this is the one with the key asked for; without a key, the only one there.

    Args:
        path: a store, or a folder of stores.
        usage: the command to type, with `STORE` for the store: `vidpipe train STORE -o RUN`.
        key: of the features that are needed. A path that is a store is opened whatever its key.

    Returns:
        The store.

    Raises:
        UsageError: there is no such folder, or several of its stores fit; the message names them.
        KeyMismatchError: none of the stores in the folder has the key.
        StoreError: the folder is no store and holds none that can be opened.
    """
    found = find_stores(path)
    if not found.is_folder:
        return found.stores[0]
    fitting = [store for store in found.stores if key is None or store.key == key]
    has_only_stores = not found.errors and not found.other_names
    if len(fitting) == 1 and (key is not None or has_only_stores):
        for error in found.errors.values():
            logger.warning("%s", error)
        return fitting[0]
    damaged = f". {_reasons(found.errors)}" if found.errors else ""
    if key is not None and not fitting:
        contrasts = [f"{store.path.name} holds {_contrast(store, key)}" for store in found.stores]
        raise KeyMismatchError(f"{path}: none of its stores fits: {'; '.join(contrasts)}{damaged}")
    commands = [f"`{usage.replace('STORE', str(store.path))}`" for store in fitting]
    raise UsageError(
        f"{path}: a folder of stores ({_names(found)}), where one store is needed: "
        f"{first_few(commands, separator=' or ')}{damaged}"
    )


def place_stores(path: Path, keys: Mapping[str, FeatureKey]) -> dict[str, Path]:
    """Choose the folder of each stream's store.

    One stream gets the path itself, unless it is a folder of stores. Several get a folder each in it: that of a store
    with the same features, or one with the stream's name.

    Args:
        path: where stores are to be made or extended; it need not exist.
        keys: by stream.

    Returns:
        By stream, the store's folder; it need not exist.

    Raises:
        UsageError: the path is one store, and there are several streams.
    """
    if (path / "store.json").exists() or (path / "shards").is_dir():
        if len(keys) > 1:
            raise UsageError(
                f"{path}: one store, where a folder of stores is needed for {', '.join(keys)}; give another folder "
                f"with -o, or move the store into a folder of its own: "
                f"`mv {path} {path}.one && mkdir {path} && mv {path}.one {path / _stream_name(path, keys)}`"
            )
        return dict.fromkeys(keys, path)
    try:
        folders = store_folders(path)
    except OSError:  # making the store reports it
        folders = []
    if not folders and len(keys) == 1:
        return dict.fromkeys(keys, path)
    return {name: _place_among(folders, path / name, key) for name, key in keys.items()}


def _place_among(folders: Sequence[Path], own: Path, key: FeatureKey) -> Path:
    """The store of the same features, whatever its name; else the stream's own folder."""
    for folder in [] if own in folders else folders:
        try:
            if replace(FeatureStore.open(folder).key, weights="") == replace(key, weights=""):
                return folder
        except StoreError:  # a damaged store of another name is not this stream's business
            continue
    return own


def _stream_name(path: Path, keys: Mapping[str, FeatureKey]) -> str:
    """The name of a store's stream among several; of an unreadable store, the first of them."""
    try:
        backbone = FeatureStore.open(path).key.backbone
    except StoreError:
        return next(iter(keys))
    return next((name for name, key in keys.items() if key.backbone == backbone), backbone)


def _names(found: FoundStores) -> str:
    return first_few([*(store.path.name for store in found.stores), *(path.name for path in found.errors)])


def _reasons(errors: Mapping[Path, StoreError]) -> str:
    return "; ".join(map(str, errors.values()))


def _contrast(store: FeatureStore, key: FeatureKey) -> str:
    """`lenet5 features where resnet50 features are needed`"""
    return "{} where {} are needed".format(*store.key.contrast(key))
