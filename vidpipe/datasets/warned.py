"""What reading labels and drawing splits warns of, kept: a run remembers every warning of its training."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collect_warnings"]


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text, once."""
        if (message := record.getMessage()) not in self.messages:
            self.messages.append(message)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect what `vidpipe.datasets` logs as a warning; it is logged as ever, too.

    Yields:
        the messages so far, each once.
    """
    logger, collector = logging.getLogger("vidpipe.datasets"), _Collector()
    logger.addHandler(collector)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
