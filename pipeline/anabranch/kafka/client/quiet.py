"""aiokafka's warnings, once in a while: with a broker away it logs thousands of them a minute.

In an application that embeds us the logging is the application's. So nothing is set up here but a
filter on aiokafka's own loggers, which lets each kind of message through once a minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Seldom", "quiet"]

EVERY_S: Final = 60.0
_MOST: Final = 1_000


class Seldom(logging.Filter):
    """Lets a warning through if its kind (logger and format) was not let through lately."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._last_s: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind, now_s = (record.name, str(record.msg)), self._now_s()
        if now_s - self._last_s.get(kind, -EVERY_S) < EVERY_S:
            return False
        if len(self._last_s) >= _MOST:
            self._last_s.clear()
        self._last_s[kind] = now_s
        return True


_SELDOM: Final = Seldom()


def quiet() -> None:
    """Put the filter on every logger of aiokafka's; harmless when it is there."""
    for name in list(logging.root.manager.loggerDict):
        if name == "aiokafka" or name.startswith("aiokafka."):
            logging.getLogger(name).addFilter(_SELDOM)
