"""A Ray cluster: the connection to it, its nodes, and whether each of them can extract."""

import logging
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from errno import errorcode
from itertools import islice
from typing import Any, TextIO, TypeVar, cast

# Ray reads these when it is imported. Without the last, a thread that still reads from a connection that has ended
# connects anew.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vidpipe.errors import ExecutorError
from vidpipe.execution.actors import NodeResources
from vidpipe.execution.node import Job, find_problem, find_store_problem
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFile
from vidpipe.version import __version__

__all__ = ["check_nodes", "check_store", "connect", "head_answers", "list_nodes", "map_on_nodes"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CONNECT_SECONDS = 5.0
CHECK_SECONDS = 300.0
"""How long a node may take to import vidpipe and to find, or download, the weights."""
NOTICE_SECONDS = 20.0
"""How long a cluster may take to notice that a node has ended."""
MAX_RETRIES = 3
NUM_SAMPLES = 3
"""Videos that each node must see."""
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2 says first, with empty settings. Ray's head speaks HTTP/2."""
SETTINGS_FRAME = 4


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Connect this process to a cluster; a process that is connected already stays so.

    Args:
        address: `HOST:PORT` of the head, `auto` for the cluster that this machine belongs to, None for that of
            RAY_ADDRESS, or else for a Ray of its own on this machine, which ends with the connection.

    Yields:
        Nothing. Until the end, what Ray's threads print is logged for --debug; stdout is for results.

    Raises:
        ExecutorError: the address does not answer, or Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with redirect_stdout(cast(TextIO, _WithoutRay(sys.stdout))):
        _initialise(address)
        try:
            yield
        finally:
            ray.shutdown()


class _WithoutRay:
    """Stdout without what Ray's threads print, such as the news of an actor that ended.

    Args:
        stdout: gets all else.
    """

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def write(self, text: str) -> int:
        """Write a text, or log it."""
        if not threading.current_thread().name.startswith("ray_"):
            return self._stdout.write(text)
        if text.strip():
            logger.debug("%s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


@contextmanager
def _without_native_log() -> Iterator[None]:
    """Keep what native code writes on stderr from the terminal: Ray's says there which level its log has."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _initialise(address: str) -> None:
    if address not in ("auto", "local"):
        _check_answers(address)
    is_debugged = logger.isEnabledFor(logging.DEBUG)
    own = {"num_cpus": _num_cores(), "include_dashboard": False} if address == "local" else {}
    try:
        with nullcontext() if is_debugged else _without_native_log():
            ray.init(
                address=address,
                log_to_driver=is_debugged,
                logging_level=logging.INFO if is_debugged else logging.CRITICAL,
                **own,
            )
    except (Exception, SystemExit) as error:  # Ray ends the process where a cluster does not let it in
        lines = str(error).strip().splitlines() or [type(error).__name__]
        where = "on this machine" if address == "local" else f"at {address}"
        raise ExecutorError(
            f"Ray {where} cannot be used: {lines[0].rstrip('.')}; `ray status` shows whether a cluster runs, and "
            "--ray-address names it"
        ) from error


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_answers(address: str) -> None:
    """Refuse an address where no head of Ray answers: Ray itself tries for over a minute, and then ends the process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ExecutorError(
            f"{address!r} is no address of a Ray cluster: give HOST:PORT of its head, such as 10.0.0.1:6379, or auto "
            "for the cluster that this machine belongs to"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as connection:
            connection.sendall(HTTP2_HELLO)
            answer = connection.recv(9)
        if len(answer) < 4 or answer[3] != SETTINGS_FRAME:
            raise ExecutorError(f"{address}: what answers there is not Ray; --ray-address is that of Ray's head")
    except OSError as error:
        reason = error.strerror or errorcode.get(error.errno or 0, "") or "no answer"
        raise ExecutorError(
            f"no Ray cluster answers at {address} ({reason}); is its head running (`ray start --head`), and does the "
            "network let this machine reach it?"
        ) from error


def head_answers() -> bool:
    """Return whether something listens at the address of the cluster's head."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def list_nodes() -> list[NodeResources]:
    """Return the nodes of the cluster that are alive, by name."""
    nodes = [
        NodeResources(
            node["NodeID"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.name, node.id))


def check_nodes(nodes: Sequence[NodeResources], job: Job, videos: Sequence[VideoFile]) -> None:
    """Check that each node sees the store and the videos, and has the same vidpipe and the same weights.

    Args:
        nodes: those that will have actors.
        job: the extraction, which has been started.
        videos: what it will extract; each node looks at a few.

    Raises:
        ExecutorError: a node cannot take part; the message names the first, and what to do.
    """
    samples = [str(video.path) for video in videos[:: max(1, len(videos) // NUM_SAMPLES)][:NUM_SAMPLES]]
    seen_here = [path for path in samples if os.path.exists(path)]
    _ask_nodes(nodes, find_problem, __version__, pickle.dumps(job), seen_here)


def check_store(store: FeatureStore) -> None:
    """Check that each node can read a store, and has the same vidpipe.

    Args:
        store: the store.

    Raises:
        ExecutorError: a node cannot; the message names the first.
    """
    nodes = [node for node in list_nodes() if node.cpus >= 1]
    names = [path.name for path in store.shard_paths]
    _ask_nodes(nodes, find_store_problem, __version__, str(store.path.absolute()), names)


def _ask_nodes(nodes: Sequence[NodeResources], find_problem: Callable[..., str], *arguments: Any) -> None:
    """Have each node look for what keeps it from taking part; the function returns it, or an empty text.

    A node that ends meanwhile is left out.
    """
    ask = ray.remote(num_cpus=0, max_retries=0)(find_problem)
    answers = {
        node: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(*arguments)
        for node in nodes
    }
    for node, answer in answers.items():
        try:
            problem = str(ray.get(answer, timeout=CHECK_SECONDS))
        except GetTimeoutError:
            problem = f"has not answered for {CHECK_SECONDS:g} s; stop it, or see its logs (`ray logs`)"
        except (RayError, ImportError, AttributeError) as error:
            if not isinstance(error, RayTaskError | ImportError | AttributeError) and _ends(node):
                logger.warning("node %s has ended", node.name)
                continue
            needed = f"vidpipe[ray]=={__version__}"
            problem = f"cannot run vidpipe ({_last_line(error)}); install the same vidpipe, {needed}, on every node"
        if problem:
            raise ExecutorError(f"node {node.name} {problem}")


def _ends(node: NodeResources) -> bool:
    """Whether a node is gone, or goes within the time that its cluster takes to notice."""
    deadline = time.monotonic() + NOTICE_SECONDS
    while any(one.id == node.id for one in list_nodes()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def map_on_nodes(function: Callable[..., Result], items: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
    """Call a function with each item on some node of the cluster; a call whose process or node ends is repeated.

    Args:
        function: a module's function, which changes nothing.
        items: the arguments of each call. They are taken as cores get free.

    Yields:
        The number of an item, and the result, in the order in which they are done.

    Raises:
        ExecutorError: a call fails.
    """
    call = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(function)
    most = max(1, int(2 * sum(node.cpus for node in list_nodes())))
    to_come, running = enumerate(items), dict[Any, int]()
    while True:
        for number, item in islice(to_come, most - len(running)):
            running[call.remote(*item)] = number
        if not running:
            return
        (done,), _ = ray.wait(list(running), num_returns=1)
        try:
            yield running.pop(done), ray.get(done)
        except RayError as error:
            raise ExecutorError(f"a task of Ray failed: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    """The last line of Ray's text, which is that of the error itself, without the traceback before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
