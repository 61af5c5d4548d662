"""The executor that the settings name: this machine, or a Ray cluster."""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from vidpipe.backbones.batching import Utilisation
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.errors import UsageError
from vidpipe.execution.loaded import LoadedStream
from vidpipe.execution.local import extract_into
from vidpipe.execution.progress import ExtractProgress
from vidpipe.features.siblings import find_siblings
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFile

__all__ = ["connected", "describe_actors", "extract_videos"]

logger = logging.getLogger(__name__)

NEEDS_RAY = "--executor ray needs a package: pip install 'vidpipe[ray]'"


def connected(config: ExtractConfig) -> AbstractContextManager[None]:
    """Connect this process to the executor, as a context manager.

    Args:
        config: `executor` and `ray_address`.

    Returns:
        The context manager; it does nothing for this machine.

    Raises:
        UsageError: the executor is not installed.
        ExecutorError: on entering: it cannot be reached.
    """
    if config.executor == "local":
        return nullcontext()
    try:
        from vidpipe.execution.ray_cluster import connect
    except ModuleNotFoundError as error:
        raise UsageError(NEEDS_RAY) from error
    return connect(config.ray_address)


def extract_videos(
    stores: Mapping[str, FeatureStore],
    videos: Sequence[VideoFile],
    streams: Mapping[str, Stream],
    *,
    config: ExtractConfig,
    wanted: Mapping[str, Sequence[str]],
    utilisation: Utilisation,
    owner: str | None = None,
) -> Generator[ExtractProgress]:
    """Extract videos into stores, by the executor that this process is connected to, and note the failures there.

    Args:
        stores: by stream, the store to write; its key is the stream's. This process holds its lock.
        videos: what to extract, whether the stores hold it or not.
        streams: by stream, the backbones that are needed.
        config: the settings.
        wanted: by id, the streams that need the video.
        utilisation: measures how busy the decoders and the models are.
        owner: the folder of the run that the features are for, which may have weights of its own.

    Yields:
        The progress after each video, and about once a second.

    Raises:
        VidpipeError: the weights or the executor cannot be used, or a store cannot be written.
    """
    needed = {name: stores[name] for name in streams}
    if config.executor == "ray":
        from vidpipe.execution.ray_data import extract_on_ray

        yield from extract_on_ray(needed, videos, config=config, wanted=wanted, utilisation=utilisation, owner=owner)
        return
    counts = {name: sum(name in names for names in wanted.values()) for name in streams}
    loaded = {
        name: replace(LoadedStream.load(stream, config, num_videos=counts[name]), siblings=find_siblings(stores[name]))
        for name, stream in streams.items()
    }
    for name, one in loaded.items():
        for sibling in one.siblings:
            logger.info("%s: uses the regions of the videos in %s", name, sibling.store.path)
    yield from extract_into(needed, videos, loaded, config=config, wanted=wanted, utilisation=utilisation)


def describe_actors(config: ExtractConfig) -> str:
    """Return in words what would extract, for `--dry-run`.

    Args:
        config: the settings.

    Returns:
        A line for Ray; empty for this machine.

    Raises:
        UsageError: the executor is not installed.
        ExecutorError: it cannot be reached, or an actor fits on no node.
    """
    if config.executor == "local":
        return ""
    with connected(config):
        from vidpipe.execution.actors import plan_actors
        from vidpipe.execution.ray_cluster import list_nodes

        return f"Ray: {plan_actors(list_nodes(), config).describe()}"
