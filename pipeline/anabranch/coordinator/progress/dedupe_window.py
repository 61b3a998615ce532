"""What a partition remembers of the ids of queries: one that comes again is a repeat."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from anabranch.config.settings import CoordinatorConfig

__all__ = ["DedupeWindow", "PastId"]


class PastId(NamedTuple):
    """An id, when it was asked (on the broker's clock) and at which offset."""

    id: str
    at_ms: float
    offset: int


class DedupeWindow:
    """Ids of queries, each with its offset, for `dedupe_window_ms` and at most so many."""

    def __init__(self, config: CoordinatorConfig, past: Iterable[PastId]) -> None:
        self._window_ms = config.dedupe_window_ms
        self._max_ids = config.dedupe_max_ids
        self._moved_ms = 0.0
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        for id_, at_ms, offset in past:
            self._seen.setdefault(id_, (at_ms, offset))

    def is_repeat(self, id_: str, offset: int, now_ms: float) -> bool:
        """Whether this id was seen at another offset; it is remembered either way."""
        seen, now_ms = self._seen, now_ms - self._moved_ms
        while seen:
            oldest, (at_ms, _) = next(iter(seen.items()))
            if at_ms > now_ms - self._window_ms and len(seen) < self._max_ids:
                break
            del seen[oldest]
        if id_ in seen:
            return seen[id_][1] != offset
        seen[id_] = (now_ms, offset)
        return False

    def first(self, id_: str) -> int:
        """Where an id that is repeated was seen first."""
        return self._seen[id_][1]

    def shift(self, moved_ms: float) -> None:
        """The clock was set: the window is one of time that has passed."""
        self._moved_ms += moved_ms
