"""How processes that decode start and end.

They are never forked off the main process: a fork copies its locks and threads in any state. On Linux they are forked
off a fork server, a process with one thread that imports the libraries once (`vidpipe.video.preload`). So a process
starts at once, and all of them share the libraries' memory. Elsewhere each process is spawned and imports them itself.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

__all__ = ["decoding_context", "end_with_main_process", "fork_server", "has_ended"]

_PRELOAD = "vidpipe.video.preload"
_PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>: the signal that the process gets when its parent dies."""
_PROCESS = os.getpid()
"""A process that is forked off this one has another id. It cannot use the fork server, which is not its child."""


def decoding_context() -> "ForkServerContext | SpawnContext":
    """Return what starts processes that decode.

    Returns:
        A context of `multiprocessing`.
    """
    if sys.platform != "linux" or os.getpid() != _PROCESS:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    return context


def fork_server() -> int | None:
    """Return the id of the fork server, and start it if need be.

    Returns:
        None where each process is spawned.
    """
    if decoding_context().get_start_method() != "forkserver":
        return None
    forkserver.ensure_running()
    return forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined, no-any-return]


def has_ended(server: int | None) -> bool:
    """Return whether the fork server has ended, and its processes with it.

    Args:
        server: its id; None where there is none.

    Returns:
        False where there is none.
    """
    if server is None:
        return False
    try:
        return os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # another one has been started since
        return True


def end_with_main_process() -> None:
    """Have the system end this process when the main process ends; call it in a new process first.

    A main process that is killed cannot stop the others, and one that hangs in native code cannot look after it. The
    fork server ends when nobody holds its pipe any more, and the system then kills the processes that it has forked.
    """
    if sys.platform == "linux":
        _let_go_of_fork_server()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    main_process = multiprocessing.parent_process()
    if main_process is not None and not main_process.is_alive():
        os._exit(1)


def _let_go_of_fork_server() -> None:
    """Close this process's end of the pipe that keeps the fork server alive: the main process alone shall hold it."""
    server: Any = forkserver._forkserver
    if (end := server._forkserver_alive_fd) is not None:
        server._forkserver_alive_fd = None
        os.close(end)
