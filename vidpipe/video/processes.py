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
from multiprocessing.context import ForkServerContext, SpawnContext

__all__ = ["decoding_context", "end_with_main_process"]

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
    from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined]

    if (end := _forkserver._forkserver_alive_fd) is not None:
        _forkserver._forkserver_alive_fd = None
        os.close(end)
