"""A worker's local queue: highest priority first, with ageing, and when to stop fetching which."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from anabranch.contract.events import PRIORITIES, Priority

__all__ = ["LocalQueue", "Throttle"]

T = TypeVar("T")


class LocalQueue(Generic[T]):
    """Priority order, except that whatever waited `max_wait_ms` goes first.

    The bound is on fetching (see `Throttle`), not here: what was fetched is never refused.
    """

    def __init__(self, max_wait_ms: float) -> None:
        self._max_wait_ms = max_wait_ms
        self._waiting: dict[Priority, deque[tuple[float, T]]] = {p: deque() for p in PRIORITIES}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, priority: Priority, entry: T, now_ms: float) -> None:
        """Add an entry."""
        self._size += 1
        self._waiting[priority].append((now_ms, entry))

    def take(self, now_ms: float) -> tuple[T, float]:
        """The next entry, and for how many milliseconds it waited.

        Raises:
            IndexError: nothing waits.
        """
        for line in self._waiting.values():
            if line and now_ms - line[0][0] >= self._max_wait_ms:
                return self._pop(line, now_ms)
        for line in self._waiting.values():
            if line:
                return self._pop(line, now_ms)
        raise IndexError("nothing waits")

    def _pop(self, line: deque[tuple[float, T]], now_ms: float) -> tuple[T, float]:
        since_ms, entry = line.popleft()
        self._size -= 1
        return entry, now_ms - since_ms


class Throttle:
    """Which priorities are paused at which fill: LOW first, CRITICAL last, with hysteresis."""

    PAUSE_AT: Final[dict[Priority, float]] = {
        "critical": 1.0,
        "high": 0.9,
        "medium": 0.75,
        "low": 0.5,
    }
    RESUME_BELOW: Final = 0.75
    """Share of its own threshold at which a paused priority is fetched again."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self.paused: frozenset[Priority] = frozenset()

    def update(self, depth: int) -> tuple[Sequence[Priority], Sequence[Priority]]:
        """Priorities to pause and to resume now that so many tasks wait."""
        fill = depth / self._bound
        paused = frozenset(p for p in PRIORITIES if self._is_paused(p, fill))
        to_pause = [p for p in PRIORITIES if p in paused - self.paused]
        to_resume = [p for p in PRIORITIES if p in self.paused - paused]
        self.paused = paused
        return to_pause, to_resume

    def _is_paused(self, priority: Priority, fill: float) -> bool:
        threshold = self.PAUSE_AT[priority]
        if priority in self.paused:
            threshold *= self.RESUME_BELOW
        return fill >= threshold
