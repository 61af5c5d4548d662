"""A Ray cluster on this machine, each of whose nodes has one core."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_AUTH_MODE": "disabled"}

from ray.cluster_utils import Cluster

__all__ = ["Cluster", "add_node", "cluster_of", "workers_of"]

OBJECT_STORE_BYTES = 80 * 2**20


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[Cluster]:
    """Start a cluster; its processes end with the context."""
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(num_nodes - 1):
            add_node(cluster)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Cluster, *, environment: Mapping[str, str] | None = None) -> Any:
    """Add a node with one core, and with other variables in its processes' environment."""
    return cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES, env_vars=dict(environment or {}))


def workers_of(name: str = "_Actor") -> list[int]:
    """The processes of actors that extract."""
    return [pid for pid in _processes() if name in _command_line(pid)]


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}/exe") and _command_line(pid):
        time.sleep(0.01)
