"""A Ray cluster on this machine, each of whose nodes has one core."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",  # by default Ray's processes give way to all others
}

from ray.cluster_utils import Cluster

__all__ = ["Cluster", "actors", "add_node", "cluster_of", "raylets"]

OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def cluster_of(num_nodes: int, *, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Start a cluster; its processes end with the context."""
    head: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    head["env_vars"] = dict(environment or {})
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(num_nodes - 1):
            add_node(cluster, environment=environment)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Cluster, *, environment: Mapping[str, str] | None = None) -> Any:
    """Add a node with one core, and with other variables in its processes' environment."""
    return cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES, env_vars=dict(environment or {}))


def raylets(nodes: Iterable[Any]) -> list[int]:
    """The processes that are nodes, without those that have ended."""
    found = [info.process for node in nodes for info in node.all_processes.get("raylet", ())]
    return [process.pid for process in found if process.poll() is None]


def actors(cluster: Cluster) -> list[int]:
    """The processes of a cluster's actors that extract."""
    parents = set(raylets([cluster.head_node, *cluster.worker_nodes]))
    processes = map(int, filter(str.isdecimal, os.listdir("/proc")))
    return [pid for pid in processes if "MapBatches(Actor)" in _command_line(pid) and _parent(pid) in parents]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return int(stream.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
