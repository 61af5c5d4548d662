"""Collects the warnings of reading labels and drawing splits, so that a run can save them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collect_warnings"]


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record's message, once."""
        if (message := record.getMessage()) not in self.messages:
            self.messages.append(message)


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the warnings that `vidpipe.datasets` logs; they are still logged.

    Yields:
        The messages so far, each once.
    """
    logger, collector = logging.getLogger("vidpipe.datasets"), _Collector()
    logger.addHandler(collector)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
