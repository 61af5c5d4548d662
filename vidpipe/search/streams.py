"""The stream that a search uses."""

from pathlib import Path

from vidpipe.datasets.streams import choose_streams, open_streams
from vidpipe.features.store import FeatureStore

__all__ = ["open_stream"]


def open_stream(path: Path, name: str | None = None) -> FeatureStore:
    """Open one stream.

    Args:
        path: a store, or a folder of stores.
        name: the stream of a folder of stores; None for the first: image models come first, then by name.

    Returns:
        Its store.

    Raises:
        UsageError: there is no such folder or stream.
        StoreError: the store cannot be opened.
    """
    streams = open_streams([path], usage="vidpipe search … STORE")
    chosen = choose_streams(streams, [] if name is None else [name], option="--stream")
    return next(iter(chosen.values()))
