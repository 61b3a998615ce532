"""How much a coordinator has open: the bound at which it reads no more queries for a while."""

from __future__ import annotations

from collections.abc import Hashable

from anabranch.config import CoordinatorConfig

__all__ = ["Load"]


class Load:
    """Queries that were started and are not acknowledged yet, of all partitions, in bytes.

    A partition is itself, not its number: what is late for an owner before concerns no later one.
    What arrives for them counts too, and is taken whatever the bound says: it is what ends them.
    """

    def __init__(self, config: CoordinatorConfig) -> None:
        self._max_queries = config.max_open_queries
        self._max_bytes = config.max_open_bytes
        self._sizes: dict[tuple[Hashable, int], int] = {}
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no more queries are to be read now; one may always be open, whatever its size."""
        return len(self._sizes) >= self._max_queries or self._bytes >= self._max_bytes

    def add(self, partition: Hashable, offset: int, size_bytes: int) -> None:
        """A query is started, or something arrived for it."""
        place = partition, offset
        self._sizes[place] = self._sizes.get(place, 0) + size_bytes
        self._bytes += size_bytes

    def remove(self, partition: Hashable, offset: int) -> None:
        """A query is acknowledged."""
        self._bytes -= self._sizes.pop((partition, offset), 0)

    def drop(self, partition: Hashable) -> None:
        """A partition is somebody else's now."""
        for place in [place for place in self._sizes if place[0] is partition]:
            self._bytes -= self._sizes.pop(place)
