"""What open queries wait for in time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from anabranch.runtime.clock import moved

__all__ = ["Deadlines"]


class Deadlines:
    """Open queries by deadline; those answered earlier are skipped when their time comes.

    Args:
        on_earlier: called when a deadline comes before all others.
    """

    def __init__(self, on_earlier: Callable[[], None]) -> None:
        self._heap: list[tuple[float, int, int]] = []
        self._on_earlier = on_earlier

    def watch(self, deadline_ms: float, partition: int, offset: int) -> None:
        """Watch a query."""
        earlier = not self._heap or deadline_ms < self._heap[0][0]
        heapq.heappush(self._heap, (deadline_ms, partition, offset))
        if earlier:
            self._on_earlier()

    def pop_due(self, now_ms: float) -> list[tuple[int, int]]:
        """(partition, offset) of all whose deadline has come."""
        due = []
        while self._heap and self._heap[0][0] <= now_ms:
            _, partition, offset = heapq.heappop(self._heap)
            due.append((partition, offset))
        return due

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set: the same time is left to whoever was watched before."""
        self._heap = [
            (moved(at, moved_ms, now_ms), number, offset) for at, number, offset in self._heap
        ]
        heapq.heapify(self._heap)
        self._on_earlier()

    @property
    def next_ms(self) -> float | None:
        """The earliest deadline, of a query that may have been answered meanwhile."""
        return self._heap[0][0] if self._heap else None
