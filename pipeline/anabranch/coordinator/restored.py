"""What a takeover reads back, and what a partition remembers of the ids it saw."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from anabranch.config import CoordinatorConfig
from anabranch.events import Partial, PartialResult
from anabranch.kafka.progress import Bounds, Progress
from anabranch.kafka.transport import Record

__all__ = ["Restored", "SeenIds"]


class Restored:
    """Where to start, what is answered, what has arrived."""

    def __init__(self, progress: Progress, bounds: Bounds, end: int = 0) -> None:
        self.progress = progress
        self.end = end
        """The end of `queries` when the reading began."""
        self.bounds = bounds
        """Ends of results and partials when the reading stopped."""
        self.answered: set[int] = set(progress.completed)
        self.ids: list[str] = []
        self.arrived: dict[int, list[PartialResult]] = {}
        self.partials: list[tuple[Record, Partial]] = []
        """What fills the cache again."""

    @property
    def last(self) -> int:
        """The highest offset that the owner before is known to have read."""
        return max(self.answered | set(self.arrived), default=-1)


class SeenIds:
    """Ids of queries, each with its offset, for `dedupe_window_ms` and at most so many."""

    def __init__(self, config: CoordinatorConfig, answered: Iterable[str], now_ms: float) -> None:
        self._window_ms = config.dedupe_window_ms
        self._max_ids = config.dedupe_max_ids
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict(
            (id_, (now_ms, -1)) for id_ in answered
        )

    def is_repeat(self, id_: str, offset: int, now_ms: float) -> bool:
        """Whether this id was seen at another offset; it is remembered either way."""
        seen = self._seen
        while seen:
            oldest, (at_ms, _) = next(iter(seen.items()))
            if at_ms > now_ms - self._window_ms and len(seen) < self._max_ids:
                break
            del seen[oldest]
        if id_ in seen:
            return seen[id_][1] != offset
        seen[id_] = (now_ms, offset)
        return False
