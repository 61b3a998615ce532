"""How much a coordinator has open: the bounds at which it reads no more queries for a while.

What waited for long may wait a little longer in the log, where nobody has to hold it, than in front
of workers that are busy: there those who ask now would stand behind it. So of a backlog no more is
sent out than keeps every worker busy. But whoever asks busy workers is slowed down, not stopped:
the next in the log may ask others, and those that hang would stop it for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anabranch.config.settings import CoordinatorConfig
from anabranch.coordinator.query.claim import Claim
from anabranch.dispatch.routing import Outstanding

__all__ = ["BACKLOG_MS", "Admission"]

BACKLOG_MS: Final = 1_000
"""A query that is older than that when it is read waited with others."""
_LEAST: Final = 1_000
_PER_SLOT: Final = 8
"""Layers of a group that may be outstanding while a backlog is read: at least so many, and as many
for each slot of a live worker."""


class Admission:
    """Queries that were started and are not acknowledged yet, of all partitions, in bytes.

    By the partition's claim: what is late for an owner before concerns no later one.
    What arrives for them counts too, and is taken whatever the bound says: it is what ends them.

    Args:
        slots: layers that all live workers run at the same time.
    """

    def __init__(
        self, config: CoordinatorConfig, outstanding: Outstanding, slots: Callable[[], int]
    ) -> None:
        self._max_queries = config.max_open_queries
        self._max_bytes = config.max_open_bytes
        self._outstanding = outstanding
        self._slots = slots
        self._sizes: dict[tuple[Claim, int], int] = {}
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no more queries are to be read now; one may always be open, whatever its size."""
        return len(self._sizes) >= self._max_queries or self._bytes >= self._max_bytes

    def has_room(self, age_ms: float) -> bool:
        """Whether a query that is so old may be started now, after what was sent last."""
        if self.is_full:
            return False
        sent = self._outstanding.total(self._outstanding.latest)
        return age_ms < BACKLOG_MS or sent < _LEAST or sent < _PER_SLOT * self._slots()

    def grow(self, claim: Claim, offset: int, size_bytes: int) -> None:
        """A query is started, or something arrived for it."""
        place = claim, offset
        self._sizes[place] = self._sizes.get(place, 0) + size_bytes
        self._bytes += size_bytes

    def remove(self, claim: Claim, offset: int) -> None:
        """A query is acknowledged."""
        self._bytes -= self._sizes.pop((claim, offset), 0)

    def drop(self, claim: Claim) -> None:
        """A partition is somebody else's now."""
        for place in [place for place in self._sizes if place[0] is claim]:
            self._bytes -= self._sizes.pop(place)
