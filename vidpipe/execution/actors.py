"""How many actors an extraction starts on the nodes of a cluster, and which videos each gets at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidpipe.config import ExtractConfig
from vidpipe.errors import ExecutorError, UsageError, count_of
from vidpipe.execution.node import Batch
from vidpipe.records import VideoFile

__all__ = ["ActorPlan", "NodeResources", "cut_batches", "plan_actors"]

DEFAULT_CORES = 4
"""Of an actor, where nodes have more: with more actors, each has fewer threads that wait for each other."""
SMALLEST_BATCH = 8
"""Videos, where there are many for each actor."""


@dataclass(frozen=True)
class NodeResources:
    """What a node of a cluster has."""

    id: str
    name: str
    """Its host's name and address."""
    cpus: float
    gpus: float


@dataclass(frozen=True)
class ActorPlan:
    """The actors of an extraction."""

    cpus: int
    """Of each."""
    gpus: float
    """Of each."""
    by_node: Mapping[NodeResources, int]
    """How many fit on each node; nodes without any are left out."""
    limit: int | None = None
    """The largest number of actors."""

    @property
    def count(self) -> int:
        """The number of actors."""
        return min(sum(self.by_node.values()), self.limit or sum(self.by_node.values()))

    def describe(self) -> str:
        """Return the plan in words: `2 actors with 4 cores each: 1 fits on a (10.0.0.1), 1 on b (10.0.0.2)`."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        fits = ", ".join(f"{count} on {node.name}" for node, count in self.by_node.items())
        return f"{count_of(self.count, 'actor')} with {count_of(self.cpus, 'core')}{gpus} each; room for {fits}"


def plan_actors(nodes: Sequence[NodeResources], config: ExtractConfig) -> ActorPlan:
    """Decide how many actors run, and with what.

    Args:
        nodes: those of the cluster that are alive.
        config: `ray_actors`, `ray_cpus`, `ray_gpus`, and the device.

    Returns:
        The plan, with at least one actor.

    Raises:
        UsageError: the backbones shall run on GPUs, and actors get none.
        ExecutorError: an actor fits on no node.
    """
    gpus = _gpus_of_actor(nodes, config)
    able = [node for node in nodes if node.cpus >= 1 and node.gpus >= gpus]
    cpus = config.ray_cpus or _cores_of_actor(able, gpus)
    by_node = {node: int(min(node.cpus // cpus, node.gpus // gpus if gpus else node.cpus)) for node in able}
    by_node = {node: count for node, count in by_node.items() if count}
    if not by_node:
        have = ", ".join(f"{node.name}: {node.cpus:g} cores, {node.gpus:g} GPUs" for node in nodes)
        raise ExecutorError(
            f"no node has {count_of(cpus, 'core')} and {gpus:g} GPUs for an actor ({have or 'no nodes'}); give a "
            "smaller --ray-cpus or --ray-gpus, or start more nodes"
        )
    return ActorPlan(cpus, gpus, by_node, config.ray_actors)


def _gpus_of_actor(nodes: Sequence[NodeResources], config: ExtractConfig) -> float:
    if config.device == "cpu":
        return config.ray_gpus or 0.0
    has_gpus = any(node.gpus >= 1 for node in nodes)
    gpus = config.ray_gpus if config.ray_gpus is not None else float(has_gpus)
    if config.device == "cuda" and not gpus:
        raise UsageError("--device cuda needs GPUs for the actors: no node of Ray has one, or --ray-gpus is 0")
    return gpus


def _cores_of_actor(nodes: Sequence[NodeResources], gpus: float) -> int:
    if gpus:
        return max(1, int(min((node.cpus * gpus / node.gpus for node in nodes), default=1)))
    return max(1, int(min((DEFAULT_CORES, *(node.cpus for node in nodes)))))


def cut_batches(
    videos: Sequence[VideoFile], wanted: Mapping[str, Sequence[str]], *, num_actors: int, max_videos: int
) -> list[Batch]:
    """Cut the videos into batches: large ones first, small ones at the end, so that the actors end together.

    A batch is a part of what is left, 1 / (2 · `num_actors`), and at most `max_videos`. Of 20 videos, 2 actors:
    5, 4, 3, 2, 2, 1, 1, 1, 1. Of many, the last ones are not that small, as each starts processes that decode.

    Args:
        videos: what to extract.
        wanted: by id, the streams that need the video.
        num_actors: how many actors share them.
        max_videos: the most of a batch.

    Returns:
        The batches, in the order of the videos.
    """
    batches, start = list[Batch](), 0
    smallest = min(SMALLEST_BATCH, len(videos) // (16 * num_actors))
    while start < len(videos):
        size = min(max_videos, max(smallest, -(-(len(videos) - start) // (2 * num_actors))))
        some = videos[start : start + size]
        batches.append((some, {video.id: wanted[video.id] for video in some}))
        start += size
    return batches
