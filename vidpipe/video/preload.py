"""What the fork server imports, once for all decoding processes: they share its memory, and start without imports.

A fork copies only the thread that calls it, so this process starts none: torch has none before its first operation, and
OpenBLAS, in numpy, obeys the variable. Ctrl-C is ignored meanwhile, as the fork server does afterwards.
"""

import gc
import os
import signal

_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import vidpipe.video.reader_pyav  # noqa: E402
import vidpipe.video.resize  # noqa: E402
import vidpipe.video.worker  # noqa: E402, F401

gc.freeze()  # a collection in a forked process would write to the objects' pages, which copies them
signal.signal(signal.SIGINT, _handler)
