"""One record costs one record: whatever handling one raises ends with it.

Only what says that the broker, the group or our rights are lost ends a process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final

from anabranch.errors import BrokerError, DecodeError
from anabranch.kafka.dead_letters import stack_digest

__all__ = ["contained", "describe", "ignore"]

log = logging.getLogger(__name__)

_MOST_KINDS: Final = 256
"""Kinds of failure whose traceback is logged, once each: foreign text must not fill the log."""
_told: set[str] = set()


class contained:  # noqa: N801  # it reads as what it does
    """Around the handling of one record: what that raises is over, and `spoiled` is called with it.

    `spoiled` takes out, whole, what was half changed. Cancellation and `BrokerError` pass.
    """

    __slots__ = ("_spoiled",)

    def __init__(self, spoiled: Callable[[Exception], None]) -> None:
        self._spoiled = spoiled

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, BrokerError):
            return False
        if not isinstance(error, DecodeError):
            _tell(error)
        self._spoiled(error)
        return True


def describe(error: Exception) -> str:
    """What a dead letter says of it."""
    if isinstance(error, DecodeError):
        return str(error)
    return f"{type(error).__name__} while it was handled: {error}"


def ignore(error: Exception) -> None:
    """For what needs nothing more: it was logged, or somebody else has made a dead letter of it."""


def _tell(error: Exception) -> None:
    digest = stack_digest(error)
    if digest not in _told and len(_told) < _MOST_KINDS:
        _told.add(digest)
        log.error("a record could not be handled (stack %s)", digest, exc_info=error)
